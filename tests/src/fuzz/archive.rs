//! Archives of single files, as the engine sends them, which has them of a container.

use std::io::{self, Read};
use std::ops::Range;

use anyhow::{Result, ensure};
use cove_engine::archive::{Head, new_folder, of_file, of_folder, read_file, read_root, with_file};

use super::Seeds;
use super::watch::watched;

/// Most bytes of a file that is read at once.
const MOST: u64 = 4096;
/// Where a header has the digits of its file's size, octal ones (POSIX.1-1988, `ustar`).
const SIZE: Range<usize> = 124..135;
/// When the files were changed, in seconds since 1970.
const CHANGED: u64 = 1_700_000_000;
/// The bits of a mode that are not the file's type.
const PERMISSIONS: u32 = 0o7777;

/// Reads the file that the input is an archive of: what comes of it fits in what was asked for, and does not depend on
/// the pieces in which the archive arrives.
pub fn fuzz(input: &[u8]) {
    watched("archive", input, || play(input));
}

fn play(input: &[u8]) -> Result<()> {
    let whole = read_file(input, MOST).ok();
    if let Some((head, content)) = &whole {
        ensure!(head.size <= MOST, "a file of {} bytes was read", head.size);
        ensure!(
            head.size == content.len() as u64,
            "a file has {} bytes",
            content.len()
        );
        ensure!(head.mode <= PERMISSIONS, "a file's mode is {:o}", head.mode);
    }
    ensure!(
        read_file(Trickle(input), MOST).ok() == whole,
        "an archive in pieces is another one"
    );
    let root = read_root(input).ok();
    ensure!(
        read_root(Trickle(input)).ok() == root,
        "an archive in pieces has another root"
    );
    // However large the file says that it is, no more comes of it than there is.
    let streamed = with_file(input, |_, content| {
        Ok(io::copy(content, &mut io::sink()).unwrap_or(0))
    });
    if let Ok(streamed) = streamed {
        ensure!(
            streamed <= input.len() as u64,
            "{streamed} bytes came of {}",
            input.len()
        );
    }
    Ok(())
}

/// Gives one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

/// Archives of a file, of a folder, of a file with attributes; one that lies and one that ends early.
pub fn seeds() -> Seeds {
    let plain = Head {
        mode: 0o644,
        uid: 1000,
        ..new_folder(CHANGED)
    };
    let marked = Head {
        attributes: vec![("user.a".to_owned(), b"b\nc=d".to_vec())],
        ..plain.clone()
    };
    let file = of_file("name", &plain, b"content").unwrap_or_default();
    let mut large = file.clone();
    // Eight gigabytes less one.
    if let Some(digits) = large.get_mut(SIZE) {
        digits.fill(b'7');
    }
    let half = file[..file.len() / 3].to_vec();
    vec![
        ("file", file),
        (
            "file-with-attributes",
            of_file("name", &marked, b"x").unwrap_or_default(),
        ),
        ("folder", of_folder("name", &plain).unwrap_or_default()),
        ("large", large),
        ("half", half),
    ]
}
