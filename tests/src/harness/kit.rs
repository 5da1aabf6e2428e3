//! What the suites are run with: built by `cargo xtask test`, which names it in variables.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Programs and files under test.
#[derive(Debug, Clone)]
pub struct Kit {
    /// The `cove` program.
    pub program: PathBuf,
    /// A guest image.
    pub image: PathBuf,
    /// An unmodified Docker client.
    pub docker: PathBuf,
    /// The directory of its plugins, compose and buildx.
    pub plugins: Option<PathBuf>,
    /// The program to run in containers, linked statically.
    pub posix: Option<PathBuf>,
    /// Debian's docker-registry.
    pub registry: Option<PathBuf>,
    /// Debian's `docker-credential-pass`.
    pub credentials: Option<PathBuf>,
    /// A volume plugin, linked statically.
    pub volumes: Option<PathBuf>,
    /// A reaper for testcontainers, linked statically.
    pub reaper: Option<PathBuf>,
    /// A server that knows what it was sent, linked statically.
    pub peer: Option<PathBuf>,
    /// A directory with busybox for other processors: `arm64/busybox`, `arm/busybox`.
    pub foreign: Option<PathBuf>,
    /// A directory of Python packages, docker-py and testcontainers among them.
    pub python: Option<PathBuf>,
    /// The dev container command, to be run with node.
    pub devcontainer: Option<PathBuf>,
    /// The project's own commands, for a test of one.
    pub xtask: Option<PathBuf>,
    /// Where logs of failed tests are kept.
    pub logs: PathBuf,
}

impl Kit {
    /// From the variables; panics with what to do when one is missing.
    pub fn from_env() -> Self {
        Self {
            program: required("COVE_TEST_PROGRAM"),
            image: required("COVE_TEST_IMAGE"),
            docker: required("COVE_TEST_DOCKER"),
            plugins: env::var_os("COVE_TEST_PLUGINS").map(PathBuf::from),
            posix: env::var_os("COVE_TEST_POSIX").map(PathBuf::from),
            registry: env::var_os("COVE_TEST_REGISTRY").map(PathBuf::from),
            credentials: env::var_os("COVE_TEST_CREDENTIALS").map(PathBuf::from),
            volumes: env::var_os("COVE_TEST_VOLUMES").map(PathBuf::from),
            reaper: env::var_os("COVE_TEST_REAPER").map(PathBuf::from),
            peer: env::var_os("COVE_TEST_PEER").map(PathBuf::from),
            foreign: env::var_os("COVE_TEST_FOREIGN").map(PathBuf::from),
            python: env::var_os("COVE_TEST_PYTHON").map(PathBuf::from),
            devcontainer: env::var_os("COVE_TEST_DEVCONTAINER").map(PathBuf::from),
            xtask: env::var_os("COVE_TEST_XTASK").map(PathBuf::from),
            logs: env::var_os("COVE_TEST_LOGS")
                .map_or_else(|| env::temp_dir().join("cove-e2e-logs"), PathBuf::from),
        }
    }
}

fn required(variable: &str) -> PathBuf {
    let path = env::var_os(variable).map(PathBuf::from);
    match path {
        Some(path) if Path::new(&path).exists() => path,
        Some(path) => panic!("{variable} is {}, which does not exist", path.display()),
        None => panic!("{variable} is not set; run this suite with: cargo xtask test"),
    }
}
