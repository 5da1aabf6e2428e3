//! What the front end reads when something did not work.

use cove_api::{ClientError, LaunchError};
use cove_credentials::{ConfigError, CredentialsError, HelperError};
use cove_engine::EngineError;
use cove_view::{Failure, FailureKind};
use cove_wire::with_causes;
use std::error::Error;

/// What a command returns.
pub(crate) type Answer<T> = Result<T, Refusal>;

/// A [`Failure`] that errors turn into.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Refusal(pub(crate) Failure);

impl Refusal {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(Failure {
            message: message.into(),
            hint: hint.into(),
            registry: None,
            kind: None,
        })
    }

    /// The same, of a kind that the window has words for.
    pub(crate) fn of(mut self, kind: Option<FailureKind>) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same, with something else to do next.
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.0.hint);
        self
    }

    /// The same, with the registry that signing in to may help.
    pub(crate) fn at_registry(mut self, key: &str) -> Self {
        self.0.registry = Some(key.to_owned());
        self
    }
}

impl Refusal {
    /// What an error says, and its causes.
    pub(crate) fn because(error: &dyn Error, hint: &str) -> Self {
        Self::new(with_causes(error), hint)
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::Api(api) => api.hint.clone(),
            _ => String::new(),
        };
        Self::new(with_causes(&error), hint).of(kind_of(&error))
    }
}

fn kind_of(error: &ClientError) -> Option<FailureKind> {
    match error {
        ClientError::Api(error) => Some(error.code.into()),
        ClientError::NotRunning { .. }
        | ClientError::SocketPathTooLong { .. }
        | ClientError::Connect { .. }
        | ClientError::Silent { .. }
        | ClientError::Http { .. } => Some(FailureKind::DaemonAway),
        // It answers, if not as one of this release would.
        ClientError::Unexpected { .. } => None,
    }
}

impl From<LaunchError> for Refusal {
    fn from(error: LaunchError) -> Self {
        let kind = match &error {
            LaunchError::Client(error) => kind_of(error),
            _ => Some(FailureKind::DaemonAway),
        };
        Self::new(with_causes(&error), error.hint()).of(kind)
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            error if error.is_away() => Some(FailureKind::EngineAway),
            EngineError::Refused { status, .. } => Some(match *status {
                404 => FailureKind::NotFound,
                409 => FailureKind::Conflict,
                _ => FailureKind::EngineRefused,
            }),
            _ => None,
        };
        Self::new(with_causes(&error), "").of(kind)
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            ConfigError::NoHome => "Set HOME or DOCKER_CONFIG, and open the window again.",
            ConfigError::Malformed { .. } => "Correct the file, or move it away. It was left as it is.",
            ConfigError::Io { .. } => "Check the file's owner and permissions.",
            ConfigError::Contested { .. } => "Try again.",
        };
        Self::because(&error, hint)
    }
}

impl From<CredentialsError> for Refusal {
    fn from(error: CredentialsError) -> Self {
        let hint = match &error {
            CredentialsError::Config(ConfigError::Contested { .. }) => "Try again.",
            CredentialsError::Config(_) => {
                "Check the Docker client's configuration file. It was left as it is."
            }
            CredentialsError::NoHelper => {
                "Install Cove's package, which has docker-credential-cove. No password is written to a file."
            }
            CredentialsError::Helper(HelperError::Missing(_) | HelperError::Name(_)) => {
                "Install it, or name another one in the Docker client's configuration file."
            }
            CredentialsError::Helper(HelperError::Late { .. }) => "Unlock the keyring, and try again.",
            CredentialsError::Helper(_) => "See that the keyring runs and is unlocked, and try again.",
        };
        Self::because(&error, hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_api::{ApiError, ErrorCode};
    use std::io;

    #[test]
    fn causes_are_told_behind_what_happened() {
        let refusal = Refusal::from(EngineError::Unreachable {
            socket: "/x/docker.sock".into(),
            source: io::Error::other("no luck"),
        });
        assert_eq!(
            refusal.0.message,
            "cannot reach the engine at /x/docker.sock: no luck"
        );
        assert_eq!(refusal.0.kind, Some(FailureKind::EngineAway));
    }

    #[test]
    fn the_window_is_told_of_what_kind_a_failure_is() {
        let refused = |status| EngineError::Refused {
            status,
            message: "no".to_owned(),
        };
        let said = ApiError::new(ErrorCode::DiskFull, "no space", "");
        let socket = "/x/daemon.sock".into();
        for (refusal, kind) in [
            (Refusal::from(refused(404)), FailureKind::NotFound),
            (Refusal::from(refused(409)), FailureKind::Conflict),
            (Refusal::from(refused(500)), FailureKind::EngineRefused),
            (Refusal::from(refused(502)), FailureKind::EngineAway),
            (Refusal::from(refused(503)), FailureKind::EngineAway),
            (Refusal::from(ClientError::from(said)), FailureKind::DiskFull),
            (
                Refusal::from(ClientError::NotRunning { socket }),
                FailureKind::DaemonAway,
            ),
            (Refusal::from(LaunchError::Silent), FailureKind::DaemonAway),
        ] {
            assert_eq!(refusal.0.kind, Some(kind), "{}", refusal.0.message);
        }
        // Where it is not known, nothing is said of it.
        let told = serde_json::to_value(Refusal::new("no", "")).unwrap();
        assert_eq!(told, serde_json::json!({"message": "no", "hint": ""}));
    }
}
