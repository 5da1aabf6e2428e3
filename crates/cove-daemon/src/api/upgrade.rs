//! Requests that turn their connection into a stream to the guest: exec and dial.

use super::{
    Server,
    body::{self, Answer, invalid},
};
#[cfg(unix)]
use crate::host;
use crate::machine::agent::{OpenError, open_stream};
use cove_api::{ApiError, ErrorCode, MachineState, transport::Stream};
use cove_machine::{Connection, Machine};
use cove_wire::{FaultCode, Open};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use std::{io, sync::Arc, time::Duration};
#[cfg(unix)]
use tokio::time::sleep;
use tokio::{io::AsyncReadExt, time::timeout};

/// How long the guest may take to open a stream.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether the client of a program has gone.
#[cfg(unix)]
const LOOK: Duration = Duration::from_millis(500);

/// What the connection becomes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    /// [`cove_wire::ExecPacket`]s.
    Exec,
    /// Raw bytes.
    Dial,
    /// [`cove_wire::Chunks`]. They are passed on as they are: what did not get to its end on one side has not on the
    /// other.
    Connection,
}

impl Protocol {
    /// Its name in the header `Upgrade`.
    fn token(self) -> &'static str {
        match self {
            Self::Exec => "cove-exec",
            Self::Dial => "tcp",
            Self::Connection => "cove-tcp",
        }
    }
}

/// Opens the stream by the one of `protocols` that the client asks for, answers 101, and moves bytes until both sides
/// have finished.
pub(super) async fn open(
    server: &Server,
    name: &str,
    request: &mut Request<Incoming>,
    protocols: &[Protocol],
) -> Result<Answer, ApiError> {
    let wanted = request.headers().get(UPGRADE);
    let is_wanted = |protocol: &Protocol| wanted.is_some_and(|wanted| wanted == protocol.token());
    let Some(protocol) = protocols.iter().copied().find(is_wanted) else {
        let tokens: Vec<_> = protocols
            .iter()
            .map(|protocol| format!("`{}`", protocol.token()))
            .collect();
        return Err(invalid(format!(
            "this request has to ask for an upgrade to {}",
            tokens.join(" or ")
        )));
    };
    let open = match protocol {
        Protocol::Exec => Open::Exec(body::read_json(request).await?),
        Protocol::Dial => Open::Dial(body::read_json(request).await?),
        Protocol::Connection => Open::Connection(body::read_json(request).await?),
    };
    let machine = running(server, name).await?;
    let connection = opened(&*machine, name, &open).await?;
    let upgrade = hyper::upgrade::on(request);
    let end = server.end.clone();
    tokio::spawn(async move {
        let client = match upgrade.await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "a client left before its stream began"),
        };
        let carrying = async {
            match protocol {
                Protocol::Exec => carry_exec(client, connection).await,
                Protocol::Dial | Protocol::Connection => {
                    cove_api::carry(TokioIo::new(client), connection).await
                }
            }
        };
        if let Some(Err(error)) = end.run_until_cancelled(carrying).await {
            tracing::debug!(%error, "a stream to the guest broke");
        }
    });
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol.token()));
    Ok(answer)
}

/// Carries a program's stream until both sides have finished or the client has gone. A client that goes ends the
/// stream, even if it leaves input behind that the program does not read.
async fn carry_exec(client: Upgraded, guest: Connection) -> io::Result<()> {
    let Ok(parts) = client.downcast::<TokioIo<Stream>>() else {
        return Err(io::Error::other("a client's connection is none of this server's"));
    };
    let client = parts.io.into_inner();
    let gone = gone(&client)?;
    let (from_client, to_client) = tokio::io::split(client);
    let early = std::io::Cursor::new(parts.read_buf);
    let carrying = cove_api::carry_halves((early.chain(from_client), to_client), tokio::io::split(guest));
    tokio::select! {
        carried = carrying => carried,
        () = gone => Ok(()),
    }
}

/// Waits until the client has closed both directions.
#[cfg(unix)]
fn gone(client: &Stream) -> io::Result<impl Future<Output = ()> + use<>> {
    use std::os::fd::AsFd;
    // The stream itself is in use; a second descriptor of it sees the same.
    let client = client.as_fd().try_clone_to_owned()?;
    Ok(async move {
        while !host::hung_up(&client) {
            sleep(LOOK).await;
        }
    })
}

/// Where the system cannot be asked, reading and writing have to tell.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the other platforms' version can fail")]
fn gone(_: &Stream) -> io::Result<impl Future<Output = ()> + use<>> {
    Ok(std::future::pending())
}

/// A stream to the guest of `machine`, which is called `name`; the guest is not waited for for ever.
pub(super) async fn opened(machine: &dyn Machine, name: &str, open: &Open) -> Result<Connection, ApiError> {
    match timeout(TIMEOUT, open_stream(machine, open)).await {
        Ok(opened) => opened.map_err(|error| refused(&error)),
        Err(_) => Err(ApiError::new(
            ErrorCode::Timeout,
            format!(
                "the guest of machine `{name}` did not answer in {} seconds",
                TIMEOUT.as_secs()
            ),
            "`cove status` shows how it is",
        )),
    }
}

/// The machine, if its guest can be reached now.
pub(super) async fn running(server: &Server, name: &str) -> Result<Arc<dyn Machine>, ApiError> {
    let snapshot = server.machines.get(name)?.settled().await;
    match (&snapshot.machine, &snapshot.state) {
        (Some(_), MachineState::Paused) => Err(ApiError::new(
            ErrorCode::WrongState,
            format!("machine `{name}` is paused"),
            "let it go on with `cove resume`",
        )),
        (Some(machine), _) => Ok(Arc::clone(machine)),
        (None, _) => Err(ApiError::new(
            ErrorCode::WrongState,
            format!("machine `{name}` is not running"),
            "start it with `cove start`",
        )),
    }
}

/// What the API says when the guest refuses a stream.
fn refused(error: &OpenError) -> ApiError {
    let code = match error {
        OpenError::Request(_) => {
            let hint = "the words of a command and its variables hold 1 MiB at most: pass more through standard input";
            return ApiError::new(ErrorCode::InvalidRequest, error.to_string(), hint);
        }
        OpenError::Fault(fault) => match fault.code {
            FaultCode::NotFound => ErrorCode::NotFound,
            FaultCode::Invalid => ErrorCode::InvalidRequest,
            FaultCode::WrongState | FaultCode::ShuttingDown => ErrorCode::WrongState,
            FaultCode::Unreachable | FaultCode::Failed => ErrorCode::MachineFailed,
        },
        OpenError::Machine(_) | OpenError::Wire(_) => ErrorCode::MachineFailed,
    };
    ApiError::new(code, error.to_string(), "")
}
