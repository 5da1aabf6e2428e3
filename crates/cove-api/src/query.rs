//! Percent-encoding of path segments and query strings, and the queries that the API knows.

use crate::LogSource;

/// Which part of which log is wanted; the query of `/logs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// Whose log.
    pub source: LogSource,
    /// Keep the stream open and send new lines as they come.
    pub follow: bool,
    /// At most so many of the last lines; all that are kept when absent.
    pub tail: Option<u32>,
}

impl LogQuery {
    /// The query string, without its question mark.
    pub fn to_query(self) -> String {
        let mut query = format!("source={}&follow={}", self.source.name(), self.follow);
        if let Some(tail) = self.tail {
            query.push_str("&tail=");
            query.push_str(&tail.to_string());
        }
        query
    }

    /// Reads a query string. What is absent has its default: the daemon's log, not followed, all of it.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut wanted = Self {
            source: LogSource::Daemon,
            follow: false,
            tail: None,
        };
        for (key, value) in pairs(query) {
            let bad = || format!("`{value}` is not a value for `{key}`");
            match key.as_str() {
                "source" => wanted.source = LogSource::from_name(&value).ok_or_else(bad)?,
                "follow" => wanted.follow = value.parse().map_err(|_| bad())?,
                "tail" => wanted.tail = Some(value.parse().map_err(|_| bad())?),
                _ => return Err(format!("`{key}` is not something that can be asked of a log")),
            }
        }
        Ok(wanted)
    }
}

impl LogSource {
    /// Every source there is.
    pub const ALL: [Self; 7] = [
        Self::Daemon,
        Self::Console,
        Self::Machine,
        Self::Agent,
        Self::Engine,
        Self::Containerd,
        Self::Kernel,
    ];

    /// Its name, as in a query.
    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Console => "console",
            Self::Machine => "machine",
            Self::Agent => "agent",
            Self::Engine => "engine",
            Self::Containerd => "containerd",
            Self::Kernel => "kernel",
        }
    }

    /// The source of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }
}

/// Encodes everything but the unreserved characters of RFC 3986, section 2.3.
pub fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// Undoes [`encode`]; nothing when an escape is broken or the result is not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// The pairs of a query string; broken ones are left out.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((decode(key)?, decode(value)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in ".*") {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn decoding_arbitrary_text_never_panics(text in ".*") {
            let _ = decode(&text);
            let _ = LogQuery::from_query(&text);
        }
    }

    #[test]
    fn a_log_query_reads_back_as_it_was() {
        for source in LogSource::ALL {
            for tail in [None, Some(7)] {
                let wanted = LogQuery {
                    source,
                    follow: true,
                    tail,
                };
                assert_eq!(LogQuery::from_query(&wanted.to_query()), Ok(wanted));
            }
        }
    }

    #[test]
    fn an_unknown_log_is_refused_by_name() {
        let refusal = LogQuery::from_query("source=nginx").unwrap_err();
        assert!(refusal.contains("nginx"), "{refusal}");
    }
}
