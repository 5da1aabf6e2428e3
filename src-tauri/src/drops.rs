//! What was dropped on the window. Only that, and what a person chose in a dialog, is read for the page: a page that
//! names another path of this computer is refused.

use crate::failure::{Answer, Refusal};
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};
use tauri::{DragDropEvent, Manager as _, Runtime, Window, WindowEvent};

/// Paths that are remembered.
const KEPT: usize = 256;

/// The paths that were dropped last.
#[derive(Debug, Default)]
pub(crate) struct Drops(Mutex<VecDeque<PathBuf>>);

impl Drops {
    fn add(&self, paths: &[PathBuf]) {
        let mut dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.extend(paths.iter().take(KEPT).cloned());
        let more = dropped.len().saturating_sub(KEPT);
        dropped.drain(..more);
    }

    /// Refuses paths that were not dropped.
    pub(crate) fn check(&self, paths: &[PathBuf]) -> Answer<()> {
        let dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match paths.iter().find(|path| !dropped.contains(path)) {
            None => Ok(()),
            Some(path) => Err(Refusal::new(
                format!("{} was not dropped on the window", path.display()),
                "Drop it once more.",
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
    fn only_what_was_dropped_is_read() {
        let drops = Drops::default();
        drops.add(&["/home/u/a".into(), "/home/u/b".into()]);
        assert!(drops.check(&["/home/u/b".into()]).is_ok());
        assert!(
            drops
                .check(&["/home/u/b".into(), "/home/u/.ssh/id".into()])
                .is_err()
        );
        drops.add(&vec![PathBuf::from("/x"); KEPT]);
        assert!(drops.check(&["/home/u/b".into()]).is_err(), "kept for ever");
    }
}
