//! An archive header by header, whoever wrote it and however long it is.
//!
//! The `tar` crate keeps long names and PAX records of any size in memory before anybody can say no. So its parser of
//! one header is used, and what stands in front of an entry is bounded here.

use super::{
    ArchiveError,
    attributes::{BLOCK, MAX_AHEAD, record},
};
use std::io::{self, Read};
use tar::{EntryType, Header};

/// Entries that only speak of the next one, at most in front of each.
const AHEAD: usize = 16;
/// Where a header's checksum is; it is summed up as blanks (pax(1), "ustar Interchange Format").
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryType,
    /// Bytes of content that follow.
    pub(super) size: u64,
    /// Where a link leads; empty for everything else.
    pub(super) link: Vec<u8>,
}

/// What entries in front of another say of it.
#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads an archive's headers.
pub(super) struct Headers<R> {
    archive: R,
    /// Bytes of the last entry's content that were not read yet, and those that fill up its last block.
    content: u64,
    padding: u64,
}

impl<R: Read> Headers<R> {
    pub(super) fn new(archive: R) -> Self {
        Self {
            archive,
            content: 0,
            padding: 0,
        }
    }

    /// The next entry; what was not read of the last one's content is passed over. Nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut ahead = Ahead::default();
        for _ in 0..AHEAD {
            self.pass_over()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let header = header_of(&block).ok_or_else(|| broken("a header whose checksum is wrong"))?;
            let size = header.entry_size().map_err(ArchiveError::Broken)?;
            let kind = header.entry_type();
            self.expect(size)?;
            match kind {
                EntryType::GNULongName => ahead.path = Some(name(self.ahead(size)?)),
                EntryType::GNULongLink => ahead.link = Some(name(self.ahead(size)?)),
                EntryType::XHeader => ahead.take(&self.ahead(size)?),
                EntryType::XGlobalHeader => drop(self.ahead(size)?),
                // Holes are told in blocks of their own, as many as the sender likes; no builder writes them.
                EntryType::GNUSparse => return Err(broken("a file with holes")),
                _ => {
                    // Whatever a header says of their size, no content follows these.
                    let size = match kind {
                        EntryType::Link
                        | EntryType::Symlink
                        | EntryType::Char
                        | EntryType::Block
                        | EntryType::Directory
                        | EntryType::Fifo => 0,
                        _ => ahead.size.unwrap_or(size),
                    };
                    self.expect(size)?;
                    let link = header.link_name_bytes().map(std::borrow::Cow::into_owned);
                    return Ok(Some(Entry {
                        path: ahead.path.unwrap_or_else(|| header.path_bytes().into_owned()),
                        kind,
                        size,
                        link: ahead.link.or(link).unwrap_or_default(),
                    }));
                }
            }
        }
        Err(broken("more in front of an entry than any has"))
    }

    /// The content of the entry that came last, as far as it was not read yet.
    pub(super) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Makes the next bytes the content of an entry.
    fn expect(&mut self, size: u64) -> Result<(), ArchiveError> {
        let whole = size.checked_next_multiple_of(BLOCK as u64);
        let whole = whole.ok_or_else(|| broken("a size that no file has"))?;
        (self.content, self.padding) = (size, whole - size);
        Ok(())
    }

    fn pass_over(&mut self) -> Result<(), ArchiveError> {
        let left = self.content.saturating_add(self.padding);
        (self.content, self.padding) = (0, 0);
        let passed = io::copy(&mut (&mut self.archive).take(left), &mut io::sink());
        if passed.map_err(ArchiveError::Broken)? == left {
            return Ok(());
        }
        Err(ArchiveError::Broken(io::ErrorKind::UnexpectedEof.into()))
    }

    /// The next block; nothing where the archive ends, by a block of zeros or without.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.archive.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ArchiveError::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Broken(error)),
            }
        }
        Ok(block.iter().any(|&byte| byte != 0).then_some(block))
    }

    /// The content of an entry that speaks of the next one, which is short.
    fn ahead(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_AHEAD {
            return Err(ArchiveError::TooMuchAhead { most: MAX_AHEAD });
        }
        let mut content = Vec::new();
        self.content()
            .read_to_end(&mut content)
            .map_err(ArchiveError::Broken)?;
        Ok(content)
    }
}

/// The content of an entry.
pub(super) struct Content<'a, R>(&'a mut Headers<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.0.content).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let count = self.0.archive.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.content -= count as u64;
        Ok(count)
    }
}

impl Ahead {
    /// Reads PAX records. Others than these say nothing that is wanted here.
    fn take(&mut self, mut rest: &[u8]) {
        while let Some((record, behind)) = record(rest) {
            rest = behind;
            let Some(equals) = record.iter().position(|&byte| byte == b'=') else {
                continue;
            };
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok()),
                _ => {}
            }
        }
    }
}

/// GNU's long names end with a zero.
fn name(mut content: Vec<u8>) -> Vec<u8> {
    let end = content.iter().position(|&byte| byte == 0);
    content.truncate(end.unwrap_or(content.len()));
    content
}

/// A block as a header, if its checksum says that it is one.
pub(super) fn header_of(block: &[u8; BLOCK]) -> Option<&Header> {
    let header = Header::from_byte_slice(block);
    let sum = block.iter().enumerate().map(|(at, &byte)| {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { byte };
        u32::from(byte)
    });
    (header.cksum().ok()? == sum.sum::<u32>()).then_some(header)
}

fn broken(what: &'static str) -> ArchiveError {
    ArchiveError::Broken(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use super::super::{header, new_folder, of_file};
    use super::*;
    use proptest::prelude::*;

    fn all(archive: &[u8]) -> Result<Vec<(String, u64)>, ArchiveError> {
        let mut headers = Headers::new(archive);
        let mut found = Vec::new();
        while let Some(entry) = headers.next()? {
            found.push((String::from_utf8_lossy(&entry.path).into_owned(), entry.size));
        }
        Ok(found)
    }

    fn one(kind: EntryType, size: u64, content: &[u8]) -> Vec<u8> {
        let mut header = header(kind, 0o644, size, 0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    #[test]
    fn a_long_name_is_whole_and_content_is_passed_over_or_read() {
        let long = "n".repeat(255);
        let mut archive = of_file(&long, &new_folder(0), b"hello").unwrap();
        // Without the zeros at its end, so that another follows.
        archive.truncate(archive.len() - 2 * BLOCK);
        archive.extend(of_file("b", &new_folder(0), &[7; 600]).unwrap());
        assert_eq!(all(&archive).unwrap(), [(long, 5), ("b".to_owned(), 600)]);
        let mut headers = Headers::new(&archive[..]);
        headers.next().unwrap();
        let mut content = Vec::new();
        headers.content().read_to_end(&mut content).unwrap();
        assert_eq!(content, b"hello");
        assert_eq!(headers.next().unwrap().unwrap().path, b"b");
    }

    #[test]
    fn a_pax_size_counts_and_that_of_a_link_does_not() {
        let mut archive = one(EntryType::XHeader, 16, b"12 path=a/b\n4 =\n");
        archive.extend(one(EntryType::Regular, 0, b""));
        assert_eq!(all(&archive).unwrap(), [("a/b".to_owned(), 0)]);
        let mut archive = one(EntryType::XHeader, 11, b"11 size=512");
        archive.extend(one(EntryType::Regular, 0, b""));
        // A record without its line's end is none.
        assert_eq!(all(&archive).unwrap()[0].1, 0);
        let mut archive = one(EntryType::XHeader, 12, b"12 size=512\n");
        archive.extend(one(EntryType::Regular, 0, &[7; 512]));
        archive.extend(one(EntryType::Symlink, 512, b""));
        let sizes: Vec<_> = all(&archive).unwrap().into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [512, 0]);
    }

    #[test]
    fn what_stands_in_front_of_an_entry_is_bounded_in_length_and_in_number() {
        let long = one(EntryType::XHeader, 1 << 40, b"");
        assert!(matches!(all(&long), Err(ArchiveError::TooMuchAhead { .. })));
        let many = one(EntryType::XGlobalHeader, 0, b"").repeat(AHEAD + 1);
        assert!(matches!(all(&many), Err(ArchiveError::Broken(_))));
    }

    #[test]
    fn an_archive_that_ends_early_or_lies_is_broken() {
        let whole = one(EntryType::Regular, 600, &[7; 600]);
        for end in [100, BLOCK + 10, whole.len() - 1] {
            assert!(
                matches!(all(&whole[..end]), Err(ArchiveError::Broken(_))),
                "{end}"
            );
        }
        let mut wrong = whole.clone();
        wrong[0] ^= 1;
        assert!(matches!(all(&wrong), Err(ArchiveError::Broken(_))));
        let endless = one(EntryType::Regular, u64::MAX, b"");
        assert!(matches!(all(&endless), Err(ArchiveError::Broken(_))));
        assert!(matches!(
            all(&one(EntryType::GNUSparse, 0, b"")),
            Err(ArchiveError::Broken(_))
        ));
    }

    proptest! {
        #[test]
        fn noise_is_refused_or_read_and_nothing_panics(
            at in 0_usize..1536,
            value in any::<u8>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..1600),
        ) {
            let _ = all(&bytes);
            let mut archive = of_file("file", &new_folder(0), b"hello").unwrap();
            let at = at % archive.len();
            archive[at] = value;
            let _ = all(&archive);
        }
    }
}
