//! Waiting for a file to appear, without polling.

use crate::descriptor::awaited;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::{io, path::Path};

/// Returns when `path` exists. Its directory must exist.
pub(crate) async fn appeared(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let events = awaited(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)?;
    inotify::add_watch(&events, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    let mut buffer = [0; 4096];
    // The watch comes before the look, so that a file which appears between the two is noticed.
    while !path.try_exists()? {
        let mut ready = events.readable().await?;
        // What the events say does not matter, only that there were some.
        let _ = ready.try_io(|events| Ok(rustix::io::read(events, &mut buffer)?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_file_is_noticed_when_it_appears_and_when_it_is_there_already() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { appeared(&path).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        std::fs::write(directory.path().join("other"), "").unwrap();
        std::fs::write(&path, "").unwrap();
        tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        appeared(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_directory_is_an_error() {
        assert!(appeared(Path::new("/nonexistent/file")).await.is_err());
    }
}
