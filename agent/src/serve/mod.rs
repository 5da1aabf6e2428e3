//! What the agent serves to the host: the control port and the stream port.

mod clients;
mod control;
mod datagram;
mod dial;
mod exec;
mod logs;
mod look;
mod namespace;
mod pty;
mod stream;

use crate::{guest::Guest, report::Running, socket::Socket, vsock::Listener};
use clients::Clients;
use cove_wire::port;
use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Semaphore;

/// Connections at once. Each control connection may have [`control::IN_FLIGHT`] requests under way; each stream
/// holds up to five descriptors, and [`DESCRIPTORS`] has to be enough for all.
const CONTROLS: usize = 64;
const STREAMS: usize = 8192;

/// Descriptors that the agent allows itself.
pub(crate) const DESCRIPTORS: u64 = 65_536;

/// Pause after an accept that failed, which for lack of descriptors or memory it would do again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Listens on both ports and serves them, for ever. `hello` is the stage that ends with the host's first greeting.
pub(crate) fn listen(guest: &Guest, hello: Running) -> io::Result<()> {
    let control = Listener::bind(port::CONTROL)?;
    let stream = Listener::bind(port::STREAM)?;
    let hello = Arc::new(Mutex::new(Some(hello)));
    tokio::spawn(accept(control, CONTROLS, guest.clone(), move |socket, guest| {
        control::serve(socket, guest, hello.clone())
    }));
    let clients = Clients::listen(guest.clone());
    tokio::spawn(accept(stream, STREAMS, guest.clone(), move |socket, guest| {
        stream::serve(socket, guest, clients.clone())
    }));
    Ok(())
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: Listener,
    most: usize,
    guest: Guest,
    serve: impl Fn(Socket, Guest) -> F,
) {
    let places = Arc::new(Semaphore::new(most));
    loop {
        // Those that find no place wait in the listener's backlog.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok(socket) => {
                let served = serve(socket, guest.clone());
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("accepting a connection failed: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
