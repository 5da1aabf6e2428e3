//! The ends of log files.

use super::words::clean;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes at a file's end that are looked at.
const WINDOW: u64 = 16 << 10;

/// The last lines of a file, cleaned; none when it cannot be read.
pub(crate) fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| clean(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_read_and_they_are_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let lines: Vec<String> = (0..5000).map(|number| format!("line {number}\x1b\n")).collect();
        std::fs::write(&path, lines.concat()).unwrap();
        assert_eq!(last_lines(&path, 2), ["line 4998", "line 4999"]);
        assert!(last_lines(&dir.path().join("absent"), 2).is_empty());
    }
}
