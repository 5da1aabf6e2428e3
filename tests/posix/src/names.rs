//! Directory entries: making, linking, moving, removing, listing.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};

use crate::transcript::{Transcript, error};
use crate::{Scenario, as_user};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("creation", creation),
    ("hard-links", hard_links),
    ("symlinks", symlinks),
    ("renames", renames),
    ("exchanges", exchanges),
    ("whiteouts", whiteouts),
    ("removal", removal),
    ("long-names", long_names),
    ("special-files", special_files),
    ("listings", listings),
    ("temporary-files", temporary_files),
    ("sticky", sticky),
];

fn creation(t: &mut Transcript) {
    let fd = t
        .open("read-only", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, 0o444)
        .unwrap();
    t.saw(
        "write to a new file of mode 0444",
        rustix::io::write(&fd, b"content"),
    );
    t.stat("read-only");
    let again = t.open("read-only", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, 0o644);
    t.saw("create it again", error(again));
    for mode in [0o000, 0o200, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o6711] {
        let name = format!("mode-{mode:o}");
        t.saw(
            "create",
            error(t.open(&name, OFlags::CREATE | OFlags::RDWR, mode)),
        );
        t.stat(&name);
        let name = format!("dir-{mode:o}");
        t.saw(
            "mkdir",
            rustix::fs::mkdir(t.path(&name), Mode::from_raw_mode(mode)),
        );
        t.stat(&name);
    }
    let (dir, inner) = (t.path("user"), t.path("user/inner"));
    t.saw(
        "mkdir for a user",
        rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o777)),
    );
    let filled = as_user(1234, || {
        rustix::fs::mkdir(&inner, Mode::from_raw_mode(0o555))?;
        rustix::fs::open(
            inner.join("x"),
            OFlags::CREATE | OFlags::WRONLY,
            Mode::from_raw_mode(0o600),
        )
        .map(drop)
    });
    t.saw("the user fills a directory of mode 0555", filled);
    t.stat("user/inner");
    let own = t.path("user/own");
    t.saw(
        "the user makes a file",
        as_user(1234, || std::fs::write(&own, b"x").is_ok()),
    );
    t.stat("user/own");
    t.saw(
        "another user reads it",
        as_user(4321, || std::fs::read(&own).map_err(|e| e.raw_os_error())),
    );
    t.saw(
        "another user writes it",
        as_user(4321, || std::fs::write(&own, b"y").map_err(|e| e.raw_os_error())),
    );
    t.saw(
        "a file as a directory",
        error(t.open("user/own/x", OFlags::RDONLY, 0)),
    );
    t.saw(
        "a directory for writing",
        error(t.open("user", OFlags::WRONLY, 0)),
    );
    t.saw(
        "only a directory",
        error(t.open("user/own", OFlags::DIRECTORY, 0)),
    );
    t.saw("nothing", error(t.open("nothing", OFlags::RDONLY, 0)));
}

fn hard_links(t: &mut Transcript) {
    t.file("a", b"one");
    t.saw("link", rustix::fs::link(t.path("a"), t.path("b")));
    t.stat("a");
    t.stat("b");
    t.saw(
        "link onto an existing name",
        rustix::fs::link(t.path("a"), t.path("b")),
    );
    std::fs::write(t.path("b"), b"two").unwrap();
    t.saw("content by the other name", std::fs::read(t.path("a")).unwrap());
    t.saw("unlink the first", rustix::fs::unlink(t.path("a")));
    t.stat("b");
    t.saw("link back", rustix::fs::link(t.path("b"), t.path("a")));
    t.saw("unlink the second", rustix::fs::unlink(t.path("b")));
    t.stat("a");
    t.saw("content", std::fs::read(t.path("a")).unwrap());
    std::fs::create_dir(t.path("d")).unwrap();
    t.saw("link to a directory", rustix::fs::link(t.path("d"), t.path("e")));
    std::os::unix::fs::symlink("a", t.path("s")).unwrap();
    t.saw(
        "link to a symlink",
        rustix::fs::linkat(CWD, t.path("s"), CWD, t.path("s2"), AtFlags::empty()),
    );
    t.stat("s2");
}

fn symlinks(t: &mut Transcript) {
    t.file("target", b"content");
    for (name, target) in [
        ("rel", "target"),
        ("up", "../symlinks/target"),
        ("dangling", "none"),
        ("loop", "loop"),
    ] {
        t.saw("symlink", rustix::fs::symlink(target, t.path(name)));
        t.saw("readlink", rustix::fs::readlink(t.path(name), Vec::new()));
        t.saw(
            "read through",
            std::fs::read(t.path(name)).map_err(|e| e.raw_os_error()),
        );
        t.stat(name);
    }
    t.saw("not following", error(t.open("rel", OFlags::NOFOLLOW, 0)));
    let long = "x/".repeat(2047);
    t.saw("long target", rustix::fs::symlink(&long, t.path("long")));
    t.saw(
        "its length",
        rustix::fs::readlink(t.path("long"), Vec::new()).map(|t| t.as_bytes().len()),
    );
    t.saw(
        "too long",
        rustix::fs::symlink("x/".repeat(2049), t.path("longer")),
    );
    t.saw("empty", rustix::fs::symlink("", t.path("empty")));
    t.saw(
        "readlink of a file",
        error(rustix::fs::readlink(t.path("target"), Vec::new())),
    );
    t.saw(
        "lchown",
        std::os::unix::fs::lchown(t.path("rel"), Some(7), Some(8)).is_ok(),
    );
    t.stat("rel");
    t.stat("target");
}

fn renames(t: &mut Transcript) {
    t.file("a", b"a");
    t.file("b", b"b");
    t.saw("onto a file", rustix::fs::rename(t.path("a"), t.path("b")));
    t.saw("content", std::fs::read(t.path("b")).unwrap());
    t.stat("a");
    std::fs::create_dir_all(t.path("d/sub")).unwrap();
    std::fs::create_dir(t.path("e")).unwrap();
    t.saw(
        "a directory into itself",
        rustix::fs::rename(t.path("d"), t.path("d/sub/d")),
    );
    t.saw(
        "a directory onto a file",
        rustix::fs::rename(t.path("d"), t.path("b")),
    );
    t.saw(
        "a file onto a directory",
        rustix::fs::rename(t.path("b"), t.path("d")),
    );
    t.saw(
        "onto a full directory",
        rustix::fs::rename(t.path("e"), t.path("d")),
    );
    t.saw(
        "onto an empty directory",
        rustix::fs::rename(t.path("d"), t.path("e")),
    );
    t.list("e");
    t.file("e/sub/deep", b"deep");
    t.saw(
        "a directory with content",
        rustix::fs::rename(t.path("e"), t.path("f")),
    );
    t.saw(
        "content below",
        std::fs::read(t.path("f/sub/deep")).map_err(|e| e.raw_os_error()),
    );
    t.saw("the old path", error(t.open("e/sub/deep", OFlags::RDONLY, 0)));
    t.saw("nothing", rustix::fs::rename(t.path("nothing"), t.path("x")));
    t.saw("to itself", rustix::fs::rename(t.path("b"), t.path("b")));
    let fd = t.open("b", OFlags::RDWR, 0).unwrap();
    t.file("c", b"c");
    t.saw("over an open file", rustix::fs::rename(t.path("c"), t.path("b")));
    let mut buffer = [0; 8];
    t.saw(
        "the open file",
        rustix::io::pread(&fd, &mut buffer, 0).map(|len| buffer[..len].to_vec()),
    );
    t.saw("its links", rustix::fs::fstat(&fd).map(|stat| stat.st_nlink));
    t.saw("write to it", rustix::io::pwrite(&fd, b"still", 0));
    t.saw(
        "link one to the other",
        rustix::fs::link(t.path("b"), t.path("b2")),
    );
    t.saw(
        "rename between two names of one file",
        rustix::fs::rename(t.path("b"), t.path("b2")),
    );
    t.list(".");
}

fn exchanges(t: &mut Transcript) {
    let rename = |t: &Transcript, from: &str, to: &str, flags| {
        rustix::fs::renameat_with(CWD, t.path(from), CWD, t.path(to), flags)
    };
    t.file("a", b"a");
    t.file("b", b"b");
    t.saw("without replacing", rename(t, "a", "b", RenameFlags::NOREPLACE));
    t.saw("to a free name", rename(t, "a", "c", RenameFlags::NOREPLACE));
    t.saw("exchange", rename(t, "c", "b", RenameFlags::EXCHANGE));
    t.saw(
        "contents",
        (
            std::fs::read(t.path("b")).unwrap(),
            std::fs::read(t.path("c")).unwrap(),
        ),
    );
    std::fs::create_dir(t.path("d")).unwrap();
    t.file("d/x", b"x");
    t.saw(
        "exchange a directory and a file",
        rename(t, "d", "b", RenameFlags::EXCHANGE),
    );
    t.saw(
        "below",
        std::fs::read(t.path("b/x")).map_err(|e| e.raw_os_error()),
    );
    t.stat("d");
    t.saw(
        "exchange with nothing",
        rename(t, "d", "none", RenameFlags::EXCHANGE),
    );
    t.saw(
        "both",
        rename(t, "d", "b", RenameFlags::EXCHANGE | RenameFlags::NOREPLACE),
    );
}

fn whiteouts(t: &mut Transcript) {
    t.file("a", b"a");
    let result = rustix::fs::renameat_with(CWD, t.path("a"), CWD, t.path("b"), RenameFlags::WHITEOUT);
    t.saw("rename with a whiteout", result);
}

fn removal(t: &mut Transcript) {
    std::fs::create_dir_all(t.path("d/e")).unwrap();
    t.file("f", b"content");
    t.saw("rmdir of a full directory", rustix::fs::rmdir(t.path("d")));
    t.saw("rmdir of a file", rustix::fs::rmdir(t.path("f")));
    t.saw("unlink of a directory", rustix::fs::unlink(t.path("d")));
    t.saw("unlink of nothing", rustix::fs::unlink(t.path("none")));
    let fd = t.open("f", OFlags::RDWR, 0).unwrap();
    t.saw("unlink an open file", rustix::fs::unlink(t.path("f")));
    t.saw(
        "its status",
        rustix::fs::fstat(&fd).map(|stat| (stat.st_nlink, stat.st_size)),
    );
    let mut buffer = [0; 16];
    t.saw(
        "read it",
        rustix::io::pread(&fd, &mut buffer, 0).map(|len| buffer[..len].to_vec()),
    );
    t.saw("write it", rustix::io::pwrite(&fd, b"more", 3));
    t.saw("chmod it", rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o600)));
    t.saw(
        "chown it",
        rustix::fs::fchown(&fd, Some(rustix::fs::Uid::from_raw(5)), None),
    );
    t.saw(
        "status again",
        rustix::fs::fstat(&fd).map(|stat| (stat.st_mode, stat.st_uid, stat.st_size)),
    );
    t.saw("truncate it", rustix::fs::ftruncate(&fd, 1));
    let dir = t.open("d/e", OFlags::DIRECTORY, 0).unwrap();
    t.saw("rmdir an open directory", rustix::fs::rmdir(t.path("d/e")));
    t.saw(
        "create in it",
        error(rustix::fs::openat(
            &dir,
            "x",
            OFlags::CREATE,
            Mode::from_raw_mode(0o600),
        )),
    );
    t.saw("rmdir", rustix::fs::rmdir(t.path("d")));
    t.list(".");
}

fn long_names(t: &mut Transcript) {
    let (fits, long) = ("n".repeat(255), "n".repeat(256));
    t.saw("255 bytes", error(t.open(&fits, OFlags::CREATE, 0o600)));
    t.saw("256 bytes", error(t.open(&long, OFlags::CREATE, 0o600)));
    t.saw("mkdir", rustix::fs::mkdir(t.path(&long), Mode::empty()));
    t.saw("rename", rustix::fs::rename(t.path(&fits), t.path(&long)));
    for name in [
        "with space",
        "\u{fc}ml\u{e4}ut",
        "new\nline",
        "-dash",
        "...",
        "a:b",
        "back\\slash",
        "*",
        "case",
        "CASE",
    ] {
        t.saw("odd name", error(t.open(name, OFlags::CREATE, 0o600)));
    }
    let raw = std::os::unix::ffi::OsStrExt::as_bytes;
    let bytes: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"not \xff utf-8");
    t.saw("not UTF-8", std::fs::write(t.path(".").join(bytes), b"").is_ok());
    t.saw("its length", raw(bytes).len());
    t.list(".");
}

fn special_files(t: &mut Transcript) {
    let make = |t: &Transcript, name: &str, kind, device| {
        rustix::fs::mknodat(CWD, t.path(name), kind, Mode::from_raw_mode(0o640), device)
    };
    t.saw("pipe", make(t, "pipe", FileType::Fifo, 0));
    t.saw("socket", make(t, "socket", FileType::Socket, 0));
    t.saw(
        "character device",
        make(t, "null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
    );
    t.saw(
        "block device",
        make(
            t,
            "block",
            FileType::BlockDevice,
            rustix::fs::makedev(259, 70_000),
        ),
    );
    t.saw("file", make(t, "file", FileType::RegularFile, 0));
    for name in ["pipe", "socket", "null", "block", "file"] {
        t.stat(name);
        t.saw(
            "chown",
            std::os::unix::fs::chown(t.path(name), Some(70), Some(71)).is_ok(),
        );
        t.saw(
            "chmod",
            rustix::fs::chmod(t.path(name), Mode::from_raw_mode(0o606)),
        );
        t.stat(name);
    }
    let reader = t.open("pipe", OFlags::RDONLY | OFlags::NONBLOCK, 0).unwrap();
    let writer = t.open("pipe", OFlags::WRONLY, 0).unwrap();
    t.saw("write to the pipe", rustix::io::write(&writer, b"through"));
    let mut buffer = [0; 16];
    t.saw(
        "read from it",
        rustix::io::read(&reader, &mut buffer).map(|len| buffer[..len].to_vec()),
    );
    let listener = std::os::unix::net::UnixListener::bind(t.path("bound"));
    t.saw(
        "bind",
        listener.as_ref().map(drop).map_err(std::io::Error::raw_os_error),
    );
    let connected = std::os::unix::net::UnixStream::connect(t.path("bound"));
    t.saw("connect", connected.map(drop).map_err(|e| e.raw_os_error()));
    t.stat("bound");
    t.saw("remove", rustix::fs::unlink(t.path("bound")));
    t.list(".");
}

fn listings(t: &mut Transcript) {
    std::fs::create_dir(t.path("many")).unwrap();
    for number in 0..3000 {
        t.file(&format!("many/{number:05}-{}", "x".repeat(number % 97)), b"");
    }
    t.list("many");
    let entries = std::fs::read_dir(t.path("many")).unwrap();
    let mut removed = 0;
    for entry in entries {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
        removed += 1;
    }
    t.saw("removed while listing", removed);
    t.list("many");
    std::fs::create_dir(t.path("kinds")).unwrap();
    t.file("kinds/file", b"");
    std::fs::create_dir(t.path("kinds/dir")).unwrap();
    std::os::unix::fs::symlink("x", t.path("kinds/link")).unwrap();
    let mut kinds: Vec<_> = std::fs::read_dir(t.path("kinds"))
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.file_name(), entry.file_type().unwrap()))
        .collect();
    kinds.sort_by_key(|(name, _)| name.clone());
    t.saw("kinds", kinds);
    t.saw(
        "list of a file",
        std::fs::read_dir(t.path("kinds/file"))
            .map(drop)
            .map_err(|e| e.raw_os_error()),
    );
}

fn temporary_files(t: &mut Transcript) {
    let fd = t.open(".", OFlags::TMPFILE | OFlags::RDWR, 0o640).unwrap();
    t.saw("write", rustix::io::write(&fd, b"nameless"));
    t.saw(
        "status",
        rustix::fs::fstat(&fd).map(|stat| (stat.st_nlink, stat.st_size, stat.st_mode)),
    );
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let linked = rustix::fs::linkat(CWD, own, CWD, t.path("named"), AtFlags::SYMLINK_FOLLOW);
    t.saw("link", linked);
    t.stat("named");
    t.saw(
        "content",
        std::fs::read(t.path("named")).map_err(|e| e.raw_os_error()),
    );
}

fn sticky(t: &mut Transcript) {
    rustix::fs::mkdir(t.path("tmp"), Mode::from_raw_mode(0o1777)).unwrap();
    let file = t.path("tmp/file");
    as_user(1234, || std::fs::write(&file, b"x").unwrap());
    let moved = t.path("tmp/moved");
    t.saw(
        "another user removes it",
        as_user(4321, || rustix::fs::unlink(&file)),
    );
    t.saw(
        "another user renames it",
        as_user(4321, || rustix::fs::rename(&file, &moved)),
    );
    t.saw(
        "its owner removes it",
        as_user(1234, || rustix::fs::unlink(&file)),
    );
}
