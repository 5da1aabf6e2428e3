//! What is left of a machine whose process is gone: processes to end, sockets to remove, an account to complete.

use super::{
    console,
    lock::Lock,
    record::{self, Processes},
};
use crate::{Exit, ExitCause, MachineError, sockets};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long killed processes may take to be gone. Longer than a disk takes to swallow what it was given.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The guest's console, within the machine's directory.
pub(crate) fn console_path(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

/// Whether no process holds the machine's lock.
pub(crate) fn is_free(directory: &Path) -> Result<bool, MachineError> {
    match Lock::take(directory) {
        Ok(_) => Ok(true),
        Err(MachineError::Locked { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends what still runs of the machine, removes its sockets, and returns how it ended: by its own account if it left
/// one, by `cause` otherwise; nothing if no machine has run here. Blocks until its processes are gone.
pub(crate) fn clear(
    directory: &Path,
    runtime: &Path,
    cause: ExitCause,
) -> Result<Option<Exit>, MachineError> {
    let lock = take_by_force(directory)?;
    let ran = record::read::<Processes>(directory).map_or(true, |processes| processes.is_some());
    let account = record::read::<Exit>(directory).unwrap_or_else(|error| {
        tracing::warn!(%error, "the account of the machine's end is damaged");
        None
    });
    let exit = account.or_else(|| {
        ran.then(|| Exit {
            cause,
            console_tail: console::tail_of_file(&console_path(directory)),
        })
    });
    if let Some(exit) = &exit {
        record::write(directory, exit)?;
    }
    record::remove::<Processes>(directory)?;
    sockets::remove_left_over(runtime);
    drop(lock);
    Ok(exit)
}

/// Takes the lock, from its holders if need be.
fn take_by_force(directory: &Path) -> Result<Lock, MachineError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match Lock::take(directory) {
            Err(MachineError::Locked { .. }) if Instant::now() < deadline => {}
            result => return result,
        }
        // A machine process that died just now takes the hypervisor along; this is for the cases in which it lives.
        if let Ok(Some(processes)) = record::read::<Processes>(directory) {
            for process in std::iter::once(&processes.process).chain(&processes.hypervisor) {
                if process.is_alive() {
                    tracing::warn!(pid = process.pid, "ending a left-over process");
                    if let Err(error) = process.kill() {
                        tracing::warn!(pid = process.pid, %error, "cannot end a left-over process");
                    }
                }
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{
        identity::ProcessId,
        spawn::{self, Bond},
    };
    use std::process::{Child, Command};

    /// A process that holds the lock, as a hypervisor does.
    fn holder(directory: &Path) -> (Child, ProcessId) {
        let lock = Lock::take(directory).unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        spawn::set_up(&mut command, Bond::DiesWithParent, vec![lock.share().unwrap()]);
        let child = command.spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        (child, id)
    }

    fn dead() -> ProcessId {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        id
    }

    #[test]
    fn a_hypervisor_that_lost_its_supervisor_is_ended_and_accounted_for() {
        let root = tempfile::tempdir().unwrap();
        let (mut child, hypervisor) = holder(root.path());
        let processes = Processes {
            process: dead(),
            hypervisor: Some(hypervisor),
        };
        record::write(root.path(), &processes).unwrap();
        std::fs::write(console_path(root.path()), "last words\n").unwrap();
        assert!(!is_free(root.path()).unwrap());
        let exit = clear(root.path(), root.path(), ExitCause::Vanished)
            .unwrap()
            .unwrap();
        assert_eq!(
            (exit.cause, exit.console_tail),
            (ExitCause::Vanished, vec!["last words".to_owned()])
        );
        assert!(!child.wait().unwrap().success());
        assert!(is_free(root.path()).unwrap());
    }

    #[test]
    fn a_machines_own_account_of_its_end_stands() {
        let root = tempfile::tempdir().unwrap();
        let exit = Exit {
            cause: ExitCause::PoweredOff,
            console_tail: Vec::new(),
        };
        record::write(root.path(), &exit).unwrap();
        assert_eq!(
            clear(root.path(), root.path(), ExitCause::Vanished).unwrap(),
            Some(exit)
        );
    }

    #[test]
    fn where_no_machine_has_run_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(
            clear(root.path(), root.path(), ExitCause::Vanished).unwrap(),
            None
        );
    }
}
