//! The kernel's ring buffer, as lines.

use crate::descriptor::awaited;
use bytes::{BufMut, Bytes, BytesMut};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{io, os::fd::OwnedFd, path::Path};
use tokio::io::unix::AsyncFd;

/// The kernel's longest record, `PRINTK_MESSAGE_MAX`.
const LONGEST_RECORD: usize = 2048;

/// A reader of `/dev/kmsg`, which keeps the kernel's log itself and hands out one record at a time.
pub(crate) struct KernelLog(AsyncFd<OwnedFd>);

impl KernelLog {
    /// Starts with the oldest record that the kernel keeps.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(Path::new("/dev/kmsg"), flags, Mode::empty())?;
        Ok(Self(awaited(file)?))
    }

    /// The next record as a line, or nothing when there is none yet.
    pub(crate) fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut record = [0; LONGEST_RECORD];
        loop {
            match rustix::io::read(&self.0, &mut record) {
                // A record that does not parse cannot be shown, and the reader is past it.
                Ok(length) => {
                    if let Some(line) = line(&record[..length]) {
                        return Ok(Some(line));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                // Records were overwritten before they were read; the next read continues behind the gap.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits after [`next`](Self::next) had nothing.
    pub(crate) async fn more(&mut self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

/// The line that a record reads as: the kernel's time and its message. A record is
/// `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];MESSAGE`, then lines of key and value that nobody reads
/// (Documentation/ABI/testing/dev-kmsg).
fn line(record: &[u8]) -> Option<Bytes> {
    let split = record.iter().position(|&byte| byte == b';')?;
    let prefix = str::from_utf8(&record[..split]).ok()?;
    let microseconds: u64 = prefix.split(',').nth(2)?.parse().ok()?;
    let message = record[split + 1..].split(|&byte| byte == b'\n').next()?;
    let mut line = BytesMut::with_capacity(message.len() + 24);
    line.put_slice(
        format!(
            "[{:5}.{:06}] ",
            microseconds / 1_000_000,
            microseconds % 1_000_000
        )
        .as_bytes(),
    );
    unescape(message, &mut line);
    line.put_u8(b'\n');
    Some(line.freeze())
}

/// The kernel writes bytes outside of printable ASCII, and the backslash, as `\xHH`. Those that would move a
/// terminal's cursor stay escaped.
fn unescape(message: &[u8], line: &mut BytesMut) {
    let mut rest = message;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = rest
            .strip_prefix(b"\\x")
            .and_then(|tail| tail.first_chunk::<2>())
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())
            .filter(|byte| *byte >= 0x80 || *byte == b'\\');
        if let Some(byte) = escaped {
            line.put_u8(byte);
            rest = &rest[4..];
        } else {
            line.put_u8(first);
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_reads_as_its_time_and_message() {
        let record = b"6,339,5140900,-;NET: Registered protocol family\n SUBSYSTEM=net\n DEVICE=+x\n";
        assert_eq!(
            line(record).unwrap(),
            "[    5.140900] NET: Registered protocol family\n"
        );
    }

    #[test]
    fn a_record_with_a_caller_is_read_too() {
        assert_eq!(line(b"4,1,12,-,caller=T1;x;y\n").unwrap(), "[    0.000012] x;y\n");
    }

    #[test]
    fn letters_are_unescaped_and_control_bytes_are_not() {
        let record = br"6,1,0,-;caf\xc3\xa9 \x5c \x1b[2J \xzz";
        let text = line(record).unwrap();
        assert_eq!(
            str::from_utf8(&text).unwrap(),
            "[    0.000000] café \\ \\x1b[2J \\xzz\n"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_records_give_one_line_or_none(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(line) = line(&record) {
                prop_assert_eq!(line.split(|&byte| byte == b'\n').count(), 2);
            }
        }
    }
}
