//! File locks: those of open files (`flock`, and ranges by `F_OFD_SETLK`) and those of processes (POSIX); and what
//! signals do to those who wait for one.
//!
//! To the kernel the process that owns a POSIX lock is a table of descriptors. A thread that has one of its own is
//! another process as far as locks go, without a second program to start.

// UNSAFETY: no safe wrapper sets locks of ranges, gives a thread a table of descriptors, sets a handler for a signal or
// sends one to a thread.
#![expect(unsafe_code, reason = "raw system calls, see above")]

use std::fs::File;
use std::io;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
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
    /// That of an open file, on all of the file as a range of it.
    Ofd,
}

/// What is done to a process of which one thread waits for a lock, while the other does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbance {
    /// The first thread waits; otherwise the second does.
    pub first_waits: bool,
    /// The thread that waits gets the signal; otherwise the process does, of which the first thread takes it.
    pub to_thread: bool,
    /// What the signal does.
    pub effect: Effect,
}

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It has a handler, after which calls fail.
    Fail,
    /// It has a handler, after which calls begin anew (`SA_RESTART`).
    Restart,
    /// It ends the process.
    Kill,
}

/// The thread that waits, once it is about to.
static WAITER: AtomicI32 = AtomicI32::new(0);
/// How often the handler has run.
static HANDLED: AtomicU32 = AtomicU32::new(0);
/// How long anything may take on a busy computer.
const LONG: Duration = Duration::from_mins(1);
/// How long whoever goes on waiting is watched: longer than it takes to tell somebody of a signal.
const WATCHED: Duration = Duration::from_secs(3);

impl Lock {
    /// By the name that the program's command line has for it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "flock" => Some(Self::Flock),
            "posix" => Some(Self::Posix),
            "ofd" => Some(Self::Ofd),
            _ => None,
        }
    }

    /// Takes the exclusive lock, and waits for it with `waits`.
    fn take(self, file: &File, waits: bool) -> Result<(), Errno> {
        let (operation, command) = if waits {
            (FlockOperation::LockExclusive, libc::F_OFD_SETLKW)
        } else {
            (FlockOperation::NonBlockingLockExclusive, libc::F_OFD_SETLK)
        };
        match self {
            Self::Flock => rustix::fs::flock(file, operation),
            Self::Posix => rustix::fs::fcntl_lock(file, operation),
            Self::Ofd => posix(file, command, libc::F_WRLCK, WHOLE).map(drop),
        }
    }

    /// Waits for the exclusive lock of a file, prints `locked`, and keeps it until the process ends.
    pub fn keep(self, path: &Path) -> std::io::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        self.take(&file, true)?;
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
        match self.take(&file, false) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for the exclusive lock of a file in one of this process's two threads, sends a signal, and prints what
    /// came of the wait: `granted`, `interrupted`, `waits on`, or the number of another error. Where the first thread
    /// waits, the process then ends.
    pub fn disturb(self, path: &Path, disturbance: Disturbance) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        handle(disturbance.effect)?;
        let (ending, ended) = mpsc::channel();
        let wait = move || {
            WAITER.store(own_number(), Ordering::Release);
            // The other one is there for as long as the process is.
            let _ = ending.send(self.take(&file, true));
        };
        let look = move || disturbance.look(&ended);
        if disturbance.first_waits {
            std::thread::Builder::new().spawn(move || {
                let looked = look();
                if let Err(error) = &looked {
                    eprintln!("{error}");
                }
                std::process::exit(i32::from(looked.is_err()))
            })?;
            wait();
            loop {
                std::thread::park();
            }
        }
        std::thread::Builder::new().spawn(wait)?;
        look()
    }
}

impl Disturbance {
    /// Sends the signal and prints what becomes of the wait.
    fn look(self, ended: &Receiver<Result<(), Errno>>) -> io::Result<()> {
        let waiter = eventually("a thread to wait", || {
            let number = WAITER.load(Ordering::Acquire);
            let status = std::fs::read_to_string(format!("/proc/self/task/{number}/status")).ok()?;
            status.contains("\nState:\tS").then_some(number)
        })?;
        let signal = if self.effect == Effect::Kill {
            Signal::KILL
        } else {
            Signal::USR1
        };
        let process = rustix::process::getpid();
        if self.to_thread {
            let process = process.as_raw_nonzero().get();
            // SAFETY: no memory is involved, and the handler may run in any thread.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, waiter, signal.as_raw()) };
            if sent != 0 {
                return Err(io::Error::last_os_error());
            }
        } else {
            rustix::process::kill_process(process, signal)?;
        }
        eventually("the handler to run", || {
            (HANDLED.load(Ordering::Acquire) == 1).then_some(())
        })?;
        let outcome = match ended.recv_timeout(WATCHED) {
            Ok(Ok(())) => "granted".to_owned(),
            Ok(Err(Errno::INTR)) => "interrupted".to_owned(),
            Ok(Err(errno)) => format!("error {}", errno.raw_os_error()),
            Err(_) => "waits on".to_owned(),
        };
        writeln!(std::io::stdout(), "{outcome}")
    }
}

fn own_number() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Release);
}

/// Has the handler called by `SIGUSR1`, unless nobody is to survive the signal.
fn handle(effect: Effect) -> io::Result<()> {
    let flags = match effect {
        Effect::Fail => 0,
        Effect::Restart => libc::SA_RESTART,
        Effect::Kill => return Ok(()),
    };
    // SAFETY: all-zero is a valid value of the structure, with no signal blocked; the handler changes an atomic number
    // and does nothing else.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as *const () as usize;
        action.sa_flags = flags;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut())
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Looks until `probe` finds something.
fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> io::Result<T> {
    let began = Instant::now();
    while began.elapsed() < LONG {
        if let Some(found) = probe() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other(format!("waited in vain for {what}")))
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
