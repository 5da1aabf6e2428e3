//! Log streams.

use crate::{
    guest::Guest,
    logs::{Follower, KernelLog},
    socket::Socket,
};
use bytes::Bytes;
use cove_wire::{Fault, FaultCode, LogRequest, LogSource};
use std::{collections::VecDeque, io};
use tokio::io::AsyncWriteExt;

/// A log that is to be sent.
pub(super) struct Source {
    log: Kind,
    follow: bool,
}

enum Kind {
    Kept(Follower),
    /// The kernel hands its log out from the start only, so that the last lines have to be kept apart to be found.
    Kernel(KernelLog, VecDeque<Bytes>),
}

impl Source {
    /// Finds the log that is asked for.
    pub(super) fn open(guest: &Guest, request: LogRequest) -> Result<Self, Fault> {
        let logs = guest.logs();
        let log = match request.source {
            LogSource::Agent => Kind::Kept(logs.agent.follow(request.tail)),
            LogSource::Containerd => Kind::Kept(logs.containerd.follow(request.tail)),
            LogSource::Engine => Kind::Kept(logs.engine.follow(request.tail)),
            LogSource::Kernel => kernel(request.tail).map_err(|error| {
                Fault::new(
                    FaultCode::Failed,
                    format!("reading the kernel's log failed: {error}"),
                )
            })?,
        };
        Ok(Self {
            log,
            follow: request.follow,
        })
    }

    /// Sends the lines, and those that come when the log is to be followed, until the host hangs up.
    pub(super) async fn send_to(mut self, socket: &mut Socket) -> io::Result<()> {
        loop {
            let page = self.log.page()?;
            if !page.is_empty() {
                socket.write_all(&page).await?;
            } else if self.follow {
                tokio::select! {
                    result = self.log.more() => result?,
                    () = socket.hung_up() => return Ok(()),
                }
            } else {
                return socket.end();
            }
        }
    }
}

fn kernel(tail: Option<u32>) -> io::Result<Kind> {
    let mut log = KernelLog::open()?;
    let tail = tail.map_or(usize::MAX, |tail| tail as usize);
    let mut lines = VecDeque::new();
    while let Some(line) = log.next()? {
        lines.push_back(line);
        if lines.len() > tail {
            lines.pop_front();
        }
    }
    Ok(Kind::Kernel(log, lines))
}

impl Kind {
    fn page(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Kept(follower) => Ok(follower.page()),
            Self::Kernel(log, past) => match past.pop_front() {
                Some(line) => Ok(line),
                None => Ok(log.next()?.unwrap_or_default()),
            },
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self {
            Self::Kept(follower) => {
                follower.more().await;
                Ok(())
            }
            Self::Kernel(log, _) => log.more().await,
        }
    }
}
