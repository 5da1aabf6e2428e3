//! A connection that has become a raw stream: attach, exec, a build's session, a websocket, an answer without a length.
//!
//! Each direction ends for itself. The end of the client's input reaches the engine as the end of its input while
//! output goes on, and the other way round. What happens when an end does not close but breaks:
//!
//! | broken | consequence |
//! | --- | --- |
//! | reading from either end | both connections are dropped at once |
//! | writing to the engine | input stops; output goes on to its end, or `yes \| docker run -i … head` would lose it |
//! | writing to the client | output stops; what the client had sent is still delivered, within a bound of time |

use super::stream::{Inbound, Outbound, Peer};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

/// How long input of a client is delivered that takes no more output.
const LAST_INPUT: Duration = Duration::from_secs(10);

/// Carries bytes both ways until both directions have ended. What either end has in its buffer comes first.
pub(super) async fn run<C, E>(client: &mut Peer<C>, engine: &mut Peer<E>) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    E: AsyncRead + AsyncWrite,
{
    let mut input = std::pin::pin!(pump(&mut client.inbound, &mut engine.outbound));
    let mut output = std::pin::pin!(pump(&mut engine.inbound, &mut client.outbound));
    tokio::select! {
        ended = &mut input => {
            ended?;
            output.await?;
        }
        ended = &mut output => match ended? {
            Ended::Finished => { input.await?; }
            Ended::DestinationFailed => { let _ = timeout(LAST_INPUT, input).await; }
        },
    }
    Ok(())
}

/// How a direction ended whose source did not break.
enum Ended {
    /// The source ended, and the destination has been told.
    Finished,
    /// The destination takes nothing more.
    DestinationFailed,
}

async fn pump<R, W>(from: &mut Inbound<R>, to: &mut Outbound<W>) -> io::Result<Ended>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let mut length = from.buffer.len();
        if to.send(&mut from.buffer, &mut length).await.is_err() {
            return Ok(Ended::DestinationFailed);
        }
        if !from.fill().await? {
            return Ok(match to.finish().await {
                Ok(()) => Ended::Finished,
                Err(_) => Ended::DestinationFailed,
            });
        }
    }
}
