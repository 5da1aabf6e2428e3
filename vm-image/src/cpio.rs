//! Writing cpio archives in the "newc" format, which is what the kernel unpacks an initramfs from
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Everything belongs to root and bears one time, so that the bytes depend on the contents alone. Device nodes
//! are mere headers here, which is why nobody needs to be root.

const MAGIC: &[u8; 6] = b"070701";
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// The kernel reads whole sectors of this size from some boot loaders.
const BLOCK: usize = 512;

/// An archive being written.
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
    time: u32,
}

/// What goes into a header apart from the name and the length.
#[derive(Clone, Copy, Default)]
struct Header {
    inode: u32,
    mode: u32,
    links: u32,
    time: u32,
    device: (u32, u32),
}

impl Cpio {
    /// An empty archive whose entries will bear `time`, in seconds since 1970.
    pub const fn new(time: u32) -> Self {
        Self {
            bytes: Vec::new(),
            inode: 0,
            time,
        }
    }

    /// Adds a directory with the permissions `mode`. Its parent has to be there already.
    pub fn directory(&mut self, name: &str, mode: u32) {
        self.entry(
            name,
            &Header {
                mode: DIRECTORY | mode,
                links: 2,
                ..Header::default()
            },
            &[],
        );
    }

    /// Adds a file with the permissions `mode`. `contents` must be shorter than 4 GiB, the format's limit, as
    /// everything in an initramfs is.
    pub fn file(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entry(
            name,
            &Header {
                mode: FILE | mode,
                links: 1,
                ..Header::default()
            },
            contents,
        );
    }

    /// Adds a character device with the permissions `mode`.
    pub fn character_device(&mut self, name: &str, mode: u32, major: u32, minor: u32) {
        let header = Header {
            mode: CHARACTER_DEVICE | mode,
            links: 1,
            device: (major, minor),
            ..Header::default()
        };
        self.entry(name, &header, &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.write(
            "TRAILER!!!",
            &Header {
                links: 1,
                ..Header::default()
            },
            &[],
        );
        self.pad(BLOCK);
        self.bytes
    }

    fn entry(&mut self, name: &str, header: &Header, contents: &[u8]) {
        self.inode += 1;
        self.write(
            name,
            &Header {
                inode: self.inode,
                time: self.time,
                ..*header
            },
            contents,
        );
    }

    fn write(&mut self, name: &str, header: &Header, contents: &[u8]) {
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes.extend(MAGIC);
        for field in [
            header.inode,
            header.mode,
            0, // owner
            0, // group
            header.links,
            header.time,
            length(contents.len()),
            0, // major and minor number of the device that holds the file
            0,
            header.device.0,
            header.device.1,
            length(name.len() + 1),
            0, // a checksum, in another variant of the format
        ] {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend(contents);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut cpio = Cpio::new(1);
        cpio.file("init", 0o755, b"hello");
        let bytes = cpio.finish();
        let header = "070701\
            00000001000081ed0000000000000000\
            00000001000000010000000500000000\
            00000000000000000000000000000005\
            00000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..124], b"init\0\0hello\0\0\0");
        assert_eq!(&bytes[124..130], MAGIC);
        assert_eq!(&bytes[124 + 110..124 + 121], b"TRAILER!!!\0");
        assert_eq!(bytes.len() % BLOCK, 0);
    }

    #[test]
    fn the_host_cpio_lists_what_was_written() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut cpio = Cpio::new(1_767_225_600);
        cpio.directory("dev", 0o755);
        cpio.character_device("dev/console", 0o600, 5, 1);
        cpio.file("init", 0o755, b"#!/bin/sh\n");
        let bytes = cpio.finish();
        let child = Command::new("cpio")
            .args(["-itvn", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: cpio is not installed");
            return;
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = listing
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines.len(), 3, "{listing}");
        assert_eq!((lines[0][0], lines[0][8]), ("drwxr-xr-x", "dev"));
        assert_eq!(
            (lines[1][0], &lines[1][4..6], lines[1][9]),
            ("crw-------", &["5,", "1"][..], "dev/console")
        );
        assert_eq!(
            (lines[2][0], lines[2][4], lines[2][8]),
            ("-rwxr-xr-x", "10", "init")
        );
    }
}
