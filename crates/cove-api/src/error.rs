//! What the control API says when it cannot do something.

use crate::DEFAULT_MACHINE;
use serde::{Deserialize, Serialize};

/// An error over the API: a stable code for programs, a message and a hint for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ApiError {
    /// Stable across releases.
    pub code: ErrorCode,
    /// What happened, to what, and why.
    pub message: String,
    /// What to do next; empty when there is nothing sensible to say.
    #[serde(default)]
    pub hint: String,
}

impl ApiError {
    /// An error of `code` with its message and hint.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Commands of the CLI that are about one machine.
const ABOUT_A_MACHINE: [&str; 12] = [
    "start", "stop", "restart", "pause", "resume", "status", "shell", "exec", "logs", "forward", "context",
    "env",
];

/// A hint with `machine` in each command that it names, so that it can be copied as it stands. Hints themselves are the
/// same for every machine; whoever shows one about a machine says which.
pub fn hint_for(machine: &str, hint: &str) -> String {
    if machine == DEFAULT_MACHINE {
        return hint.to_owned();
    }
    let mut parts = hint.split("cove ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(part.len());
        let (command, rest) = part.split_at(end);
        text.push_str("cove ");
        text.push_str(command);
        if ABOUT_A_MACHINE.contains(&command) && !rest.trim_start().starts_with("--machine") {
            text.push_str(" --machine ");
            text.push_str(machine);
        }
        text.push_str(rest);
    }
    text
}

/// The kinds of [`ApiError`]; each has one HTTP status and one exit code of the CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request's content is invalid. HTTP 400.
    InvalidRequest,
    /// A setting's value is invalid. HTTP 400.
    InvalidSetting,
    /// No such machine, setting, path, shared folder or certificate. HTTP 404.
    NotFound,
    /// The machine is in a state in which this cannot be done. HTTP 409.
    WrongState,
    /// A destructive request without its confirmation. HTTP 409.
    NotConfirmed,
    /// The image is missing, damaged or of another version. HTTP 412.
    BadImage,
    /// Something that the host must have is missing. HTTP 412.
    MissingDependency,
    /// No space on the host's or the guest's disk. HTTP 507.
    DiskFull,
    /// The machine did not start or has failed. HTTP 502.
    MachineFailed,
    /// The guest, or a file server, did not answer in time. HTTP 504.
    Timeout,
    /// The backend or the platform cannot do this. HTTP 501.
    Unsupported,
    /// Something else went wrong in the daemon; its log says more. HTTP 500.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::InvalidSetting => 400,
            Self::NotFound => 404,
            Self::WrongState | Self::NotConfirmed => 409,
            Self::BadImage | Self::MissingDependency => 412,
            Self::Internal => 500,
            Self::Unsupported => 501,
            Self::MachineFailed => 502,
            Self::Timeout => 504,
            Self::DiskFull => 507,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_the_machine_that_it_is_about() {
        let hint = "look with `cove logs console`, then: cove start; cove doctor says more";
        assert_eq!(hint_for("default", hint), hint);
        assert_eq!(
            hint_for("dev", hint),
            "look with `cove logs --machine dev console`, then: cove start --machine dev; cove doctor says more"
        );
        let named = "cove start --machine web";
        assert_eq!(hint_for("dev", named), named);
    }
}
