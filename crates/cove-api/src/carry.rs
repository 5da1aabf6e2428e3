//! Joins a client's stream with one into the guest: exec, dial, and everything that the Docker API hands over as a raw
//! stream (attach, exec, a build's session, a websocket, an answer without a length). For TCP connections of clients
//! see [`carry_tcp`](crate::carry_tcp).
//!
//! Each direction ends for itself. The end of the client's input reaches the guest as the end of its input while output
//! goes on, and the other way round. What happens when an end does not close but breaks:
//!
//! | broken | consequence |
//! | --- | --- |
//! | reading from either end | both connections are dropped at once |
//! | writing to the guest | input stops; output goes on to its end, or `yes \| docker run -i … head` would lose it |
//! | writing to the client | output stops; what the client had sent is still delivered, within a bound of time |

use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

/// How long input of a client is delivered that takes no more output.
const LAST_INPUT: Duration = Duration::from_secs(10);

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;

/// Carries bytes both ways until both directions have ended.
pub async fn carry<C, G>(client: C, guest: G) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    G: AsyncRead + AsyncWrite,
{
    carry_halves(split(client), split(guest)).await
}

/// As [`carry`], between ends whose halves, to read from and to write to, are apart.
pub async fn carry_halves<CR, CW, GR, GW>(client: (CR, CW), guest: (GR, GW)) -> io::Result<()>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    GR: AsyncRead + Unpin,
    GW: AsyncWrite + Unpin,
{
    let input = pump(client.0, guest.1);
    let output = pump(guest.0, client.1);
    tokio::pin!(input, output);
    tokio::select! {
        ended = &mut input => {
            ended?;
            output.await?;
        }
        ended = &mut output => match ended? {
            Ended::Finished => {
                input.await?;
            }
            Ended::ReceiverFailed => {
                // What cannot be delivered in time is lost, as with a client that left earlier.
                let _ = timeout(LAST_INPUT, input).await;
            }
        },
    }
    Ok(())
}

/// How a direction ended whose source did not break.
enum Ended {
    /// The source ended, and the receiver has been told.
    Finished,
    /// The receiver takes nothing more.
    ReceiverFailed,
}

async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(mut from: R, mut to: W) -> io::Result<Ended> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await?;
        let passed_on = if count == 0 {
            to.shutdown().await
        } else {
            pass_on(&mut to, &buffer[..count]).await
        };
        match passed_on {
            Err(_) => return Ok(Ended::ReceiverFailed),
            Ok(()) if count == 0 => return Ok(Ended::Finished),
            Ok(()) => {}
        }
    }
}

async fn pass_on<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn output_arrives_whole_though_the_guest_takes_no_more_input() {
        for _ in 0..50 {
            let (mut client, ours) = UnixStream::pair().unwrap();
            let (mut guest, theirs) = UnixStream::pair().unwrap();
            let carried = tokio::spawn(carry(ours, theirs));
            guest.write_all(b"the result").await.unwrap();
            drop(guest);
            let (mut from, mut to) = client.split();
            let mut output = Vec::new();
            let endless = async {
                // Ends when the connection does.
                while to.write_all(&[0; 4096]).await.is_ok() {}
            };
            tokio::join!(endless, async {
                // An end with input unread is a reset, after the output.
                let _ = from.read_to_end(&mut output).await;
            });
            assert_eq!(output, b"the result");
            let _ = carried.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_client_that_has_ended_its_input_gets_the_output() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let (mut guest, theirs) = UnixStream::pair().unwrap();
        let carried = tokio::spawn(carry(ours, theirs));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        guest.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        guest.write_all(b"answer").await.unwrap();
        drop(guest);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        carried.await.unwrap().unwrap();
    }
}
