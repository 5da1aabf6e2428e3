//! A stream connection: one frame that says what it is to be, one that says whether it is, then the stream itself.

use super::{clients::Clients, datagram, dial, exec, logs, look};
use crate::{
    engine::ENGINE_SOCKET,
    guest::Guest,
    relay::{relay, relay_chunked},
    socket::Socket,
};
use cove_wire::{
    Dial, EngineState, Fault, FaultCode, HEADER_LEN, Open, Opened, WireError, body_len, decode, encode,
};
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

/// How long the host may take to say what it wants.
const OPENING: Duration = Duration::from_secs(10);

/// An engine that has failed so many times in a row is not waited for.
const HOPELESS: u32 = 5;

/// Why a stream ended before its end.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the host did not say within {OPENING:?} what the stream is for")]
    Silent,
    #[error("{0}")]
    Refused(Fault),
}

impl From<std::io::Error> for StreamError {
    fn from(error: std::io::Error) -> Self {
        Self::Wire(error.into())
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(mut socket: Socket, guest: Guest, clients: Clients) {
    let served = async {
        let open = timeout(OPENING, read_open(&mut socket))
            .await
            .map_err(|_| StreamError::Silent)??;
        Box::pin(run(socket, open, guest, clients)).await
    };
    match served.await {
        Ok(()) => {}
        // Clients hang up all the time; that says nothing about the guest.
        Err(StreamError::Wire(WireError::Io(error))) => tracing::debug!("a stream ended: {error}"),
        Err(error) => tracing::warn!("a stream failed: {error}"),
    }
}

/// Reads the one frame and not a byte more: what follows belongs to the stream.
async fn read_open(socket: &mut Socket) -> Result<Open, WireError> {
    let mut header = [0; HEADER_LEN];
    socket.read_exact(&mut header).await?;
    let mut body = vec![0; body_len(header)?];
    socket.read_exact(&mut body).await?;
    decode(&body)
}

async fn run(mut socket: Socket, open: Open, guest: Guest, clients: Clients) -> Result<(), StreamError> {
    match open {
        Open::Engine => {
            let inner = tokio::select! {
                inner = engine(&guest) => inner,
                () = socket.hung_up() => return Ok(()),
            };
            let inner = answer(&mut socket, inner).await?;
            Ok(relay(&socket, &inner).await?)
        }
        Open::Client => {
            let client = tokio::select! {
                client = clients.next() => client.ok_or_else(|| unreachable("no clients are listened to")),
                () = socket.hung_up() => return Ok(()),
            };
            let client = answer(&mut socket, client).await?;
            Ok(relay(&socket, &client).await?)
        }
        Open::Dial(target) => {
            let Some(inner) = dialled(&mut socket, target).await? else {
                return Ok(());
            };
            Ok(relay(&socket, &inner).await?)
        }
        Open::Connection(target) => {
            let Some(inner) = dialled(&mut socket, target).await? else {
                return Ok(());
            };
            Ok(relay_chunked(&socket, &inner).await?)
        }
        Open::Datagrams(target) => {
            let inner = answer(&mut socket, datagram::connect(target).await).await?;
            Ok(datagram::serve(socket, inner).await?)
        }
        Open::Exec(command) => {
            let session = answer(&mut socket, exec::Session::start(&command)).await?;
            Ok(session.serve(socket).await?)
        }
        Open::Logs(request) => {
            let source = answer(&mut socket, logs::Source::open(&guest, request)).await?;
            Ok(source.send_to(&mut socket).await?)
        }
        Open::Look(wanted) => {
            let seen = tokio::select! {
                seen = look::look(wanted) => seen,
                () = socket.hung_up() => return Ok(()),
            };
            let seen = answer(&mut socket, seen).await?;
            Ok(socket.write_all(&encode(&seen)?).await?)
        }
    }
}

/// Connects to the target and tells the host how that went; nothing when the host did not wait for it.
async fn dialled(socket: &mut Socket, target: Dial) -> Result<Option<Socket>, StreamError> {
    let inner = tokio::select! {
        inner = dial::connect(target) => inner,
        () = socket.hung_up() => return Ok(None),
    };
    answer(socket, inner).await.map(Some)
}

/// Tells the host how the opening went.
async fn answer<T>(socket: &mut Socket, result: Result<T, Fault>) -> Result<T, StreamError> {
    let (result, opened) = match result {
        Ok(opened) => (Ok(()), Ok(opened)),
        Err(fault) => (Err(fault.clone()), Err(StreamError::Refused(fault))),
    };
    socket.write_all(&encode(&Opened { result })?).await?;
    opened
}

/// Connects to the engine as soon as it answers.
async fn engine(guest: &Guest) -> Result<Socket, Fault> {
    tokio::select! {
        ready = ready(guest.report().engine()) => ready?,
        fault = guest.hopeless() => return Err(fault),
    }
    Socket::connect_unix(Path::new(ENGINE_SOCKET))
        .await
        .map_err(|error| unreachable(format!("connecting to the engine failed: {error}")))
}

/// Waits for the engine, unless it fails again and again.
async fn ready(mut state: watch::Receiver<EngineState>) -> Result<(), Fault> {
    let decided = |state: &EngineState| match state {
        EngineState::Ready => true,
        EngineState::Restarting { attempt, .. } => *attempt >= HOPELESS,
        EngineState::Stopped | EngineState::Starting => false,
    };
    match state.wait_for(decided).await.as_deref() {
        Ok(EngineState::Restarting { attempt, why, .. }) => Err(unreachable(format!(
            "the engine failed {attempt} times in a row: {why}"
        ))),
        Ok(_) => Ok(()),
        Err(_) => Err(unreachable("the engine's supervisor has ended")),
    }
}

fn unreachable(message: impl Into<String>) -> Fault {
    Fault::new(FaultCode::Unreachable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarting(attempt: u32) -> EngineState {
        EngineState::Restarting {
            attempt,
            pause_ms: 100,
            why: "no space".into(),
        }
    }

    #[tokio::test]
    async fn a_restart_is_waited_for_and_a_hopeless_engine_is_not() {
        let (sender, state) = watch::channel(restarting(1));
        let waiting = tokio::spawn(ready(state.clone()));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        sender.send_replace(EngineState::Ready);
        assert!(waiting.await.unwrap().is_ok());
        sender.send_replace(restarting(HOPELESS));
        let fault = ready(state).await.unwrap_err();
        assert!(
            fault.message.contains("5 times") && fault.message.contains("no space"),
            "{}",
            fault.message
        );
    }

    #[tokio::test]
    async fn the_opening_frame_is_read_without_a_byte_of_what_follows() {
        let (mut ours, mut theirs) = Socket::pair();
        theirs.write_all(&encode(&Open::Engine).unwrap()).await.unwrap();
        theirs.write_all(b"GET /").await.unwrap();
        assert_eq!(read_open(&mut ours).await.unwrap(), Open::Engine);
        let mut rest = [0; 8];
        assert_eq!(ours.try_recv(&mut rest).unwrap(), 5);
    }
}
