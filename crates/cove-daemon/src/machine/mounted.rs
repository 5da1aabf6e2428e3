//! Which containers have a folder mounted, as the engine says.

use super::agent::{OpenError, open_stream};
use bytes::Bytes;
use cove_machine::{Connection, Machine};
use cove_wire::Open;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// How long the engine may take. Listing containers is quick, also in an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Largest list that is read, in bytes: thousands of containers.
const MAX_LIST: usize = 16 << 20;

/// Why the engine's containers are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("cannot reach the engine: {0}")]
    Open(#[from] OpenError),
    #[error("the conversation with the engine broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the engine's list of containers cannot be read: {0}")]
    Body(String),
    #[error("the engine said {0}")]
    Refused(StatusCode),
    #[error("the engine did not answer within {} seconds", TIMEOUT.as_secs())]
    Silent,
}

/// A container that runs, and the paths in the guest that it has mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounting {
    /// Its name.
    pub(crate) name: String,
    /// Where its bind mounts come from.
    pub(crate) sources: Vec<String>,
}

/// The containers that run or are paused, with their bind mounts.
pub(crate) async fn containers(machine: &dyn Machine) -> Result<Vec<Mounting>, ListError> {
    let asked = async { list_over(open_stream(machine, &Open::Engine).await?).await };
    timeout(TIMEOUT, asked).await.unwrap_or(Err(ListError::Silent))
}

async fn list_over(connection: Connection) -> Result<Vec<Mounting>, ListError> {
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(connection)).await?;
    let connection = tokio::spawn(connection);
    let outcome = async {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = hyper::Uri::from_static("/containers/json");
        let host = header::HeaderValue::from_static("docker");
        request.headers_mut().insert(header::HOST, host);
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(ListError::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_LIST).collect().await;
        let body = body
            .map_err(|error| ListError::Body(error.to_string()))?
            .to_bytes();
        read(&body)
    }
    .await;
    connection.abort();
    outcome
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    names: Vec<String>,
    id: String,
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    source: String,
}

fn read(body: &[u8]) -> Result<Vec<Mounting>, ListError> {
    let containers: Vec<Container> =
        serde_json::from_slice(body).map_err(|error| ListError::Body(error.to_string()))?;
    let mounting = containers.into_iter().map(|container| {
        let name = container.names.first().unwrap_or(&container.id);
        Mounting {
            name: super::words::clean(name.trim_start_matches('/')),
            sources: container
                .mounts
                .into_iter()
                .filter(|mount| mount.r#type == "bind")
                .map(|mount| mount.source)
                .collect(),
        }
    });
    Ok(mounting.collect())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    #[tokio::test]
    async fn bind_mounts_are_told_by_the_containers_name_and_volumes_are_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let list = r#"[
            {"Id":"1","Names":["/web"],"Mounts":[{"Type":"bind","Source":"/home/u/x"},{"Type":"volume","Source":"/v"}]},
            {"Id":"2"}
        ]"#;
        let engine = async {
            let mut request = [0; 1024];
            let length = theirs.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /containers/json "));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
            theirs.write_all(head.as_bytes()).await.unwrap();
            theirs.write_all(list.as_bytes()).await.unwrap();
        };
        let (listed, ()) = tokio::join!(list_over(ours.into()), engine);
        let mounting = |name: &str, sources: &[&str]| Mounting {
            name: name.into(),
            sources: sources.iter().map(|&source| source.into()).collect(),
        };
        assert_eq!(
            listed.unwrap(),
            [mounting("web", &["/home/u/x"]), mounting("2", &[])]
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(matches!(read(b"{}"), Err(ListError::Body(_))));
    }
}
