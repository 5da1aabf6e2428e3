//! The text of a log that is a file: all of it or its last lines, and what is added to it.

use bytes::Bytes;
use std::{
    fs::Metadata,
    io::{self, SeekFrom},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// How often a followed file is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// A log that is being read.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    path: PathBuf,
    follow: bool,
    end: CancellationToken,
}

impl LogFile {
    /// Opens the log at `path`, where its last `tail` lines begin if not all of it is wanted. One that is followed has
    /// no end before `end` is cancelled.
    pub async fn open(
        path: PathBuf,
        tail: Option<u32>,
        follow: bool,
        end: CancellationToken,
    ) -> io::Result<Self> {
        let mut file = File::open(&path).await?;
        if let Some(count) = tail {
            let start = tail_start(&mut file, count).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        Ok(Self {
            file,
            path,
            follow,
            end,
        })
    }

    /// The next bytes; nothing at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = self.file.read(&mut buffer).await?;
            if length > 0 {
                buffer.truncate(length);
                return Ok(Some(buffer.into()));
            }
            if !self.follow {
                return Ok(None);
            }
            // A full log is renamed and begun anew; a machine that starts begins its console anew in place.
            let open = self.file.metadata().await?;
            match tokio::fs::metadata(&self.path).await {
                Ok(named) if !same_file(&open, &named) => {
                    self.file = File::open(&self.path).await?;
                    continue;
                }
                Ok(named) if named.len() < self.file.stream_position().await? => {
                    self.file.seek(SeekFrom::Start(0)).await?;
                    continue;
                }
                Ok(_) | Err(_) => {}
            }
            if self.end.run_until_cancelled(sleep(LOOK)).await.is_none() {
                return Ok(None);
            }
        }
    }
}

/// Where the last `count` lines of a file begin.
async fn tail_start(file: &mut File, count: u32) -> io::Result<u64> {
    let mut end = file.metadata().await?.len();
    let mut lines = 0;
    let mut buffer = vec![0; CHUNK];
    let mut last_byte = true;
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let length = usize::try_from(end - start).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut buffer[..length]).await?;
        for (index, byte) in buffer[..length].iter().enumerate().rev() {
            // The line break at the file's very end ends its last line and begins none.
            if *byte == b'\n' && !std::mem::take(&mut last_byte) {
                lines += 1;
                if lines == count {
                    return Ok(start + index as u64 + 1);
                }
            }
            last_byte = false;
        }
        if count == 0 {
            return file.metadata().await.map(|metadata| metadata.len());
        }
        end = start;
    }
    Ok(0)
}

#[cfg(unix)]
fn same_file(left: &Metadata, right: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (left.dev(), left.ino()) == (right.dev(), right.ino())
}

#[cfg(not(unix))]
fn same_file(left: &Metadata, right: &Metadata) -> bool {
    left.created().ok() == right.created().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tail(text: &str, count: u32) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, text).unwrap();
        let start = tail_start(&mut File::open(&path).await.unwrap(), count)
            .await
            .unwrap();
        text[usize::try_from(start).unwrap()..].to_owned()
    }

    #[tokio::test]
    async fn the_last_lines_are_found_whether_or_not_the_last_one_is_finished() {
        assert_eq!(tail("a\nb\nc\n", 2).await, "b\nc\n");
        assert_eq!(tail("a\nb\nc", 2).await, "b\nc");
        assert_eq!(tail("a\nb\n", 5).await, "a\nb\n");
        assert_eq!(tail("a\nb\n", 0).await, "");
        assert_eq!(tail("", 3).await, "");
        let lines: Vec<String> = (0..40_000).map(|number| format!("line {number}\n")).collect();
        let long = lines.concat();
        assert_eq!(tail(&long, 30_000).await.lines().next(), Some("line 10000"));
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_in_the_file_that_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "old\n").unwrap();
        let end = CancellationToken::new();
        let log = LogFile::open(path.clone(), None, true, end.clone());
        let mut log = log.await.unwrap();
        assert_eq!(log.next().await.unwrap().unwrap(), "old\n");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(log.next().await.unwrap().unwrap(), "new\n");
        std::fs::write(&path, "x\n").unwrap();
        assert_eq!(log.next().await.unwrap().unwrap(), "x\n");
        end.cancel();
        assert_eq!(log.next().await.unwrap(), None);
    }
}
