//! A guest's console, in a file that the monitor writes, and what the guest's program says on it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Begins a line that `cove-exercise` means for us.
const MARK: &str = "@exercise ";
/// Bytes of the end of what was written that are shown when something went wrong.
const TAIL: usize = 2000;

/// The console of a guest that may not even have begun.
pub(super) struct Console {
    path: PathBuf,
    file: Option<File>,
    /// All of it, as far as it was read.
    text: Vec<u8>,
    /// Where the first line begins that has not ended yet.
    line: usize,
    said: VecDeque<(Instant, String)>,
}

impl Console {
    /// Of a guest whose monitor writes it to `path`, and makes that file.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            text: Vec::new(),
            line: 0,
            said: VecDeque::new(),
        }
    }

    /// What the program said that nobody has taken yet, and when that was seen.
    pub(super) fn next(&mut self) -> Result<Option<(Instant, String)>> {
        if self.said.is_empty() {
            self.read()?;
        }
        let Some((at, line)) = self.said.pop_front() else {
            return Ok(None);
        };
        if let Some(why) = line.strip_prefix("failed: ") {
            bail!("the guest's program failed: {why}");
        }
        Ok(Some((at, line)))
    }

    /// The end of everything that was written.
    pub(super) fn tail(&self) -> String {
        tail(&self.text)
    }

    fn read(&mut self) -> Result<()> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error).context(format!("{}", self.path.display())),
            }
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.text)?;
        }
        let now = Instant::now();
        while let Some(rest) = self.text.get(self.line..)
            && let Some(length) = rest.iter().position(|byte| *byte == b'\n')
        {
            let line = String::from_utf8_lossy(&rest[..length]);
            if let Some((_, said)) = line.split_once(MARK) {
                self.said.push_back((now, said.trim_end().to_owned()));
            }
            self.line += length + 1;
        }
        Ok(())
    }
}

/// The end of `text`, for a message.
pub(super) fn tail(text: &[u8]) -> String {
    let start = text.len().saturating_sub(TAIL);
    String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_line_is_heard_when_it_has_ended_and_a_failure_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let mut console = Console::new(path.clone());
        let mut said = || console.next().map(|said| said.map(|(_, line)| line));
        assert_eq!(said().unwrap(), None, "there is no file yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"[ 0.1] kernel\r\n@exercise in").unwrap();
        assert_eq!(said().unwrap(), None);
        file.write_all(b"it\r\n[ 0.2] late @exercise freed\r\n").unwrap();
        assert_eq!(said().unwrap().as_deref(), Some("init"));
        assert_eq!(said().unwrap().as_deref(), Some("freed"));
        file.write_all(b"@exercise failed: no disk\r\n").unwrap();
        assert!(said().unwrap_err().to_string().contains("no disk"));
        assert!(console.tail().ends_with("no disk\r\n"));
    }
}
