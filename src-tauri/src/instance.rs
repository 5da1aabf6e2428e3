//! One window a Cove: a second start shows the first's window and ends.
//!
//! The first listens at a socket beside the daemon's, so that two Coves (`COVE_HOME`) have a window each, and nothing is
//! asked of the session's message bus, which need not be there.

use crate::window;
use cove_api::{
    Dirs,
    transport::{self, Listener},
};
use std::{fs, io, path::Path};
use tauri::AppHandle;

/// What became of claiming the window.
pub(crate) enum Claim {
    /// This is the only one.
    First(Instance),
    /// Another one is open and was told to show itself.
    Second,
    /// It cannot be found out.
    Unknown(io::Error),
}

/// The only window's ear.
pub(crate) struct Instance(Listener);

/// Claims the window of this Cove.
pub(crate) async fn claim(dirs: &Dirs) -> Claim {
    let socket = dirs.runtime().join("window.sock");
    // Being connected to is the whole message.
    if transport::connect(&socket).await.is_ok() {
        return Claim::Second;
    }
    let bind = || {
        private_directory(dirs.runtime())?;
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Listener::bind(&socket)
    };
    match bind() {
        Ok(listener) => Claim::First(Instance(listener)),
        Err(error) => Claim::Unknown(error),
    }
}

/// A directory such as that for sockets, as the daemon makes it: nobody else's to enter.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

impl Instance {
    /// Shows the window whenever another start asks for it.
    pub(crate) async fn serve(mut self, app: AppHandle) {
        while self.0.accept().await.is_ok() {
            window::show(&app);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_window_of_the_same_cove_finds_the_first_and_one_that_died_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        let Claim::First(first) = claim(&dirs).await else {
            panic!("nobody else is there");
        };
        assert!(matches!(claim(&dirs).await, Claim::Second));
        // Its socket stays behind, as after a kill.
        drop(first);
        assert!(matches!(claim(&dirs).await, Claim::First(_)));
    }
}
