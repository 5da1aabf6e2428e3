//! The porter: makes the namespaces, starts the cell in them, and brings folders into its view.
//!
//! ```text
//!  separate ──▶ start the cell ──▶ one errand after the other ── no more errands ──▶ wait for the cell's end
//!     └─ the host makes no namespaces: says so, and ends
//! ```
//!
//! It has one thread, without which no process can enter another's view, and reads nothing that a guest wrote.

// UNSAFETY: it inherits a descriptor by number, and prepares the cell between fork and exec.
#![expect(
    unsafe_code,
    reason = "an inherited descriptor, and code between fork and exec"
)]

use super::words::{Errand, Part, PorterSaid};
use crate::process::{
    protocol::{decode, encode},
    spawn,
};
use cove_confine::{door::Door, namespaces};
use cove_wire::with_causes;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, FdFlags, fcntl_setfd},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, ExitCode, Stdio},
};

/// Longest errand, in bytes: a path.
const MAX_ERRAND: u64 = 64 << 10;

/// The porter's life. To be called with one thread.
pub(in super::super) fn run(directory: &Path, line: i32, bare: Option<String>) -> ExitCode {
    match live(directory, line, bare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error leads to the machine process's log.
            tracing::error!(%error, "the porter failed");
            ExitCode::FAILURE
        }
    }
}

fn live(directory: &Path, line: i32, bare: Option<String>) -> io::Result<()> {
    // SAFETY: whoever started this process left the descriptor open for it, and nothing else in it knows of it.
    let line = unsafe { OwnedFd::from_raw_fd(line) };
    fcntl_setfd(&line, FdFlags::CLOEXEC)?;
    let mut errands = UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let is_bare = bare.is_some();
    if !is_bare && let Err(error) = namespaces::separate() {
        return say(&mut errands, &PorterSaid::NoNamespaces(with_causes(&error)));
    }
    let mut cell = start(directory, line, bare)?;
    say(&mut errands, &PorterSaid::Started(cell.id()))?;
    let mut lines = BufReader::new(errands.try_clone()?);
    let life = pidfd_open(Pid::from_child(&cell), PidfdFlags::empty())?;
    let mut door = None;
    loop {
        if lines.buffer().is_empty() && !is_errand(&errands, &life)? {
            break;
        }
        let mut text = String::new();
        if (&mut lines).take(MAX_ERRAND).read_line(&mut text)? == 0 {
            break;
        }
        let done = if is_bare {
            Err("there is no view to bring it into".into())
        } else {
            decode(&text).and_then(|errand| run_errand(&errand, &mut door, cell.id()))
        };
        say(&mut errands, &PorterSaid::Done(done))?;
    }
    // Nobody wants anything any more, or the cell has ended. If not, it does when its guest has, and otherwise is made
    // to by its conversation's end or by this process's.
    let status = cell.wait()?;
    if !status.success() {
        tracing::error!(%status, "the process that faced the guest ended badly");
    }
    Ok(())
}

/// Waits for an errand, or the end of all; false when the cell has ended first.
fn is_errand(errands: &UnixStream, life: &OwnedFd) -> io::Result<bool> {
    let mut fds = [
        PollFd::new(errands, PollFlags::IN),
        PollFd::new(life, PollFlags::IN),
    ];
    while let Err(error) = poll(&mut fds, None) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    Ok(fds[1].revents().is_empty())
}

/// Starts the cell. It inherits the locks that this process has inherited, and the signals that are blocked.
fn start(directory: &Path, line: OwnedFd, bare: Option<String>) -> io::Result<Child> {
    let has_namespaces = bare.is_none();
    let mut command = super::again(directory, &Part::Cell { bare });
    command.stdin(Stdio::from(line));
    let prepare = move || {
        spawn::die_with_parent_outside()?;
        if has_namespaces {
            namespaces::keep_for_the_cell()?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls that are async-signal-safe.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

fn run_errand(errand: &Errand, door: &mut Option<Door>, cell: u32) -> Result<(), String> {
    // Not before the first errand: by then the cell has its view.
    let door = match door {
        Some(door) => door,
        None => door.insert(Door::to(cell).map_err(|error| with_causes(&error))?),
    };
    match errand {
        Errand::Mount {
            slot,
            path,
            read_only,
        } => door.mount(*slot, path, *read_only),
        Errand::Unmount { slot } => door.unmount(*slot),
    }
    .map_err(|error| with_causes(&error))
}

fn say(stream: &mut UnixStream, said: &PorterSaid) -> io::Result<()> {
    writeln!(stream, "{}", encode(said))
}
