//! Joins a client's TCP connection with one in the guest, so that a reset on either side is one on the other.

use crate::Dialled;
use socket2::SockRef;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::TcpStream,
};

/// Bytes on their way in each direction.
const BUFFER: usize = 32 << 10;

/// Moves bytes both ways between a client and the connection that is being dialled for it, until both directions have
/// ended. Returns the error of dialling.
///
/// The client's connection is reset unless everything was passed on to it up to the guest's own end, because it could
/// take half of an answer, or none, for a whole one. That holds as well when the guest cannot be reached, when this is
/// dropped, and when the process is killed.
pub async fn carry_tcp<S, E>(
    mut client: TcpStream,
    dialling: impl Future<Output = Result<Dialled<S>, E>>,
) -> Result<(), E>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    reset_when_closed(&client, true);
    join(&mut client, dialling.await?).await;
    Ok(())
}

async fn join<S: AsyncRead + AsyncWrite + Unpin>(client: &mut TcpStream, inner: Dialled<S>) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_inner, mut to_inner) = split(inner);
    let inward = pump(&mut from_client, &mut to_inner);
    let outward = async {
        pump(&mut from_inner, &mut to_client).await?;
        // However the other direction ends, the client has been told that it got everything.
        reset_when_closed(to_client.as_ref(), false);
        Ok::<_, Broken>(())
    };
    tokio::pin!(inward, outward);
    tokio::select! {
        ended = &mut inward => match ended {
            // A container that takes no more may still have something to say.
            Ok(()) | Err(Broken::Receiver) => {
                let _ = outward.await;
            }
            Err(Broken::Sender) => {}
        },
        ended = &mut outward => if ended.is_ok() {
            let _ = inward.await;
        },
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

/// Has the connection be reset instead of ended when it is closed, or ended again.
fn reset_when_closed(client: &TcpStream, reset: bool) {
    // What cannot be set on a connection that is gone need not be.
    let _ = SockRef::from(client).set_linger(reset.then_some(Duration::ZERO));
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::io;
    use tokio::{
        net::{TcpListener, UnixStream},
        task::JoinHandle,
    };

    /// A client, and what it is connected to.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        (client, accepted)
    }

    /// A client, the guest's end of the stream that carries it, and who carries it.
    async fn carried() -> (TcpStream, Dialled<UnixStream>, JoinHandle<io::Result<()>>) {
        let (client, accepted) = connected().await;
        let (ours, guest) = UnixStream::pair().unwrap();
        let carrying = carry_tcp(accepted, async { Ok(Dialled::new(ours)) });
        (client, Dialled::new(guest), tokio::spawn(carrying))
    }

    async fn is_reset(client: &mut TcpStream) -> bool {
        match client.read_to_end(&mut Vec::new()).await {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                true
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_was_cut_off_ends_in_a_reset_and_a_whole_one_does_not() {
        for whole in [true, false] {
            let (mut client, mut guest, _carrying) = carried().await;
            guest.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await.unwrap();
            if whole {
                guest.shutdown().await.unwrap();
            }
            let mut first = [0; 23];
            client.read_exact(&mut first).await.unwrap();
            drop(guest);
            assert_eq!(is_reset(&mut client).await, !whole);
        }
    }

    #[tokio::test]
    async fn a_client_that_resets_its_connection_leaves_no_end_for_the_container() {
        for resets in [true, false] {
            let (mut client, mut guest, _carrying) = carried().await;
            client.write_all(b"half").await.unwrap();
            let mut first = [0; 4];
            guest.read_exact(&mut first).await.unwrap();
            reset_when_closed(&client, resets);
            drop(client);
            let end = guest.read_to_end(&mut Vec::new()).await;
            assert_eq!(end.is_err(), resets);
        }
    }

    #[tokio::test]
    async fn a_client_that_has_said_everything_still_gets_the_answer() {
        let (mut client, mut guest, carrying) = carried().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        guest.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        guest.write_all(b"answer").await.unwrap();
        guest.shutdown().await.unwrap();
        carrying.await.unwrap().unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_client_is_not_left_with_an_empty_answer_where_nobody_answers_or_goes_on() {
        let (mut client, accepted) = connected().await;
        let refused = async { Err::<Dialled<UnixStream>, _>(io::ErrorKind::ConnectionRefused) };
        assert!(carry_tcp(accepted, refused).await.is_err());
        assert!(is_reset(&mut client).await);

        let (mut client, mut guest, carrying) = carried().await;
        guest.write_all(b"half").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        carrying.abort();
        assert!(is_reset(&mut client).await);
    }
}
