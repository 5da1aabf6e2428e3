//! Why a machine did not start or did not live, and what that means to a person.

use crate::{file, settings::SettingsError};
use cove_api::{ApiError, ErrorCode};
use cove_image::ImageError;
use cove_machine::{ExitCause, MachineError};
use cove_wire::{VersionMismatch, with_causes};
use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::agent::CallError;

/// Why a machine did not start or did not live.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The image cannot be used.
    #[error("{}", chain(.0))]
    Image(#[from] ImageError),
    /// The host failed an operation on one of the machine's files.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The host's disk has no space for a machine to work with.
    #[error("only {} are free on the disk that {} is on", cove_api::size::about(*.free), path.display())]
    NoSpace { path: PathBuf, free: u64 },
    /// The backend failed.
    #[error("{}", chain(.0))]
    Backend(#[from] MachineError),
    /// The guest's agent never answered.
    #[error("the guest did not come up within {} seconds{}", .after.as_secs(), because(.why.as_deref()))]
    Silent {
        after: Duration,
        /// Why the last conversation with it ended, if there was one.
        why: Option<String>,
    },
    /// The guest's agent speaks another protocol.
    #[error("the image's agent cannot be talked to: {0}")]
    Protocol(VersionMismatch),
    /// A machine that an earlier daemon started goes on, and cannot be talked to.
    #[error("the machine that an earlier daemon started goes on, and cannot be taken over: {0}")]
    NotTakenOver(Box<Self>),
    /// The guest could not finish its boot.
    #[error("the guest could not finish its boot: {0}")]
    Boot(CallError),
    /// The engine did not come up.
    #[error("the Docker engine did not come up within {} seconds{}", .after.as_secs(), because(.why.as_deref()))]
    EngineSilent { after: Duration, why: Option<String> },
    /// The engine ends by itself, however often it is started.
    #[error("the Docker engine does not stay up: {why}")]
    EngineEnds {
        /// How it ended the last time, in its own words.
        why: String,
    },
    /// The machine ended without being asked.
    #[error("{}", exited(.0))]
    Exited(ExitCause),
    /// Somebody stopped it meanwhile.
    #[error("the start was cancelled")]
    Cancelled,
    /// The task that did it is gone.
    #[error("the daemon failed in an unforeseen way: {0}")]
    Unforeseen(String),
}

impl Failure {
    /// Attaches what was done, and to which file.
    pub(super) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the machine is of use although it is not up: to stop it in order, or to look into it.
    pub(super) fn leaves_something_to_look_into(&self) -> bool {
        matches!(
            self,
            Self::Cancelled
                | Self::Boot(_)
                | Self::EngineSilent { .. }
                | Self::EngineEnds { .. }
                | Self::NotTakenOver(_)
        )
    }

    /// Whether a machine goes on with its containers that this daemon cannot ask to stop.
    pub(super) fn leaves_it_out_of_reach(&self) -> bool {
        matches!(
            self,
            Self::NotTakenOver(_) | Self::Backend(MachineError::Foreign { .. } | MachineError::Locked { .. })
        )
    }

    /// Whether nobody could be talked to in the guest, whatever it does otherwise.
    pub(super) fn is_of_the_conversation(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Protocol(_))
    }

    /// Whether another hypervisor might not have failed like this. Where the host's disk is `full`, any of them would.
    pub(super) fn may_be_the_hypervisors(&self, full: bool) -> bool {
        !full
            && matches!(
                self,
                Self::Silent { .. }
                    | Self::Exited(
                        ExitCause::HypervisorDied { .. }
                            | ExitCause::CellPanicked { .. }
                            | ExitCause::GuestPanicked { .. }
                            | ExitCause::Vanished
                    )
                    | Self::Backend(MachineError::StartFailed { .. } | MachineError::Crashed { .. })
            )
    }

    /// Whether the hypervisor came down by a fault of its own, which it may not have a second time.
    pub(super) fn is_a_crash(&self) -> bool {
        matches!(
            self,
            Self::Exited(ExitCause::HypervisorDied { crashed: true, .. })
                | Self::Backend(MachineError::Crashed { .. })
        )
    }

    /// Whether the machine's own disk is full. Of programs in the guest there are words alone, which are the system's.
    fn is_of_a_full_guest(&self) -> bool {
        let words = match self {
            Self::Boot(CallError::Fault(fault)) => &fault.message,
            Self::EngineSilent { why: Some(why), .. } | Self::EngineEnds { why } => why,
            _ => return false,
        };
        words.to_ascii_lowercase().contains("no space left on device")
    }

    /// What the API says of it. `full` is whether the host's disk is: then that is most likely the reason.
    pub(crate) fn report(self, full: bool) -> ApiError {
        let message = self.to_string();
        let logs = "`cove logs console` shows what the guest said last; start it again with `cove start`";
        let (code, hint) = match &self {
            Self::Settings(_)
            | Self::Image(_)
            | Self::File { .. }
            | Self::NoSpace { .. }
            | Self::Backend(_) => {
                return self.report_of_host(message);
            }
            _ if full => (
                ErrorCode::DiskFull,
                "the host's disk is full: free some space, then `cove start`".to_owned(),
            ),
            _ if self.is_of_a_full_guest() => (
                ErrorCode::DiskFull,
                "the machine's own disk is full: `cove config set machine.disk SIZE` and `cove restart` give it a larger \
                 one; the machine is left running for `cove shell`"
                    .to_owned(),
            ),
            Self::Silent { .. } => (ErrorCode::Timeout, logs.to_owned()),
            Self::EngineSilent { .. } => (
                ErrorCode::Timeout,
                "`cove logs engine` says more; the machine is left running for `cove shell`, and `cove stop` ends it"
                    .to_owned(),
            ),
            Self::EngineEnds { .. } => (
                ErrorCode::MachineFailed,
                "if it is one of your settings that it does not take, `cove config edit` opens them, and `cove restart` \
                 tries again; `cove logs engine` says more, and the machine is left running for `cove shell`"
                    .to_owned(),
            ),
            Self::Protocol(_) => (
                ErrorCode::BadImage,
                "rebuild the image with `cove image build`, or update Cove".to_owned(),
            ),
            Self::NotTakenOver(_) => (
                ErrorCode::MachineFailed,
                format!("its containers go on, and no Docker client reaches them; {BY_FORCE}"),
            ),
            Self::Boot(_) => (
                ErrorCode::MachineFailed,
                "`cove logs agent` says more; the machine is left running for `cove shell`, and `cove stop` \
                 ends it"
                    .to_owned(),
            ),
            Self::Exited(ExitCause::Killed) => (
                ErrorCode::MachineFailed,
                "start it again with `cove start`".to_owned(),
            ),
            Self::Exited(ExitCause::CellPanicked { .. }) => (
                ErrorCode::MachineFailed,
                "this is a mistake in Cove: report it with what `cove logs machine` says; start the machine again with \
                 `cove start`"
                    .to_owned(),
            ),
            Self::Exited(_) => (ErrorCode::MachineFailed, logs.to_owned()),
            Self::Cancelled => (
                ErrorCode::WrongState,
                "start it again with `cove start`".to_owned(),
            ),
            Self::Unforeseen(_) => (ErrorCode::Internal, "`cove logs` says more".to_owned()),
        };
        ApiError::new(code, message, hint)
    }

    /// What is the matter with the host, before there was a guest.
    fn report_of_host(self, message: String) -> ApiError {
        let space = "free some space on this disk, then `cove start`; nothing was lost";
        match self {
            Self::Settings(error) => error.into(),
            Self::Image(error) => {
                let code = match &error {
                    ImageError::DiskFull { .. } => ErrorCode::DiskFull,
                    _ => ErrorCode::BadImage,
                };
                ApiError::new(code, message, error.hint().unwrap_or_default())
            }
            Self::File { source, .. } if file::is_full(&source) => {
                ApiError::new(ErrorCode::DiskFull, message, space)
            }
            Self::File { .. } => ApiError::new(
                ErrorCode::Internal,
                message,
                "check the file's owner and permissions",
            ),
            Self::NoSpace { .. } => ApiError::new(ErrorCode::DiskFull, message, space),
            Self::Backend(error) => of_backend(&error, message),
            _ => ApiError::new(ErrorCode::Internal, message, ""),
        }
    }
}

/// What can be done about a machine that cannot be talked to.
const BY_FORCE: &str =
    "the release that started it stops it in order; `cove stop --force` ends it as if its power were cut";

fn of_backend(error: &MachineError, message: String) -> ApiError {
    let (code, hint) = match error {
        MachineError::Missing { hint, what } => {
            return ApiError::new(
                ErrorCode::MissingDependency,
                format!("{what} is missing"),
                hint.clone(),
            );
        }
        MachineError::Unsupported { .. } => (
            ErrorCode::Unsupported,
            "`cove doctor` shows what this computer can run",
        ),
        MachineError::Locked { .. } => (
            ErrorCode::WrongState,
            "another Cove runs this machine: end it there, or wait until it has stopped; `cove stop --force` ends it \
             as if its power were cut",
        ),
        MachineError::Foreign { .. } => (ErrorCode::WrongState, BY_FORCE),
        MachineError::SocketPathTooLong { .. } => (
            ErrorCode::InvalidRequest,
            "set XDG_RUNTIME_DIR or COVE_HOME to a shorter directory",
        ),
        MachineError::Io { source, .. } if file::is_full(source) => (
            ErrorCode::DiskFull,
            "free some space on this disk, then `cove start`",
        ),
        _ => (
            ErrorCode::MachineFailed,
            "`cove doctor` checks what a machine needs; `cove logs machine` says more",
        ),
    };
    ApiError::new(code, message, hint)
}

fn exited(cause: &ExitCause) -> String {
    use super::words::clean;
    match cause {
        ExitCause::PoweredOff => "the guest powered itself off".into(),
        ExitCause::Killed => "the machine was killed".into(),
        ExitCause::GuestPanicked { message } => format!("the guest's kernel panicked: {}", clean(message)),
        ExitCause::HypervisorDied { status, stderr, .. } => {
            format!(
                "the hypervisor ended unexpectedly ({status}){}",
                because(Some(&clean(stderr)))
            )
        }
        ExitCause::CellPanicked { words } => {
            format!(
                "the part of Cove that serves the guest broke down in {}",
                clean(words)
            )
        }
        ExitCause::Vanished => {
            "the machine process disappeared without a trace, as if it had been killed".into()
        }
    }
}

fn because(why: Option<&str>) -> String {
    why.filter(|why| !why.is_empty())
        .map(|why| format!(": {why}"))
        .unwrap_or_default()
}

/// An error with its causes. What a parser says quotes what it was given, which may be the guest's, so that the text
/// is cleaned.
pub(crate) fn chain(error: &dyn Error) -> String {
    super::words::clean(&with_causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::{Fault, FaultCode};

    #[test]
    fn every_failure_has_its_code_and_says_what_to_do() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let path = || PathBuf::from("/x");
        let io_error = MachineError::Io {
            operation: "write",
            path: path(),
            source: full(),
        };
        let missing = MachineError::Missing {
            what: "QEMU".into(),
            hint: "apt install it".into(),
        };
        for (failure, code) in [
            (
                Failure::Image(ImageError::Missing { dir: path() }),
                ErrorCode::BadImage,
            ),
            (Failure::file("write", &path())(full()), ErrorCode::DiskFull),
            (Failure::Backend(io_error), ErrorCode::DiskFull),
            (Failure::Backend(missing), ErrorCode::MissingDependency),
            (
                Failure::Silent {
                    after: Duration::from_secs(1),
                    why: None,
                },
                ErrorCode::Timeout,
            ),
            (Failure::Exited(ExitCause::Vanished), ErrorCode::MachineFailed),
            (Failure::Exited(panicked()), ErrorCode::MachineFailed),
            (Failure::Cancelled, ErrorCode::WrongState),
        ] {
            let report = failure.report(false);
            assert_eq!(report.code, code, "{report:?}");
            assert!(!report.hint.is_empty(), "{report:?}");
        }
    }

    fn panicked() -> ExitCause {
        ExitCause::CellPanicked {
            words: "fs0: panicked at a.rs:1:2: why".into(),
        }
    }

    #[test]
    fn a_panic_of_coves_own_is_told_with_its_thread_and_to_be_reported() {
        let report = Failure::Exited(panicked()).report(false);
        assert!(report.message.contains("fs0: panicked at"), "{}", report.message);
        assert!(report.hint.contains("cove logs machine"), "{}", report.hint);
    }

    #[test]
    fn an_engine_without_space_on_the_machines_disk_is_told_as_that_with_what_makes_it_larger() {
        let why = "dockerd ended with exit status 1; its last lines:\nwrite /var/lib/docker/x: no space left on device";
        let fault = Fault::new(
            FaultCode::Failed,
            "mounting failed: No space left on device (os error 28)",
        );
        for failure in [
            Failure::EngineEnds { why: why.into() },
            Failure::EngineSilent {
                after: Duration::from_secs(1),
                why: Some(why.into()),
            },
            Failure::Boot(CallError::Fault(fault)),
        ] {
            let report = failure.report(false);
            assert_eq!(report.code, ErrorCode::DiskFull, "{report:?}");
            assert!(report.hint.contains("machine.disk"), "{report:?}");
        }
        let other = Failure::EngineEnds {
            why: "unknown option".into(),
        };
        assert_eq!(other.report(false).code, ErrorCode::MachineFailed);
    }

    #[test]
    fn a_machine_that_dies_on_a_full_disk_is_told_as_that_and_not_as_the_hypervisors_failure() {
        let failure = Failure::Exited(ExitCause::HypervisorDied {
            status: "exit 1".into(),
            stderr: String::new(),
            crashed: false,
        });
        assert!(failure.may_be_the_hypervisors(false) && !failure.may_be_the_hypervisors(true));
        assert_eq!(failure.report(true).code, ErrorCode::DiskFull);
    }
}
