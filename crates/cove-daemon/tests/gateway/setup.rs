//! A gateway at a socket of its own, an engine whose connections the test answers itself, and the two ends' wires.

use async_trait::async_trait;
use cove_api::transport::Listener;
use cove_daemon::gateway::{Capacity, Engine, HostPaths, MountPolicy, Unavailable, serve};
use cove_machine::Connection;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long anything may take that should happen at once, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(20);

/// What has to happen soon, or the test fails and says what it was.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future)
        .await
        .unwrap_or_else(|_elapsed| panic!("waited in vain for {what}"))
}

/// What must not happen, looked at for a moment.
pub(crate) async fn not_yet<T>(what: &str, future: impl Future<Output = T>) {
    assert!(
        timeout(Duration::from_millis(100), future).await.is_err(),
        "{what} came too early"
    );
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Starting,
    Running,
    Stopped,
}

struct TestEngine {
    state: watch::Receiver<State>,
    connections: mpsc::UnboundedSender<UnixStream>,
    policy: MountPolicy,
    waiting: Arc<AtomicUsize>,
    containers: Arc<Mutex<BTreeMap<String, Value>>>,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Engine for TestEngine {
    async fn connect(&self) -> Result<Connection, Unavailable> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        let mut state = self.state.clone();
        let settled = *state.wait_for(|state| *state != State::Starting).await.unwrap();
        if settled == State::Stopped {
            return Err(Unavailable::new(
                "machine `default` is stopped",
                "start it with: cove start",
            ));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.connections.send(theirs).unwrap();
        Ok(ours.into())
    }

    fn mounts(&self) -> MountPolicy {
        self.policy.clone()
    }

    async fn container(&self, name: &str) -> Option<Value> {
        self.containers.lock().unwrap().get(name).cloned()
    }
}

/// A gateway that serves, and the other side of its engine.
pub(crate) struct Setup {
    pub(crate) state: watch::Sender<State>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    socket: PathBuf,
    connections: mpsc::UnboundedReceiver<UnixStream>,
    waiting: Arc<AtomicUsize>,
    containers: Arc<Mutex<BTreeMap<String, Value>>>,
    _directory: tempfile::TempDir,
}

impl Setup {
    /// With a running machine that shares `/home/u`.
    pub(crate) fn new() -> Self {
        Self::with(HostPaths::Unix, &["/home/u"], Capacity::new(1000))
    }

    pub(crate) fn with(host: HostPaths, shares: &[&str], capacity: Capacity) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let (state, watched) = watch::channel(State::Running);
        let (sender, connections) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let containers: Arc<Mutex<BTreeMap<_, _>>> = Arc::default();
        let engine = TestEngine {
            state: watched,
            connections: sender,
            policy: MountPolicy {
                machine: "default".to_owned(),
                shares: shares.iter().map(PathBuf::from).collect(),
                socket: socket.clone(),
                host,
                on_host: true,
            },
            waiting: Arc::clone(&waiting),
            containers: Arc::clone(&containers),
        };
        let shutdown = CancellationToken::new();
        let listener = Listener::bind(&socket).unwrap();
        let serving = tokio::spawn(serve(listener, Arc::new(engine), capacity, shutdown.clone()));
        Self {
            state,
            shutdown,
            serving,
            socket,
            connections,
            waiting,
            containers,
            _directory: directory,
        }
    }

    /// A client's new connection.
    pub(crate) async fn client(&self) -> Wire {
        Wire::new(UnixStream::connect(&self.socket).await.unwrap())
    }

    /// The engine's side of the next connection that the gateway asks for.
    pub(crate) async fn engine(&mut self) -> Wire {
        Wire::new(
            soon("a connection to the engine", self.connections.recv())
                .await
                .unwrap(),
        )
    }

    /// No connection to the engine has been asked for beyond those that were taken.
    pub(crate) fn engine_is_untouched(&mut self) -> bool {
        self.connections.try_recv().is_err()
    }

    /// The engine has a container, and describes it so from now on.
    pub(crate) fn describe(&self, name: &str, container: Value) {
        self.containers.lock().unwrap().insert(name.to_owned(), container);
    }

    /// How many connections are waiting for the machine.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

/// One end of a connection.
pub(crate) struct Wire {
    pub(crate) stream: UnixStream,
    buffer: Vec<u8>,
}

impl Wire {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("room to send", self.stream.write_all(bytes.as_ref()))
            .await
            .unwrap();
    }

    /// Sends zeroes until nobody takes any more for a moment, and answers how many; they must not be many.
    pub(crate) async fn flood(&mut self) -> usize {
        let zeroes = vec![0; 64 * 1024];
        let mut sent = 0;
        while let Ok(written) = timeout(Duration::from_millis(200), self.stream.write(&zeroes)).await {
            sent += written.unwrap();
            assert!(sent < 8 << 20, "the gateway holds {sent} bytes");
        }
        sent
    }

    /// Half-closes: this end has nothing more to say.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next head, its empty line included.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(
                self.fill().await,
                "the stream ended in a head: {:?}",
                self.buffer.escape_ascii().to_string()
            );
        }
    }

    /// The next so many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().await, "the stream ended too early");
        }
        self.buffer.drain(..length).collect()
    }

    /// Exactly these bytes come next.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let expected = bytes.as_ref().to_vec();
        async move {
            let found = self.exactly(expected.len()).await;
            assert_eq!(
                found.escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            );
        }
    }

    /// Reads so many bytes and keeps none of them.
    pub(crate) async fn discard(&mut self, mut length: usize, mut each: impl FnMut()) {
        while length > 0 {
            assert!(
                !self.buffer.is_empty() || self.fill().await,
                "the stream ended too early"
            );
            let taken = self.buffer.len().min(length);
            self.buffer.drain(..taken);
            length -= taken;
            each();
        }
    }

    /// Everything up to the end of the stream, which has to come soon.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The next answer's status and the `message` of its body, whose length its head tells.
    pub(crate) async fn message(&mut self) -> (u16, String) {
        let head = self.head().await.to_ascii_lowercase();
        let field = |name: &str| {
            let value = head
                .split(name)
                .nth(1)
                .unwrap_or_else(|| panic!("no {name} in {head}"));
            value.split("\r\n").next().unwrap().trim().to_owned()
        };
        assert_eq!(field("content-type:"), "application/json");
        let body = self.exactly(field("content-length:").parse().unwrap()).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        (
            head[9..12].parse().unwrap(),
            body["message"].as_str().unwrap().to_owned(),
        )
    }

    /// Reads more; false at the end of the stream, however it came.
    pub(crate) async fn fill(&mut self) -> bool {
        self.buffer.reserve(64 * 1024);
        let read = soon("more bytes or an end", self.stream.read_buf(&mut self.buffer)).await;
        match read {
            Ok(length) => length > 0,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }
}
