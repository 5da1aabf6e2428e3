//! What the control API says when it cannot do something.

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

/// The kinds of [`ApiError`]; each has one HTTP status and one exit code of the CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request's content is invalid. HTTP 400.
    InvalidRequest,
    /// A setting's value is invalid. HTTP 400.
    InvalidSetting,
    /// No such machine, setting or path. HTTP 404.
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
    /// The guest did not answer in time. HTTP 504.
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
