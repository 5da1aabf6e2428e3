//! One request and its answer.
//!
//! Both travel at the same time: an engine may answer while a build context is still on its way, and a client that
//! ends its side while it waits has gone away, which the engine has to learn at once in order to stop a `logs -f`.
//! So one future sends the request and then watches the client, another receives the answer, and the answer decides.

use super::{
    framing::FramingError,
    head::{HeadError, RequestHead, ResponseHead},
    reply::Reply,
    stream::{Inbound, Outbound, Peer, READ_SIZE, ReadHeadError, RelayError, Transfer},
};
use std::{future::pending, io};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a request needs to be sent and its answer to be understood.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) request: &'a RequestHead,
    /// The request on its way; its first bytes are in the client's buffer.
    pub(super) upload: Transfer,
    /// The client has been told to go on already, so the engine's word for that is left out.
    pub(super) told_to_continue: bool,
    /// Status of the answer, once its head has come.
    pub(super) status: Option<u16>,
}

/// How an exchange came out.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The request was sent, the answer delivered; another request may follow.
    Complete,
    /// The connection is a raw stream from here. The engine's buffer begins with the head that says so.
    Tunnel,
}

/// Why an exchange, and with it the connection, came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("the client's connection failed")]
    Client(#[source] io::Error),
    #[error("the request's body is malformed")]
    Request(#[source] FramingError),
    #[error("the engine closed the connection before it answered")]
    EngineSilent,
    #[error("the engine's answer is not HTTP")]
    EngineHead(#[source] HeadError),
    #[error("the engine changed the protocol without being asked")]
    EngineSwitched,
    #[error("the engine's answer broke off")]
    EngineBroke(#[source] RelayError),
    #[error("the engine closed the connection after an early answer")]
    EngineEarly,
}

impl ExchangeError {
    /// What to tell a client that has seen nothing of an answer yet.
    pub(super) fn reply(&self) -> Option<Reply> {
        let logs = "look into its log with: cove logs engine";
        match self {
            Self::Request(error) => Some((*error).into()),
            Self::EngineSilent => Some(Reply::new(
                502,
                format!("the engine closed the connection before it answered; it may have crashed, {logs}"),
            )),
            Self::EngineHead(_) | Self::EngineSwitched => Some(Reply::new(502, format!("{self}; {logs}"))),
            Self::Client(_) | Self::EngineBroke(_) | Self::EngineEarly => None,
        }
    }
}

impl Exchange<'_> {
    /// Carries the request to the engine and the answer to the client.
    pub(super) async fn run<C, E>(
        &mut self,
        client: &mut Peer<C>,
        engine: &mut Peer<E>,
    ) -> Result<Outcome, ExchangeError>
    where
        C: AsyncRead + AsyncWrite,
        E: AsyncRead + AsyncWrite,
    {
        let Self {
            request,
            upload,
            told_to_continue,
            status,
        } = self;
        let outcome = tokio::select! {
            biased;
            outcome = receive(&mut engine.inbound, &mut client.outbound, request, told_to_continue, status) => outcome?,
            error = send(&mut client.inbound, &mut engine.outbound, upload) => return Err(error),
        };
        if matches!(outcome, Outcome::Complete) && !upload.is_complete() {
            // Answered early. The engine may still swallow the rest; usually it closes.
            tokio::select! {
                sent = upload.relay(&mut client.inbound, &mut engine.outbound) => {
                    sent.map_err(|_| ExchangeError::EngineEarly)?;
                }
                _ = engine.inbound.fill() => return Err(ExchangeError::EngineEarly),
            }
        }
        Ok(outcome)
    }
}

/// Sends the request, then waits for the client to end. Returns only when there is no point in waiting for an answer.
async fn send<R, W>(from: &mut Inbound<R>, to: &mut Outbound<W>, upload: &mut Transfer) -> ExchangeError
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    match upload.relay(from, to).await {
        // What is read ahead here is the next request, or input for a stream that the answer is about to open.
        Ok(()) => match from.end(READ_SIZE).await {
            // The end is passed on in its place: not before what is in the buffer.
            Ok(()) if !from.buffer.is_empty() => pending().await,
            Ok(()) => {}
            Err(error) => return ExchangeError::Client(error),
        },
        Err(RelayError::SourceEnded) => {}
        Err(RelayError::Source(error)) => return ExchangeError::Client(error),
        Err(RelayError::Framing(error)) => return ExchangeError::Request(error),
        // The engine takes no more, but it may have said why.
        Err(RelayError::Destination(_)) => pending().await,
    }
    // If this fails then the engine is gone, which `receive` finds out by itself.
    let _ = to.finish().await;
    pending().await
}

/// Receives the answer, interim answers first.
async fn receive<R, W>(
    from: &mut Inbound<R>,
    to: &mut Outbound<W>,
    request: &RequestHead,
    told_to_continue: &mut bool,
    status: &mut Option<u16>,
) -> Result<Outcome, ExchangeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let length = from.head().await.map_err(|error| match error {
            ReadHeadError::Malformed(error) => ExchangeError::EngineHead(error),
            ReadHeadError::Failed(_) | ReadHeadError::Ended => ExchangeError::EngineSilent,
        })?;
        let head = ResponseHead::parse(&from.buffer[..length], &request.method)
            .map_err(ExchangeError::EngineHead)?;
        let mut answer = match head.status {
            100 if std::mem::take(told_to_continue) => {
                from.skip(length);
                continue;
            }
            101 if !request.upgrade => return Err(ExchangeError::EngineSwitched),
            100 | 102..200 => Transfer::whole(length),
            final_status => {
                *status = Some(final_status);
                if final_status == 101 || head.framing == super::framing::Framing::UntilClose {
                    return Ok(Outcome::Tunnel);
                }
                Transfer::new(length, head.framing)
            }
        };
        answer.relay(from, to).await.map_err(|error| match error {
            RelayError::Destination(error) => ExchangeError::Client(error),
            error => ExchangeError::EngineBroke(error),
        })?;
        if status.is_some() {
            return Ok(Outcome::Complete);
        }
    }
}
