//! The guest's console: a file of bounded size, the last lines in memory, and whether the kernel panicked.

use super::ansi::plain;
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// Bytes that are taken from a console's pipe at a time.
pub(crate) const PIPE: usize = 16 << 10;

/// A pipe is silent when nothing came for so long; what was written to it before is in it already.
pub(crate) const SILENCE: Duration = Duration::from_millis(20);

/// Size at which the file becomes `<file>.1` and a new one begins, in bytes.
const LIMIT: u64 = 1 << 20;

/// Lines of [`Console::tail`].
pub(crate) const TAIL: usize = 20;

/// Bytes of an unfinished line that are looked at; the rest of a longer one is only written to the file.
const MAX_PARTIAL: usize = 2048;

/// What the kernel writes when it gives up.
const PANIC: &str = "Kernel panic - not syncing";

/// A log file that becomes `<file>.1` when it is full.
#[derive(Debug)]
pub(crate) struct BoundedLog {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl BoundedLog {
    /// Appends to the file at `path`, which its owner alone may read.
    pub(crate) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            limit,
        })
    }

    /// Writes `bytes`. The file and its predecessor never hold more than the limit each, unless `bytes` does.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            std::fs::rename(&self.path, older(&self.path))?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// Opens the log at `path` to write at its end, for its user alone.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Where the older part of the log at `path` is.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Where the console's text goes.
#[derive(Debug)]
enum Log {
    /// To a file of this process's.
    File(BoundedLog),
    /// To a process that keeps the file.
    Pipe(File),
}

impl Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(log) => log.write(bytes),
            Self::Pipe(pipe) => pipe.write_all(bytes),
        }
    }
}

/// Everything that the guest writes to its console goes through here.
#[derive(Debug)]
pub(crate) struct Console {
    log: Log,
    /// The log cannot be written, which was said once.
    broken: bool,
    partial: Vec<u8>,
    tail: VecDeque<String>,
    panic: Option<String>,
}

impl Console {
    /// Logs to the file at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::on(Log::File(BoundedLog::open(path, LIMIT)?)))
    }

    /// Passes everything on into `pipe`, to whoever logs it.
    pub(crate) fn to_pipe(pipe: File) -> Self {
        Self::on(Log::Pipe(pipe))
    }

    fn on(log: Log) -> Self {
        Self {
            log,
            broken: false,
            partial: Vec::new(),
            tail: VecDeque::with_capacity(TAIL),
            panic: None,
        }
    }

    /// Takes what the guest wrote.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        match self.log.write(bytes) {
            Ok(()) => self.broken = false,
            // A full disk must not end the machine, and is said once.
            Err(error) if !self.broken => {
                self.broken = true;
                tracing::warn!(%error, "the guest's console is not logged");
            }
            Err(_) => {}
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece
                .strip_suffix(b"\n")
                .map_or((piece, false), |text| (text, true));
            let room = MAX_PARTIAL - self.partial.len();
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end_line();
            }
        }
    }

    /// Takes what is left in `pipe`, to which the guest writes no more.
    pub(crate) async fn drain(&mut self, pipe: &mut (impl AsyncRead + Unpin)) {
        let mut buffer = vec![0; PIPE];
        while let Ok(Ok(count @ 1..)) = timeout(SILENCE, pipe.read(&mut buffer)).await {
            self.write(&buffer[..count]);
        }
    }

    fn end_line(&mut self) {
        let line = plain(&self.partial);
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        if let Some(at) = line.find(PANIC) {
            self.panic.get_or_insert_with(|| line[at..].to_owned());
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The line with which the kernel panicked since [`Console::begin`], if it did.
    pub(crate) fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// The last lines, oldest first.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    /// A new kernel starts: what an earlier one wrote says nothing about it.
    pub(crate) fn begin(&mut self) {
        if !self.partial.is_empty() {
            self.end_line();
        }
        self.panic = None;
    }
}

/// The last lines of the console's file at `path`, for a machine whose process can no longer be asked.
pub(crate) fn tail_of_file(path: &Path) -> Vec<String> {
    /// Enough for the lines that are kept, at their longest.
    const WINDOW: u64 = 64 << 10;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let lines: Vec<_> = bytes
        .split(|byte| *byte == b'\n')
        .map(plain)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(TAIL)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn console() -> (tempfile::TempDir, PathBuf, Console) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let console = Console::open(&path).unwrap();
        (directory, path, console)
    }

    #[test]
    fn the_log_is_bounded_and_its_older_part_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = BoundedLog::open(&path, 100).unwrap();
        for round in 0..25u8 {
            log.write(&[b'a' + round; 10]).unwrap();
        }
        let newer = std::fs::read(&path).unwrap();
        let older = std::fs::read(older(&path)).unwrap();
        assert_eq!((older.len(), newer.len()), (100, 50));
        assert_eq!((older[0], newer[49]), (b'a' + 10, b'a' + 24));
    }

    #[test]
    fn an_existing_log_is_continued_within_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        BoundedLog::open(&path, 100).unwrap().write(&[b'x'; 90]).unwrap();
        BoundedLog::open(&path, 100).unwrap().write(&[b'y'; 20]).unwrap();
        assert_eq!(std::fs::read(older(&path)).unwrap(), [b'x'; 90]);
        assert_eq!(std::fs::read(&path).unwrap(), [b'y'; 20]);
    }

    #[test]
    fn a_panic_is_found_across_writes_and_forgotten_with_the_next_kernel() {
        let (_directory, _, mut console) = console();
        console.write(b"[    1.2] \x1b[31mKernel panic - not syn");
        assert_eq!(console.panic(), None);
        console.write(b"cing: VFS: no root\r\nrebooting\n");
        assert_eq!(console.panic(), Some("Kernel panic - not syncing: VFS: no root"));
        console.begin();
        assert_eq!(console.panic(), None);
    }

    #[test]
    fn the_tail_holds_the_last_lines_and_the_file_has_the_same() {
        let (_directory, path, mut console) = console();
        for line in 0..50 {
            console.write(format!("line {line}\r\n\n").as_bytes());
        }
        let tail = console.tail();
        assert_eq!((tail.len(), &*tail[0], &*tail[19]), (20, "line 30", "line 49"));
        assert_eq!(tail_of_file(&path), tail);
        assert!(tail_of_file(Path::new("/nonexistent")).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_a_guest_writes_is_logged_as_it_is(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4000), 0..20),
        ) {
            let (_directory, path, mut console) = console();
            for chunk in &chunks {
                console.write(chunk);
            }
            prop_assert_eq!(std::fs::read(&path).unwrap(), chunks.concat());
            prop_assert!(console.partial.len() <= MAX_PARTIAL && console.tail.len() <= TAIL);
        }
    }
}
