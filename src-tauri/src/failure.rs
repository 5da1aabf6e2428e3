//! What the front end reads when something did not work.

use cove_api::{ClientError, LaunchError};
use cove_credentials::{ConfigError, CredentialsError, HelperError};
use cove_engine::EngineError;
use cove_view::Failure;
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
        })
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
        Self::new(with_causes(&error), hint)
    }
}

impl From<LaunchError> for Refusal {
    fn from(error: LaunchError) -> Self {
        Self::new(with_causes(&error), error.hint())
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::new(with_causes(&error), "")
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
    }
}
