//! The typed client of the control API.
//!
//! Each request makes a connection of its own: the socket is local, so that this costs microseconds, and a stream
//! that is being read never holds up another request.

mod stream;

pub use stream::{ByteStream, JsonLines, Upgraded};

use crate::{
    ApiError, Applied, Check, Dialled, Dirs, DockerContext, ErrorCode, Event, Explanation, LogQuery,
    MachineStatus, MachineUsage, NewCertificates, NewMachine, NewShare, Progress, PublishedPort, Reclaimed,
    Settings, SettingsChange, SettingsOutcome, Share, Site, Trusted, Version, query, transport,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Largest body of an answer that is not a stream, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// Why a request got no answer, or which error it got for an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens at the socket.
    #[error("the Cove daemon is not running (nothing listens at {})", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket's path does not fit into a socket's address.
    #[error(
        "the socket's path {} is {} bytes long, and {} are the most that work; \
         set XDG_RUNTIME_DIR or COVE_HOME to a shorter directory",
        socket.display(), socket.as_os_str().len(), transport::MAX_SOCKET_PATH
    )]
    SocketPathTooLong {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is there but cannot be connected to.
    #[error("cannot connect to the Cove daemon at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something holds the socket, and does not answer.
    #[error("the Cove daemon at {} has not answered within {} s", socket.display(), waited.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The connection broke, or HTTP went wrong.
    #[error("the connection to the Cove daemon broke during {request}")]
    Http {
        /// Method and path of the request.
        request: String,
        /// What HTTP said.
        source: hyper::Error,
    },
    /// The daemon's answer makes no sense; perhaps it is of another release.
    #[error("the Cove daemon gave an unexpected answer to {request}: {what}")]
    Unexpected {
        /// Method and path of the request.
        request: String,
        /// What is unexpected.
        what: String,
    },
    /// The daemon refused or failed the request.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// The API's error code, if it is the daemon that said no.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Api(error) => Some(error.code),
            _ => None,
        }
    }
}

/// The settings file as it was at one time.
#[derive(Debug, Clone)]
pub struct SettingsText {
    /// What was in it.
    pub text: String,
    /// What the daemon tells it by from the file at other times.
    mark: Option<header::HeaderValue>,
}

/// A client of the daemon at one socket. Cheap to make and to clone; connects only when asked something.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// A client of the daemon of these directories.
    pub fn of(dirs: &Dirs) -> Self {
        Self::new(dirs.daemon_socket())
    }

    /// The socket that it connects to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon's release and protocol.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version").await
    }

    /// All machines.
    pub async fn machines(&self) -> Result<Vec<MachineStatus>, ClientError> {
        self.get("/v1/machines").await
    }

    /// One machine.
    pub async fn machine(&self, name: &str) -> Result<MachineStatus, ClientError> {
        self.get(&machine_path(name, "")).await
    }

    /// Creates a machine, which does not start it.
    pub async fn create_machine(&self, machine: &NewMachine) -> Result<MachineStatus, ClientError> {
        self.json(Method::POST, "/v1/machines", Some(machine)).await
    }

    /// Deletes a stopped machine and its data; `confirm` has to be its name.
    pub async fn delete_machine(&self, name: &str, confirm: &str) -> Result<(), ClientError> {
        let path = format!("{}?confirm={}", machine_path(name, ""), query::encode(confirm));
        self.nothing(Method::DELETE, &path).await
    }

    /// Starts a machine, or resumes it when it is paused. The start goes on when the stream is dropped; [`Self::stop`]
    /// cancels it.
    pub async fn start(&self, name: &str) -> Result<JsonLines<Progress>, ClientError> {
        self.lines(Method::POST, &machine_path(name, "/start")).await
    }

    /// Stops a machine in order. The stop goes on when the stream is dropped.
    pub async fn stop(&self, name: &str) -> Result<JsonLines<Progress>, ClientError> {
        self.lines(Method::POST, &machine_path(name, "/stop")).await
    }

    /// Stops and starts a machine.
    pub async fn restart(&self, name: &str) -> Result<JsonLines<Progress>, ClientError> {
        self.lines(Method::POST, &machine_path(name, "/restart")).await
    }

    /// Ends a machine at once, as if the power were cut.
    pub async fn kill(&self, name: &str) -> Result<MachineStatus, ClientError> {
        self.post(&machine_path(name, "/kill")).await
    }

    /// Stops a machine's vCPUs.
    pub async fn pause(&self, name: &str) -> Result<MachineStatus, ClientError> {
        self.post(&machine_path(name, "/pause")).await
    }

    /// Lets a paused machine's vCPUs go on.
    pub async fn resume(&self, name: &str) -> Result<MachineStatus, ClientError> {
        self.post(&machine_path(name, "/resume")).await
    }

    /// What a machine that runs uses of its disk and memory.
    pub async fn usage(&self, name: &str) -> Result<MachineUsage, ClientError> {
        self.get(&machine_path(name, "/usage")).await
    }

    /// Has a machine that runs give the host back what it does not use of its data disk, which may take minutes.
    pub async fn reclaim(&self, name: &str) -> Result<Reclaimed, ClientError> {
        self.json::<(), _>(Method::POST, &machine_path(name, "/reclaim"), None)
            .await
    }

    /// Runs a process in the guest. The stream carries [`cove_wire::ExecPacket`]s both ways.
    pub async fn exec(&self, name: &str, exec: &cove_wire::Exec) -> Result<Upgraded, ClientError> {
        self.upgrade(&machine_path(name, "/exec"), "cove-exec", exec)
            .await
    }

    /// Connects to a TCP address as seen from within the guest. Half-close works, and a reset is told from an end.
    pub async fn dial(&self, name: &str, dial: &cove_wire::Dial) -> Result<Dialled<Upgraded>, ClientError> {
        let stream = self
            .upgrade(&machine_path(name, "/dial"), "cove-tcp", dial)
            .await?;
        Ok(Dialled::new(stream))
    }

    /// The text of a log.
    pub async fn logs(&self, name: &str, wanted: LogQuery) -> Result<ByteStream, ClientError> {
        let path = format!("{}?{}", machine_path(name, "/logs"), wanted.to_query());
        let (label, response) = self.send(Method::GET, &path, Full::default(), None).await?;
        Ok(ByteStream::new(label, response.into_body()))
    }

    /// How the Docker context of a machine is.
    pub async fn context(&self, name: &str) -> Result<DockerContext, ClientError> {
        self.get(&machine_path(name, "/context")).await
    }

    /// Creates the Docker context of a machine, or repairs it; makes it Docker's current one when asked.
    pub async fn create_context(&self, name: &str, make_current: bool) -> Result<(), ClientError> {
        let path = format!("{}?current={make_current}", machine_path(name, "/context"));
        self.nothing(Method::POST, &path).await
    }

    /// Removes the Docker context of a machine; Docker's current context becomes the default one if it was this.
    pub async fn remove_context(&self, name: &str) -> Result<(), ClientError> {
        self.nothing(Method::DELETE, &machine_path(name, "/context"))
            .await
    }

    /// What of a machine is reached by name; nothing unless it runs.
    pub async fn sites(&self, name: &str) -> Result<Vec<Site>, ClientError> {
        self.get(&machine_path(name, "/sites")).await
    }

    /// What a machine's containers publish on this computer; nothing unless it runs.
    pub async fn ports(&self, name: &str) -> Result<Vec<PublishedPort>, ClientError> {
        self.get(&format!("/v1/machines/{}/ports", query::encode(name)))
            .await
    }

    /// The way to `target`, a `HOST:PORT`, a URL, a port or a container's name, from this computer or from a container:
    /// hop by hop, and where it stops.
    pub async fn explain(
        &self,
        name: &str,
        target: &str,
        from: Option<&str>,
    ) -> Result<Explanation, ClientError> {
        let mut path = format!(
            "/v1/machines/{}/explain?target={}",
            query::encode(name),
            query::encode(target)
        );
        if let Some(from) = from {
            path.push_str("&from=");
            path.push_str(&query::encode(from));
        }
        self.get(&path).await
    }

    /// The shared folders.
    pub async fn shares(&self) -> Result<Vec<Share>, ClientError> {
        self.get("/v1/shares").await
    }

    /// Shares a folder with every machine, those that run included, or changes how it is shared.
    pub async fn add_share(&self, share: &NewShare) -> Result<Share, ClientError> {
        self.json(Method::POST, "/v1/shares", Some(share)).await
    }

    /// Ceases to share a folder. Where containers have it mounted, stopped ones included, this is refused with
    /// [`ErrorCode::NotConfirmed`] unless it is forced; those that run lose access to it.
    pub async fn remove_share(&self, path: &str, force: bool) -> Result<(), ClientError> {
        let path = format!("/v1/shares?path={}&force={force}", query::encode(path));
        self.nothing(Method::DELETE, &path).await
    }

    /// The certificates that are trusted besides the image's own.
    pub async fn trusted(&self) -> Result<Trusted, ClientError> {
        self.get("/v1/certificates").await
    }

    /// Trusts certificates, at once in machines that run.
    pub async fn trust(&self, certificates: &NewCertificates) -> Result<Trusted, ClientError> {
        self.json(Method::POST, "/v1/certificates", Some(certificates))
            .await
    }

    /// Ceases to trust the certificate whose fingerprint begins with these digits.
    pub async fn distrust(&self, fingerprint: &str) -> Result<Trusted, ClientError> {
        let path = format!("/v1/certificates?fingerprint={}", query::encode(fingerprint));
        self.json::<(), _>(Method::DELETE, &path, None).await
    }

    /// All settings.
    pub async fn settings(&self) -> Result<Settings, ClientError> {
        self.get("/v1/settings").await
    }

    /// One setting's value in force.
    pub async fn setting(&self, key: &str) -> Result<serde_json::Value, ClientError> {
        self.get(&setting_path(key)).await
    }

    /// Sets a setting. A string is read as the setting's type where that is not a string: `"4"` sets a number.
    pub async fn set(&self, key: &str, value: &serde_json::Value) -> Result<Applied, ClientError> {
        self.json(Method::PUT, &setting_path(key), Some(value)).await
    }

    /// Puts a setting back to its default.
    pub async fn unset(&self, key: &str) -> Result<Applied, ClientError> {
        self.json::<(), _>(Method::DELETE, &setting_path(key), None).await
    }

    /// Changes several settings together, or only says what that would come to.
    pub async fn change_settings(&self, change: &SettingsChange) -> Result<SettingsOutcome, ClientError> {
        self.json(Method::POST, "/v1/settings", Some(change)).await
    }

    /// The settings file; its documented template when there is no file yet.
    pub async fn settings_file(&self) -> Result<SettingsText, ClientError> {
        let (label, response) = self
            .send(Method::GET, "/v1/settings-file", Full::default(), None)
            .await?;
        let mark = response.headers().get(header::ETAG).cloned();
        let body = collect(&label, response).await?;
        match String::from_utf8(body.into()) {
            Ok(text) => Ok(SettingsText { text, mark }),
            Err(_) => Err(ClientError::Unexpected {
                request: label,
                what: "text that is not UTF-8".into(),
            }),
        }
    }

    /// Replaces the settings file if the text is valid; an [`ErrorCode::InvalidSetting`] names line and key if not.
    /// With [`ErrorCode::WrongState`] nothing was done, because the file is not what it was in `instead_of` any more.
    pub async fn replace_settings_file(
        &self,
        text: &str,
        instead_of: &SettingsText,
    ) -> Result<Applied, ClientError> {
        let path = "/v1/settings-file";
        let label = format!("PUT {path}");
        let body = Full::from(text.to_owned());
        let mut request = request(&label, Method::PUT, path, body, Some("application/toml"))?;
        if let Some(mark) = &instead_of.mark {
            request.headers_mut().insert(header::IF_MATCH, mark.clone());
        }
        let response = self.round_trip(&label, request).await?;
        decode(&label, refusal(&label, response).await?).await
    }

    /// Everything that `cove doctor` looks at.
    pub async fn doctor(&self) -> Result<Vec<Check>, ClientError> {
        self.get("/v1/doctor").await
    }

    /// What happens from now on, after one event for each machine as it is now.
    pub async fn events(&self) -> Result<JsonLines<Event>, ClientError> {
        self.lines(Method::GET, "/v1/events").await
    }

    /// Stops all machines, then the daemon. Answered when the machines have stopped.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        self.nothing(Method::POST, "/v1/shutdown").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json::<(), T>(Method::GET, path, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json::<(), T>(Method::POST, path, None).await
    }

    async fn nothing(&self, method: Method, path: &str) -> Result<(), ClientError> {
        let serde_json::Map { .. } = self.json::<(), _>(method, path, None).await?;
        Ok(())
    }

    async fn json<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        let (body, kind) = match body {
            Some(body) => (encode(path, body)?, Some("application/json")),
            None => (Full::default(), None),
        };
        let (label, response) = self.send(method, path, body, kind).await?;
        decode(&label, response).await
    }

    async fn lines<T>(&self, method: Method, path: &str) -> Result<JsonLines<T>, ClientError> {
        let (label, response) = self.send(method, path, Full::default(), None).await?;
        Ok(JsonLines::new(label, response.into_body()))
    }

    async fn upgrade<B: Serialize>(
        &self,
        path: &str,
        protocol: &'static str,
        body: &B,
    ) -> Result<Upgraded, ClientError> {
        let label = format!("POST {path}");
        let mut request = request(
            &label,
            Method::POST,
            path,
            encode(path, body)?,
            Some("application/json"),
        )?;
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, header::HeaderValue::from_static(protocol));
        let response = self.round_trip(&label, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match refusal(&label, response).await {
                Err(error) => error,
                Ok(response) => ClientError::Unexpected {
                    request: label,
                    what: format!("status {} instead of an upgrade", response.status()),
                },
            });
        }
        match hyper::upgrade::on(response).await {
            Ok(upgraded) => Ok(Upgraded::new(upgraded)),
            Err(source) => Err(ClientError::Http {
                request: label,
                source,
            }),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Full<Bytes>,
        content_type: Option<&'static str>,
    ) -> Result<(String, Response<Incoming>), ClientError> {
        let label = format!("{method} {path}");
        let request = request(&label, method, path, body, content_type)?;
        let response = self.round_trip(&label, request).await?;
        let response = refusal(&label, response).await?;
        Ok((label, response))
    }

    async fn round_trip(
        &self,
        label: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let http = |source| ClientError::Http {
            request: label.to_owned(),
            source,
        };
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // Ends by itself when the answer has been read or dropped; its error reaches the reader as well.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(http)
    }

    async fn connect(&self) -> Result<transport::Stream, ClientError> {
        let socket = || self.socket.clone();
        if !transport::path_fits(&self.socket) {
            return Err(ClientError::SocketPathTooLong { socket: socket() });
        }
        transport::connect(&self.socket)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { socket: socket() }
                }
                _ => ClientError::Connect {
                    socket: socket(),
                    source,
                },
            })
    }
}

fn machine_path(name: &str, action: &str) -> String {
    format!("/v1/machines/{}{action}", query::encode(name))
}

fn setting_path(key: &str) -> String {
    format!("/v1/settings/{}", query::encode(key))
}

fn encode<B: Serialize>(path: &str, body: &B) -> Result<Full<Bytes>, ClientError> {
    match serde_json::to_vec(body) {
        Ok(json) => Ok(Full::from(json)),
        Err(error) => Err(ClientError::Unexpected {
            request: path.to_owned(),
            what: format!("a request that cannot be written as JSON ({error})"),
        }),
    }
}

fn request(
    label: &str,
    method: Method,
    path: &str,
    body: Full<Bytes>,
    content_type: Option<&'static str>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "cove");
    if let Some(content_type) = content_type {
        builder = builder.header(header::CONTENT_TYPE, content_type);
    }
    builder.body(body).map_err(|error| ClientError::Unexpected {
        request: label.to_owned(),
        what: format!("a request that is no HTTP ({error})"),
    })
}

/// Turns an answer with an error's status into that error.
async fn refusal(label: &str, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    let body = collect(label, response).await?;
    match serde_json::from_slice::<ApiError>(&body) {
        Ok(error) => Err(error.into()),
        Err(_) => Err(ClientError::Unexpected {
            request: label.to_owned(),
            what: format!("status {status} without a reason"),
        }),
    }
}

async fn decode<T: DeserializeOwned>(label: &str, response: Response<Incoming>) -> Result<T, ClientError> {
    let body = collect(label, response).await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected {
        request: label.to_owned(),
        what: error.to_string(),
    })
}

async fn collect(label: &str, response: Response<Incoming>) -> Result<Bytes, ClientError> {
    match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(ClientError::Unexpected {
            request: label.to_owned(),
            what: error.to_string(),
        }),
    }
}
