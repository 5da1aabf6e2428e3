//! Connections to a published TCP port, each carried to its container by a stream of its own.

use super::PAUSE;
use crate::{
    dialled::{Dialled, dial},
    machine::agent::OpenError,
};
use cove_machine::Machine;
use cove_wire::FaultCode;
use socket2::{SockRef, TcpKeepalive};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

/// Connections to one port at once; further ones wait in the listener's backlog.
const MOST: usize = 4096;
/// How long after it was published a port's server may still be starting: clients wait for it instead of being
/// turned away, because `docker run` returns before a program in the container can listen.
const STARTING: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(100);
/// Bytes on their way in each direction.
const BUFFER: usize = 32 << 10;
/// How long a client may be silent before it is asked for a sign of life, and how often it is asked then: one that
/// vanished, as a telephone out of reach does, frees its place after some minutes.
const SILENCE: Duration = Duration::from_mins(1);
const ASK_EVERY: Duration = Duration::from_secs(15);

/// Serves the port, for ever.
pub(super) async fn serve(listener: &TcpListener, machine: &Arc<dyn Machine>, container: SocketAddr) {
    let patient_until = Instant::now() + STARTING;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST => match accepted {
                Ok((client, _)) => {
                    connections.spawn(serve_one(client, Arc::clone(machine), container, patient_until));
                }
                Err(error) => {
                    tracing::warn!("accepting a connection to a published port failed: {error}");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_one(
    client: TcpStream,
    machine: Arc<dyn Machine>,
    container: SocketAddr,
    patient_until: Instant,
) {
    settle(&client);
    let inner = loop {
        match dial(&*machine, container).await {
            Ok(inner) => break inner,
            Err(OpenError::Fault(fault))
                if fault.code == FaultCode::Unreachable && Instant::now() < patient_until =>
            {
                sleep(RETRY).await;
            }
            Err(error) => {
                tracing::debug!(%container, "a client of a published port is turned away: {error}");
                return reset(&client);
            }
        }
    };
    carry(client, inner).await;
}

/// Moves bytes both ways until both directions have ended. A reset on either side is one on the other: a client must
/// not take half of an answer for a whole one.
async fn carry(mut client: TcpStream, inner: Dialled) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_inner, mut to_inner) = split(inner);
    let whole = {
        let inward = pump(&mut from_client, &mut to_inner);
        let outward = pump(&mut from_inner, &mut to_client);
        tokio::pin!(inward, outward);
        tokio::select! {
            ended = &mut inward => match ended {
                // A container that takes no more may still have something to say.
                Ok(()) | Err(Broken::Receiver) => outward.await.is_ok(),
                Err(Broken::Sender) => false,
            },
            ended = &mut outward => match ended {
                Ok(()) => {
                    // However this ends, the client has been told that it got everything.
                    let _ = inward.await;
                    true
                }
                Err(_) => false,
            },
        }
    };
    if !whole {
        reset(&client);
    }
}

/// Which side of a direction reset its connection.
enum Broken {
    Sender,
    Receiver,
}

/// Moves bytes one way until `from` ends, then ends `to`.
async fn pump<R, W>(from: &mut R, to: &mut W) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await.map_err(|_| Broken::Sender)?;
        if count == 0 {
            return to.shutdown().await.map_err(|_| Broken::Receiver);
        }
        to.write_all(&buffer[..count])
            .await
            .map_err(|_| Broken::Receiver)?;
    }
}

/// Has the connection be reset instead of ended when it is closed, which a client could take for an empty answer, or
/// for a whole one.
fn reset(client: &TcpStream) {
    let _ = SockRef::from(client).set_linger(Some(Duration::ZERO));
}

/// Sets what a connection of a client's needs. None of it is worth turning the client away for.
fn settle(client: &TcpStream) {
    let _ = client.set_nodelay(true);
    let alive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_EVERY);
    let _ = SockRef::from(client).set_tcp_keepalive(&alive);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client, and the guest's end of the stream that carries it.
    #[cfg(unix)]
    async fn carried() -> (TcpStream, Dialled) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (ours, guest) = tokio::net::UnixStream::pair().unwrap();
        tokio::spawn(carry(accepted, cove_machine::Connection::from(ours).into()));
        (client, cove_machine::Connection::from(guest).into())
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn an_answer_that_was_cut_off_ends_in_a_reset_and_a_whole_one_does_not() {
        for whole in [true, false] {
            let (mut client, mut guest) = carried().await;
            guest.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await.unwrap();
            if whole {
                guest.shutdown().await.unwrap();
            }
            let mut first = [0; 23];
            client.read_exact(&mut first).await.unwrap();
            drop(guest);
            let end = client.read_to_end(&mut Vec::new()).await;
            assert_eq!(end.map_err(|error| error.kind()).ok(), whole.then_some(0));
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_client_that_resets_its_connection_leaves_no_end_for_the_container() {
        for resets in [true, false] {
            let (mut client, mut guest) = carried().await;
            client.write_all(b"half").await.unwrap();
            let mut first = [0; 4];
            guest.read_exact(&mut first).await.unwrap();
            if resets {
                reset(&client);
            }
            drop(client);
            let end = guest.read_to_end(&mut Vec::new()).await;
            assert_eq!(end.is_err(), resets);
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_client_that_has_said_everything_still_gets_the_answer() {
        let (mut client, mut guest) = carried().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        guest.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        guest.write_all(b"answer").await.unwrap();
        guest.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_client_that_vanishes_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        settle(&accepted);
        assert!(SockRef::from(&accepted).keepalive().unwrap());
    }
}
