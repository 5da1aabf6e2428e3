//! What is tried.

// UNSAFETY: an intruder is not held back by safe wrappers.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Error, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use cove_confine::ring::FILE;
use cove_confine::seccomp::{Thread, enter};
use cove_confine::view::slot;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ftruncate, linkat, mkdirat, mknodat, openat, renameat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

/// Enters the guest.
const KVM_RUN: libc::c_ulong = 0xae80;
/// Has the guest see memory of this process.
const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;

/// Says in which namespace of control groups a process is.
pub(crate) const CGROUPS: &str = "/proc/self/ns/cgroup";
/// The variable that says the same of the host.
pub(crate) const HOSTS_CGROUPS: &str = "HOSTS_CGROUPS";

/// Makes an attempt, with a disk's ring where this computer has any; says what came of it.
pub(crate) fn attempt(name: &str, place: &Path, folder: &Path, ring: Option<IoUring>) -> String {
    let made = match name {
        "read_item" => read(&place.join("kernel")),
        "write_disk" => write(&place.join("disk")),
        "socket" => socket(place),
        "use_folder" => use_folder(folder),
        "reopen" => reopen(folder),
        "thread" => std::thread::Builder::new().spawn(|| {}).map(drop),
        "read_passwd" => read("/etc/passwd".as_ref()),
        "read_secret" => read(&place.join("secret")),
        "write_item" => write(&place.join("kernel")),
        "unlink_item" => std::fs::remove_file(place.join("kernel")),
        "command" => UnixStream::connect(place.join("run/command.sock")).map(drop),
        "remove_command" => std::fs::remove_file(place.join("run/command.sock")),
        "climb" => read(&folder.join("../../../../etc/passwd")),
        "follow_link" => read(&folder.join("link")),
        "write_read_only" => write(&slot(1).join("word")),
        "make_beside" => std::fs::create_dir(folder.join("../more")),
        "device" => device(folder),
        "execute" => Err(execute(&folder.join("program"))),
        "execute_true" => Err(execute("/bin/true".as_ref())),
        "trace" => raw(|| {
            // SAFETY: this request takes no memory.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }
        }),
        "mount" => rustix::mount::mount("x", "/proc", "tmpfs", rustix::mount::MountFlags::empty(), None)
            .map_err(Into::into),
        "namespace" => raw(|| {
            // SAFETY: it takes no memory.
            unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()
        }),
        "by_handle" => raw(|| {
            // SAFETY: the kernel checks the address.
            unsafe { libc::syscall(libc::SYS_open_by_handle_at, -1, 0, 0) }
        }),
        "fork" => raw(|| {
            // SAFETY: the child, if there is one, ends at once.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                std::process::exit(0);
            }
            pid.into()
        }),
        "signal" => match Pid::from_raw(2) {
            Some(other) => rustix::process::kill_process(other, Signal::HUP).map_err(Into::into),
            None => Ok(()),
        },
        "become_root" => raw(|| {
            // SAFETY: it takes no memory.
            unsafe { libc::setuid(0) }.into()
        }),
        "rename_host" => raw(|| {
            // SAFETY: the name is as long as is said.
            unsafe { libc::sethostname(c"x".as_ptr(), 1) }.into()
        }),
        "executable_memory" => raw(|| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let access = libc::PROT_READ | libc::PROT_EXEC;
            // SAFETY: a new mapping where nothing is.
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) as i64 }
        }),
        "control" => raw(|| {
            // SAFETY: the kernel checks the address.
            unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) }.into()
        }),
        "segment" => key(place).and_then(|key| {
            raw(|| {
                // SAFETY: it takes no memory.
                unsafe { libc::shmget(key, 0, 0) }.into()
            })
        }),
        "cgroups" => control_groups(),
        "core" => core(),
        "lock_memory" => raw(|| {
            let page = [0_u8; 1];
            // SAFETY: the byte is there as long as the call takes, and a lock on its page lets nobody else see it.
            unsafe { libc::mlock(page.as_ptr().cast(), page.len()) }.into()
        }),
        "queue" => raw(|| {
            let none = std::ptr::null_mut::<libc::mq_attr>();
            // SAFETY: the name ends in NUL, and without attributes the queue has the usual ones.
            unsafe { libc::mq_open(c"/break-out".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600, none) }.into()
        }),
        "renounced" => match rustix::thread::no_new_privs() {
            Ok(true) => Ok(()),
            other => Err(Error::other(format!("{other:?}"))),
        },
        "dumpable" => match rustix::process::dumpable_behavior() {
            Ok(rustix::process::DumpableBehavior::NotDumpable) => Ok(()),
            other => Err(Error::other(format!("{other:?}"))),
        },
        "internet" => std::net::TcpStream::connect("127.0.0.1:9").map(drop),
        "datagram" => UdpSocket::bind("0.0.0.0:0")
            .and_then(|socket| socket.send_to(b"x", "127.0.0.1:9"))
            .map(drop),
        "abstract" => SocketAddr::from_abstract_name(place.as_os_str().as_bytes())
            .and_then(|address| UnixStream::connect_addr(&address))
            .map(drop),
        "vcpu_opens" => within(Thread::Vcpu, || File::open("/proc/self/status").map(drop)),
        "vcpu_starts" => within(Thread::Vcpu, || {
            std::thread::Builder::new().spawn(|| {}).map(drop)
        }),
        "vcpu_connects" => within(Thread::Vcpu, || UnixStream::pair().map(drop)),
        "vcpu_enters" => within(Thread::Vcpu, || control(KVM_RUN)),
        "vcpu_maps" => within(Thread::Vcpu, || control(KVM_SET_USER_MEMORY_REGION)),
        "connections_ask" => within(Thread::Connections, || {
            let (stream, _other) = UnixStream::pair()?;
            stream.set_nonblocking(true)?;
            Ok(rustix::io::ioctl_fionread(&stream).map(drop)?)
        }),
        "disk_opens" => within(Thread::Disk, || File::open("/proc/self/status").map(drop)),
        "disk_starts" => beneath(Thread::Disk, || Ok(())),
        "disk_starts_one_that_opens" => beneath(Thread::Disk, || File::open("/proc/self/status").map(drop)),
        "disk_aborts" => within(Thread::Disk, || std::process::abort()),
        "ring_reads" => through(ring, Thread::Disk, &reading(None)),
        "ring_reads_another" => through(ring, Thread::Disk, &reading(Some(Fd(0)))),
        "ring_opens" => {
            let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/proc/self/status".as_ptr()).build();
            through(ring, Thread::Disk, &open)
        }
        "ring_connects" => {
            let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build();
            through(ring, Thread::Disk, &socket)
        }
        "ring_of_a_vcpu" => through(ring, Thread::Vcpu, &reading(None)),
        "ring_gets_a_file" => match ring {
            Some(ring) => ring.submitter().register_files(&[0]),
            None => Err(Error::other("there is no ring")),
        },
        "make_ring" => IoUring::new(1).map(drop),
        "connections_open" => within(Thread::Connections, || File::open("/proc/self/status").map(drop)),
        "entropy_opens" => within(Thread::Entropy, || File::open("/proc/self/status").map(drop)),
        "balloon_opens" => within(Thread::Balloon, || File::open("/proc/self/status").map(drop)),
        "files_use" => {
            let folder = folder.to_owned();
            within(Thread::Files, move || use_folder(&folder))
        }
        "files_connect" => within(Thread::Files, || UnixStream::pair().map(drop)),
        other => Err(Error::other(format!("what is {other}?"))),
    };
    match made {
        Ok(()) => "ok".into(),
        Err(error) => named(&error),
    }
}

fn named(error: &Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::ENOENT) => "ENOENT",
        Some(libc::EACCES) => "EACCES",
        Some(libc::EPERM) => "EPERM",
        Some(libc::EROFS) => "EROFS",
        Some(libc::EBUSY) => "EBUSY",
        Some(libc::EMFILE) => "EMFILE",
        Some(libc::ENOMEM) => "ENOMEM",
        Some(libc::ESRCH) => "ESRCH",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::ENOTTY) => "ENOTTY",
        // Not there, or not for us: whichever the kernel looks at first.
        Some(libc::ECONNREFUSED) => "refused",
        _ => return error.to_string(),
    };
    name.into()
}

fn raw(call: impl FnOnce() -> i64) -> io::Result<()> {
    if call() == -1 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Calls a control of KVM's on what is no machine.
fn control(number: libc::c_ulong) -> io::Result<()> {
    raw(|| {
        // SAFETY: the kernel checks the address.
        unsafe { libc::ioctl(0, number, 0) }.into()
    })
}

/// By which a segment of shared memory is found that belongs to a place: the same within the view.
pub(crate) fn key(place: &Path) -> io::Result<libc::key_t> {
    let path = CString::new(place.join("kernel").as_os_str().as_bytes())?;
    // SAFETY: the path ends in NUL.
    match unsafe { libc::ftok(path.as_ptr(), 1) } {
        -1 => Err(Error::last_os_error()),
        key => Ok(key),
    }
}

/// Does something in a thread of a kind.
fn within(kind: Thread, what: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().spawn(move || {
        enter(kind);
        what()
    })?;
    came_of(thread)
}

/// Does something in a thread that one of a kind starts, as a disk's does for its ring.
fn beneath(kind: Thread, what: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    within(kind, || {
        let thread = std::thread::Builder::new().name("beneath".into()).spawn(what)?;
        came_of(thread)
    })
}

fn came_of(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::other("it panicked")))
}

/// To read into memory that is there for ever: from the ring's file, or from another descriptor.
fn reading(another: Option<Fd>) -> squeue::Entry {
    let buffer = Box::leak(Box::new([0u8; 4]));
    let slice = Box::leak(Box::new(libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    }));
    match another {
        None => opcode::Readv::new(FILE, slice, 1).build(),
        Some(another) => opcode::Readv::new(another, slice, 1).build(),
    }
}

/// Does one thing by the ring, in a thread of a kind.
fn through(ring: Option<IoUring>, kind: Thread, entry: &squeue::Entry) -> io::Result<()> {
    let mut ring = ring.ok_or_else(|| Error::other("there is no ring"))?;
    let entry = entry.clone();
    within(kind, move || {
        // SAFETY: whatever memory it takes is there for ever.
        unsafe { ring.submission().push(&entry) }.map_err(Error::other)?;
        ring.submit_and_wait(1)?;
        let done = ring.completion().next();
        match done.map(|done| done.result()) {
            Some(error @ ..0) => Err(Error::from_raw_os_error(-error)),
            Some(_) => Ok(()),
            None => Err(Error::other("nothing has ended")),
        }
    })
}

fn read(path: &Path) -> io::Result<()> {
    File::open(path)?.read_to_end(&mut Vec::new()).map(drop)
}

fn write(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(b"written")
}

fn socket(place: &Path) -> io::Result<()> {
    let path = place.join("run/new.sock");
    let listener = UnixListener::bind(&path)?;
    let _client = UnixStream::connect(&path)?;
    listener.accept()?;
    std::fs::remove_file(path)
}

/// What containers do in a folder all the time, by the calls that the file server makes of it.
fn use_folder(folder: &Path) -> io::Result<()> {
    let dir = File::open(folder)?;
    let create = OFlags::CREATE | OFlags::WRONLY;
    rustix::io::write(openat(&dir, "new", create, Mode::RWXU)?, b"text")?;
    renameat(&dir, "new", &dir, "sub/renamed")?;
    linkat(&dir, "sub/renamed", &dir, "again", AtFlags::empty())?;
    symlinkat("again", &dir, "symlink")?;
    ftruncate(openat(&dir, "symlink", OFlags::WRONLY, Mode::empty())?, 2)?;
    mkdirat(&dir, "directory", Mode::RWXU)?;
    unlinkat(&dir, "directory", AtFlags::REMOVEDIR)?;
    mknodat(&dir, "pipe", FileType::Fifo, Mode::RWXU, 0)?;
    match rustix::fs::ioctl_getflags(&dir) {
        // There are file systems without such flags.
        Ok(_) | Err(Errno::NOTTY | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let names = std::fs::read_dir(folder)?.count();
    unlinkat(&dir, "again", AtFlags::empty())?;
    if names < 6 {
        return Err(Error::other(format!("{names} names")));
    }
    Ok(())
}

fn reopen(folder: &Path) -> io::Result<()> {
    let file = File::open(folder.join("word"))?;
    std::fs::remove_file(folder.join("word"))?;
    write(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())
}

fn device(folder: &Path) -> io::Result<()> {
    let null = rustix::fs::makedev(1, 3);
    Ok(mknodat(
        CWD,
        folder.join("null"),
        FileType::CharacterDevice,
        Mode::RWXU,
        null,
    )?)
}

fn execute(program: &Path) -> Error {
    use std::os::unix::process::CommandExt as _;
    std::process::Command::new(program).exec()
}

/// Succeeds where the control groups that this process names are the host's.
fn control_groups() -> io::Result<()> {
    let own = std::fs::read_link(CGROUPS)?;
    if std::env::var_os(HOSTS_CGROUPS).is_some_and(|hosts| own.as_os_str() == hosts) {
        Ok(())
    } else {
        Err(Error::other("others"))
    }
}

fn core() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let some = Some(1 << 20);
    let limit = Rlimit {
        current: some,
        maximum: some,
    };
    Ok(setrlimit(Resource::Core, limit)?)
}
