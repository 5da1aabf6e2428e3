//! The guest's own Docker clients, which reach the engine the way that the host's clients do: through the gateway of
//! the daemon, which refuses to mount what is not shared.
//!
//! Nothing of the guest connects to the host for that, since a container could as well. The host keeps a stream waiting
//! instead ([`Open::Client`](cove_wire::Open::Client)), and opens another one as soon as that has its client.

use crate::{descriptor::awaited, guest::Guest, socket::Socket};
use cove_wire::CLIENTS_SOCKET;
use rustix::net::{SocketFlags, accept_with};
use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixListener},
    },
    path::Path,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

/// How long a client waits for a stream of the host's: longer than a busy host takes to open one.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Streams that wait at once; a host needs one.
const WAITING: usize = 16;
/// Pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The host's streams that wait for a client, in their order.
#[derive(Debug, Clone)]
pub(super) struct Clients(mpsc::Sender<oneshot::Sender<Socket>>);

impl Clients {
    /// Listens to clients once the guest has its base, of which the socket's directory is part.
    pub(super) fn listen(guest: Guest) -> Self {
        let (streams, waiting) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            // Without its base a guest ends, and says why.
            if guest.base().await.is_err() {
                return;
            }
            match listener(Path::new(CLIENTS_SOCKET)) {
                Ok(listener) => accept(listener, waiting).await,
                Err(error) => tracing::warn!("Docker clients of the guest are not listened to: {error}"),
            }
        });
        Self(streams)
    }

    /// The next client, for a stream of the host's; nothing if no clients are listened to.
    pub(super) async fn next(&self) -> Option<Socket> {
        let (sender, client) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        client.await.ok()
    }
}

fn listener(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    awaited(listener.into())
}

/// Brings clients and streams together, for ever.
async fn accept(listener: AsyncFd<OwnedFd>, mut waiting: mpsc::Receiver<oneshot::Sender<Socket>>) {
    loop {
        match next(&listener).await {
            // Clients behind this one wait in the listener's backlog.
            Ok(client) => {
                if timeout(TIMEOUT, hand_over(client, &mut waiting)).await.is_err() {
                    tracing::warn!("the host has no stream for a Docker client");
                }
            }
            Err(error) => {
                tracing::warn!("accepting a Docker client failed: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn next(listener: &AsyncFd<OwnedFd>) -> io::Result<Socket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let accept = |listener: &OwnedFd| Ok(accept_with(listener, flags)?);
    Socket::new(listener.async_io(Interest::READABLE, accept).await?)
}

/// Gives the client to the first stream that still waits.
async fn hand_over(mut client: Socket, waiting: &mut mpsc::Receiver<oneshot::Sender<Socket>>) {
    while let Some(stream) = waiting.recv().await {
        match stream.send(client) {
            Ok(()) => return,
            // That host has hung up.
            Err(back) => client = back,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_client_gets_the_first_stream_whose_host_is_still_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (streams, streams_waiting) = mpsc::channel(WAITING);
        let clients = Clients(streams);
        tokio::spawn(accept(listener(&path).unwrap(), streams_waiting));
        let gone = tokio::spawn({
            let clients = clients.clone();
            async move { clients.next().await.map(drop) }
        });
        tokio::task::yield_now().await;
        gone.abort();
        let waiting = tokio::spawn(async move { clients.next().await });
        tokio::task::yield_now().await;
        let client = tokio::task::spawn_blocking(move || {
            let mut client = UnixStream::connect(path).unwrap();
            client.write_all(b"ping").unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            answer
        });
        let mut stream = waiting.await.unwrap().unwrap();
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        assert_eq!((&said, &client.await.unwrap()), (b"ping", b"pong"));
    }
}
