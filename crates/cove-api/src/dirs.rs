//! Where Cove keeps its files.
//!
//! | | Linux | macOS | Windows |
//! | --- | --- | --- | --- |
//! | config | `$XDG_CONFIG_HOME/cove` | `~/Library/Application Support/cove` | `%APPDATA%\cove` |
//! | data | `$XDG_DATA_HOME/cove` | `~/Library/Application Support/cove` | `%LOCALAPPDATA%\cove` |
//! | cache | `$XDG_CACHE_HOME/cove` | `~/Library/Caches/cove` | `%LOCALAPPDATA%\cove\cache` |
//! | runtime | `$XDG_RUNTIME_DIR/cove`, else `data/run` | `data/run` | `data\run` |
//!
//! `COVE_HOME=DIR` puts all four below `DIR` (`config`, `data`, `cache`, `run`), for tests and for a second,
//! independent Cove.
//!
//! The guest image alone may also be where Cove is installed for everybody, `PREFIX/lib/cove/image` beside
//! `PREFIX/bin/cove`: only that way an installation in another place, or a program in a build directory, has nothing to
//! do with the one below `/usr`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// No place for Cove's files could be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirsError {
    /// The variable that names the home directory is not set.
    #[error("{variable} is not set; set it, or set COVE_HOME to a directory for Cove's files")]
    NoHome {
        /// The variable.
        variable: &'static str,
    },
    /// A path that has to be absolute is not.
    #[error("{variable} is {}, which is not an absolute path", path.display())]
    Relative {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

/// The four directories; none of them need exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
    runtime: PathBuf,
    /// Where the installation that this program belongs to keeps its image, if it belongs to one.
    installed_image: Option<PathBuf>,
}

/// Makes a directory, with its parents, that only its owner may enter; leaves one alone that exists.
pub fn make_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

impl Dirs {
    /// The directories of this user, from the environment, and the image of the installation that this program is of.
    pub fn from_env() -> Result<Self, DirsError> {
        let mut dirs = Self::from_variables(|name| env::var_os(name).filter(|value| !value.is_empty()))?;
        // Where the system does not say which program this is, there is only the user's own image.
        dirs.installed_image = env::current_exe().ok().and_then(|program| image_of(&program));
        Ok(dirs)
    }

    /// Everything below one directory, with no image but the one there.
    pub fn below(root: &Path) -> Self {
        Self {
            config: root.join("config"),
            data: root.join("data"),
            cache: root.join("cache"),
            runtime: root.join("run"),
            installed_image: None,
        }
    }

    fn from_variables(variable: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, DirsError> {
        let absolute = |name: &'static str| match variable(name).map(PathBuf::from) {
            Some(path) if path.is_absolute() => Ok(Some(path)),
            Some(path) => Err(DirsError::Relative { variable: name, path }),
            None => Ok(None),
        };
        if let Some(root) = absolute("COVE_HOME")? {
            return Ok(Self::below(&root));
        }
        let required = |name: &'static str| absolute(name)?.ok_or(DirsError::NoHome { variable: name });
        if cfg!(windows) {
            let local = required("LOCALAPPDATA")?.join("cove");
            let config = required("APPDATA")?.join("cove");
            return Ok(Self {
                config,
                cache: local.join("cache"),
                runtime: local.join("run"),
                data: local,
                installed_image: None,
            });
        }
        let home = || required("HOME");
        if cfg!(target_os = "macos") {
            let data = home()?.join("Library/Application Support/cove");
            let cache = home()?.join("Library/Caches/cove");
            return Ok(Self {
                config: data.clone(),
                cache,
                runtime: data.join("run"),
                data,
                installed_image: None,
            });
        }
        // The XDG specification has relative paths ignored rather than refused.
        let xdg = |name: &'static str, fallback: &str| match absolute(name) {
            Ok(Some(path)) => Ok(path.join("cove")),
            _ => Ok(home()?.join(fallback).join("cove")),
        };
        let data = xdg("XDG_DATA_HOME", ".local/share")?;
        let runtime = match absolute("XDG_RUNTIME_DIR") {
            Ok(Some(path)) => path.join("cove"),
            _ => data.join("run"),
        };
        Ok(Self {
            config: xdg("XDG_CONFIG_HOME", ".config")?,
            cache: xdg("XDG_CACHE_HOME", ".cache")?,
            data,
            runtime,
            installed_image: None,
        })
    }

    /// The settings file.
    pub fn settings(&self) -> PathBuf {
        self.config.join("settings.toml")
    }

    /// The certificates that the user trusts, a file each.
    pub fn certificates(&self) -> PathBuf {
        self.config.join("certificates")
    }

    /// What can be fetched again.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// All that Cove writes by itself.
    pub fn own(&self) -> Vec<PathBuf> {
        vec![self.data.clone(), self.cache.clone(), self.runtime.clone()]
    }

    /// The guest image that machines start from: the user's own where there is one, whatever its state, else the one
    /// that was installed with this program. Looks at the file system.
    pub fn image(&self) -> PathBuf {
        let own = self.own_image();
        match &self.installed_image {
            Some(installed) if own.symlink_metadata().is_err() && installed.is_dir() => installed.clone(),
            _ => own,
        }
    }

    /// Where an image is built for this user.
    pub fn own_image(&self) -> PathBuf {
        self.data.join("image")
    }

    /// All machines, a directory each.
    pub fn machines(&self) -> PathBuf {
        self.data.join("machines")
    }

    /// One machine's persistent files, its data disk among them.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.machines().join(name)
    }

    /// The window's history of builds.
    pub fn builds(&self) -> PathBuf {
        self.data.join("builds")
    }

    /// The daemon's and the machine processes' logs.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// Sockets and the daemon's lock; a directory of mode 0700.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The control API's socket.
    pub fn daemon_socket(&self) -> PathBuf {
        self.runtime.join("daemon.sock")
    }

    /// The sockets of one machine.
    pub fn machine_runtime(&self, name: &str) -> PathBuf {
        self.runtime.join(name)
    }

    /// The socket at which Docker clients reach a machine's engine.
    pub fn docker_socket(&self, name: &str) -> PathBuf {
        self.machine_runtime(name).join("docker.sock")
    }
}

/// The image of the installation that `program` is of; nothing for one that is not in a `bin`.
fn image_of(program: &Path) -> Option<PathBuf> {
    let bin = program.parent().filter(|parent| parent.ends_with("bin"))?;
    Some(bin.parent()?.join("lib/cove/image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(variables: &[(&'static str, &str)]) -> Result<Dirs, DirsError> {
        Dirs::from_variables(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn cove_home_puts_everything_below_one_directory() {
        let found = dirs(&[("COVE_HOME", "/x"), ("HOME", "/home/u")]).unwrap();
        assert_eq!(found, Dirs::below(Path::new("/x")));
        assert_eq!(
            found.docker_socket("default"),
            Path::new("/x/run/default/docker.sock")
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn without_a_runtime_directory_the_sockets_live_with_the_data() {
        let found = dirs(&[("HOME", "/home/u")]).unwrap();
        assert_eq!(
            found.daemon_socket(),
            Path::new("/home/u/.local/share/cove/run/daemon.sock")
        );
        let found = dirs(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/7")]).unwrap();
        assert_eq!(found.daemon_socket(), Path::new("/run/user/7/cove/daemon.sock"));
    }

    #[test]
    fn the_installed_image_serves_until_there_is_an_own_one() {
        let place = tempfile::tempdir().unwrap();
        let mut dirs = Dirs::below(&place.path().join("home"));
        let installed = image_of(&place.path().join("usr/bin/cove")).unwrap();
        assert_eq!(installed, place.path().join("usr/lib/cove/image"));
        dirs.installed_image = Some(installed.clone());
        assert_eq!(dirs.image(), dirs.own_image(), "nothing is installed");
        std::fs::create_dir_all(&installed).unwrap();
        assert_eq!(dirs.image(), installed);
        std::fs::create_dir_all(dirs.own_image()).unwrap();
        assert_eq!(dirs.image(), dirs.own_image());
    }

    #[test]
    fn a_program_in_a_build_directory_is_of_no_installation() {
        assert_eq!(image_of(Path::new("/src/target/debug/cove")), None);
        assert_eq!(image_of(Path::new("cove")), None);
    }

    #[test]
    fn a_relative_cove_home_is_refused() {
        assert!(matches!(
            dirs(&[("COVE_HOME", "x")]),
            Err(DirsError::Relative { .. })
        ));
    }

    #[test]
    fn no_home_says_which_variable_to_set() {
        let error = dirs(&[]).unwrap_err().to_string();
        assert!(error.contains("COVE_HOME"), "{error}");
    }
}
