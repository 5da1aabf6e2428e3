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

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::{EngineState, FaultCode, Reply};
    use tokio::io::AsyncReadExt;

    type Host = Framed<Socket, Codec<FromGuest, FromHost>>;

    /// The host's end of a connection to a guest that waits for its boot.
    fn connect() -> (Host, Guest) {
        let (guest, _endings) = Guest::waiting(None);
        drop(guest.report().stage("early"));
        let (host, socket) = Socket::pair();
        tokio::spawn(serve(socket, guest.clone(), Arc::default()));
        (Framed::new(host, Codec::default()), guest)
    }

    async fn greet_as(host: &mut Host, hello: Hello) -> FromGuest {
        host.send(FromHost::Hello(hello)).await.unwrap();
        host.next().await.unwrap().unwrap()
    }

    async fn request(host: &mut Host, id: u64, call: Call) {
        host.send(FromHost::Request { id, call }).await.unwrap();
    }

    #[tokio::test]
    async fn a_host_of_another_version_learns_ours_and_is_left() {
        let (mut host, _guest) = connect();
        let future = Hello {
            version: cove_wire::PROTOCOL_VERSION + 1,
            build: "cove 99".into(),
        };
        assert_eq!(
            greet_as(&mut host, future).await,
            FromGuest::Hello(Hello::new("cove-agent"))
        );
        assert!(host.next().await.is_none());
    }

    #[tokio::test]
    async fn a_host_that_does_not_greet_learns_our_version_and_is_left() {
        let (mut host, _guest) = connect();
        request(&mut host, 1, Call::Status).await;
        assert!(matches!(host.next().await, Some(Ok(FromGuest::Hello(_)))));
        assert!(host.next().await.is_none());
    }

    #[tokio::test]
    async fn an_oversized_frame_ends_the_connection() {
        let (mut host, _guest) = connect();
        greet_as(&mut host, Hello::new("cove")).await;
        let mut socket = host.into_inner();
        tokio::io::AsyncWriteExt::write_all(&mut socket, &[0xff; 8])
            .await
            .unwrap();
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_slow_request_does_not_hold_up_a_quick_one() {
        let (mut host, _guest) = connect();
        greet_as(&mut host, Hello::new("cove")).await;
        // Waits for a base that never comes.
        request(&mut host, 1, Call::TrimData).await;
        request(&mut host, 2, Call::SetTime { unix_ns: 0 }).await;
        let Some(Ok(FromGuest::Response {
            id: 2,
            result: Err(fault),
        })) = host.next().await
        else {
            panic!("no answer to the second request");
        };
        assert_eq!(fault.code, FaultCode::Invalid);
    }

    #[tokio::test]
    async fn many_requests_are_all_answered() {
        let (mut host, _guest) = connect();
        greet_as(&mut host, Hello::new("cove")).await;
        let (mut sink, mut stream) = host.split();
        let count = 4 * IN_FLIGHT as u64;
        let ask = async {
            for id in 0..count {
                sink.send(FromHost::Request {
                    id,
                    call: Call::Status,
                })
                .await
                .unwrap();
            }
        };
        let answers = async {
            let mut ids = std::collections::BTreeSet::new();
            while (ids.len() as u64) < count {
                let Some(Ok(FromGuest::Response {
                    id,
                    result: Ok(Reply::Status(_)),
                })) = stream.next().await
                else {
                    panic!("not an answer");
                };
                assert!(ids.insert(id), "{id} was answered twice");
            }
        };
        tokio::join!(ask, answers);
    }

    #[tokio::test]
    async fn a_subscriber_gets_the_stages_so_far_and_then_what_happens() {
        let (mut host, guest) = connect();
        greet_as(&mut host, Hello::new("cove")).await;
        request(&mut host, 1, Call::Subscribe).await;
        let mut events = Vec::new();
        while events.len() < 2 {
            if let FromGuest::Event(event) = host.next().await.unwrap().unwrap() {
                events.push(event);
            }
        }
        assert!(matches!(&events[0], Event::Stage(stage) if stage.name == "early"));
        assert_eq!(events[1], Event::Engine(EngineState::Stopped));
        guest.report().warn("the disk is full");
        let warning = Event::Warning {
            message: "the disk is full".into(),
        };
        loop {
            if let FromGuest::Event(event) = host.next().await.unwrap().unwrap() {
                assert_eq!(event, warning);
                return;
            }
        }
    }
}
