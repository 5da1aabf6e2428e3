//! File locks: those of open files (`flock`) and those of processes (POSIX).
//!
//! To the kernel the process that owns a POSIX lock is a table of descriptors. A thread that has one of its own is
//! another process as far as locks go, without a second program to start.

// UNSAFETY: no safe wrapper sets locks of ranges, or gives a thread a table of descriptors.
#![expect(unsafe_code, reason = "raw system calls, see above")]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::Scenario;
use crate::transcript::Transcript;

pub(super) const SCENARIOS: &[Scenario] = &[("locks", of_files), ("locks-of-processes", of_processes)];

/// Which kind of lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// That of an open file.
    Flock,
    /// That of a process, on all of the file.
    Posix,
}

impl Lock {
    /// By the name that the program's command line has for it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "flock" => Some(Self::Flock),
            "posix" => Some(Self::Posix),
            _ => None,
        }
    }

    fn apply(self, file: &File, operation: FlockOperation) -> Result<(), Errno> {
        match self {
            Self::Flock => rustix::fs::flock(file, operation),
            Self::Posix => rustix::fs::fcntl_lock(file, operation),
        }
    }

    /// Waits for the exclusive lock of a file, prints `locked`, and keeps it until the process ends.
    pub fn keep(self, path: &Path) -> std::io::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        self.apply(&file, FlockOperation::LockExclusive)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "locked")?;
        out.flush()?;
        loop {
            std::thread::park();
        }
    }

    /// Whether nobody has the file locked at this moment.
    pub fn is_free(self, path: &Path) -> std::io::Result<bool> {
        let file = File::options().read(true).write(true).open(path)?;
        match self.apply(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn of_files(t: &mut Transcript) {
    t.file("f", b"x");
    let (one, two) = (
        t.open("f", OFlags::RDWR, 0).unwrap(),
        t.open("f", OFlags::RDWR, 0).unwrap(),
    );
    let flock = |fd: &dyn AsFd, operation| rustix::fs::flock(fd.as_fd(), operation);
    t.saw("flock", flock(&one, FlockOperation::NonBlockingLockExclusive));
    t.saw("against it", flock(&two, FlockOperation::NonBlockingLockShared));
    t.saw("unlock", flock(&one, FlockOperation::Unlock));
    t.saw("free", flock(&two, FlockOperation::NonBlockingLockShared));
    t.saw("shared", flock(&one, FlockOperation::NonBlockingLockShared));
    drop(two);
    t.saw("upgrade", flock(&one, FlockOperation::NonBlockingLockExclusive));
}

/// From the first byte, and how many; 0 for all that follow.
type Range = (i64, i64);

const WHOLE: Range = (0, 0);

fn of_processes(t: &mut Transcript) {
    t.file("f", b"x");
    let path = t.path("f");
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let set = |file: &File, kind, range| posix(file, libc::F_SETLK, kind, range).map(drop);
    let (one, two) = (open(), open());
    t.saw("lock", set(&one, libc::F_WRLCK, (5, 10)));
    t.saw(
        "once more by another descriptor",
        set(&two, libc::F_WRLCK, (5, 10)),
    );
    let seen = as_another_process(|| {
        let file = open();
        let stolen = set(&file, libc::F_WRLCK, (6, 1));
        let beside = set(&file, libc::F_WRLCK, (0, 3));
        let found = posix(&file, libc::F_GETLK, libc::F_WRLCK, WHOLE);
        let found = found.map(|lock| (lock.l_type, lock.l_whence, lock.l_start, lock.l_len));
        (stolen, beside, found)
    });
    t.saw("one within, one beside, and what stands against all", seen);
    // Whichever descriptor of the file a process closes, all of its locks on it go.
    drop(two);
    t.saw(
        "free after any close",
        as_another_process(|| set(&open(), libc::F_WRLCK, WHOLE)),
    );

    t.saw("to share", set(&one, libc::F_RDLCK, WHOLE));
    let seen = as_another_process(|| {
        let file = open();
        let reads = set(&file, libc::F_RDLCK, WHOLE);
        (reads, set(&file, libc::F_WRLCK, WHOLE))
    });
    t.saw("another reads, and does not write", seen);

    t.saw("not to share", set(&one, libc::F_WRLCK, WHOLE));
    let (waiting, seen) = mpsc::channel();
    std::thread::scope(|scope| {
        let open = &open;
        scope.spawn(move || {
            as_another_process(|| {
                let file = open();
                waiting.send("waiting".to_owned()).unwrap();
                let granted = posix(&file, libc::F_SETLKW, libc::F_WRLCK, WHOLE).map(drop);
                waiting.send(format!("granted: {granted:?}")).unwrap();
            });
        });
        t.saw("another begins to wait", seen.recv());
        let early = seen.recv_timeout(Duration::from_millis(100));
        t.saw("it waits", early.is_err());
        t.saw("letting go", set(&one, libc::F_UNLCK, WHOLE));
        t.saw("it is granted", seen.recv());
    });
}

/// Sets or looks for a POSIX lock.
fn posix(
    file: &File,
    command: libc::c_int,
    kind: libc::c_int,
    (start, len): Range,
) -> Result<libc::flock, Errno> {
    // SAFETY: all-zero is a valid value of this structure of integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).unwrap();
    (lock.l_start, lock.l_len) = (start, len);
    // SAFETY: `lock` is a valid structure of the type that these commands take and fill in.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap());
    }
    Ok(lock)
}

/// Runs `act` as another process would run it, where POSIX locks are concerned.
fn as_another_process<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the table is a copy, and `act` uses the descriptors alone that it opens itself.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }.unwrap();
            act()
        });
        thread.join().unwrap()
    })
}
