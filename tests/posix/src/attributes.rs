//! Modes, owners, times, extended attributes, permission.

use rustix::fs::{
    Access, AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};

use crate::transcript::{Transcript, error};
use crate::{Scenario, as_user};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("modes", modes),
    ("owners", owners),
    ("setuid", setuid),
    ("setgid", setgid),
    ("times", times),
    ("attributes", attributes),
    ("permission", permission),
    ("file-systems", file_systems),
];

fn modes(t: &mut Transcript) {
    t.file("f", b"x");
    std::fs::create_dir(t.path("d")).unwrap();
    for mode in [
        0o000, 0o111, 0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o4711, 0o7777,
    ] {
        for name in ["f", "d"] {
            t.saw(
                "chmod",
                rustix::fs::chmod(t.path(name), Mode::from_raw_mode(mode)),
            );
            t.stat(name);
        }
    }
    t.saw(
        "chmod of nothing",
        rustix::fs::chmod(t.path("none"), Mode::empty()),
    );
    let fd = t.open("f", OFlags::RDONLY, 0).unwrap();
    t.saw("fchmod", rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o640)));
    t.stat("f");
    let f = t.path("f");
    t.saw(
        "chmod by another",
        as_user(99, || rustix::fs::chmod(&f, Mode::from_raw_mode(0o777))),
    );
}

fn owners(t: &mut Transcript) {
    t.file("f", b"x");
    let chown = |t: &Transcript, uid: Option<u32>, gid: Option<u32>| {
        rustix::fs::chown(t.path("f"), uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    };
    for (uid, gid) in [
        (Some(1), Some(2)),
        (Some(3), None),
        (None, Some(4)),
        (Some(0), Some(0)),
        (Some(4_000_000), Some(65_534)),
    ] {
        t.saw("chown", chown(t, uid, gid));
        t.stat("f");
    }
    t.saw(
        "mode stays",
        rustix::fs::chmod(t.path("f"), Mode::from_raw_mode(0o604)),
    );
    t.saw("chown", chown(t, Some(1234), Some(1234)));
    t.stat("f");
    let f = t.path("f");
    let give = |uid| as_user(1234, || rustix::fs::chown(&f, Some(Uid::from_raw(uid)), None));
    t.saw("the owner gives it away", give(5));
    t.saw(
        "the owner changes the mode",
        as_user(1234, || rustix::fs::chmod(&f, Mode::from_raw_mode(0o640))),
    );
    t.stat("f");
    let moved = t.path("g");
    rustix::fs::rename(&f, &moved).unwrap();
    t.stat("g");
    rustix::fs::link(&moved, &f).unwrap();
    t.stat("f");
}

fn setuid(t: &mut Transcript) {
    let prepare = |t: &mut Transcript, mode| {
        t.file("f", b"x");
        rustix::fs::chown(t.path("f"), Some(Uid::from_raw(1234)), Some(Gid::from_raw(1234))).unwrap();
        rustix::fs::chmod(t.path("f"), Mode::from_raw_mode(mode)).unwrap();
        t.stat("f");
    };
    let f = t.path("f");
    for mode in [0o4755, 0o2755, 0o2745, 0o6777] {
        prepare(t, mode);
        as_user(1234, || {
            std::fs::OpenOptions::new()
                .append(true)
                .open(&f)
                .map(|mut f| std::io::Write::write_all(&mut f, b"y"))
                .unwrap()
                .unwrap();
        });
        t.saw("written by the owner", mode);
        t.stat("f");
        prepare(t, mode);
        as_user(1234, || {
            rustix::fs::ftruncate(rustix::fs::open(&f, OFlags::WRONLY, Mode::empty()).unwrap(), 0).unwrap();
        });
        t.saw("truncated by the owner", mode);
        t.stat("f");
        prepare(t, mode);
        rustix::fs::chown(&f, Some(Uid::from_raw(1)), None).unwrap();
        t.saw("given away by root", mode);
        t.stat("f");
    }
}

fn setgid(t: &mut Transcript) {
    std::fs::create_dir(t.path("d")).unwrap();
    rustix::fs::chown(t.path("d"), None, Some(Gid::from_raw(77))).unwrap();
    rustix::fs::chmod(t.path("d"), Mode::from_raw_mode(0o2777)).unwrap();
    t.stat("d");
    let (file, dir, link) = (t.path("d/file"), t.path("d/dir"), t.path("d/link"));
    as_user(1234, || {
        std::fs::write(&file, b"x").unwrap();
        rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("x", &link).unwrap();
    });
    for name in ["d/file", "d/dir", "d/link"] {
        t.stat(name);
    }
}

fn times(t: &mut Transcript) {
    t.file("f", b"x");
    let set = |t: &Transcript, access: (i64, i64), modification: (i64, i64)| {
        let spec = |(sec, nsec): (i64, i64)| Timespec {
            tv_sec: sec,
            tv_nsec: nsec,
        };
        let times = Timestamps {
            last_access: spec(access),
            last_modification: spec(modification),
        };
        rustix::fs::utimensat(CWD, t.path("f"), &times, AtFlags::empty())
    };
    let shown = |t: &Transcript| {
        let stat = rustix::fs::stat(t.path("f")).unwrap();
        (
            stat.st_atime,
            stat.st_atime_nsec,
            stat.st_mtime,
            stat.st_mtime_nsec,
        )
    };
    t.saw(
        "set",
        set(t, (1_000_000_000, 123_456_789), (1_100_000_000, 987_654_321)),
    );
    t.saw("times", shown(t));
    t.saw("before 1970", set(t, (-5, 0), (-1, 1)));
    t.saw("times", shown(t));
    t.saw("leave one", set(t, (0, UTIME_OMIT), (42, 42)));
    t.saw("times", shown(t));
    t.saw("invalid", set(t, (0, 1_000_000_000), (0, 0)));
    t.saw("now", set(t, (0, UTIME_OMIT), (0, UTIME_NOW)));
    t.saw("is recent", shown(t).2 > 1_700_000_000);
    let changed = |t: &Transcript, name: &str| {
        let stat = rustix::fs::stat(t.path(name)).unwrap();
        (stat.st_ctime, stat.st_ctime_nsec)
    };
    let before = changed(t, "f");
    std::thread::sleep(std::time::Duration::from_millis(30));
    rustix::fs::chown(t.path("f"), Some(Uid::from_raw(9)), None).unwrap();
    t.saw("chown moves the time of change", changed(t, "f") > before);
    let before = rustix::fs::stat(t.path(".")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(30));
    t.file("g", b"");
    let after = rustix::fs::stat(t.path(".")).unwrap();
    t.saw(
        "a new entry moves the directory's time",
        (after.st_mtime, after.st_mtime_nsec) > (before.st_mtime, before.st_mtime_nsec),
    );
    let f = t.path("f");
    t.saw(
        "another user touches it",
        as_user(99, || {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            };
            rustix::fs::utimensat(
                CWD,
                &f,
                &Timestamps {
                    last_access: now,
                    last_modification: now,
                },
                AtFlags::empty(),
            )
        }),
    );
    std::os::unix::fs::symlink("f", t.path("l")).unwrap();
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 11,
            tv_nsec: 12,
        },
        last_modification: Timespec {
            tv_sec: 13,
            tv_nsec: 14,
        },
    };
    t.saw(
        "of a symlink",
        rustix::fs::utimensat(CWD, t.path("l"), &times, AtFlags::SYMLINK_NOFOLLOW),
    );
    let stat = rustix::fs::lstat(t.path("l")).unwrap();
    t.saw("symlink's times", (stat.st_mtime, stat.st_mtime_nsec));
}

fn attributes(t: &mut Transcript) {
    t.file("f", b"x");
    std::fs::create_dir(t.path("d")).unwrap();
    let set = |t: &Transcript, name: &str, key: &str, value: &[u8], flags| {
        rustix::fs::setxattr(t.path(name), key, value, flags)
    };
    let get = |t: &Transcript, name: &str, key: &str| {
        let mut buffer = [0_u8; 4096];
        rustix::fs::getxattr(t.path(name), key, &mut buffer[..]).map(|len| buffer[..len].to_vec())
    };
    for name in ["f", "d"] {
        t.saw("set", set(t, name, "user.colour", b"blue", XattrFlags::empty()));
        t.saw("get", get(t, name, "user.colour"));
        t.saw(
            "create again",
            set(t, name, "user.colour", b"red", XattrFlags::CREATE),
        );
        t.saw("replace", set(t, name, "user.colour", b"", XattrFlags::REPLACE));
        t.saw("get", get(t, name, "user.colour"));
        t.saw(
            "replace nothing",
            set(t, name, "user.none", b"", XattrFlags::REPLACE),
        );
        t.saw("get nothing", get(t, name, "user.none"));
        t.saw(
            "chown, which the server records in an attribute",
            std::os::unix::fs::chown(t.path(name), Some(3), None).is_ok(),
        );
        let mut list = [0_u8; 4096];
        t.saw(
            "list",
            rustix::fs::listxattr(t.path(name), &mut list[..]).map(|len| list[..len].to_vec()),
        );
        t.saw("its size", rustix::fs::listxattr_query(t.path(name)));
        let mut short = [0_u8; 1];
        t.saw(
            "list in too little",
            rustix::fs::listxattr(t.path(name), &mut short[..]),
        );
        t.saw("remove", rustix::fs::removexattr(t.path(name), "user.colour"));
        t.saw(
            "remove again",
            rustix::fs::removexattr(t.path(name), "user.colour"),
        );
    }
    t.saw(
        "large",
        set(t, "f", "user.large", &[7; 3000], XattrFlags::empty()),
    );
    t.saw("large back", get(t, "f", "user.large"));
    t.saw("no class", set(t, "f", "colour", b"", XattrFlags::empty()));
    t.saw("no name", set(t, "f", "user.", b"", XattrFlags::empty()));
    t.saw(
        "set a trusted attribute",
        set(t, "f", "trusted.x", b"", XattrFlags::empty()),
    );
    t.saw(
        "set a security attribute",
        set(t, "f", "security.x", b"", XattrFlags::empty()),
    );
    std::os::unix::fs::symlink("f", t.path("l")).unwrap();
    t.saw(
        "on a symlink",
        rustix::fs::lsetxattr(t.path("l"), "user.x", b"", XattrFlags::empty()),
    );
    let f = t.path("f");
    t.saw(
        "by another user",
        as_user(99, || {
            rustix::fs::setxattr(&f, "user.x", b"", XattrFlags::empty())
        }),
    );
}

fn permission(t: &mut Transcript) {
    for (mode, uid) in [(0o700, 1234), (0o070, 1234), (0o007, 1234), (0o640, 0)] {
        t.file("f", b"x");
        std::os::unix::fs::chown(t.path("f"), Some(uid), Some(555)).unwrap();
        rustix::fs::chmod(t.path("f"), Mode::from_raw_mode(mode)).unwrap();
        let f = t.path("f");
        for user in [1234, 555, 99] {
            let seen = as_user(user, || {
                let access =
                    [Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK].map(|a| rustix::fs::access(&f, a));
                let read = error(rustix::fs::open(&f, OFlags::RDONLY, Mode::empty()));
                let write = error(rustix::fs::open(&f, OFlags::WRONLY, Mode::empty()));
                (access, read, write)
            });
            t.saw(&format!("user {user} with mode {mode:o} of {uid}"), seen);
        }
        t.saw("root reads", error(t.open("f", OFlags::RDWR, 0)));
        std::fs::remove_file(t.path("f")).unwrap();
    }
    rustix::fs::mkdir(t.path("d"), Mode::from_raw_mode(0o711)).unwrap();
    t.file("d/f", b"x");
    let (dir, file) = (t.path("d"), t.path("d/f"));
    t.saw(
        "list without read",
        as_user(99, || {
            std::fs::read_dir(&dir).map(drop).map_err(|e| e.raw_os_error())
        }),
    );
    t.saw(
        "pass without read",
        as_user(99, || std::fs::read(&file).map_err(|e| e.raw_os_error())),
    );
    t.saw("remove without write", as_user(99, || rustix::fs::unlink(&file)));
    rustix::fs::chmod(&dir, Mode::from_raw_mode(0o600)).unwrap();
    t.saw(
        "pass without search",
        as_user(99, || std::fs::read(&file).map_err(|e| e.raw_os_error())),
    );
}

fn file_systems(t: &mut Transcript) {
    let stat = rustix::fs::statvfs(t.path(".")).unwrap();
    // How large it is, is another matter: the two need not be on one disk.
    t.saw("statvfs", (stat.f_bsize, stat.f_frsize, stat.f_namemax));
    let fd = t.open(".", OFlags::RDONLY, 0).unwrap();
    t.saw("fsync of a directory", rustix::fs::fsync(&fd));
    t.saw("unknown ioctl", rustix::io::ioctl_fionread(&fd));
}
