//! What stands in front of an archive's first entry: PAX records (pax(1), "pax Extended Header") and GNU's long names.
//!
//! A record is `LENGTH KEY=VALUE\n`, the length being that of all of it, so that a value may hold line ends, as
//! capabilities do. The `tar` crate divides records at line ends and loses those; so they are read here, before it
//! reads the same bytes. It also gathers all of them whatever their size, which is therefore bounded here.

use super::ArchiveError;
use std::io::{Cursor, Read};
use tar::{EntryType, Header};

/// Extended attributes travel under this prefix, such as the capabilities of a program.
pub(super) const PREFIX: &str = "SCHILY.xattr.";
/// A block of an archive.
pub(super) const BLOCK: usize = 512;
/// What may stand in front of an entry, in bytes. Linux lets the attributes of most file systems have 64 KiB.
pub(super) const MAX_AHEAD: u64 = 128 << 10;

/// Attributes by name.
pub(super) type Attributes = Vec<(String, Vec<u8>)>;

/// Reads the first entry's attributes, and returns the archive whole again. What is in front of that entry is in memory
/// then, and is bounded.
pub(super) fn peek<R: Read>(mut archive: R) -> Result<(Attributes, impl Read), ArchiveError> {
    let mut begin = Vec::with_capacity(2 * BLOCK);
    let mut attributes = Vec::new();
    loop {
        let at = begin.len();
        take(&mut archive, BLOCK as u64, &mut begin)?;
        let Some(block) = begin[at..].first_chunk::<BLOCK>() else {
            break;
        };
        let header = Header::from_byte_slice(block);
        let kind = header.entry_type();
        // Holes are told in blocks of their own, as many as the sender likes; the engine sends none.
        if kind.is_gnu_sparse() {
            return Err(ArchiveError::NoFile);
        }
        let ahead = kind == EntryType::XHeader
            || kind == EntryType::XGlobalHeader
            || kind == EntryType::GNULongName
            || kind == EntryType::GNULongLink;
        if !ahead {
            break;
        }
        let size = header.entry_size().map_err(ArchiveError::Broken)?;
        let whole = size.checked_next_multiple_of(BLOCK as u64);
        let room = MAX_AHEAD.saturating_sub(begin.len() as u64);
        let whole = whole
            .filter(|&whole| whole <= room)
            .ok_or(ArchiveError::TooMuchAhead { most: MAX_AHEAD })?;
        let from = begin.len();
        take(&mut archive, whole, &mut begin)?;
        if kind == EntryType::XHeader {
            let end = begin
                .len()
                .min(from + usize::try_from(size).unwrap_or(usize::MAX));
            attributes = records(&begin[from..end]);
        }
    }
    Ok((attributes, Cursor::new(begin).chain(archive)))
}

fn take(archive: &mut impl Read, most: u64, to: &mut Vec<u8>) -> Result<(), ArchiveError> {
    archive.take(most).read_to_end(to).map_err(ArchiveError::Broken)?;
    Ok(())
}

fn records(mut rest: &[u8]) -> Attributes {
    let mut found = Vec::new();
    while let Some((record, behind)) = record(rest) {
        rest = behind;
        if let Some(equals) = record.iter().position(|&byte| byte == b'=')
            && let Ok(key) = std::str::from_utf8(&record[..equals])
            && let Some(name) = key.strip_prefix(PREFIX)
        {
            found.push((name.to_owned(), record[equals + 1..].to_vec()));
        }
    }
    found
}

/// The first record's `KEY=VALUE`, and what is behind it.
pub(super) fn record(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = rest.iter().take(8).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
    let (whole, behind) = rest.split_at_checked(length)?;
    Some((whole.get(blank + 1..)?.strip_suffix(b"\n")?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_with_line_ends_is_whole() {
        let found = records(b"12 path=a/b\n29 SCHILY.xattr.user.x=a\n=\nb\n9 other\n");
        assert_eq!(found, [("user.x".to_owned(), b"a\n=\nb".to_vec())]);
    }

    proptest! {
        #[test]
        fn noise_is_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = records(&bytes);
        }
    }
}
