//! A porter and a cell as the machine process has them, around one attempt.

// UNSAFETY: the standard library takes code between fork and exec as unsafe only, and nobody wraps System V's memory.
#![expect(
    unsafe_code,
    reason = "the cell keeps capabilities across exec; shared memory has no safe wrapper"
)]
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use cove_confine::door::Door;
use cove_confine::landlock::{self, Folders};
use cove_confine::view::{Access, Item, View};
use cove_confine::{Hold, limits, namespaces, ring, seccomp};
use io_uring::IoUring;
use tempfile::TempDir;

use crate::attempts;

/// Who tries, where root runs the tests.
const NOBODY: u32 = 65534;

/// Copies this program to where an ordinary user can read it, wherever the build is. Before there are threads: what a process
/// has open to write cannot be executed, and one that another thread starts has it open for a moment.
pub(crate) fn copy_program() -> std::io::Result<(TempDir, PathBuf)> {
    let place = tempfile::tempdir()?;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755))?;
    let program = place.path().join("program");
    std::fs::copy(std::env::current_exe()?, &program)?;
    Ok((place, program))
}

/// Runs one attempt: `ok`, the name of an error, or that of the signal that ended it.
pub(crate) fn run(program: &Path, layers: &str, attempt: &str) -> std::io::Result<String> {
    let place = tempfile::tempdir()?;
    let root = place.path();
    lay_out(root)?;
    let _command = UnixListener::bind(root.join("run/command.sock"))?;
    let address = SocketAddr::from_abstract_name(root.as_os_str().as_bytes())?;
    let _abstract = UnixListener::bind_addr(&address)?;
    let as_root = rustix::process::geteuid().is_root();
    if as_root {
        open_to_all(root)?;
    }
    let _segment = (attempt == "segment").then(|| Segment::new(root)).transpose()?;
    let mut command = Command::new(program);
    command.args(["porter", root.to_str().unwrap(), layers, attempt]);
    command.env(attempts::HOSTS_CGROUPS, std::fs::read_link(attempts::CGROUPS)?);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if as_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Shared memory of the host's that anybody may use who finds it.
struct Segment(libc::c_int);

impl Segment {
    fn new(root: &Path) -> std::io::Result<Self> {
        let key = attempts::key(root)?;
        // SAFETY: it takes no memory.
        match unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) } {
            -1 => Err(std::io::Error::last_os_error()),
            segment => Ok(Self(segment)),
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: this control takes no memory.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

fn lay_out(root: &Path) -> std::io::Result<()> {
    for directory in ["machine", "run", "folder/sub", "read-only"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    for file in ["kernel", "disk", "secret", "folder/word", "read-only/word"] {
        std::fs::write(root.join(file), "word")?;
    }
    std::fs::write(root.join("folder/program"), "#!/bin/true\n")?;
    std::fs::set_permissions(
        root.join("folder/program"),
        std::fs::Permissions::from_mode(0o755),
    )?;
    symlink("/etc/passwd", root.join("folder/link"))
}

/// Hands everything at `path` to the user who tries.
fn open_to_all(path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}

fn view(place: &Path) -> View {
    let item = |name: &str, access| Item {
        path: place.join(name),
        access,
    };
    View {
        items: vec![
            item("kernel", Access::Read),
            item("disk", Access::Write),
            item("run", Access::Sockets),
        ],
        hidden: vec![place.join("run/command.sock")],
    }
}

/// The process that starts the cell and shares two folders with it.
pub(crate) fn porter(place: &Path, layers: &str, attempt: &str) -> ExitCode {
    let bare = layers == "bare";
    if !bare {
        namespaces::separate().unwrap();
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(["cell", place.to_str().unwrap(), layers, attempt]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if !bare {
        // SAFETY: it only makes system calls.
        unsafe { command.pre_exec(|| Ok(namespaces::keep_for_the_cell()?)) };
    }
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    if !bare {
        let door = Door::to(child.id()).unwrap();
        door.mount(0, &place.join("folder"), false).unwrap();
        door.mount(1, &place.join("read-only"), true).unwrap();
        // One that comes and goes.
        door.mount(2, &place.join("folder"), false).unwrap();
        door.unmount(2).unwrap();
        assert!(
            door.mount(3, &place.join("kernel"), false).is_err(),
            "it is no folder"
        );
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut outcome = String::new();
    stdout.read_to_string(&mut outcome).unwrap();
    println!("{}", ended(child, outcome.trim()));
    ExitCode::SUCCESS
}

fn ended(mut child: Child, outcome: &str) -> String {
    match child.wait().unwrap().signal() {
        Some(libc::SIGSYS) => "SIGSYS".into(),
        Some(signal) => format!("signal {signal}"),
        None => outcome.to_owned(),
    }
}

/// A ring for the disk at `path`, as its device makes it.
fn ring_of(path: &Path) -> std::io::Result<IoUring> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    ring::of_disk(file.as_fd(), true, 8)
}

/// Whether there is an ordinary user to try as: there are user namespaces that have none but root.
pub(crate) fn has_ordinary_user() -> bool {
    !rustix::process::geteuid().is_root()
        || tempfile::tempdir().is_ok_and(|place| chown(place.path(), Some(NOBODY), None).is_ok())
}

/// Whether this computer lets its programs have rings.
pub(crate) fn has_rings() -> bool {
    let file = tempfile::NamedTempFile::new();
    file.is_ok_and(|file| ring_of(file.path()).is_ok())
}

/// The process that confines itself and tries.
pub(crate) fn cell(place: &Path, layers: &str, attempt: &str) -> ExitCode {
    let view = view(place);
    let bare = layers == "bare";
    let mut told = Vec::new();
    if !bare {
        told.push(view.enter(&place.join("machine")).unwrap());
        told.extend(namespaces::layers());
    }
    let folders = if bare { Folders::Anywhere } else { Folders::Slots };
    told.push(landlock::restrict(&view.items, folders).unwrap());
    let ring = ring_of(&place.join("disk")).ok();
    told.extend(limits::give_up().unwrap());
    if layers == "all" {
        told.push(seccomp::arm().unwrap());
        assert!(told.iter().all(|layer| layer.hold == Hold::Whole), "{told:?}");
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let folder = if bare {
        place.join("folder")
    } else {
        cove_confine::view::slot(0)
    };
    println!("{}", attempts::attempt(attempt, place, &folder, ring));
    ExitCode::SUCCESS
}
