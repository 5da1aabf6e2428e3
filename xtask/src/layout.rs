//! Where things are: the checkout, the target directory, and what `xtask` keeps below it.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// The longest path of a directory for sockets: the longest name below it is about forty bytes, and a socket's
/// address holds 107.
const LONGEST_HOME: usize = 60;

/// How programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quickly, for work on them and for tests.
    Dev,
    /// For people.
    Release,
}

/// The places that the commands use.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    target: PathBuf,
}

impl Layout {
    /// Found from where this program was compiled, so that the commands work in any subdirectory.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the checkout has no directory")?
            .to_path_buf();
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { root, target })
    }

    /// The checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The `cove` program.
    pub(crate) fn cove(&self, profile: Profile) -> PathBuf {
        self.programs(profile).join("cove")
    }

    /// The desktop application.
    pub(crate) fn desktop(&self, profile: Profile) -> PathBuf {
        self.programs(profile).join("cove-desktop")
    }

    /// What keeps passwords of registries in the session's keyring; of the desktop application's package.
    pub(crate) fn credential_helper(&self, profile: Profile) -> PathBuf {
        self.programs(profile).join("docker-credential-cove")
    }

    fn programs(&self, profile: Profile) -> PathBuf {
        self.target.join(match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        })
    }

    /// Debian packages.
    pub(crate) fn packages(&self, profile: Profile) -> PathBuf {
        self.target.join(match profile {
            Profile::Dev => "deb/debug",
            Profile::Release => "deb",
        })
    }

    /// The guest agent.
    pub(crate) fn agent(&self) -> PathBuf {
        self.target.join("x86_64-unknown-linux-musl/agent/cove-agent")
    }

    /// A program that the suites run in the machine.
    pub(crate) fn container_program(&self, name: &str) -> PathBuf {
        self.target.join("x86_64-unknown-linux-musl/debug").join(name)
    }

    /// The guest image.
    pub(crate) fn image(&self) -> PathBuf {
        self.target.join("image")
    }

    /// Downloads of the image builder.
    pub(crate) fn cache(&self) -> PathBuf {
        self.target.join("cache")
    }

    /// Programs that are fetched for the commands, installed nowhere else.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Cove's own directories for `run`, so that it never touches an installed Cove: `COVE_HOME` if that is set, else
    /// below the target directory, or in the user's cache where that path is too long for a socket.
    pub(crate) fn home(&self) -> Result<PathBuf> {
        if let Some(home) = std::env::var_os("COVE_HOME").filter(|home| !home.is_empty()) {
            return Ok(home.into());
        }
        let below_target = self.target.join("cove");
        if below_target.as_os_str().len() <= LONGEST_HOME {
            return Ok(below_target);
        }
        let home = std::env::var_os("HOME").context("HOME is not set; set it, or COVE_HOME")?;
        Ok(Path::new(&home).join(".cache/cove-dev"))
    }
}
