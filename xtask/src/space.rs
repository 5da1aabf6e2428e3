//! How much space the tests left on the disks that they write to: a full one fails tests in ways that do not name it.

use std::{
    env,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(2);

/// Looks now and then, until it is dropped or asked.
pub(crate) struct Watch {
    stop: Sender<()>,
    looking: JoinHandle<Vec<(PathBuf, u64)>>,
}

impl Watch {
    /// Of the directory for temporary files, where machines have their disks, and of `target`.
    pub(crate) fn begin(target: &Path) -> Self {
        let places = [env::temp_dir(), target.to_owned()];
        let (stop, stopped) = mpsc::channel();
        let looking = thread::spawn(move || {
            let mut least = places.map(|place| (place, u64::MAX));
            loop {
                for (place, least) in &mut least {
                    *least = free(place).unwrap_or(u64::MAX).min(*least);
                }
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return least.into();
                }
            }
        });
        Self { stop, looking }
    }

    /// The least that was free, in words: `/tmp 20.1 GiB, target 31.0 GiB`.
    pub(crate) fn end(self) -> String {
        drop(self.stop);
        let least = self.looking.join().unwrap_or_default();
        let known = least.iter().filter(|(_, bytes)| *bytes < u64::MAX);
        let words = known.map(|(place, bytes)| {
            let tenths = bytes / ((1 << 30) / 10);
            format!("{} {}.{} GiB", place.display(), tenths / 10, tenths % 10)
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// Bytes that anybody may take on the file system of `place`.
fn free(place: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let file_system = rustix::fs::statvfs(place).ok()?;
        Some(file_system.f_bavail * file_system.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = place;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn the_least_is_told_of_every_place() {
        let words = Watch::begin(Path::new("/")).end();
        assert!(words.contains("/ ") && words.ends_with(" GiB"), "{words}");
        assert_eq!(words.matches("GiB").count(), 2, "{words}");
    }
}
