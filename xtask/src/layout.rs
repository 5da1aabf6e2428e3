//! Where things are: the checkout, the target directory, and what `xtask` keeps below it.

use crate::process;
use anyhow::{Context as _, Result};
use std::{
    env::{self, consts::ARCH},
    path::{Path, PathBuf},
};

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
    /// This computer's platform, if programs are built for it by its name.
    platform: Option<String>,
}

impl Layout {
    /// Found from where this program was compiled, so that the commands work in any subdirectory.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the checkout has no directory")?
            .to_path_buf();
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let program = env::current_exe().context("cannot tell where this program is")?;
        let platform = is_built_by_name(&program).then(process::platform);
        Ok(Self {
            root,
            target,
            platform: platform.transpose()?,
        })
    }

    /// The checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// What cargo is to build for, where a person's configuration (`build.target`, `CARGO_BUILD_TARGET`) has it build
    /// for a platform by its name: the one that the programs run on.
    pub(crate) fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }

    /// What cargo names to tests as `CARGO_TARGET_TMPDIR`.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.built().join("tmp")
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
        self.built().join(match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        })
    }

    /// Where cargo puts what it builds for this computer: what it builds by a platform's name has a directory of that
    /// name.
    fn built(&self) -> PathBuf {
        match &self.platform {
            Some(platform) => self.target.join(platform),
            None => self.target.clone(),
        }
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
        if let Some(home) = named_home() {
            return Ok(home);
        }
        let below_target = self.target.join("cove");
        if below_target.as_os_str().len() <= LONGEST_HOME {
            return Ok(below_target);
        }
        let home = env::var_os("HOME").context("HOME is not set; set it, or COVE_HOME")?;
        Ok(Path::new(&home).join(".cache/cove-dev"))
    }

    /// What leads a shell to the machine of `run`. That of a `COVE_HOME` lies in it, and the one below the target
    /// directory goes on leading to the checkout's own machine.
    pub(crate) fn variables(&self) -> PathBuf {
        let place = named_home().unwrap_or_else(|| self.target.clone());
        place.join("cove.sh")
    }
}

/// `COVE_HOME`, if a person has set it.
fn named_home() -> Option<PathBuf> {
    let home = env::var_os("COVE_HOME").filter(|home| !home.is_empty());
    home.map(PathBuf::from)
}

/// Whether cargo has built `program`, which is this one, for a platform by its name. Then a person's configuration says
/// so, and the same holds for all that it builds: nothing tells cargo to forget it.
fn is_built_by_name(program: &Path) -> bool {
    // TARGET/PLATFORM/debug/xtask, else TARGET/debug/xtask.
    let place = program.ancestors().nth(2).and_then(Path::file_name);
    let name = place.unwrap_or_default().to_string_lossy();
    name.strip_prefix(ARCH).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_where_cargo_puts_them() {
        let by_name = format!("/c/target/{ARCH}-unknown-linux-gnu/debug/xtask");
        assert!(is_built_by_name(Path::new(&by_name)));
        assert!(!is_built_by_name(Path::new("/c/target/debug/xtask")));
        assert!(!is_built_by_name(Path::new("xtask")));
        let layout = |platform: Option<&str>| Layout {
            root: "/c".into(),
            target: "/c/target".into(),
            platform: platform.map(str::to_owned),
        };
        let usual = layout(None);
        assert_eq!(usual.cove(Profile::Dev), Path::new("/c/target/debug/cove"));
        assert_eq!(usual.scratch(), Path::new("/c/target/tmp"));
        let named = layout(Some("x86_64-unknown-linux-gnu"));
        let place = Path::new("/c/target/x86_64-unknown-linux-gnu");
        assert_eq!(
            named.desktop(Profile::Release),
            place.join("release/cove-desktop")
        );
        assert_eq!(named.scratch(), place.join("tmp"));
        // What is built for the guest has had a directory of its own all along.
        assert_eq!(named.agent(), usual.agent());
    }
}
