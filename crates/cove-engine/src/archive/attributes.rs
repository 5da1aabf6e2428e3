//! Extended attributes in front of an archive's first file: PAX records (pax(1), "pax Extended Header").
//!
//! A record is `LENGTH KEY=VALUE\n`, the length being that of all of it, so that a value may hold line ends, as
//! capabilities do. The `tar` crate divides records at line ends and loses those; so they are read here, before it
//! reads the same bytes.

use std::io::{self, Cursor, Read};
use tar::{EntryType, Header};

/// Extended attributes travel under this prefix, such as the capabilities of a program.
pub(super) const PREFIX: &str = "SCHILY.xattr.";
/// A block of an archive.
const BLOCK: usize = 512;
/// Records that are read at most, in bytes. Linux lets the attributes of most file systems have 64 KiB.
const MOST: u64 = 128 << 10;

/// Attributes by name.
pub(super) type Attributes = Vec<(String, Vec<u8>)>;

/// Reads them, and returns the archive whole again.
pub(super) fn peek<R: Read>(mut archive: R) -> io::Result<(Attributes, impl Read)> {
    let mut begin = Vec::with_capacity(BLOCK);
    archive.by_ref().take(BLOCK as u64).read_to_end(&mut begin)?;
    let mut attributes = Vec::new();
    if let Some(block) = begin.first_chunk::<BLOCK>() {
        let header = Header::from_byte_slice(block);
        let size = header.entry_size().unwrap_or(0);
        if header.entry_type() == EntryType::XHeader && size <= MOST {
            archive.by_ref().take(size).read_to_end(&mut begin)?;
            attributes = records(&begin[BLOCK..]);
        }
    }
    Ok((attributes, Cursor::new(begin).chain(archive)))
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
fn record(rest: &[u8]) -> Option<(&[u8], &[u8])> {
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
