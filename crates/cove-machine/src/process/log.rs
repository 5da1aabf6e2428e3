//! The machine process's own log, to which its standard error leads.
//!
//! A guest can have devices complain for as long as it likes, so that the log is bounded while the process runs, and
//! not only when it starts: a task moves a full one aside and has standard error lead to the next.

use super::console;
use crate::MachineError;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::{
    convert::Infallible,
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tracing_subscriber::EnvFilter;

/// Size above which the log becomes `process.log.1`, in bytes.
const LIMIT: u64 = 1 << 20;

/// How often the size is looked at while something is written. Nothing wakes up where nothing is.
const INTERVAL: Duration = Duration::from_secs(1);

/// The log, open for a process that starts.
#[derive(Debug)]
pub(super) struct ProcessLog {
    path: PathBuf,
    file: File,
    /// Its size before the process started.
    start: u64,
}

/// Opens the log in the machine's `directory`.
pub(super) fn open(directory: &Path) -> Result<ProcessLog, MachineError> {
    let path = path(directory);
    let opened = move_full_aside(&path, LIMIT).and_then(|_| {
        let file = console::append(&path)?;
        let start = file.metadata()?.len();
        Ok((file, start))
    });
    match opened {
        Ok((file, start)) => Ok(ProcessLog { path, file, start }),
        Err(source) => Err(MachineError::Io {
            operation: "open the log",
            path,
            source,
        }),
    }
}

impl ProcessLog {
    /// A descriptor for the process.
    pub(super) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The last lines that the process wrote, in one line; nothing if it wrote none.
    pub(super) fn last_words(&self) -> Option<String> {
        let size = self.file.metadata().ok()?.len();
        let lines = console::tail_of_file(&self.path);
        let last = &lines[lines.len().saturating_sub(5)..];
        (size > self.start && !last.is_empty()).then(|| last.join("; "))
    }
}

/// Sends what this process logs to standard error, unless its program does so already. `COVE_LOG` filters, as it does
/// for the daemon.
pub(super) fn begin() {
    let filter = EnvFilter::try_from_env("COVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // It fails only where a program set up its own log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
}

/// Keeps the log in `directory`, to which this process's standard error leads, within its bound, by a thread that ends
/// with the process.
pub(super) fn keep_bounded(directory: &Path) {
    let path = path(directory);
    let begun = thread::Builder::new().name("log".to_owned()).spawn(move || {
        let Err(error) = bound(&path, LIMIT, |log| Ok(rustix::stdio::dup2_stderr(log)?));
        tracing::warn!(path = %path.display(), %error, "the log is not bounded");
    });
    if let Err(error) = begun {
        tracing::warn!(%error, "the log is not bounded");
    }
}

/// Moves the log aside whenever it is larger than `limit`, and has `lead` take the next one.
fn bound(path: &Path, limit: u64, lead: impl Fn(File) -> io::Result<()>) -> io::Result<Infallible> {
    let mut events = [0; 4096];
    loop {
        // A watch of the log that was moved aside goes with these.
        let changes = inotify::init(CreateFlags::CLOEXEC)?;
        inotify::add_watch(&changes, path, WatchFlags::MODIFY)?;
        // The watch comes before the look, so that what is written between the two is noticed.
        while !move_full_aside(path, limit)? {
            // What the events say does not matter, only that there were some.
            rustix::io::retry_on_intr(|| rustix::io::read(&changes, &mut events))?;
            thread::sleep(INTERVAL);
        }
        lead(console::append(path)?)?;
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("process.log")
}

/// Renames the log if it is larger than `limit`.
fn move_full_aside(path: &Path, limit: u64) -> io::Result<bool> {
    let full = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > limit);
    if full {
        std::fs::rename(path, console::older(path))?;
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn last_words_are_those_of_the_process_and_not_of_an_earlier_one() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path()).unwrap();
        writeln!(log.share().unwrap(), "earlier").unwrap();
        let log = open(directory.path()).unwrap();
        assert_eq!(log.last_words(), None);
        writeln!(log.share().unwrap(), "no such option").unwrap();
        assert!(log.last_words().unwrap().ends_with("no such option"));
    }

    #[test]
    fn a_log_is_moved_aside_each_time_that_it_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("process.log");
        let mut log = console::append(&path).unwrap();
        let (sender, logs) = std::sync::mpsc::channel();
        let bounded = path.clone();
        // It ends with the test's process.
        thread::spawn(move || bound(&bounded, 99, |log| sender.send(log).map_err(io::Error::other)));
        for turn in [b'x', b'y'] {
            log.write_all(&[turn; 100]).unwrap();
            log = logs.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(std::fs::read(console::older(&path)).unwrap(), [turn; 100]);
        }
    }

    #[test]
    fn only_a_full_log_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("process.log");
        std::fs::write(&path, [b'x'; 100]).unwrap();
        assert!(!move_full_aside(&path, 100).unwrap());
        assert!(move_full_aside(&path, 99).unwrap());
        assert!(!path.exists() && console::older(&path).exists());
    }
}
