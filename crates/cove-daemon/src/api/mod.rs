//! The control API's server: HTTP/1.1 over the daemon's local socket.
//!
//! Every connection is a task, every request a [`routes`] lookup and a handler. Bodies are bounded, and only the
//! user who runs the daemon is served.

mod body;
mod logs;
mod machines;
mod ports;
mod routes;
mod settings;
mod shares;
mod trust;
mod upgrade;

#[cfg(test)]
#[cfg(unix)]
mod tests;

use crate::{machine::Context, machines::Machines};
use cove_api::transport::{Listener, Stream};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// What handlers work with.
pub(crate) struct Server {
    pub(crate) context: Arc<Context>,
    pub(crate) machines: Arc<Machines>,
    /// Where containers are reached by name, while there is a listener.
    pub(crate) web_port: watch::Receiver<Option<u16>>,
    /// Ends the daemon.
    pub(crate) end: CancellationToken,
}

/// Serves clients until the end.
pub(crate) async fn serve(mut listener: Listener, server: Arc<Server>, end: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => break,
        };
        match accepted {
            Ok(stream) if allowed(&stream) => {
                connections.spawn(converse(stream, Arc::clone(&server), end.clone()));
            }
            Ok(_) => tracing::warn!("refused a client that runs as another user"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                // Being out of file descriptors passes, but not by trying again at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn converse(stream: Stream, server: Arc<Server>, end: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(routes::answer(&server, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = end.cancelled() => {
            // The answer that is being written, such as that to the shutdown, is finished.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients hang up when they have seen enough.
        tracing::debug!(%error, "a client's connection broke");
    }
}

/// The directory's mode keeps others out already; this is the second lock on the door.
#[cfg(unix)]
fn allowed(stream: &Stream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// The pipe's access list keeps others out.
#[cfg(not(unix))]
fn allowed(_: &Stream) -> bool {
    true
}
