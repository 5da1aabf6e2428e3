//! A control connection.
//!
//! ```text
//!  Greeting ─▶ Serving ─▶ closed by the host
//!      └─ not the host's greeting, or another version: our greeting, then closed
//! ```
//!
//! Requests are carried out side by side, each in a task of its own, and answered in the order in which they finish.
//! When too many are under way the connection is not read until one has finished.

use crate::{guest::Guest, report::Running, socket::Socket};
use cove_wire::{Call, Codec, Event, FromGuest, FromHost, Hello, WireError};
use futures_util::{SinkExt, StreamExt};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::codec::Framed;

/// Requests under way on one connection.
pub(super) const IN_FLIGHT: usize = 64;

/// How long the host may take to greet.
const GREETING: Duration = Duration::from_secs(10);

type Connection = Framed<Socket, Codec<FromHost, FromGuest>>;

/// Why a connection ended before the host closed it.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Version(#[from] cove_wire::VersionMismatch),
    #[error("the host did not greet within {GREETING:?}")]
    Silent,
    #[error("the host's first frame is not a greeting")]
    NoGreeting,
    #[error("the host greeted twice")]
    GreetedAgain,
}

/// Serves one connection until it ends.
pub(super) async fn serve(socket: Socket, guest: Guest, hello: Arc<Mutex<Option<Running>>>) {
    let mut connection = Framed::new(socket, Codec::default());
    let served = async {
        greet(&mut connection).await?;
        hello.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(converse(connection, guest)).await
    };
    if let Err(error) = served.await {
        tracing::warn!("a control connection was closed: {error}");
    }
}

async fn greet(connection: &mut Connection) -> Result<(), ControlError> {
    let ours = Hello::new("cove-agent");
    let first = timeout(GREETING, connection.next())
        .await
        .map_err(|_| ControlError::Silent)?;
    let first = first.transpose();
    // Whatever the host said, it is to learn who we are.
    connection.send(FromGuest::Hello(ours.clone())).await?;
    match first? {
        Some(FromHost::Hello(theirs)) => Ok(ours.accept(&theirs)?),
        Some(FromHost::Request { .. }) | None => Err(ControlError::NoGreeting),
    }
}

async fn converse(connection: Connection, guest: Guest) -> Result<(), ControlError> {
    let (mut sink, mut frames) = connection.split();
    let (out, mut outgoing) = mpsc::channel::<FromGuest>(IN_FLIGHT);
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    // Requests, and the subscription. They go with the connection, except for what an order to the engine has begun.
    let mut tasks = JoinSet::new();
    let mut subscribed = false;

    let writer = async {
        while let Some(frame) = outgoing.recv().await {
            sink.send(frame).await?;
        }
        Ok::<_, WireError>(())
    };
    let reader = async {
        while let Some(frame) = frames.next().await.transpose()? {
            let FromHost::Request { id, call } = frame else {
                return Err(ControlError::GreetedAgain);
            };
            if matches!(call, Call::Subscribe) && !std::mem::replace(&mut subscribed, true) {
                let (past, events) = guest.report().subscribe();
                tasks.spawn(publish(past, events, guest.clone(), out.clone()));
            }
            let Ok(place) = places.clone().acquire_owned().await else {
                return Ok(());
            };
            let (guest, out) = (guest.clone(), out.clone());
            tasks.spawn(async move {
                let result = guest.call(call).await;
                if let Err(fault) = &result {
                    tracing::warn!(id, "a request failed: {fault}");
                }
                // An error says that the host is gone.
                let _ = out.send(FromGuest::Response { id, result }).await;
                drop(place);
            });
            while tasks.try_join_next().is_some() {}
        }
        Ok(())
    };
    tokio::select! {
        ended = reader => ended,
        failed = writer => Ok(failed?),
    }
}

/// Sends what has happened, and then what happens.
async fn publish(
    past: Vec<Event>,
    mut events: broadcast::Receiver<Event>,
    guest: Guest,
    out: mpsc::Sender<FromGuest>,
) {
    for event in past {
        if out.send(FromGuest::Event(event)).await.is_err() {
            return;
        }
    }
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Closed) => return,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "a subscriber was too slow");
                // The state matters more than the way to it.
                Event::Engine(guest.report().engine().borrow().clone())
            }
        };
        if out.send(FromGuest::Event(event)).await.is_err() {
            return;
        }
    }
}
