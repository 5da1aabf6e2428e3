//! The text of logs: files of the host, and logs that the agent keeps.

use super::{
    Server,
    body::{self, Answer, invalid},
    upgrade::{opened, running},
};
use crate::{LogFile, log};
use cove_api::{ApiError, ErrorCode, LogQuery, LogSource};
use cove_machine::Machine;
use cove_wire::{LogRequest, Open};
use futures_util::stream;
use hyper::{Request, body::Incoming};
use std::{io, path::PathBuf, sync::Arc};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

const TEXT: &str = "text/plain; charset=utf-8";
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

pub(super) async fn read(
    server: &Server,
    name: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let wanted = LogQuery::from_query(request.uri().query().unwrap_or_default()).map_err(invalid)?;
    let handle = server.machines.get(name)?;
    let file = |path: PathBuf| open_file(path, wanted, server.end.clone());
    let source = match wanted.source {
        LogSource::Daemon => return file(server.context.dirs.logs().join(log::FILE)).await,
        LogSource::Console => return file(handle.place().console()).await,
        LogSource::Machine => return file(handle.place().process_log()).await,
        LogSource::Agent => cove_wire::LogSource::Agent,
        LogSource::Engine => cove_wire::LogSource::Engine,
        LogSource::Containerd => cove_wire::LogSource::Containerd,
        LogSource::Kernel => cove_wire::LogSource::Kernel,
    };
    let machine: Arc<dyn Machine> = running(server, name).await?;
    let open = Open::Logs(LogRequest {
        source,
        follow: wanted.follow,
        tail: wanted.tail,
    });
    let connection = opened(&*machine, name, &open).await?;
    Ok(body::stream(TEXT, ReaderStream::with_capacity(connection, CHUNK)))
}

async fn open_file(path: PathBuf, wanted: LogQuery, end: CancellationToken) -> Result<Answer, ApiError> {
    let failed = |error: io::Error| {
        let message = format!("the log {} cannot be read: {error}", path.display());
        match error.kind() {
            io::ErrorKind::NotFound => ApiError::new(
                ErrorCode::NotFound,
                format!("there is no {} log yet", wanted.source.name()),
                "it begins when the machine is started",
            ),
            _ => ApiError::new(ErrorCode::Internal, message, ""),
        }
    };
    let log = LogFile::open(path.clone(), wanted.tail, wanted.follow, end)
        .await
        .map_err(failed)?;
    let chunks = stream::unfold(Some(log), |log| async move {
        let mut log = log?;
        match log.next().await {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), Some(log))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(body::stream(TEXT, chunks))
}
