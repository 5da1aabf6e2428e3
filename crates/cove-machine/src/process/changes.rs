//! Tells the guest what the host changed in shared folders: from the file server to the agent, which repeats each
//! change (see `cove_fs` and `cove_wire::Change`).
//!
//! ```text
//!              the agent connects               connection lost
//!  Unattended ────────────────────▶ Attended ────────────────────▶ Unattended
//!  caches are short-lived,          caches may live long,
//!  changes are dropped              changes are told in order,
//!                                   and before them what was dropped, which the server finds by comparing
//! ```
//!
//! On the same connection the agent is asked which of those who wait for file locks were interrupted, and their wait
//! ends.
//!
//! The task behind [`Telling`] owns the connection. The agent connects as soon as the folders are attached; a later
//! connection replaces an earlier one, since a guest that restarted leaves none behind that works.

use crate::{Connection, Listener};
use cove_fs::{ChangeKind, EntryKind, HostChange, Server};
use cove_wire::{
    Answered, Change, Changed, Entry, FileName, HEADER_LEN, Repeater, Told, WireError, body_len, decode,
    encode,
};
use serde::de::DeserializeOwned;
use std::{
    collections::HashSet, ffi::OsStr, io, num::NonZeroU32, os::unix::ffi::OsStrExt, path::Path, sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

/// Most changes that are told before the first of them has to be answered.
const BATCH: usize = 128;
/// How long whoever connects may take to say its task.
const GREETING: Duration = Duration::from_secs(5);
/// How long requests wait for locks before it is asked whether they still should, and before each further time.
const PATIENCE: Duration = Duration::from_millis(500);

/// Ends the telling when dropped.
pub(crate) struct Telling(Arc<Server>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.end_changes();
    }
}

/// Begins to tell the agent that connects to `listener` what `server` sees.
pub(crate) fn begin(listener: Listener, server: Arc<Server>) -> Telling {
    tokio::spawn(attend(listener, Arc::clone(&server)));
    Telling(server)
}

async fn attend(listener: Listener, server: Arc<Server>) {
    let mut connection: Option<Connection> = None;
    let mut taking = take(&server);
    let mut looking = look(&server);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => match meet(accepted).await {
                    Ok((agent, task)) => {
                        tracing::debug!(task, "the agent repeats the host's changes");
                        connection = Some(agent);
                        server.set_repeater(Some(task));
                    }
                    Err(error) => tracing::warn!(%error, "who connected for changes did not say its task"),
                },
                Err(error) => {
                    // Out of descriptors, most likely: they come back.
                    tracing::warn!(%error, "cannot accept the agent's connection for changes");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            why = lost(&mut connection) => {
                tracing::debug!(why, "the agent no longer repeats the host's changes");
                give_up(&mut connection, &server);
            }
            batch = &mut taking => {
                let Ok(batch) = batch else { return };
                if batch.is_empty() {
                    return;
                }
                if let Some(agent) = &mut connection
                    && let Err(error) = tell(agent, &batch, &server).await
                {
                    tracing::warn!(%error, "the agent cannot be told of changes");
                    give_up(&mut connection, &server);
                }
                for change in &batch {
                    // Those that were answered are finished already.
                    server.finish_change(change.id);
                }
                taking = take(&server);
            }
            waiting = &mut looking => {
                let Ok(waiting) = waiting else { return };
                if waiting.is_empty() {
                    return;
                }
                if let Some(agent) = &mut connection
                    && let Err(error) = ask(agent, &waiting, &server).await
                {
                    tracing::warn!(%error, "the agent cannot be asked who still waits for locks");
                    give_up(&mut connection, &server);
                }
                looking = look(&server);
            }
        }
    }
}

/// Hears from the agent which of the guest's tasks repeats.
async fn meet(mut agent: Connection) -> Result<(Connection, NonZeroU32), WireError> {
    let Repeater { task } = timeout(GREETING, hear(&mut agent))
        .await
        .map_err(io::Error::from)??;
    Ok((agent, task))
}

/// Lets go of the agent: until one connects again, the guest's caches are short-lived.
fn give_up(connection: &mut Option<Connection>, server: &Server) {
    *connection = None;
    server.set_repeater(None);
}

/// Waits for changes, on a thread where that may block.
fn take(server: &Arc<Server>) -> JoinHandle<Vec<HostChange>> {
    let server = Arc::clone(server);
    spawn_blocking(move || server.take_changes(BATCH, Duration::MAX))
}

/// Waits for requests that wait for locks, likewise.
fn look(server: &Arc<Server>) -> JoinHandle<Vec<(u64, u32)>> {
    let server = Arc::clone(server);
    spawn_blocking(move || server.await_waiting(PATIENCE))
}

/// Waits until the connection, if there is one, ends. The agent says nothing unasked.
async fn lost(connection: &mut Option<Connection>) -> &'static str {
    let Some(connection) = connection else {
        return std::future::pending().await;
    };
    match connection.read_u8().await {
        Ok(_) => "it spoke out of turn",
        Err(_) => "it hung up",
    }
}

/// Tells a batch, and waits for its repetition: what comes after it may have other paths.
async fn tell(agent: &mut Connection, batch: &[HostChange], server: &Server) -> Result<(), WireError> {
    let mut frames = Vec::new();
    let mut told = HashSet::new();
    for change in batch {
        let Some(what) = translated(&change.kind) else {
            // The server compares and tells what it finds as changes of their own.
            continue;
        };
        let id = change.id;
        match encode(&Told::Change(Change {
            id,
            share: name(&change.share),
            directory: path(&change.directory),
            what,
        })) {
            Ok(frame) => {
                frames.extend_from_slice(&frame);
                told.insert(id);
            }
            // Longer than any path that the guest's kernel takes.
            Err(error) => tracing::warn!(%error, "a change cannot be told"),
        }
    }
    let (mut reader, mut writer) = tokio::io::split(agent);
    let answers = async {
        while !told.is_empty() {
            match hear(&mut reader).await? {
                Answered::Repeated { id } if told.remove(&id) => server.finish_change(id),
                _ => return Err(out_of_turn()),
            }
        }
        Ok::<_, WireError>(())
    };
    let telling = async { Ok::<_, WireError>(writer.write_all(&frames).await?) };
    tokio::try_join!(telling, answers)?;
    Ok(())
}

/// Asks which of those that wait for locks were interrupted, and ends the wait of these requests.
async fn ask(agent: &mut Connection, waiting: &[(u64, u32)], server: &Server) -> Result<(), WireError> {
    let tasks = waiting.iter().map(|(_, task)| *task).collect();
    agent.write_all(&encode(&Told::Waiting { tasks })?).await?;
    let Answered::Interrupted { tasks } = hear(agent).await? else {
        return Err(out_of_turn());
    };
    let tasks: HashSet<_> = tasks.into_iter().collect();
    for (request, task) in waiting {
        if tasks.contains(task) {
            server.interrupt(*request);
        }
    }
    Ok(())
}

async fn hear<T: DeserializeOwned>(agent: &mut (impl AsyncRead + Unpin)) -> Result<T, WireError> {
    let mut header = [0; HEADER_LEN];
    agent.read_exact(&mut header).await?;
    let mut body = vec![0; body_len(header)?];
    agent.read_exact(&mut body).await?;
    decode(&body)
}

fn out_of_turn() -> WireError {
    io::Error::other("it answered what it was not told").into()
}

fn translated(kind: &ChangeKind) -> Option<Changed> {
    Some(match kind {
        ChangeKind::Created { name: new, entry } => Changed::Created {
            name: name(new),
            entry: entry_kind(*entry),
        },
        ChangeKind::Modified { name: of } => Changed::Modified { name: name(of) },
        ChangeKind::Attributes { name: of } => Changed::Attributes { name: name(of) },
        ChangeKind::Deleted { name: old, entry } => Changed::Deleted {
            name: name(old),
            entry: entry_kind(*entry),
        },
        ChangeKind::Renamed {
            name: old,
            to_directory,
            to_name,
        } => Changed::Renamed {
            name: name(old),
            to_directory: path(to_directory),
            to_name: name(to_name),
        },
        ChangeKind::Overflow => return None,
    })
}

fn entry_kind(kind: EntryKind) -> Entry {
    match kind {
        EntryKind::File => Entry::File,
        EntryKind::Directory => Entry::Directory,
        EntryKind::Symlink => Entry::Symlink,
        EntryKind::Pipe => Entry::Pipe,
        EntryKind::Socket => Entry::Socket,
    }
}

fn name(name: &OsStr) -> FileName {
    FileName(name.as_bytes().to_vec())
}

fn path(path: &Path) -> FileName {
    name(path.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets;
    use cove_fs::Config;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn caches_may_live_long_only_while_an_agent_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let server = Arc::new(Server::new(Config::default()).unwrap());
        let listener = sockets::listen_to_guest(directory.path(), 7).unwrap();
        let attending = tokio::spawn(attend(listener, Arc::clone(&server)));
        assert!(!server.health().repeating);
        let socket = crate::spec::host_port(directory.path(), 7);
        let until = async |repeating| {
            while server.health().repeating != repeating {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let task = NonZeroU32::new(7).unwrap();
        let greeting = encode(&Repeater { task }).unwrap();
        let mut mute = UnixStream::connect(&socket).await.unwrap();
        mute.write_all(&encode(&Answered::Repeated { id: 1 }).unwrap())
            .await
            .unwrap();
        assert_eq!(
            mute.read(&mut [0]).await.unwrap_or(0),
            0,
            "whoever says no task is hung up on"
        );
        assert!(!server.health().repeating);
        let mut agent = UnixStream::connect(&socket).await.unwrap();
        agent.write_all(&greeting).await.unwrap();
        until(true).await;
        drop(agent);
        until(false).await;
        let mut noisy = UnixStream::connect(&socket).await.unwrap();
        noisy.write_all(&greeting).await.unwrap();
        until(true).await;
        noisy.write_all(b"?").await.unwrap();
        until(false).await;
        server.end_changes();
        attending.await.unwrap();
    }
}
