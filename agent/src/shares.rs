//! The host's folders in the guest: each at its own path, as the host says.
//!
//! All of them come through one file system, mounted at [`ATTACHED`], where nobody looks. [`Shares`] owns the list of
//! those that are bound to their paths from there. A share may lie within another one; the inner mount is on top, in
//! whatever order they come and go.
//!
//! The mounts are shared ones, like everything in the guest, so that containers with `rshared` or `rslave` mounts see
//! folders that come later. A container keeps what it has mounted when the share goes; the host's server then refuses
//! all access.

use crate::boot::mounts::{MountError, attach as mount};
use cove_wire::{Fault, FaultCode, SHARES_TAG};
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount_bind, unmount},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Where all shares are, by name.
pub(crate) const ATTACHED: &str = "/run/cove/shares";

/// The longest path that the kernel takes, with its terminating zero.
const MAX_PATH: usize = 4096;

/// Why a share is not where it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    /// The host asked for what cannot be.
    #[error("{0:?} cannot be a share's {1}")]
    Invalid(String, &'static str),
    /// The host has no such share, or the machine no device for them.
    #[error("the share {name} of the host cannot be reached: {source}")]
    Unreachable { name: String, source: io::Error },
    /// A link in the way would lead the mount elsewhere.
    #[error("{} leads through a symbolic link in the machine", .0.display())]
    Link(PathBuf),
    /// The guest's kernel refused.
    #[error("{operation} {} failed: {source}", path.display())]
    Failed {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl From<ShareError> for Fault {
    fn from(error: ShareError) -> Self {
        let code = match error {
            ShareError::Invalid(..) => FaultCode::Invalid,
            ShareError::Unreachable { .. } => FaultCode::NotFound,
            ShareError::Link(_) | ShareError::Failed { .. } => FaultCode::Failed,
        };
        Self::new(code, error.to_string())
    }
}

/// Mounts the file system that holds all shares.
pub(crate) fn attach() -> Result<(), MountError> {
    // Without NOSUID: a program on a share behaves as it does on the host's own file systems.
    mount(SHARES_TAG, Path::new(ATTACHED), "virtiofs", MountFlags::NODEV, "")
}

/// The shares at their paths; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<Mounted>>);

/// Names by path, outer paths before inner ones.
type Mounted = BTreeMap<PathBuf, String>;

impl Shares {
    /// Makes the share `name` appear at `path`.
    pub(crate) async fn mount(&self, name: String, path: String) -> Result<(), ShareError> {
        let name = check_name(name)?;
        let path = check_path(&path)?;
        self.change(move |mounted| {
            if mounted.get(&path) == Some(&name) {
                return Ok(());
            }
            let inner = lift(mounted, &path)?;
            let outcome = take_down(mounted, &path).and_then(|()| put_up(mounted, name, path));
            lower(mounted, inner);
            outcome
        })
        .await
    }

    /// Takes away the share at `path`.
    pub(crate) async fn unmount(&self, path: String) -> Result<(), ShareError> {
        let path = check_path(&path)?;
        self.change(move |mounted| {
            let inner = lift(mounted, &path)?;
            let outcome = take_down(mounted, &path);
            lower(mounted, inner);
            outcome
        })
        .await
    }

    /// Changes the mounts on a thread that may wait for the host, one change at a time.
    async fn change(
        &self,
        change: impl FnOnce(&mut Mounted) -> Result<(), ShareError> + Send + 'static,
    ) -> Result<(), ShareError> {
        let mounted = Arc::clone(&self.0);
        let work = move || change(&mut mounted.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) => Err(ShareError::Failed {
                operation: "changing the mounts at",
                path: ATTACHED.into(),
                source: io::Error::other(error),
            }),
        }
    }
}

/// Takes the shares below `path` away for a moment.
fn lift(mounted: &mut Mounted, path: &Path) -> Result<Vec<(PathBuf, String)>, ShareError> {
    let inner: Vec<_> = mounted
        .iter()
        .filter(|(inner, _)| inner.starts_with(path) && *inner != path)
        .map(|(path, name)| (path.clone(), name.clone()))
        .collect();
    for (path, _) in inner.iter().rev() {
        take_down(mounted, path)?;
    }
    Ok(inner)
}

/// Puts back what was lifted.
fn lower(mounted: &mut Mounted, inner: Vec<(PathBuf, String)>) {
    for (path, name) in inner {
        if let Err(error) = put_up(mounted, name, path) {
            tracing::warn!("putting a share back: {error}");
        }
    }
}

fn put_up(mounted: &mut Mounted, name: String, path: PathBuf) -> Result<(), ShareError> {
    let source = Path::new(ATTACHED).join(&name);
    if let Err(source) = fs::symlink_metadata(&source) {
        return Err(ShareError::Unreachable { name, source });
    }
    let failed = |operation| {
        let path = path.clone();
        move |source| ShareError::Failed {
            operation,
            path,
            source,
        }
    };
    fs::create_dir_all(&path).map_err(failed("making the directory"))?;
    // Within a share lie links of the host's, and the image has some of its own, such as /var/run.
    if fs::canonicalize(&path).map_err(failed("looking at"))? != path {
        return Err(ShareError::Link(path));
    }
    mount_bind(&source, &path).map_err(|error| failed("mounting the share at")(error.into()))?;
    mounted.insert(path, name);
    Ok(())
}

/// Takes away the share at `path`, if there is one. What uses it keeps it until it is done.
fn take_down(mounted: &mut Mounted, path: &Path) -> Result<(), ShareError> {
    if !mounted.contains_key(path) {
        return Ok(());
    }
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Somebody in the guest was faster.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => {
            return Err(ShareError::Failed {
                operation: "unmounting the share at",
                path: path.to_owned(),
                source: error.into(),
            });
        }
    }
    mounted.remove(path);
    Ok(())
}

fn check_name(name: String) -> Result<String, ShareError> {
    let one = {
        let mut parts = Path::new(&name).components();
        matches!(parts.next(), Some(Component::Normal(part)) if part == name.as_str())
            && parts.next().is_none()
    };
    if one && name.len() <= 255 && !name.contains('\0') {
        Ok(name)
    } else {
        Err(ShareError::Invalid(name, "name"))
    }
}

/// Accepts an absolute path in its one canonical spelling, except for the root.
fn check_path(text: &str) -> Result<PathBuf, ShareError> {
    let path = Path::new(text);
    let plain = text.starts_with('/')
        && text.len() < MAX_PATH
        && !text.contains('\0')
        && text[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain {
        Ok(path.to_owned())
    } else {
        Err(ShareError::Invalid(text.to_owned(), "path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_has_one_spelling_and_is_not_the_root() {
        for path in ["/a", "/home/ü x/..y", "/a/.b"] {
            assert_eq!(check_path(path).unwrap(), Path::new(path));
        }
        for path in [
            "", "/", "a", "//a", "/a/", "/a//b", "/a/./b", "/a/../b", "/a\0", "/..",
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        assert!(check_path(&format!("/{}", "x".repeat(MAX_PATH))).is_err());
    }

    #[test]
    fn a_name_is_one_component() {
        assert!(check_name("0123abcd".into()).is_ok());
        for name in ["", ".", "..", "/", "a/b", "a/", "a\0b"] {
            assert!(check_name(name.into()).is_err(), "{name:?}");
        }
        assert!(check_name("x".repeat(256)).is_err());
    }

    #[tokio::test]
    async fn a_share_that_the_host_does_not_have_is_an_error_and_leaves_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("share");
        let shares = Shares::default();
        let error = shares
            .mount("missing".into(), path.to_str().unwrap().into())
            .await
            .unwrap_err();
        assert!(matches!(error, ShareError::Unreachable { .. }), "{error}");
        assert!(!path.exists());
        shares.unmount(path.to_str().unwrap().into()).await.unwrap();
    }

    proptest! {
        #[test]
        fn an_accepted_path_means_itself_under_the_root(text in "/?([a.]{0,3}/?){0,5}") {
            if let Ok(path) = check_path(&text) {
                prop_assert_eq!(path.components().collect::<PathBuf>(), path.clone());
                // The first is the root.
                prop_assert!(path.components().skip(1).all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(path.parent().is_some());
            }
        }
    }
}
