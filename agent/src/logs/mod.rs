//! The logs that the agent keeps, each within a bound of memory, to be read from the start and followed.
//!
//! A follower keeps the number of the line that it wants next, and copies from the ring when there is one: nothing
//! is queued for it, and one that is too slow is told how many lines it lost.

mod kernel;
mod lines;
mod ring;
pub(crate) mod subscriber;

pub(crate) use kernel::KernelLog;

use bytes::{Bytes, BytesMut};
use lines::Lines;
use ring::Ring;
use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch};

/// Bytes kept of each log.
const LOG_BYTES: usize = 1 << 20;

/// Bytes that a follower gets at once.
const PAGE: usize = 64 * 1024;

/// The logs of the agent and of the programs that it supervises.
#[derive(Clone, Default)]
pub(crate) struct Logs {
    pub(crate) agent: Log,
    pub(crate) containerd: Log,
    pub(crate) engine: Log,
}

/// One log; clones share it.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    ring: Mutex<Ring>,
    /// The number of the next line, to wait for.
    end: watch::Sender<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Self(Arc::new(Shared {
            ring: Mutex::new(Ring::new(LOG_BYTES)),
            end: watch::Sender::new(0),
        }))
    }
}

impl Log {
    /// Adds a line, its newline included.
    pub(crate) fn push(&self, line: Bytes) {
        let mut ring = self.ring();
        ring.push(line);
        let end = ring.end();
        drop(ring);
        self.0.end.send_replace(end);
    }

    /// Adds the lines that come out of `pipe`, until it ends.
    pub(crate) async fn fill_from(self, pipe: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let mut lines = Lines::default();
        let mut buffer = BytesMut::with_capacity(4096);
        while pipe.read_buf(&mut buffer).await? > 0 {
            lines.feed(&buffer, |line| self.push(line));
            buffer.clear();
        }
        lines.finish(|line| self.push(line));
        Ok(())
    }

    /// The last `count` lines as text, for an error message.
    pub(crate) fn last_lines(&self, count: u64) -> String {
        let ring = self.ring();
        let (lines, _) = ring.since(ring.tail(count));
        let text: Vec<u8> = lines.flatten().copied().collect();
        String::from_utf8_lossy(&text).trim_end().to_owned()
    }

    /// A reader that starts with the last `tail` lines, or with all that are kept.
    pub(crate) fn follow(&self, tail: Option<u32>) -> Follower {
        Follower {
            next: self.ring().tail(tail.map_or(u64::MAX, u64::from)),
            end: self.0.end.subscribe(),
            log: self.clone(),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader of a log.
pub(crate) struct Follower {
    log: Log,
    next: u64,
    end: watch::Receiver<u64>,
}

impl Follower {
    /// Whole lines that have not been read yet, about a page of them; empty when there are none.
    pub(crate) fn page(&mut self) -> Bytes {
        let ring = self.log.ring();
        let mut page = BytesMut::new();
        let (lines, lost) = ring.since(self.next);
        if lost > 0 {
            page.extend_from_slice(format!("[{lost} lines were dropped here]\n").as_bytes());
        }
        self.next += lost;
        for line in lines {
            if page.len() >= PAGE {
                break;
            }
            page.extend_from_slice(line);
            self.next += 1;
        }
        page.freeze()
    }

    /// Waits for lines that have not been read yet.
    pub(crate) async fn more(&mut self) {
        let next = self.next;
        // The sender lives as long as the log, of which we hold a part.
        let _ = self.end.wait_for(|end| *end > next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_program_that_writes_to_the_pipe_is_read_line_by_line() {
        let (reader, mut writer) = io::pipe().unwrap();
        let log = Log::default();
        let filling = tokio::spawn(log.clone().fill_from(reader.into()));
        let mut follower = log.follow(None);
        writer.write_all(b"one\ntwo").unwrap();
        follower.more().await;
        assert_eq!(follower.page(), "one\n");
        drop(writer);
        filling.await.unwrap().unwrap();
        assert_eq!(follower.page(), "two\n");
        assert!(follower.page().is_empty());
        assert_eq!(log.last_lines(1), "two");
    }

    #[tokio::test]
    async fn a_slow_follower_gets_the_newest_lines_and_the_number_of_the_lost_ones() {
        let log = Log::default();
        let mut follower = log.follow(None);
        for _ in 0..3 * LOG_BYTES / 1000 {
            log.push(Bytes::from(vec![b'x'; 1000]));
        }
        let page = follower.page();
        assert!(page.starts_with(b"["), "{:?}", &page[..40]);
        assert!(page.len() < PAGE + 2000);
    }

    #[test]
    fn a_tail_gives_only_the_last_lines() {
        let log = Log::default();
        for line in ["a\n", "b\n", "c\n"] {
            log.push(Bytes::from_static(line.as_bytes()));
        }
        assert_eq!(log.follow(Some(2)).page(), "b\nc\n");
    }
}
