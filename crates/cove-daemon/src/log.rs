//! The daemon's own log: a file of bounded size, with one older file beside it.

use std::{
    env,
    fs::{self, File},
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

/// Bytes after which a new file is begun.
const MAX_FILE: u64 = 4 << 20;

/// The name of the daemon's log in the directory of logs.
pub(crate) const FILE: &str = "daemon.log";

/// Sends `tracing` to `directory/daemon.log`, and to standard error as well when asked. `COVE_LOG` filters, as in
/// `COVE_LOG=debug`.
pub(crate) fn begin(directory: &Path, to_stderr: bool) -> io::Result<()> {
    let file = RotatingFile::open(directory.join(FILE), MAX_FILE)?;
    let filter = EnvFilter::try_from_env("COVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let to_file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(file);
    let stderr = to_stderr.then(|| {
        tracing_subscriber::fmt::layer()
            .with_ansi(colours())
            .with_writer(io::stderr)
    });
    let begun = tracing_subscriber::registry()
        .with(filter)
        .with(to_file)
        .with(stderr)
        .try_init();
    if begun.is_err() {
        // A program that has a log of its own, as a test may, keeps it.
        return Ok(());
    }
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("panic: {panic}");
        default(panic);
    }));
    Ok(())
}

/// Whether standard error shows colours, and nobody has asked for none (`NO_COLOR`, see no-color.org).
fn colours() -> bool {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let known = env::var_os("TERM").is_none_or(|kind| kind != "dumb");
    wanted && known && io::stderr().is_terminal()
}

/// A file that is renamed to `<name>.1` when it is full.
#[derive(Clone)]
struct RotatingFile(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    limit: u64,
    file: File,
    length: u64,
}

impl RotatingFile {
    fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = append_to(&path)?;
        let length = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner {
            path,
            limit,
            file,
            length,
        }))))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

impl Inner {
    fn rotate(&mut self) -> io::Result<()> {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        fs::rename(&self.path, older)?;
        self.file = append_to(&self.path)?;
        self.length = 0;
        Ok(())
    }
}

impl Write for &RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.length >= inner.limit {
            // Better a file that is too long than a line that is lost.
            let _ = inner.rotate();
        }
        let written = inner.file.write(bytes)?;
        inner.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for RotatingFile {
    type Writer = &'a RotatingFile;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_never_takes_more_than_twice_its_bound_and_keeps_the_latest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let log = RotatingFile::open(path.clone(), 1000).unwrap();
        for line in 0..200 {
            writeln!(&log, "line {line:04}").unwrap();
        }
        let new = fs::read_to_string(&path).unwrap();
        let old = fs::read_to_string(dir.path().join("daemon.log.1")).unwrap();
        assert!(
            new.len() <= 1010 && old.len() <= 1010,
            "{} {}",
            new.len(),
            old.len()
        );
        let all = format!("{old}{new}");
        assert!(all.ends_with("line 0199\n"));
        let numbers: Vec<u32> = all.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "a line was lost or split"
        );
    }
}
