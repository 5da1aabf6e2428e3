//! Requests that mean harm.

use std::path::{Path, PathBuf};

use cove_fs::abi::{self, ROOT_ID, op};
use cove_fs::{Answer, Config, REPLAY_UID, fuzz_one};
use proptest::prelude::*;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, TASK, c};

/// A share next to a secret, with every kind of way that must not lead there.
struct Trap {
    dir: tempfile::TempDir,
}

impl Trap {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let trap = Self { dir };
        std::fs::create_dir(trap.share()).unwrap();
        std::fs::create_dir_all(trap.outside().join("dir")).unwrap();
        std::fs::write(trap.outside().join("secret"), b"secret").unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, trap.share().join(name)).unwrap();
        link(&trap.outside(), "out");
        link(&trap.outside().join("secret"), "file");
        link(Path::new("../outside"), "relative");
        link(Path::new("/proc/self/root"), "magic");
        std::fs::write(trap.share().join("f"), b"mine").unwrap();
        std::fs::create_dir(trap.share().join("d")).unwrap();
        trap
    }

    fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn client(&self) -> Client {
        Client::new(Config::default(), &[("share", &self.share(), false)])
    }

    fn assert_untouched(&self) {
        assert_eq!(std::fs::read(self.outside().join("secret")).unwrap(), b"secret");
        let mut names: Vec<_> = std::fs::read_dir(self.outside())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["dir", "secret"]);
        assert_eq!(std::fs::read_dir(self.outside().join("dir")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn no_name_and_no_symlink_leads_out_of_a_share() {
    let trap = Trap::new();
    let client = trap.client();
    let root = client.walk("share").unwrap();
    for name in [
        "..",
        ".",
        "",
        "../outside",
        "out/secret",
        "/etc/passwd",
        "d/../..",
    ] {
        assert_eq!(client.lookup(root, name).unwrap_err(), Errno::INVAL, "{name:?}");
        assert_eq!(
            client.create(root, name, 0o600).unwrap_err(),
            Errno::INVAL,
            "{name:?}"
        );
    }
    for link in ["out", "relative", "magic"] {
        let node = client.lookup(root, link).unwrap().node;
        assert_eq!(client.lookup(node, "secret").unwrap_err(), Errno::NOTDIR);
        assert_eq!(client.create(node, "new", 0o600).unwrap_err(), Errno::NOTDIR);
        assert_eq!(
            client.ask(op::OPENDIR, node, &[&[0; 8]]).unwrap_err(),
            Errno::NOTDIR
        );
        assert_eq!(client.open(node, 0).unwrap_err(), Errno::LOOP);
    }
    let node = client.lookup(root, "file").unwrap().node;
    assert_eq!(client.open(node, 2).unwrap_err(), Errno::LOOP);
    assert_eq!(client.create(root, "file", 0o600).unwrap_err(), Errno::STALE);
    let set = abi::SetattrIn {
        valid: abi::fattr::SIZE | abi::fattr::MODE,
        ..Default::default()
    };
    assert!(client.ask(op::SETATTR, node, &[set.as_bytes()]).is_err());
    trap.assert_untouched();
}

#[test]
fn what_is_swapped_for_a_symlink_after_the_lookup_is_stale() {
    let trap = Trap::new();
    let config = Config {
        max_pins: 0,
        ..Config::default()
    };
    let client = Client::new(config, &[("share", &trap.share(), false)]);
    std::fs::create_dir(trap.share().join("d/e")).unwrap();
    let (dir, file) = (client.walk("share/d/e").unwrap(), client.walk("share/f").unwrap());
    std::fs::rename(trap.share().join("d"), trap.share().join("d-moved")).unwrap();
    std::os::unix::fs::symlink(trap.outside(), trap.share().join("d")).unwrap();
    std::fs::create_dir(trap.outside().join("e")).unwrap();
    std::fs::remove_file(trap.share().join("f")).unwrap();
    std::os::unix::fs::symlink(trap.outside().join("secret"), trap.share().join("f")).unwrap();
    assert_eq!(client.open(file, 2).unwrap_err(), Errno::STALE);
    assert_eq!(client.attr(file).unwrap_err(), Errno::STALE);
    // Whether or not a descriptor of the old directory is at hand, nothing is made outside.
    let _ = client.create(dir, "new", 0o600);
    assert_eq!(std::fs::read_dir(trap.outside().join("e")).unwrap().count(), 0);
    std::fs::remove_dir(trap.outside().join("e")).unwrap();
    trap.assert_untouched();
}

#[test]
fn foreign_nodes_and_handles_are_refused() {
    let trap = Trap::new();
    let client = trap.client();
    let (root, file, dir) = (
        client.walk("share").unwrap(),
        client.walk("share/f").unwrap(),
        client.walk("share/d").unwrap(),
    );
    let fh = client.open(file, 2).unwrap();
    for node in [0, ROOT_ID, root, dir, 12345, u64::MAX] {
        assert_eq!(client.read(node, fh, 0, 10).unwrap_err(), Errno::BADF);
        assert_eq!(client.write(node, fh, 0, b"x").unwrap_err(), Errno::BADF);
        assert_eq!(client.release(node, fh).unwrap_err(), Errno::BADF);
    }
    for node in [0, 12345, u64::MAX] {
        for opcode in (1..60).filter(|opcode| {
            ![
                op::FORGET,
                op::BATCH_FORGET,
                op::INIT,
                op::INTERRUPT,
                op::DESTROY,
                op::SYNCFS,
            ]
            .contains(opcode)
        }) {
            assert!(
                client.ask(opcode, node, &[&[0; 88], b"a\0b\0"]).is_err(),
                "request {opcode} on node {node}"
            );
        }
    }
    for fh in [0, 999, u64::MAX] {
        assert_eq!(client.read(file, fh, 0, 10).unwrap_err(), Errno::BADF);
    }
    assert_eq!(client.read(file, fh, 0, 10).unwrap(), b"mine");
}

#[test]
fn extreme_offsets_and_lengths_are_errors_or_short() {
    let trap = Trap::new();
    let client = trap.client();
    let file = client.walk("share/f").unwrap();
    let fh = client.open(file, 2).unwrap();
    for offset in [u64::MAX, i64::MAX.cast_unsigned(), 1 << 63, u64::MAX - 5] {
        assert!(
            client
                .read(file, fh, offset, u32::MAX)
                .map_or(true, |data| data.is_empty())
        );
        assert!(client.write(file, fh, offset, b"x").is_err());
        let allocate = abi::FallocateIn {
            fh,
            offset,
            length: u64::MAX,
            mode: 0,
            padding: 0,
        };
        assert!(client.ask(op::FALLOCATE, file, &[allocate.as_bytes()]).is_err());
        let copy = abi::CopyFileRangeIn {
            fh_in: fh,
            off_in: offset,
            node_out: file,
            fh_out: fh,
            off_out: offset,
            len: u64::MAX,
            flags: 0,
        };
        assert!(client.ask(op::COPY_FILE_RANGE, file, &[copy.as_bytes()]).is_err());
    }
    assert_eq!(client.read(file, fh, 0, u32::MAX).unwrap(), b"mine");
    // A length that the request does not have.
    let lie = abi::WriteIn {
        fh,
        size: 1 << 30,
        ..Default::default()
    };
    assert_eq!(
        client.ask(op::WRITE, file, &[lie.as_bytes(), b"x"]).unwrap_err(),
        Errno::INVAL
    );
    assert_eq!(std::fs::read(trap.share().join("f")).unwrap(), b"mine");
}

#[test]
fn an_answer_without_room_is_not_written() {
    let trap = Trap::new();
    let client = trap.client();
    let root = client.walk("share").unwrap();
    for room in 0..160 {
        let (answer, reply) = client.send(op::LOOKUP, root, &[&c("f")], room);
        let Answer::Written(len) = answer else {
            panic!("{answer:?}")
        };
        assert!(len <= room);
        match room {
            0..16 => assert_eq!(len, 0),
            16..144 => assert_eq!(
                (len, &reply[4..8]),
                (16, (-Errno::OVERFLOW.raw_os_error()).as_bytes())
            ),
            _ => assert_eq!(len, 144),
        }
    }
}

#[test]
fn the_reserved_uid_changes_nothing_on_the_host() {
    let trap = Trap::new();
    let client = trap.client();
    let (root, file) = (client.walk("share").unwrap(), client.walk("share/f").unwrap());
    let open = client.open(file, 2).unwrap();
    client.server.set_repeater(Some(TASK));
    client.uid.set(REPLAY_UID);
    let before = std::fs::metadata(trap.share().join("f")).unwrap();
    for opcode in 1..60 {
        if [
            op::INIT,
            op::DESTROY,
            op::FORGET,
            op::BATCH_FORGET,
            op::RELEASE,
            op::RELEASEDIR,
        ]
        .contains(&opcode)
        {
            continue;
        }
        for node in [root, file] {
            let mut long = [0xff; 88];
            for body in [&[0; 16][..], &[0; 8], &long] {
                let _ = client.send(opcode, node, &[body, b"f\0n\0"], 4096);
            }
            long[..8].copy_from_slice(&open.to_ne_bytes());
            let _ = client.send(opcode, node, &[&long], 4096);
        }
    }
    let rename = abi::RenameIn { new_parent: root };
    assert_eq!(
        client
            .ask(op::RENAME, root, &[rename.as_bytes(), b"f\0g\0"])
            .unwrap_err(),
        Errno::PERM
    );
    assert_eq!(client.ask(op::UNLINK, root, &[b"f\0"]).unwrap_err(), Errno::PERM);
    assert_eq!(
        client.write(file, open, 0, b"overwritten").unwrap_err(),
        Errno::PERM
    );
    let agent = client.open(file, 1).unwrap();
    assert_eq!(client.write(file, agent, 0, b"\0").unwrap(), 1);
    let after = std::fs::metadata(trap.share().join("f")).unwrap();
    assert_eq!(std::fs::read(trap.share().join("f")).unwrap(), b"mine");
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert_eq!(std::fs::read_dir(trap.share()).unwrap().count(), 6);
    trap.assert_untouched();
}

/// Requests that mostly make sense, so that they get past the parser.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::sample::select(vec![
        "f",
        "d",
        "out",
        "relative",
        "magic",
        "file",
        "..",
        "../outside/secret",
        "secret",
        "new",
        "share",
    ])
    .prop_map(c);
    let number = prop_oneof![0_u64..12, Just(u64::MAX), any::<u64>()];
    let parameters = proptest::collection::vec(number.clone(), 0..12);
    let uid = prop_oneof![Just(0_u32), Just(1000), Just(REPLAY_UID)];
    (
        1_u32..54,
        number,
        uid,
        parameters,
        proptest::collection::vec(name, 0..3),
        proptest::option::of(0_usize..200),
    )
        .prop_map(|(opcode, node, uid, parameters, names, lie)| {
            let body: Vec<u8> = parameters
                .iter()
                .flat_map(|parameter| parameter.to_le_bytes())
                .chain(names.concat())
                .collect();
            let len = lie.unwrap_or(40 + body.len());
            let header = abi::InHeader {
                len: u32::try_from(len).unwrap(),
                opcode,
                unique: 3,
                node,
                uid,
                ..Default::default()
            };
            [header.as_bytes(), &body].concat()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_conversation_panics_or_reaches_outside(requests in proptest::collection::vec((request(), 0_u16..600), 1..60)) {
        let trap = Trap::new();
        let client = trap.client();
        client.walk("share/d").unwrap();
        let mut bytes = Vec::new();
        for (request, room) in requests {
            bytes.extend_from_slice(&u16::try_from(request.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&room.to_le_bytes());
            bytes.extend_from_slice(&request);
        }
        fuzz_one(&client.server, &bytes);
        trap.assert_untouched();
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_reach_outside(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let trap = Trap::new();
        let client = trap.client();
        fuzz_one(&client.server, &bytes);
        trap.assert_untouched();
    }
}
