//! The file server's requests, one conversation an input, without a device in between: see [`cove_fs::fuzz_one`].

use std::num::NonZeroU32;

use anyhow::Result;
use cove_fs::abi::{
    CopyFileRangeIn, CreateIn, FallocateIn, FileLock, InterruptIn, LkIn, LseekIn, MkdirIn, OpenIn, ROOT_ID,
    ReadIn, Rename2In, RenameIn, SetattrIn, SetxattrIn, WriteIn, fattr, op,
};
use cove_fs::{REPLAY_UID, fuzz_one};
use zerocopy::IntoBytes;

use super::Seeds;
use super::fs::{FILE, SHARE};
use super::trap::Trap;
use super::watch::watched;
use crate::driver::fs::fs_request;
use crate::driver::kind::serve_folder;

/// The task that repeats the host's changes.
const REPEATER: NonZeroU32 = NonZeroU32::MIN;

/// Plays a conversation to a server, whose folder has another one beside it that must stay as it is, and unread.
pub fn fuzz(input: &[u8]) {
    watched("requests", input, || play(input));
}

fn play(input: &[u8]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let trap = Trap::new(dir.path())?;
    let server = serve_folder(&trap.share())?;
    server.set_repeater(Some(REPEATER));
    let answers = fuzz_one(&server, input);
    trap.check(&answers)
}

/// Conversations about files, names, links that lead out, attributes and locks.
pub fn seeds() -> Seeds {
    vec![
        ("files", conversation(&files())),
        ("names", conversation(&names())),
        ("ways-out", conversation(&ways_out())),
        ("attributes", conversation(&attributes())),
        ("locks", conversation(&locks())),
        ("replayed", conversation(&replayed())),
        ("no-room-for-an-answer", without_room(&files())),
        ("lengths-that-lie", lying()),
    ]
}

type Requests = Vec<Vec<u8>>;

fn conversation(requests: &[Vec<u8>]) -> Vec<u8> {
    with_room(requests, 600)
}

fn without_room(requests: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for room in [0, 15, 16, 17, 40] {
        out.extend(with_room(requests, room));
    }
    out
}

fn with_room(requests: &[Vec<u8>], room: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for request in requests {
        out.extend(u16::try_from(request.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(room.to_le_bytes());
        out.extend(request);
    }
    out
}

fn lying() -> Vec<u8> {
    let mut requests = opened();
    for len in [0_u32, 39, 41, 4096, u32::MAX] {
        let mut request = fs_request(op::LOOKUP, SHARE, &[b"f\0"]);
        request[..4].copy_from_slice(&len.to_le_bytes());
        requests.push(request);
    }
    // A name that does not end, and a write of more than there is.
    requests.push(fs_request(op::LOOKUP, SHARE, &[b"f"]));
    let write = WriteIn {
        fh: 1,
        size: u32::MAX,
        ..WriteIn::default()
    };
    requests.push(fs_request(op::WRITE, FILE, &[write.as_bytes(), b"short"]));
    conversation(&requests)
}

/// Finds the share and the file `f` in it, and opens that for reading and writing.
fn opened() -> Requests {
    let open = OpenIn {
        flags: 2,
        open_flags: 0,
    };
    vec![
        fs_request(op::LOOKUP, ROOT_ID, &[b"share\0"]),
        fs_request(op::LOOKUP, SHARE, &[b"f\0"]),
        fs_request(op::OPEN, FILE, &[open.as_bytes()]),
    ]
}

fn files() -> Requests {
    let read = ReadIn {
        fh: 1,
        size: 512,
        ..ReadIn::default()
    };
    let write = WriteIn {
        fh: 1,
        offset: 2,
        size: 5,
        ..WriteIn::default()
    };
    let far = WriteIn {
        offset: 1 << 40,
        ..write
    };
    let space = FallocateIn {
        fh: 1,
        offset: 0,
        length: 1 << 16,
        mode: 0,
        padding: 0,
    };
    let copy = CopyFileRangeIn {
        fh_in: 1,
        off_in: 0,
        node_out: FILE,
        fh_out: 1,
        off_out: 1 << 16,
        len: 1 << 12,
        flags: 0,
    };
    let seek = LseekIn {
        fh: 1,
        offset: 1,
        whence: 4,
        padding: 0,
    };
    let create = CreateIn {
        flags: 0o102,
        mode: 0o644,
        umask: 0,
        open_flags: 0,
    };
    let mut requests = opened();
    requests.extend([
        fs_request(op::READ, FILE, &[read.as_bytes()]),
        fs_request(op::WRITE, FILE, &[write.as_bytes(), b"bytes"]),
        fs_request(op::WRITE, FILE, &[far.as_bytes(), b"bytes"]),
        fs_request(op::FALLOCATE, FILE, &[space.as_bytes()]),
        fs_request(op::COPY_FILE_RANGE, FILE, &[copy.as_bytes()]),
        fs_request(op::LSEEK, FILE, &[seek.as_bytes()]),
        fs_request(op::CREATE, SHARE, &[create.as_bytes(), b"new\0"]),
        fs_request(op::TMPFILE, SHARE, &[create.as_bytes()]),
        fs_request(op::FSYNC, FILE, &[&[0; 16]]),
        fs_request(op::STATFS, FILE, &[]),
        fs_request(op::RELEASE, FILE, &[&1_u64.to_le_bytes(), &[0; 16]]),
    ]);
    requests
}

fn names() -> Requests {
    let folder = MkdirIn {
        mode: 0o755,
        umask: 0o22,
    };
    let rename = RenameIn { new_parent: SHARE };
    let exchange = Rename2In {
        new_parent: SHARE,
        flags: 2,
        padding: 0,
    };
    let mut requests = opened();
    requests.extend([
        fs_request(op::MKDIR, SHARE, &[folder.as_bytes(), b"folder\0"]),
        fs_request(
            op::MKNOD,
            SHARE,
            &[&0o010_644_u32.to_le_bytes(), &[0; 12], b"pipe\0"],
        ),
        fs_request(op::SYMLINK, SHARE, &[b"link\0../outside/secret\0"]),
        fs_request(op::LINK, SHARE, &[&FILE.to_le_bytes(), b"second\0"]),
        fs_request(op::RENAME, SHARE, &[rename.as_bytes(), b"second\0third\0"]),
        fs_request(op::RENAME2, SHARE, &[exchange.as_bytes(), b"third\0folder\0"]),
        fs_request(op::OPENDIR, SHARE, &[&[0; 8]]),
        fs_request(
            op::READDIRPLUS,
            SHARE,
            &[&2_u64.to_le_bytes(), &[0; 8], &512_u32.to_le_bytes(), &[0; 20]],
        ),
        fs_request(
            op::READDIR,
            SHARE,
            &[&2_u64.to_le_bytes(), &[0; 8], &100_u32.to_le_bytes(), &[0; 20]],
        ),
        fs_request(op::UNLINK, SHARE, &[b"folder\0"]),
        fs_request(op::RMDIR, SHARE, &[b"third\0"]),
        fs_request(op::FORGET, FILE, &[&u64::MAX.to_le_bytes()]),
        fs_request(op::BATCH_FORGET, 0, &[&u32::MAX.to_le_bytes(), &[0; 4], &[3; 32]]),
        fs_request(op::GETATTR, FILE, &[&[0; 16]]),
    ]);
    requests
}

fn ways_out() -> Requests {
    let mut requests = opened();
    let open = OpenIn {
        flags: 2,
        open_flags: 0,
    };
    for (node, name) in (FILE + 1..).zip([&b"out\0"[..], b"file\0", b"relative\0", b"magic\0", b"d\0"]) {
        requests.extend([
            fs_request(op::LOOKUP, SHARE, &[name]),
            fs_request(op::READLINK, node, &[]),
            fs_request(op::OPEN, node, &[open.as_bytes()]),
            fs_request(op::LOOKUP, node, &[b"secret\0"]),
            fs_request(op::UNLINK, node, &[b"secret\0"]),
            fs_request(op::SYMLINK, node, &[b"new\0/\0"]),
        ]);
    }
    for name in [
        &b"..\0"[..],
        b".\0",
        b"\0",
        b"../outside\0",
        b"out/secret\0",
        b"/etc/passwd\0",
    ] {
        requests.push(fs_request(op::LOOKUP, SHARE, &[name]));
        requests.push(fs_request(op::UNLINK, SHARE, &[name]));
        requests.push(fs_request(
            op::RENAME,
            SHARE,
            &[&SHARE.to_le_bytes(), b"f\0", name],
        ));
    }
    requests
}

fn attributes() -> Requests {
    let set = SetattrIn {
        valid: fattr::MODE | fattr::UID | fattr::GID | fattr::SIZE | fattr::MTIME,
        size: 100,
        mode: 0o6755,
        uid: 1,
        gid: 2,
        ..SetattrIn::default()
    };
    let value = SetxattrIn {
        size: 3,
        flags: 0,
        setxattr_flags: 0,
        padding: 0,
    };
    let mut requests = opened();
    requests.extend([
        fs_request(op::SETATTR, FILE, &[set.as_bytes()]),
        fs_request(op::SETATTR, SHARE, &[set.as_bytes()]),
        fs_request(op::SETXATTR, FILE, &[value.as_bytes(), b"user.a\0abc"]),
        fs_request(op::SETXATTR, FILE, &[value.as_bytes(), b"trusted.a\0abc"]),
        fs_request(op::GETXATTR, FILE, &[&100_u64.to_le_bytes(), b"user.a\0"]),
        fs_request(op::LISTXATTR, FILE, &[&100_u64.to_le_bytes()]),
        fs_request(op::REMOVEXATTR, FILE, &[b"user.a\0"]),
        fs_request(op::STATX, FILE, &[&[0; 16], &[0; 4], &u32::MAX.to_le_bytes()]),
    ]);
    requests
}

fn locks() -> Requests {
    let lock = |owner, kind, end| LkIn {
        fh: 1,
        owner,
        lock: FileLock {
            start: 0,
            end,
            kind,
            pid: 7,
        },
        flags: 0,
        padding: 0,
    };
    let interrupt = InterruptIn { unique: 1 };
    let mut requests = opened();
    for (owner, kind, end) in [
        (1, 1, u64::MAX),
        (2, 1, 10),
        (2, 0, 0),
        (1, 2, u64::MAX),
        (3, 9, 1),
    ] {
        let lock = lock(owner, kind, end);
        requests.extend(
            [op::SETLK, op::SETLKW, op::GETLK].map(|opcode| fs_request(opcode, FILE, &[lock.as_bytes()])),
        );
    }
    requests.push(fs_request(op::INTERRUPT, 0, &[interrupt.as_bytes()]));
    requests.push(fs_request(
        op::FLUSH,
        FILE,
        &[&1_u64.to_le_bytes(), &[0; 8], &1_u64.to_le_bytes()],
    ));
    requests
}

/// The requests of all others from the task and under the uid by which the agent repeats the host's changes.
fn replayed() -> Requests {
    let mut requests = [names(), files()].concat();
    for request in requests.iter_mut().skip(3) {
        // Where a request's header has them.
        request[24..28].copy_from_slice(&REPLAY_UID.to_le_bytes());
        request[32..36].copy_from_slice(&REPEATER.get().to_le_bytes());
    }
    requests
}
