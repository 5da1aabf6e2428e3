//! Which containers have a folder mounted, as the engine says: as a bind mount, or by a volume that is one.

use super::agent::{OpenError, open_stream};
use bytes::Bytes;
use cove_machine::{Connection, Machine};
use cove_wire::Open;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};
use tokio::time::timeout;

/// How long the engine may take. Listing containers is quick, also in an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Largest list that is read, in bytes: thousands of containers or volumes.
const MAX_LIST: usize = 16 << 20;

/// What the engine answers with every container, those included that do not run.
const ALL_CONTAINERS: &str = "/containers/json?all=true";

/// Why the engine's containers are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("cannot reach the engine: {0}")]
    Open(#[from] OpenError),
    #[error("the conversation with the engine broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the engine's list of containers or volumes cannot be read: {0}")]
    Body(String),
    #[error("the engine said {0}")]
    Refused(StatusCode),
    #[error("the engine did not answer within {} seconds", TIMEOUT.as_secs())]
    Silent,
}

/// A container, and the paths in the guest that it has mounted, or mounts when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounting {
    /// Its name.
    pub(crate) name: String,
    /// Whether it runs or is paused, or is about to be started again by the engine.
    pub(crate) is_up: bool,
    /// Where its bind mounts come from, and its volumes that are bind mounts.
    pub(crate) sources: Vec<String>,
}

/// All containers, with their bind mounts.
pub(crate) async fn containers(machine: &dyn Machine) -> Result<Vec<Mounting>, ListError> {
    let asked = async { list_over(open_stream(machine, &Open::Engine).await?).await };
    timeout(TIMEOUT, asked).await.unwrap_or(Err(ListError::Silent))
}

async fn list_over(connection: Connection) -> Result<Vec<Mounting>, ListError> {
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(connection)).await?;
    let connection = tokio::spawn(connection);
    let outcome = async {
        let containers: Vec<Container> = read(&get(&mut sender, ALL_CONTAINERS).await?)?;
        let mut mounts = containers.iter().flat_map(|container| &container.mounts);
        let volumes = if mounts.any(|mount| mount.r#type == "volume") {
            read::<Volumes>(&get(&mut sender, "/volumes").await?)?.devices()
        } else {
            HashMap::new()
        };
        let mounting = containers
            .into_iter()
            .map(|container| container.mounting(&volumes));
        Ok::<_, ListError>(mounting.collect())
    }
    .await;
    connection.abort();
    outcome
}

async fn get(sender: &mut http1::SendRequest<Empty<Bytes>>, path: &'static str) -> Result<Bytes, ListError> {
    sender.ready().await?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = hyper::Uri::from_static(path);
    let host = header::HeaderValue::from_static("docker");
    request.headers_mut().insert(header::HOST, host);
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(ListError::Refused(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_LIST).collect().await;
    let body = body.map_err(|error| ListError::Body(error.to_string()))?;
    Ok(body.to_bytes())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    names: Vec<String>,
    id: String,
    #[serde(default)]
    state: String,
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
    /// A volume's.
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    volumes: Option<Vec<Volume>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
    #[serde(default)]
    driver: String,
    /// Told apart by case.
    options: Option<HashMap<String, String>>,
}

impl Volumes {
    /// The volumes that are bind mounts, and of what.
    fn devices(self) -> HashMap<String, String> {
        let volumes = self.volumes.unwrap_or_default().into_iter();
        volumes
            .filter(|volume| volume.driver == "local")
            .filter_map(|volume| {
                let mut options = volume.options?;
                let mut flags = options.get("o")?.split(',').map(str::trim);
                let binds = flags.any(|flag| matches!(flag, "bind" | "rbind"));
                binds.then_some((volume.name, options.remove("device")?))
            })
            .collect()
    }
}

impl Container {
    /// `volumes` are those that are bind mounts, and of what.
    fn mounting(self, volumes: &HashMap<String, String>) -> Mounting {
        let name = self.names.first().unwrap_or(&self.id);
        Mounting {
            name: super::words::clean(name.trim_start_matches('/')),
            is_up: matches!(&*self.state, "running" | "paused" | "restarting"),
            sources: self
                .mounts
                .into_iter()
                .filter_map(|mount| match &*mount.r#type {
                    "bind" => Some(mount.source),
                    "volume" => volumes.get(&mount.name).cloned(),
                    _ => None,
                })
                .collect(),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ListError> {
    serde_json::from_slice(body).map_err(|error| ListError::Body(error.to_string()))
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
    async fn bind_mounts_are_told_by_the_containers_name_and_volumes_only_where_they_are_such() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let containers = r#"[
            {"Id":"1","Names":["/web"],"State":"running","Mounts":[
                {"Type":"bind","Source":"/home/u/x"},
                {"Type":"volume","Name":"own","Source":"/v"},
                {"Type":"volume","Name":"bound","Source":"/w"},
                {"Type":"volume","Name":"remote","Source":"/r"},
                {"Type":"tmpfs"}
            ]},
            {"Id":"2","State":"exited"}
        ]"#;
        let volumes = r#"{"Volumes":[
            {"Name":"own","Driver":"local","Options":null},
            {"Name":"bound","Driver":"local","Options":{"type":"none","o":"rw, bind","device":"/home/u/y"}},
            {"Name":"remote","Driver":"local","Options":{"type":"nfs","o":"addr=10.0.0.1","device":":/home/u/z"}}
        ],"Warnings":null}"#;
        let engine = async {
            for (path, list) in [(ALL_CONTAINERS, containers), ("/volumes", volumes)] {
                let mut request = [0; 1024];
                let length = theirs.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(format!("GET {path} ").as_bytes()));
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
                theirs.write_all(head.as_bytes()).await.unwrap();
                theirs.write_all(list.as_bytes()).await.unwrap();
            }
        };
        let (listed, ()) = tokio::join!(list_over(ours.into()), engine);
        let mounting = |name: &str, is_up, sources: &[&str]| Mounting {
            name: name.into(),
            is_up,
            sources: sources.iter().map(|&source| source.into()).collect(),
        };
        assert_eq!(
            listed.unwrap(),
            [
                mounting("web", true, &["/home/u/x", "/home/u/y"]),
                mounting("2", false, &[])
            ]
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(matches!(read::<Vec<Container>>(b"{}"), Err(ListError::Body(_))));
        assert!(matches!(read::<Volumes>(b"[1]"), Err(ListError::Body(_))));
    }
}
