//! File data: reading, writing, holes, mappings.

// UNSAFETY: mappings are raw memory.
#![expect(unsafe_code, reason = "mmap is under test")]

use std::io::{Read, Write};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::mm::{MapFlags, ProtFlags};

use crate::Scenario;
use crate::transcript::{Transcript, error};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("reading-and-writing", reading_and_writing),
    ("appending", appending),
    ("truncation", truncation),
    ("holes", holes),
    ("copies", copies),
    ("mappings", mappings),
    ("durability", durability),
    ("large", large),
];

fn reading_and_writing(t: &mut Transcript) {
    let fd = t.open("f", OFlags::CREATE | OFlags::RDWR, 0o644).unwrap();
    t.saw("write", rustix::io::write(&fd, b"hello world"));
    t.saw("write in the middle", rustix::io::pwrite(&fd, b"W", 6));
    let mut buffer = [0; 32];
    t.saw(
        "read",
        rustix::io::pread(&fd, &mut buffer, 0).map(|len| buffer[..len].to_vec()),
    );
    t.saw("read past the end", rustix::io::pread(&fd, &mut buffer, 100));
    let reader = t.open("f", OFlags::RDONLY, 0).unwrap();
    t.saw("write to a reader", rustix::io::write(&reader, b"x"));
    let writer = t.open("f", OFlags::WRONLY, 0).unwrap();
    t.saw("read from a writer", rustix::io::read(&writer, &mut buffer));
    t.saw("write far out", rustix::io::pwrite(&fd, b"x", 1 << 40));
    t.stat("f");
    t.saw(
        "write beyond all",
        rustix::io::pwrite(&fd, b"x", i64::MAX.cast_unsigned()),
    );
    t.saw("seek", rustix::fs::seek(&fd, SeekFrom::End(-1)));
    t.saw(
        "seek before the start",
        rustix::fs::seek(&fd, SeekFrom::Current(-(1 << 41))),
    );
    let direct = t.open("f", OFlags::RDWR | OFlags::SYNC, 0).unwrap();
    t.saw("synchronous write", rustix::io::pwrite(&direct, b"sync", 0));
}

fn appending(t: &mut Transcript) {
    let one = t
        .open("f", OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND, 0o644)
        .unwrap();
    let two = t.open("f", OFlags::WRONLY | OFlags::APPEND, 0).unwrap();
    for _ in 0..5 {
        rustix::io::write(&one, b"one ").unwrap();
        rustix::io::write(&two, b"two ").unwrap();
    }
    t.saw("content", std::fs::read_to_string(t.path("f")).unwrap());
    t.saw("pwrite appends, too", rustix::io::pwrite(&one, b"end", 0));
    t.saw("content", std::fs::read_to_string(t.path("f")).unwrap());
}

fn truncation(t: &mut Transcript) {
    t.file("f", b"0123456789");
    let fd = t.open("f", OFlags::RDWR, 0).unwrap();
    for size in [5, 20, 0, 7] {
        t.saw("ftruncate", rustix::fs::ftruncate(&fd, size));
        t.saw("content", std::fs::read(t.path("f")).unwrap());
    }
    t.saw(
        "on a reader",
        rustix::fs::ftruncate(t.open("f", OFlags::RDONLY, 0).unwrap(), 0),
    );
    t.saw("too far", rustix::fs::ftruncate(&fd, i64::MAX.cast_unsigned()));
    t.saw(
        "by opening",
        error(t.open("f", OFlags::WRONLY | OFlags::TRUNC, 0)),
    );
    t.stat("f");
}

fn holes(t: &mut Transcript) {
    let fd = t.open("f", OFlags::CREATE | OFlags::RDWR, 0o644).unwrap();
    rustix::fs::ftruncate(&fd, 1 << 20).unwrap();
    rustix::io::pwrite(&fd, &[1; 4096], 512 << 10).unwrap();
    t.saw("data", rustix::fs::seek(&fd, SeekFrom::Data(0)));
    t.saw("hole", rustix::fs::seek(&fd, SeekFrom::Hole(512 << 10)));
    t.saw("no more data", rustix::fs::seek(&fd, SeekFrom::Data(600 << 10)));
    t.saw("beyond", rustix::fs::seek(&fd, SeekFrom::Hole(2 << 20)));
    t.saw("blocks", rustix::fs::fstat(&fd).unwrap().st_blocks);
    t.saw(
        "fill",
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, 8192),
    );
    let keep = FallocateFlags::KEEP_SIZE;
    t.saw(
        "fill beyond the end",
        rustix::fs::fallocate(&fd, keep, 1 << 20, 8192),
    );
    t.stat("f");
    t.saw(
        "punch",
        rustix::fs::fallocate(&fd, keep | FallocateFlags::PUNCH_HOLE, 512 << 10, 4096),
    );
    let mut buffer = [9; 8];
    t.saw(
        "zeroes",
        rustix::io::pread(&fd, &mut buffer, 512 << 10).map(|_| buffer),
    );
    t.saw(
        "zero",
        rustix::fs::fallocate(&fd, FallocateFlags::ZERO_RANGE, 0, 4096),
    );
    t.saw(
        "no length",
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, 0),
    );
}

fn copies(t: &mut Transcript) {
    t.file("from", &vec![b'x'; 100_000]);
    let from = t.open("from", OFlags::RDONLY, 0).unwrap();
    let to = t.open("to", OFlags::CREATE | OFlags::RDWR, 0o644).unwrap();
    let (mut off_in, mut off_out) = (10, 20);
    let copied = rustix::fs::copy_file_range(&from, Some(&mut off_in), &to, Some(&mut off_out), 50_000);
    t.saw("copy", copied);
    t.saw("offsets", (off_in, off_out));
    t.stat("to");
    let mut content = Vec::new();
    std::fs::File::open(t.path("to"))
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    t.saw(
        "content",
        content.iter().map(|byte| usize::from(*byte)).sum::<usize>(),
    );
    let past = rustix::fs::copy_file_range(&from, Some(&mut 200_000), &to, Some(&mut 0), 1);
    t.saw("past the end", past);
    let same = rustix::fs::copy_file_range(&to, Some(&mut 0), &to, Some(&mut 5), 100);
    t.saw("onto itself", error(same));
}

fn mappings(t: &mut Transcript) {
    t.file("f", &[b'a'; 8192]);
    let fd = t.open("f", OFlags::RDWR, 0).unwrap();
    for (label, flags) in [("shared", MapFlags::SHARED), ("private", MapFlags::PRIVATE)] {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let map = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 8192, protection, flags, &fd, 0) };
        t.saw(label, error(map));
        let Ok(map) = map else { continue };
        // SAFETY: the mapping is 8192 bytes long, lives until the munmap below and is not seen by another thread.
        unsafe {
            map.cast::<u8>().add(5000).write(b'b');
            rustix::mm::msync(map, 8192, rustix::mm::MsyncFlags::SYNC).unwrap();
            rustix::mm::munmap(map, 8192).unwrap();
        }
        let mut byte = [0];
        rustix::io::pread(&fd, &mut byte, 5000).unwrap();
        t.saw("read after the write", byte);
        rustix::io::pwrite(&fd, b"a", 5000).unwrap();
    }
    let reader = t.open("f", OFlags::RDONLY, 0).unwrap();
    // SAFETY: as above.
    let map = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            4096,
            ProtFlags::WRITE,
            MapFlags::SHARED,
            &reader,
            0,
        )
    };
    t.saw("shared and writable from a reader", error(map));
}

fn durability(t: &mut Transcript) {
    let mut file = std::fs::File::create(t.path("f")).unwrap();
    file.write_all(b"precious").unwrap();
    t.saw("fsync", rustix::fs::fsync(&file));
    t.saw("fdatasync", rustix::fs::fdatasync(&file));
    t.saw("syncfs", rustix::fs::syncfs(&file));
}

fn large(t: &mut Transcript) {
    let mut content = Vec::new();
    for number in 0_u32..1_200_000 {
        content.extend_from_slice(&number.wrapping_mul(2_654_435_761).to_le_bytes());
    }
    t.file("f", &content);
    t.saw("reads back", std::fs::read(t.path("f")).unwrap() == content);
    let fd = t.open("f", OFlags::RDWR, 0).unwrap();
    for (offset, len) in [(1, 4095), (4097, 1_048_577), (3_999_999, 2_000_000)] {
        let mut buffer = vec![0; len];
        let read = rustix::io::pread(&fd, &mut buffer, offset).unwrap();
        let start = usize::try_from(offset).unwrap();
        t.saw("odd ranges", buffer[..read] == content[start..start + read]);
    }
}
