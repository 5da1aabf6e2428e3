//! The Docker context of a machine, in the files where Docker's own client keeps its contexts.
//!
//! `<docker>/contexts/meta/<sha256 of the name>/meta.json` describes a context, `currentContext` in
//! `<docker>/config.json` selects one; `<docker>` is `$DOCKER_CONFIG` or `~/.docker`. A context of our name that we
//! did not make is left alone, and the current one is only switched when somebody asks for it.

use crate::{file, machine::chain, name::MachineName};
use cove_api::{ApiError, ContextState, ErrorCode};
use cove_credentials::ConfigError;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Begins the description of every context that is ours.
const MARK: &str = "Cove machine";

/// Largest description of a context that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Why a context could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// A context of this name exists, made by somebody else.
    #[error("a Docker context `{name}` exists that Cove did not make")]
    Foreign { name: String },
    /// A context of this name leads to a machine of another home of Cove's, which is there.
    #[error("the Docker context `{name}` leads to another machine of yours, at {host}")]
    Elsewhere { name: String, host: String },
    /// Docker's configuration cannot be read or changed.
    #[error("{}", chain(.0))]
    Config(#[from] ConfigError),
    /// A context's description could not be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl From<ContextError> for ApiError {
    fn from(error: ContextError) -> Self {
        let (code, hint) = match &error {
            ContextError::Foreign { name } => (
                ErrorCode::WrongState,
                format!("rename or remove it: docker context rm {name}"),
            ),
            ContextError::Elsewhere { name, .. } => (
                ErrorCode::WrongState,
                format!("to have it lead here: docker context rm --force {name} && cove context use"),
            ),
            ContextError::Config(ConfigError::Malformed { .. }) => (
                ErrorCode::WrongState,
                "correct the file; Cove has left it as it is".into(),
            ),
            ContextError::Config(ConfigError::Contested { .. }) => {
                (ErrorCode::WrongState, "try again".into())
            }
            ContextError::Io { source, .. } | ContextError::Config(ConfigError::Io { source, .. })
                if file::is_full(source) =>
            {
                (ErrorCode::DiskFull, "free some space on this disk".into())
            }
            ContextError::Io { .. } | ContextError::Config(ConfigError::Io { .. }) => (
                ErrorCode::Internal,
                "check the file's owner and permissions".into(),
            ),
            ContextError::Config(ConfigError::NoHome) => (
                ErrorCode::MissingDependency,
                "set HOME or DOCKER_CONFIG, then restart the daemon".into(),
            ),
        };
        Self::new(code, error.to_string(), hint)
    }
}

/// The Docker client's configuration directory.
#[derive(Debug, Clone)]
pub(crate) struct DockerConfig(PathBuf);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default, rename = "Description")]
    description: String,
}

#[derive(Deserialize, Default)]
struct Endpoints {
    #[serde(default)]
    docker: DockerEndpoint,
}

#[derive(Deserialize, Default)]
struct DockerEndpoint {
    #[serde(default, rename = "Host")]
    host: String,
}

impl DockerConfig {
    /// The directory that the Docker client would use.
    pub(crate) fn from_env() -> Result<Self, ConfigError> {
        cove_credentials::config_directory().map(Self)
    }

    #[cfg(test)]
    pub(crate) fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    fn meta(&self, context: &str) -> PathBuf {
        let name = format!("{:x}", Sha256::digest(context));
        self.0.join("contexts").join("meta").join(name).join("meta.json")
    }

    /// How the context of `machine` is, when it should lead to `docker_host`.
    pub(crate) fn state(
        &self,
        machine: &MachineName,
        docker_host: &str,
    ) -> Result<ContextState, ContextError> {
        let path = self.meta(&machine.context());
        let Some(bytes) = read(&path)? else {
            return Ok(ContextState::Absent);
        };
        // What cannot be read is not ours.
        Ok(match serde_json::from_slice::<Meta>(&bytes) {
            Ok(meta) if !meta.metadata.description.starts_with(MARK) => ContextState::Foreign,
            Ok(meta) if meta.endpoints.docker.host == docker_host => ContextState::Good,
            Ok(meta) if is_there(&meta.endpoints.docker.host) => ContextState::Elsewhere {
                host: meta.endpoints.docker.host,
            },
            Ok(_) => ContextState::Stale,
            Err(_) => ContextState::Foreign,
        })
    }

    /// Creates the context of `machine`, or makes ours lead to `docker_host` again.
    pub(crate) fn create(&self, machine: &MachineName, docker_host: &str) -> Result<(), ContextError> {
        let name = machine.context();
        match self.state(machine, docker_host)? {
            ContextState::Good => return Ok(()),
            ContextState::Foreign => return Err(ContextError::Foreign { name }),
            ContextState::Elsewhere { host } => return Err(ContextError::Elsewhere { name, host }),
            ContextState::Absent | ContextState::Stale => {}
        }
        let meta = serde_json::json!({
            "Name": name,
            "Metadata": { "Description": format!("{MARK} `{machine}`") },
            "Endpoints": { "docker": { "Host": docker_host, "SkipTLSVerify": false } },
        });
        let path = self.meta(&name);
        file::replace(&path, meta.to_string().as_bytes(), 0o644).map_err(io_error("write", &path))
    }

    /// Removes the context of `machine`, which leads to `docker_host`, if it is ours, and makes Docker's default one
    /// current if this was.
    pub(crate) fn remove(&self, machine: &MachineName, docker_host: &str) -> Result<(), ContextError> {
        let name = machine.context();
        match self.state(machine, docker_host)? {
            ContextState::Absent => return Ok(()),
            ContextState::Foreign => return Err(ContextError::Foreign { name }),
            ContextState::Elsewhere { host } => return Err(ContextError::Elsewhere { name, host }),
            ContextState::Good | ContextState::Stale => {}
        }
        cove_credentials::leave_context(&self.0, &name)?;
        let path = self.meta(&name);
        let directory = path.parent().unwrap_or(&path);
        fs::remove_dir_all(directory).map_err(io_error("remove", directory))
    }

    /// Makes the context of `machine` the one that Docker's client uses when it is told nothing.
    pub(crate) fn use_for(&self, machine: &MachineName) -> Result<(), ContextError> {
        Ok(cove_credentials::use_context(&self.0, &machine.context())?)
    }

    /// The name of the current context, if one is set.
    pub(crate) fn current(&self) -> Result<Option<String>, ContextError> {
        Ok(cove_credentials::current_context(&self.0)?)
    }
}

/// Whether something is where this value of `DOCKER_HOST` leads to, as far as a file can tell.
fn is_there(docker_host: &str) -> bool {
    docker_host
        .strip_prefix("unix://")
        .is_some_and(|socket| Path::new(socket).exists())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ContextError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            let source = io::Error::other(format!("it has {} bytes", metadata.len()));
            Err(io_error("read", path)(source))
        }
        Ok(_) => fs::read(path).map(Some).map_err(io_error("read", path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("read", path)(source)),
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContextError {
    move |source| ContextError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "unix:///run/user/7/cove/default/docker.sock";

    fn config() -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        let config = DockerConfig::at(dir.path());
        (dir, config)
    }

    #[test]
    fn a_context_is_where_docker_looks_for_it_and_says_where_the_engine_is() {
        let (dir, config) = config();
        let machine = MachineName::default();
        assert_eq!(config.state(&machine, HOST).unwrap(), ContextState::Absent);
        config.create(&machine, HOST).unwrap();
        // printf cove | sha256sum
        let path = "contexts/meta/6a259d3299684d8a1f5693be49dde21e5e22195158487a86c3d73d07c36a5cfc/meta.json";
        let meta = fs::read(dir.path().join(path)).unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(meta["Name"], "cove");
        assert_eq!(meta["Endpoints"]["docker"]["Host"], HOST);
        assert_eq!(config.state(&machine, HOST).unwrap(), ContextState::Good);
        assert_eq!(config.current().unwrap(), None);
    }

    #[test]
    fn ours_is_repaired_and_removed() {
        let (_dir, config) = config();
        let machine: MachineName = "dev".parse().unwrap();
        config.create(&machine, "unix:///old").unwrap();
        assert_eq!(config.state(&machine, HOST).unwrap(), ContextState::Stale);
        config.create(&machine, HOST).unwrap();
        assert_eq!(config.state(&machine, HOST).unwrap(), ContextState::Good);
        config.remove(&machine, HOST).unwrap();
        assert_eq!(config.state(&machine, HOST).unwrap(), ContextState::Absent);
        config.remove(&machine, HOST).unwrap();
    }

    #[test]
    fn the_context_of_another_home_is_neither_taken_over_nor_removed_while_that_is_there() {
        let (dir, config) = config();
        let socket = dir.path().join("docker.sock");
        fs::write(&socket, "").unwrap();
        let theirs = format!("unix://{}", socket.display());
        let machine = MachineName::default();
        config.create(&machine, &theirs).unwrap();
        assert!(matches!(
            config.create(&machine, HOST),
            Err(ContextError::Elsewhere { .. })
        ));
        assert!(matches!(
            config.remove(&machine, HOST),
            Err(ContextError::Elsewhere { .. })
        ));
        assert_eq!(config.state(&machine, &theirs).unwrap(), ContextState::Good);
        fs::remove_file(socket).unwrap();
        config.create(&machine, HOST).unwrap();
    }

    #[test]
    fn somebody_elses_context_of_our_name_is_left_alone() {
        for theirs in [r#"{"Name":"cove","Metadata":{},"Endpoints":{}}"#, "not json"] {
            let (_dir, config) = config();
            let machine = MachineName::default();
            let path = config.meta("cove");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, theirs).unwrap();
            assert!(matches!(
                config.create(&machine, HOST),
                Err(ContextError::Foreign { .. })
            ));
            assert!(matches!(
                config.remove(&machine, HOST),
                Err(ContextError::Foreign { .. })
            ));
            assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        }
    }

    #[test]
    fn a_removed_context_is_no_longer_the_current_one_and_another_stays_it() {
        let (_dir, config) = config();
        let [ours, other]: [MachineName; 2] = ["dev", "test"].map(|name| name.parse().unwrap());
        config.create(&ours, HOST).unwrap();
        config.create(&other, HOST).unwrap();
        config.use_for(&other).unwrap();
        config.remove(&ours, HOST).unwrap();
        assert_eq!(config.current().unwrap(), Some(other.context()));
        config.remove(&other, HOST).unwrap();
        assert_eq!(config.current().unwrap(), None);
    }

    #[test]
    fn a_broken_configuration_is_named_with_what_is_wrong_in_it() {
        let (dir, config) = config();
        let path = dir.path().join("config.json");
        fs::write(&path, "{ broken").unwrap();
        let refused = ApiError::from(config.use_for(&MachineName::default()).unwrap_err());
        assert_eq!(refused.code, ErrorCode::WrongState);
        let begin = format!("{} is not a Docker client's configuration: ", path.display());
        assert!(refused.message.starts_with(&begin), "{refused}");
        assert!(refused.message.contains("line 1"), "{refused}");
    }
}
