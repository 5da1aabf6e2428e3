//! Joins a client's connection with one into the guest.
//!
//! Each direction ends for itself, and an end is passed on. What happens when an end does not close but breaks:
//!
//! | broken | consequence |
//! | --- | --- |
//! | reading from either side | both connections are dropped at once |
//! | writing to the guest | input is thrown away; output goes on to its end, in which the result may be |
//! | writing to the client | output stops; what the client had sent is still delivered, within a bound of time |

use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::timeout,
};

/// How long input of a client is delivered that takes no more output.
const LAST_INPUT: Duration = Duration::from_secs(10);
const CHUNK: usize = 64 << 10;

/// Carries bytes both ways until both directions have ended.
pub async fn carry<C, G>(client: C, guest: G) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    G: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = split(client);
    let (from_guest, to_guest) = split(guest);
    let input = pump(from_client, to_guest);
    let output = pump(from_guest, to_client);
    tokio::pin!(input, output);
    tokio::select! {
        ended = &mut input => match ended? {
            Ended::Finished => {
                output.await?;
            }
            Ended::ReceiverFailed(mut client) => {
                // A client that still writes must not be held up, or it would not read its output.
                let mut nowhere = tokio::io::sink();
                let thrown_away = tokio::io::copy(&mut client, &mut nowhere);
                tokio::select! {
                    ended = &mut output => {
                        ended?;
                    }
                    ended = thrown_away => {
                        ended?;
                        output.await?;
                    }
                }
            }
        },
        ended = &mut output => match ended? {
            Ended::Finished => {
                input.await?;
            }
            Ended::ReceiverFailed(_) => {
                // What cannot be delivered in time is lost, as with a client that left earlier.
                let _ = timeout(LAST_INPUT, input).await;
            }
        },
    }
    Ok(())
}

/// How a direction ended whose source did not break.
enum Ended<R> {
    /// The source ended, and the receiver has been told.
    Finished,
    /// The receiver takes nothing more of what this source still has.
    ReceiverFailed(ReadHalf<R>),
}

async fn pump<R: AsyncRead, W: AsyncWrite>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
) -> io::Result<Ended<R>> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await?;
        let passed_on = match count {
            0 => to.shutdown().await,
            _ => {
                async {
                    to.write_all(&buffer[..count]).await?;
                    to.flush().await
                }
                .await
            }
        };
        match passed_on {
            Err(_) => return Ok(Ended::ReceiverFailed(from)),
            Ok(()) if count == 0 => return Ok(Ended::Finished),
            Ok(()) => {}
        }
    }
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
