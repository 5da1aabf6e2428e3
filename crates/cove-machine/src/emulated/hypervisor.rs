//! QEMU as a child of the machine process: what it is given, and that its guest runs.

use super::{
    command,
    qemu::Qemu,
    qmp::{Event, Qmp, QmpError},
};
use crate::{
    MachineError, MachineSpec,
    process::{
        lock::Lock,
        spawn::{self, Bond},
    },
};
use rustix::process::Signal;
use serde_json::json;
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{ExitStatus, Stdio},
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::mpsc,
};

/// Bytes of QEMU's standard error that are kept.
pub(super) const MAX_STDERR: usize = 4096;

/// A QEMU that was started.
pub(crate) struct Hypervisor {
    /// The process. It dies with the thread that started it.
    pub(super) child: Child,
    pub(super) qmp: Qmp,
    pub(super) events: mpsc::Receiver<Event>,
    /// The guest's console.
    pub(super) console: ChildStdout,
    pub(super) stderr: ChildStderr,
    pid: u32,
    notices: Vec<String>,
}

impl Hypervisor {
    /// Starts QEMU with its vCPUs stopped. It inherits `locks`. To be called on the main thread, with whose end QEMU
    /// ends.
    pub(crate) fn start(spec: &MachineSpec, qemu: &Qemu, locks: [&Lock; 2]) -> Result<Self, MachineError> {
        let path = &qemu.path;
        let failed = |operation| {
            move |source: io::Error| MachineError::Io {
                operation,
                path: path.clone(),
                source,
            }
        };
        let connect = || -> io::Result<(tokio::net::UnixStream, OwnedFd)> {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            Ok((tokio::net::UnixStream::from_std(ours)?, theirs.into()))
        };
        let (stream, theirs) = connect().map_err(failed("make a control connection to"))?;
        let line = command::command_line(spec, qemu, theirs.as_fd());
        tracing::debug!(program = %path.display(), arguments = ?line.arguments, "starting QEMU");
        let mut command = std::process::Command::new(path);
        command
            .args(&line.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut inherited = vec![theirs];
        for lock in locks {
            inherited.push(lock.share().map_err(failed("pass a lock to"))?);
        }
        spawn::set_up(&mut command, Bond::DiesWithParent, inherited);
        let mut child = Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("start"))?;
        let (Some(pid), Some(console), Some(stderr)) = (child.id(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("start")(io::ErrorKind::BrokenPipe.into()));
        };
        let (qmp, events) = Qmp::open(stream);
        Ok(Self {
            child,
            qmp,
            events,
            console,
            stderr,
            pid,
            notices: line.notices,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What the user should know about how it was started.
    pub(crate) fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Lets the vCPUs run for the first time. Fails with what QEMU says when it could not set the machine up.
    pub(crate) async fn begin(&mut self) -> Result<(), MachineError> {
        match self.qmp.execute("cont", json!({})).await {
            Ok(()) => Ok(()),
            Err(error @ QmpError::Refused { .. }) => Err(MachineError::StartFailed {
                why: error.to_string(),
            }),
            Err(QmpError::Gone) => Err(self.death().await),
        }
    }

    /// Why QEMU ended before its guest ran.
    async fn death(&mut self) -> MachineError {
        // It hung up on us, so that it ends now, or ought to.
        let _ = self.child.start_kill();
        let mut stderr = Vec::new();
        let mut said = (&mut self.stderr).take(MAX_STDERR as u64);
        let (status, _) = tokio::join!(self.child.wait(), said.read_to_end(&mut stderr));
        let why = match &status {
            Ok(status) => format!("QEMU ended ({status})"),
            Err(error) => format!("QEMU cannot be waited for: {error}"),
        };
        let said = String::from_utf8_lossy(&stderr);
        let why = match said.trim() {
            "" => why,
            said => format!("{why}: {said}"),
        };
        if status.as_ref().is_ok_and(|status| has_crashed(*status)) {
            MachineError::Crashed { why }
        } else {
            MachineError::StartFailed { why }
        }
    }
}

/// Whether QEMU ended by a fault of its own: an assertion that failed, or memory that is not there. Emulating several
/// vCPUs it does so once in a great many starts, and not in the next. An error that it tells of is an exit status, and
/// what others end it by is another signal.
pub(super) fn has_crashed(status: ExitStatus) -> bool {
    let signal = status.signal();
    [Signal::ABORT, Signal::SEGV]
        .iter()
        .any(|fault| signal == Some(fault.as_raw()))
}
