//! Requests that turn their connection into a stream to the guest: exec and dial.

use super::{
    Server,
    body::{self, Answer, invalid},
};
use crate::machine::agent::{OpenError, open_stream};
use cove_api::{ApiError, ErrorCode, MachineState};
use cove_machine::Machine;
use cove_wire::{FaultCode, Open};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long the guest may take to open a stream.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the connection becomes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    /// [`cove_wire::ExecPacket`]s.
    Exec,
    /// Raw bytes.
    Dial,
}

/// Opens the stream, answers 101, and moves bytes until both sides have finished.
pub(super) async fn open(
    server: &Server,
    name: &str,
    request: &mut Request<Incoming>,
    protocol: Protocol,
) -> Result<Answer, ApiError> {
    let token = match protocol {
        Protocol::Exec => "cove-exec",
        Protocol::Dial => "tcp",
    };
    if request
        .headers()
        .get(UPGRADE)
        .is_none_or(|wanted| wanted != token)
    {
        return Err(invalid(format!(
            "this request has to ask for an upgrade to `{token}`"
        )));
    }
    let open = match protocol {
        Protocol::Exec => Open::Exec(body::read_json(request).await?),
        Protocol::Dial => Open::Dial(body::read_json(request).await?),
    };
    let machine = running(server, name)?;
    let opened = timeout(PATIENCE, open_stream(&*machine, &open)).await;
    let connection = match opened {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(refused(&error)),
        Err(_) => {
            let message = format!(
                "the guest of machine `{name}` did not answer in {} seconds",
                PATIENCE.as_secs()
            );
            return Err(ApiError::new(
                ErrorCode::Timeout,
                message,
                "`cove status` shows how it is",
            ));
        }
    };
    let upgrade = hyper::upgrade::on(request);
    let end = server.end.clone();
    tokio::spawn(async move {
        let client = match upgrade.await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "a client left before its stream began"),
        };
        let copying = cove_api::carry(TokioIo::new(client), connection);
        if let Some(Err(error)) = end.run_until_cancelled(copying).await {
            tracing::debug!(%error, "a stream to the guest broke");
        }
    });
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(token));
    Ok(answer)
}

/// The machine, if its guest can be reached now.
pub(super) fn running(server: &Server, name: &str) -> Result<Arc<dyn Machine>, ApiError> {
    let snapshot = server.machines.get(name)?.snapshot();
    match (&snapshot.machine, &snapshot.state) {
        (Some(_), MachineState::Paused) => Err(ApiError::new(
            ErrorCode::WrongState,
            format!("machine `{name}` is paused"),
            "let it go on with `cove start`",
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
pub(super) fn refused(error: &OpenError) -> ApiError {
    let code = match error {
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
