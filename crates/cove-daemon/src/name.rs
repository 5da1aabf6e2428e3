//! The names of machines.

use cove_api::DEFAULT_MACHINE;
use std::{borrow::Borrow, fmt, str::FromStr};

/// A machine's name: `[a-z0-9][a-z0-9-]*`, at most 32 bytes. It is a directory's name and part of a Docker
/// context's, and never anything that a path or a shell would read otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineName(String);

/// The longest name, in bytes.
const MAX: usize = 32;

/// The text is not a machine's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a machine's name; one has up to {MAX} of a-z, 0-9 and `-`, and begins with a letter or digit"
)]
pub struct BadName(String);

impl MachineName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its Docker context, and of its host.
    pub fn context(&self) -> String {
        if *self == Self::default() {
            "cove".into()
        } else {
            format!("cove-{self}")
        }
    }
}

impl Default for MachineName {
    fn default() -> Self {
        Self(DEFAULT_MACHINE.into())
    }
}

impl FromStr for MachineName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let bytes = text.as_bytes();
        if (1..=MAX).contains(&bytes.len()) && bytes.iter().copied().all(good) && bytes[0] != b'-' {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName(text.chars().take(2 * MAX).collect()))
        }
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for MachineName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_path_could_misread_are_refused() {
        for bad in ["", "..", "a/b", "A", "-a", "a b", "a.b", "ä", &"x".repeat(33)] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad:?}");
        }
        for good in ["default", "0", "a-b-", &"x".repeat(32)] {
            assert!(good.parse::<MachineName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn the_default_machine_has_the_plain_context() {
        assert_eq!(MachineName::default().context(), "cove");
        assert_eq!("dev".parse::<MachineName>().unwrap().context(), "cove-dev");
    }
}
