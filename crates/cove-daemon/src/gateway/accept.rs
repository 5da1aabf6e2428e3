//! The accept loop, and how many connections there may be.
//!
//! A connection costs two file descriptors and a few kilobytes, no thread. What bounds their number is the process's
//! limit of descriptors: the soft limit is raised to the hard one, and when the places are taken, clients wait in the
//! socket's backlog instead of failing half-way.

use super::{
    Engine,
    connection::{self, Examinations},
};
use cove_api::transport::{self, Listener};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, debug_span, info, warn};

/// Descriptors that are left to the rest of the process.
const RESERVED_DESCRIPTORS: usize = 256;

/// Descriptors of one connection: the client's and the engine's.
const DESCRIPTORS_EACH: usize = 2;

/// Most connections, however many descriptors there are.
const MAX_CONNECTIONS: usize = 32 * 1024;

/// How often a lack of places is worth a line in the log.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// How long accepting pauses after it failed. The usual cause, no descriptor being left, takes others to mend.
const PAUSE: Duration = Duration::from_millis(200);

/// The number of connections that the process can hold. One for all machines; clones share it.
#[derive(Debug, Clone)]
pub struct Capacity(Arc<Semaphore>);

impl Capacity {
    /// As many as file descriptors allow, having raised their limit as far as the process may.
    pub fn of_this_process() -> Self {
        let descriptors = raise_descriptor_limit();
        let connections = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / DESCRIPTORS_EACH;
        let connections = connections.clamp(16, MAX_CONNECTIONS);
        info!(descriptors, connections, "room for Docker clients");
        Self::new(connections)
    }

    /// So many.
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections)))
    }

    /// Waits for a place.
    async fn place(&self, last_warning: &mut Option<Instant>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.0).try_acquire_owned() {
            return Some(place);
        }
        if last_warning.is_none_or(|last| last.elapsed() > WARNING_INTERVAL) {
            *last_warning = Some(Instant::now());
            warn!("every place for a Docker client is taken; further clients wait for one");
        }
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// Where clients come from.
pub trait Clients: Send {
    /// One of them.
    type Client: AsyncRead + AsyncWrite + Send + 'static;

    /// Waits for the next one. May be tried again after an error.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Client>> + Send;
}

impl Clients for Listener {
    type Client = transport::Stream;

    async fn accept(&mut self) -> io::Result<transport::Stream> {
        Self::accept(self).await
    }
}

/// Serves Docker clients with the engine until `shutdown`, which drops the connections that are left. A client that
/// cannot be accepted costs that client its connection and nothing else.
pub async fn serve(
    mut clients: impl Clients,
    engine: Arc<dyn Engine>,
    capacity: Capacity,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let examinations = Examinations::new();
    let accepting = async {
        let mut failing = false;
        let mut last_warning = None;
        for number in 1_u64.. {
            let Some(place) = capacity.place(&mut last_warning).await else {
                return;
            };
            let stream = loop {
                match clients.accept().await {
                    Ok(stream) => break stream,
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            warn!(
                                error = &error as &dyn std::error::Error,
                                "cannot accept Docker clients"
                            );
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            if std::mem::take(&mut failing) {
                info!("accepting Docker clients again");
            }
            let (engine, examinations) = (Arc::clone(&engine), examinations.clone());
            let serving = async move {
                debug!("connected");
                connection::serve(stream, &*engine, examinations).await;
                debug!("closed");
                drop(place);
            };
            connections.spawn(
                shutdown
                    .clone()
                    .run_until_cancelled_owned(serving)
                    .instrument(debug_span!("docker", connection = number)),
            );
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    drop(clients);
    connections.close();
    connections.wait().await;
}

/// Raises the soft limit of open files to the hard limit and answers what it is then.
#[cfg(unix)]
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    // macOS calls its limit infinite and refuses to be asked for more than this.
    let ceiling = if cfg!(target_vendor = "apple") {
        10_240
    } else {
        1 << 20
    };
    let wanted = limit.maximum.map_or(ceiling, |hard| hard.min(ceiling));
    if limit.current.is_some_and(|soft| soft < wanted) {
        let mut raised = getrlimit(Resource::Nofile);
        raised.current = Some(wanted);
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.current = Some(wanted),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                wanted, "cannot raise the limit of open files"
            ),
        }
    }
    usize::try_from(limit.current.unwrap_or(ceiling)).unwrap_or(MAX_CONNECTIONS)
}

/// There is no such limit here.
#[cfg(not(unix))]
fn raise_descriptor_limit() -> usize {
    usize::MAX
}
