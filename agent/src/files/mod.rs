//! Files of a container or a volume: the agent as a program that the host runs for one question, `cove-agent files
//! QUESTION`.
//!
//! ```text
//!  question ─▶ enter (chroot to their root) ─▶ look · remove · rename ─▶ answer on standard output
//! ```
//!
//! It is a process of its own so that it can make the container's root, or a volume, its own: links then lead where
//! they lead in there and nowhere else, whatever programs make of them in the meantime. It needs nothing of the
//! container's, so that images without a shell can be looked into as well.

mod look;
mod root;

use cove_wire::{FILES_ARGUMENT, FilesAnswer, FilesCall, FilesQuestion};
use root::Root;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
enum FilesError {
    #[error("the question makes no sense: {0}")]
    Question(#[from] serde_json::Error),
    #[error("`{0}` is not a path that can be meant here")]
    Path(String),
    #[error("the container does not run any more")]
    Gone,
    #[error("cannot reach the files ({step}): {source}")]
    Enter { step: &'static str, source: io::Error },
    #[error("{} is mounted there; what is mounted is not removed or renamed", mount.display())]
    Mounted { mount: PathBuf },
    #[error("cannot {what} {}: {source}", path.display())]
    Failed {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// The question, if this process was started for one.
pub(crate) fn question() -> Option<OsString> {
    // Its own name comes first.
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == FILES_ARGUMENT).then(|| arguments.next().unwrap_or_default())
}

/// Answers it.
pub(crate) fn run(question: &OsString) -> ExitCode {
    let answer = answer(question).unwrap_or_else(|error| FilesAnswer::Refused(error.to_string()));
    match serde_json::to_writer(io::stdout().lock(), &answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot answer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(question: &OsString) -> Result<FilesAnswer, FilesError> {
    let question: FilesQuestion = serde_json::from_slice(question.as_encoded_bytes())?;
    let root = Root::enter(&question.root)?;
    match &question.call {
        FilesCall::Look { path, mounts } => look::at(Path::new(path), mounts),
        FilesCall::Remove { path } => {
            let path = place(path)?;
            root.check_no_mount_in(&path)?;
            remove(&path).map_err(failed("remove", &path))?;
            Ok(FilesAnswer::Done)
        }
        FilesCall::Rename { path, name } => {
            let from = place(path)?;
            let mut parts = Path::new(name).components();
            let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
                return Err(FilesError::Path(name.clone()));
            };
            if name.contains('/') {
                return Err(FilesError::Path(name.clone()));
            }
            root.check_no_mount_in(&from)?;
            renameat_with(CWD, &from, CWD, from.with_file_name(name), RenameFlags::NOREPLACE)
                .map_err(|error| failed("rename", &from)(error.into()))?;
            Ok(FilesAnswer::Done)
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    move |source| FilesError::Failed {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Where something is that is to be changed: links of its folder are resolved, it itself may be one.
fn place(path: &str) -> Result<PathBuf, FilesError> {
    let wrong = || FilesError::Path(path.to_owned());
    let whole = Path::new(path);
    let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(wrong());
    };
    if !whole.is_absolute() {
        return Err(wrong());
    }
    let folder = fs::canonicalize(folder).map_err(failed("find", folder))?;
    Ok(folder.join(name))
}

/// A folder goes with what is in it. Links within are removed and not followed, even if they change meanwhile.
fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_removed_itself_and_what_it_leads_to_stays() {
        let scratch = tempfile::tempdir().expect("a directory");
        let (folder, link) = (scratch.path().join("folder"), scratch.path().join("link"));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("kept"), "x").expect("a file");
        symlink(&folder, &link).expect("a link");
        let found = place(link.to_str().expect("UTF-8")).expect("it is there");
        remove(&found).expect("it can be removed");
        assert!(folder.join("kept").exists() && fs::symlink_metadata(&link).is_err());
        remove(&folder).expect("a folder goes with what is in it");
        assert!(!folder.exists());
    }

    #[test]
    fn what_has_no_name_in_a_folder_is_not_changed() {
        for path in ["/", "", "relative", "/..", "/tmp/.."] {
            assert!(place(path).is_err(), "{path}");
        }
    }
}
