//! What a person gave to the window: dropped on it, or chose in a dialog of its own. Only that is read for the page and
//! shared with machines: a page that names another path of this computer is refused.

use crate::failure::{Answer, Refusal};
use std::{
    collections::{HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tauri::{DragDropEvent, Manager as _, Runtime, Window, WindowEvent};

/// Paths that are remembered. A person may select thousands of files and drop them together.
const KEPT: usize = 10_000;

/// The paths that were given last.
#[derive(Debug, Default)]
pub(crate) struct Drops(Mutex<VecDeque<PathBuf>>);

impl Drops {
    /// Remembers what a person gave.
    pub(crate) fn add(&self, paths: &[PathBuf]) {
        let mut dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.extend(paths.iter().take(KEPT).cloned());
        let more = dropped.len().saturating_sub(KEPT);
        dropped.drain(..more);
    }

    /// Remembers a path that a person named otherwise: in a dialog, or by a link that was dropped.
    pub(crate) fn admit(&self, path: &Path) {
        if self.check(&[path.to_owned()]).is_err() {
            self.add(&[path.to_owned()]);
        }
    }

    /// Refuses more paths than are remembered, of which the first would be forgotten before they are read.
    pub(crate) fn check_count(paths: &[PathBuf]) -> Answer<()> {
        if paths.len() <= KEPT {
            return Ok(());
        }
        Err(Refusal::new(
            format!("these are {} files; at once it may be {KEPT}", paths.len()),
            "Choose the folder that holds them, or fewer.",
        ))
    }

    /// Refuses paths that were not given, and more than can be.
    pub(crate) fn check(&self, paths: &[PathBuf]) -> Answer<()> {
        Self::check_count(paths)?;
        let dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let given: HashSet<&PathBuf> = dropped.iter().collect();
        match paths.iter().find(|path| !given.contains(path)) {
            None => Ok(()),
            Some(path) => Err(Refusal::new(
                format!("{} was neither dropped on the window nor chosen", path.display()),
                "Drop or choose it once more.",
            )),
        }
    }
}

/// Remembers what a window's event says was dropped.
pub(crate) fn remember<R: Runtime>(window: &Window<R>, event: &WindowEvent) {
    if let WindowEvent::DragDrop(DragDropEvent::Drop { paths, .. }) = event {
        window.state::<Drops>().add(paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_read() {
        let drops = Drops::default();
        drops.add(&["/home/u/a".into(), "/home/u/b".into()]);
        assert!(drops.check(&["/home/u/b".into()]).is_ok());
        assert!(
            drops
                .check(&["/home/u/b".into(), "/home/u/.ssh/id".into()])
                .is_err()
        );
        drops.admit(Path::new("/home/u/c"));
        assert!(drops.check(&["/home/u/c".into()]).is_ok());
        let refusal = drops.check(&vec![PathBuf::from("/home/u/c"); KEPT + 1]);
        let message = refusal.err().map(|refusal| refusal.0.message);
        assert!(message.is_some_and(|message| message.contains("at once")));
        drops.add(&vec![PathBuf::from("/x"); KEPT]);
        assert!(drops.check(&["/home/u/b".into()]).is_err(), "kept for ever");
    }
}
