//! The exit codes of `cove`, the one table of them: documentation, `cove help exit-codes` and code read from here.

use cove_api::{ErrorCode, Verdict};
use std::process::ExitCode;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotRunning = 3,
    NotFound = 4,
    BadImage = 5,
    MissingDependency = 6,
    MachineFailed = 7,
    Timeout = 8,
    DiskFull = 9,
    Unsupported = 10,
    NotConfirmed = 11,
    NoName = 20,
    NoRoute = 21,
    NoWayOut = 22,
    NotPublished = 23,
    ContainerIdle = 24,
    NothingListens = 25,
    LoopbackOnly = 26,
    Refused = 27,
    Silence = 28,
    /// `exec`, `shell` and `docker` pass on the code of the program that they run, so Cove's own failures there need
    /// a code that programs leave alone; it is the one that `docker run` uses for the same purpose.
    CoveFailed = 125,
    /// As shells have it for SIGINT.
    Interrupted = 130,
    /// As shells have it for SIGPIPE.
    OutputGone = 141,
}

impl Exit {
    /// Every code with its meaning, in order.
    pub(crate) const TABLE: [(Self, &str); 24] = [
        (Self::Done, "done"),
        (
            Self::Failed,
            "something else went wrong, or `cove doctor` found something broken; the message says what",
        ),
        (Self::Usage, "the command line, a setting or a request is invalid"),
        (
            Self::NotRunning,
            "the machine is not in a state in which this can be done; `cove status`: it is not running",
        ),
        (
            Self::NotFound,
            "no such machine, setting, path, shared folder, certificate or Docker context",
        ),
        (
            Self::BadImage,
            "the guest image is missing, damaged or of another version",
        ),
        (
            Self::MissingDependency,
            "something that the host must have is missing",
        ),
        (Self::MachineFailed, "the machine did not start or has failed"),
        (
            Self::Timeout,
            "the guest, the daemon or a file server did not answer in time",
        ),
        (Self::DiskFull, "no space on the host's or the guest's disk"),
        (Self::Unsupported, "this platform or backend cannot do it"),
        (Self::NotConfirmed, "a destructive command was not confirmed"),
        (Self::NoName, "`net explain`: the name means nothing there"),
        (Self::NoRoute, "`net explain`: there is no route to the address"),
        (
            Self::NoWayOut,
            "`net explain`: the machine has no way out, as where passt is missing",
        ),
        (
            Self::NotPublished,
            "`net explain`: no container publishes the port",
        ),
        (
            Self::ContainerIdle,
            "`net explain`: the container does not run, or is paused",
        ),
        (Self::NothingListens, "`net explain`: nothing listens on the port"),
        (
            Self::LoopbackOnly,
            "`net explain`: the program listens on its own loopback only",
        ),
        (
            Self::Refused,
            "`net explain`: the connection is refused, as by a firewall",
        ),
        (Self::Silence, "`net explain`: there is no answer"),
        (
            Self::CoveFailed,
            "`exec`, `shell`, `docker`: Cove itself failed; any other code is the program's own, \
             127 if there is none of that name and 126 if it cannot be run",
        ),
        (
            Self::Interrupted,
            "interrupted; a start or stop that was begun goes on",
        ),
        (
            Self::OutputGone,
            "`exec`, `shell`, `docker`: whoever read the program's output has gone; the program was ended",
        ),
    ];

    /// What a process of ours meant that ended with `code`.
    pub(crate) fn of_code(code: i32) -> Self {
        Self::TABLE
            .iter()
            .find(|(exit, _)| *exit as i32 == code)
            .map_or(Self::Failed, |(exit, _)| *exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidRequest | ErrorCode::InvalidSetting => Self::Usage,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::WrongState => Self::NotRunning,
            ErrorCode::NotConfirmed => Self::NotConfirmed,
            ErrorCode::BadImage => Self::BadImage,
            ErrorCode::MissingDependency => Self::MissingDependency,
            ErrorCode::DiskFull => Self::DiskFull,
            ErrorCode::MachineFailed => Self::MachineFailed,
            ErrorCode::Timeout => Self::Timeout,
            ErrorCode::Unsupported => Self::Unsupported,
            ErrorCode::Internal => Self::Failed,
        }
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Reachable => Self::Done,
            Verdict::NoName => Self::NoName,
            Verdict::NoRoute => Self::NoRoute,
            Verdict::NoWayOut => Self::NoWayOut,
            Verdict::NotPublished => Self::NotPublished,
            Verdict::NotRunning => Self::ContainerIdle,
            Verdict::NothingListens => Self::NothingListens,
            Verdict::LoopbackOnly => Self::LoopbackOnly,
            Verdict::Refused => Self::Refused,
            Verdict::Silence => Self::Silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_the_code_that_is_documented_for_it() {
        let exit = Exit::from(ErrorCode::DiskFull);
        assert_eq!(exit as u8, 9);
        let meaning = Exit::TABLE.iter().find(|(known, _)| *known == exit);
        assert!(meaning.is_some_and(|(_, meaning)| meaning.contains("guest's disk")));
    }

    #[test]
    fn every_code_is_in_the_table_once_and_in_order() {
        let codes: Vec<u8> = Exit::TABLE.iter().map(|(exit, _)| *exit as u8).collect();
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(codes, sorted);
    }
}
