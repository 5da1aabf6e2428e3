//! Running programs as an ordinary user when we are root: Cove needs no root, and the tests prove it by having none.
//!
//! Root makes a user `cove-test` for this. A checkout below a directory that only root may enter (`/root`, a temporary
//! directory of mode 0700) is made reachable in a mount namespace that only the tests see; nothing outside changes.

use crate::process::{self, find, note, try_capture};
use anyhow::{Context as _, Result};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const USER: &str = "cove-test";

/// In a private mount namespace: covers `$1`, a directory that others may not enter, with an empty one, and puts the
/// checkout `$2` back to where it was within.
const UNCOVER: &str = r#"
set -e
keep=$(mktemp -d)
mount --make-rprivate /
mount --bind "$2" "$keep"
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir -p "$2"
mount --move "$keep" "$2"
rmdir "$keep"
shift 2
exec "$@"
"#;

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    return false;
}

/// Who runs the tests.
#[derive(Debug)]
pub(crate) enum Runner {
    /// We, who are an ordinary user.
    Ourselves,
    /// The user that root made.
    TestUser {
        /// The directory to cover first, if the checkout lies below one that others may not enter.
        hidden_below: Option<PathBuf>,
        /// The checkout.
        root: PathBuf,
    },
}

impl Runner {
    /// Makes the user if we are root, and checks that it can reach the checkout.
    pub(crate) fn prepare(root: &Path) -> Result<Self> {
        if !is_root() {
            return Ok(Self::Ourselves);
        }
        if try_capture(Command::new("id").args(["-u", USER])).is_none() {
            note(&format!("tests run as an ordinary user; creating `{USER}`"));
            let mut useradd =
                Command::new(find("useradd").context("there is no useradd to make a user with")?);
            useradd.args(["--system", "--no-create-home", "--home-dir", "/nonexistent"]);
            process::run_quietly(useradd.args(["--shell", "/usr/sbin/nologin", "--user-group", USER]))?;
        }
        let hidden_below = first_unenterable(root);
        if let Some(hidden) = &hidden_below {
            note(&format!(
                "{} is for root only; the tests see {} in a mount namespace of their own",
                hidden.display(),
                root.display()
            ));
        }
        Ok(Self::TestUser {
            hidden_below,
            root: root.to_path_buf(),
        })
    }

    /// A command of `program`, to which arguments and variables may be added.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Self::TestUser { hidden_below, root } = self else {
            return Command::new(program);
        };
        let mut words: Vec<&OsStr> = Vec::new();
        if let Some(hidden) = hidden_below {
            words.extend(["unshare", "--mount", "sh", "-c", UNCOVER, "sh"].map(OsStr::new));
            words.extend([hidden.as_os_str(), root.as_os_str()]);
        }
        words.extend(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups"].map(OsStr::new));
        words.push("--no-new-privs".as_ref());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.arg("--").arg(program);
        command
    }

    /// A command of `program` as root, whose mounts nobody else sees; nothing where we are not root.
    pub(crate) fn command_of_root(&self, program: &Path) -> Option<Command> {
        let Self::TestUser { .. } = self else {
            return None;
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--"]).arg(program);
        Some(command)
    }

    /// Makes `directory`, writable for the tests.
    pub(crate) fn writable(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        if let Self::TestUser { .. } = self {
            process::run_quietly(
                Command::new("chown")
                    .args(["-R", &format!("{USER}:{USER}")])
                    .arg(directory),
            )?;
        }
        Ok(())
    }
}

/// The outermost directory above `path` that not everybody may enter.
fn first_unenterable(path: &Path) -> Option<PathBuf> {
    let mut directories: Vec<&Path> = path.ancestors().collect();
    directories.reverse();
    directories
        .into_iter()
        .find(|directory| !others_may_enter(directory))
        .map(Path::to_path_buf)
}

#[cfg(unix)]
fn others_may_enter(directory: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

#[cfg(not(unix))]
fn others_may_enter(_: &Path) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_outermost_closed_directory_is_found() {
        let base = std::env::temp_dir().join(format!("cove-xtask-{}", std::process::id()));
        let inner = base.join("closed/inner");
        fs::create_dir_all(&inner).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&base, 0o755);
        set(&base.join("closed"), 0o700);
        set(&inner, 0o700);
        let found = first_unenterable(&inner);
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(found, Some(base.join("closed")));
    }
}
