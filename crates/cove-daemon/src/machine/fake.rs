//! A machine for unit tests: a backend that starts no process, and an agent that speaks the real protocol over a
//! socket pair. What a test does not script behaves as a healthy guest does.

use super::{Command, Context, Handle, Platform};
use crate::{
    context::DockerConfig,
    name::MachineName,
    settings::{self, HostSize, SettingsFile},
    trust::TrustStore,
};
use async_trait::async_trait;
use cove_api::{Dirs, Progress};
use cove_image::{Digest, FORMAT, FileEntry, Files, Inputs, Manifest, Package, Role};
use cove_machine::{
    Availability, Backend, BackendKind, Choice, Connection, Disk, Exit, ExitCause, Features, Listener,
    Machine, MachineError, MachineEvent, MachineSpec, Share,
};
use cove_wire::{
    Call, Codec, CpuTime, Dial, EngineState, Event, Fault, FaultCode, FromGuest, FromHost, GuestStatus,
    Hello, Memory, Open, Opened, Reply, Stage, port,
};
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{broadcast, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::codec::Framed;

/// When a hypervisor crashes, each time before the agent has answered.
#[derive(Clone, Copy)]
pub(crate) enum Crash {
    /// Before it says that its guest runs.
    AtOnce,
    /// With a guest that runs.
    Soon,
}

impl Crash {
    const STATUS: &str = "signal: 6 (SIGABRT)";
    const SAID: &str = "iotlb_to_section: Assertion failed.";

    /// The end that it is.
    pub(crate) fn cause() -> ExitCause {
        ExitCause::HypervisorDied {
            status: Self::STATUS.into(),
            stderr: Self::SAID.into(),
            crashed: true,
        }
    }
}

/// What a guest is to do.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a trait of its own, none a state"
)]
pub(crate) struct Script {
    /// Connections to the agent that are refused first, as they are while a guest boots.
    pub(crate) refusals: u32,
    /// The protocol version of its agent.
    pub(crate) version: u32,
    /// How it answers [`Call::Boot`].
    pub(crate) boot: Result<(), Fault>,
    /// Whether its engine comes up after that.
    pub(crate) engine: bool,
    /// Whether it powers off when it is asked to shut down; a guest that does not hangs.
    pub(crate) powers_off: bool,
    /// Whether it is shutting down from the first.
    pub(crate) going_down: bool,
    /// Bytes that its agent sends instead of its greeting.
    pub(crate) garbage: Option<Vec<u8>>,
    /// Whether its machine process is another release's.
    pub(crate) foreign: bool,
    /// How the hypervisors of the next starts crash.
    pub(crate) crashes: Vec<Crash>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            refusals: 2,
            version: cove_wire::PROTOCOL_VERSION,
            boot: Ok(()),
            engine: true,
            powers_off: true,
            going_down: false,
            garbage: None,
            foreign: false,
            crashes: Vec::new(),
        }
    }
}

/// A running guest.
pub(crate) struct Guest {
    /// The machine's own.
    directory: PathBuf,
    script: Mutex<Script>,
    exit: watch::Sender<Option<Exit>>,
    machine_events: broadcast::Sender<MachineEvent>,
    agent_events: broadcast::Sender<Event>,
    /// Sent when connections to the agent are to be cut.
    cut: broadcast::Sender<()>,
    engine: Mutex<EngineState>,
    paused: Mutex<bool>,
    /// Whether it is since there was no space.
    held: AtomicBool,
    /// Whether its agent leaves calls about folders without an answer.
    mute: AtomicBool,
    /// What its engine answers to requests for these paths; an empty object to all others.
    answers: Mutex<HashMap<String, String>>,
    /// The folders that its machine process has.
    shares: Mutex<Vec<Share>>,
    /// The addresses within it that connections were asked for to.
    pub(crate) dials: Mutex<Vec<Dial>>,
    /// The calls that its agent got, by name.
    pub(crate) calls: Mutex<Vec<&'static str>>,
}

impl Guest {
    fn new(directory: &Path, script: Script) -> Arc<Self> {
        Arc::new(Self {
            directory: directory.to_owned(),
            script: Mutex::new(script),
            exit: watch::Sender::new(None),
            machine_events: broadcast::Sender::new(16),
            agent_events: broadcast::Sender::new(16),
            cut: broadcast::Sender::new(4),
            engine: Mutex::new(EngineState::Stopped),
            paused: Mutex::new(false),
            held: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            answers: Mutex::default(),
            shares: Mutex::default(),
            dials: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    /// Ends it for this reason.
    pub(crate) fn end(&self, cause: ExitCause) {
        let console_tail = match cause {
            ExitCause::PoweredOff => Vec::new(),
            _ => vec!["last words\x1b[0m".into()],
        };
        self.exit.send_if_modified(|exit| {
            let alive = exit.is_none();
            exit.get_or_insert(Exit { cause, console_tail });
            alive
        });
        let _ = self.cut.send(());
    }

    /// Tells its engine's new state.
    pub(crate) fn engine_is(&self, state: EngineState) {
        *self.engine.lock().unwrap() = state.clone();
        let _ = self.agent_events.send(Event::Engine(state));
    }

    /// Cuts every connection to the agent.
    pub(crate) fn cut(&self) {
        let _ = self.cut.send(());
    }

    /// Stops its vCPUs without being asked, as where there is no space for what it writes.
    pub(crate) fn pause_by_itself(&self) {
        self.held.store(true, Ordering::SeqCst);
        *self.paused.lock().unwrap() = true;
        let _ = self.machine_events.send(MachineEvent::Paused { held: true });
    }

    /// Restarts itself.
    pub(crate) fn reboot(&self) {
        *self.engine.lock().unwrap() = EngineState::Stopped;
        let _ = self.machine_events.send(MachineEvent::Rebooted);
        self.cut();
    }

    /// Begins to shut down.
    pub(crate) fn goes_down(&self) {
        self.script.lock().unwrap().going_down = true;
    }

    /// The paths of the folders that its machine process has.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let shares = self.shares.lock().unwrap();
        shares.iter().map(|share| share.path.clone()).collect()
    }

    /// Sends these bytes instead of a greeting from the next conversation on.
    pub(crate) fn talk_nonsense(&self, garbage: Vec<u8>) {
        self.script.lock().unwrap().garbage = Some(garbage);
    }

    /// Has its engine answer this to requests for the path.
    pub(crate) fn engine_says(&self, path: &str, answer: &serde_json::Value) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(path.to_owned(), answer.to_string());
    }

    /// Answers no call about folders any more, or does again.
    pub(crate) fn mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::SeqCst);
    }

    /// Speaks this version of the protocol from the next conversation on.
    pub(crate) fn speak(&self, version: u32) {
        self.script.lock().unwrap().version = version;
    }

    /// Is another release's from now on.
    pub(crate) fn is_foreign(&self) {
        self.script.lock().unwrap().foreign = true;
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Refuses no more connections.
    pub(crate) fn relent(&self) {
        self.script.lock().unwrap().refusals = 0;
    }

    pub(crate) fn was_asked(&self, call: &str) -> usize {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .filter(|known| **known == call)
            .count()
    }

    fn script(&self) -> Script {
        self.script.lock().unwrap().clone()
    }

    async fn agent(self: Arc<Self>, stream: UnixStream) {
        let mut cut = self.cut.subscribe();
        let mut events = self.agent_events.subscribe();
        let mut subscribed = false;
        let script = self.script();
        let mut wire = Framed::new(stream, Codec::<FromHost, FromGuest>::default());
        if let Some(garbage) = script.garbage {
            let _ = wire.get_mut().write_all(&garbage).await;
            return;
        }
        let hello = Hello {
            version: script.version,
            build: "fake agent\x07".into(),
        };
        wire.send(FromGuest::Hello(hello)).await.unwrap();
        loop {
            let frame = tokio::select! {
                frame = wire.next() => frame,
                event = events.recv(), if subscribed => {
                    if wire.send(FromGuest::Event(event.unwrap())).await.is_err() {
                        return;
                    }
                    continue;
                }
                _ = cut.recv() => return,
            };
            match frame {
                Some(Ok(FromHost::Hello(_))) => {}
                Some(Ok(FromHost::Request { id, call })) => {
                    if call == Call::Subscribe {
                        // As the agent does it: what has happened so far comes before the answer.
                        subscribed = true;
                        let stage = stage("kernel", 0, 1000);
                        wire.send(FromGuest::Event(stage)).await.unwrap();
                    }
                    if matches!(call, Call::MountShare { .. }) && self.mute.load(Ordering::SeqCst) {
                        self.calls.lock().unwrap().push("mount");
                        continue;
                    }
                    let result = self.call(&call);
                    if wire.send(FromGuest::Response { id, result }).await.is_err() {
                        return;
                    }
                }
                Some(Err(_)) | None => return,
            }
        }
    }

    fn call(&self, call: &Call) -> Result<Reply, Fault> {
        let script = self.script();
        let name = match call {
            Call::Boot(_) => "boot",
            Call::SetTime { .. } => "set-time",
            Call::Shutdown { .. } => "shutdown",
            Call::GrowData => "grow-data",
            Call::TrimData => "trim",
            Call::Trust { .. } => "trust",
            Call::MountShare { .. } => "mount",
            _ => "other",
        };
        self.calls.lock().unwrap().push(name);
        match call {
            Call::Boot(_) if script.going_down => {
                Err(Fault::new(FaultCode::ShuttingDown, "the guest is shutting down"))
            }
            Call::Boot(_) => {
                script.boot?;
                let _ = self.agent_events.send(stage("root", 1000, 2000));
                if script.engine {
                    self.engine_is(EngineState::Ready);
                }
                Ok(Reply::Done)
            }
            Call::Status => Ok(Reply::Status(Box::new(GuestStatus {
                uptime_us: 5000,
                kernel: "6.18".into(),
                stages: Vec::new(),
                engine: self.engine.lock().unwrap().clone(),
                problem: None,
                memory: Memory {
                    total: 2 << 30,
                    available: 1 << 30,
                },
                cpu: Some(CpuTime { busy: 25, all: 100 }),
                data_size: 0,
                data_used: 4096,
            }))),
            // Of its disk it uses nothing any more.
            Call::TrimData => {
                let disk = std::fs::File::options()
                    .write(true)
                    .open(self.directory.join("data.img"))
                    .unwrap();
                let bytes = disk.metadata().unwrap().len();
                disk.set_len(0).and_then(|()| disk.set_len(bytes)).unwrap();
                Ok(Reply::Trimmed { bytes })
            }
            Call::Shutdown { .. } => {
                if script.powers_off {
                    self.end(ExitCause::PoweredOff);
                }
                Ok(Reply::Done)
            }
            _ => Ok(Reply::Done),
        }
    }

    /// Serves one stream; the engine has every image that it is asked for.
    async fn stream(self: Arc<Self>, mut stream: UnixStream) {
        let mut header = [0; 4];
        stream.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; cove_wire::body_len(header).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let open: Open = cove_wire::decode(&body).unwrap();
        let opened = cove_wire::encode(&Opened { result: Ok(()) }).unwrap();
        stream.write_all(&opened).await.unwrap();
        match &open {
            Open::Datagrams(_) => self.calls.lock().unwrap().push("datagrams"),
            Open::Connection(dial) => self.dials.lock().unwrap().push(dial.clone()),
            _ => {}
        }
        if matches!(&open, Open::Exec(exec) if exec.command == ["deaf"]) {
            // A program that reads nothing.
            while !crate::host::hung_up(&stream) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.calls.lock().unwrap().push("hung-up");
        } else if open == Open::Engine {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            if length > 0 {
                let request = String::from_utf8_lossy(&request[..length]);
                let path = request.split(' ').nth(1).unwrap_or_default();
                let said = self.answers.lock().unwrap().get(path).cloned();
                let body = said.unwrap_or_else(|| "{}".to_owned());
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        } else {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    }
}

fn stage(name: &str, start_us: u64, end_us: u64) -> Event {
    Event::Stage(Stage {
        name: name.into(),
        start_us,
        end_us,
    })
}

struct FakeMachine(Arc<Guest>);

#[async_trait]
impl Machine for FakeMachine {
    fn kind(&self) -> BackendKind {
        BackendKind::Emulated
    }
    fn features(&self) -> Features {
        Features {
            pause: true,
            online_grow: true,
            shares: true,
            ..Features::default()
        }
    }
    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }
    fn notices(&self) -> Vec<String> {
        vec!["one virtual CPU only".into()]
    }
    fn paused(&self) -> bool {
        *self.0.paused.lock().unwrap()
    }
    fn held(&self) -> bool {
        self.0.held.load(Ordering::SeqCst)
    }
    async fn pause(&self) -> Result<(), MachineError> {
        *self.0.paused.lock().unwrap() = true;
        self.0.held.store(false, Ordering::SeqCst);
        Ok(())
    }
    async fn resume(&self) -> Result<(), MachineError> {
        *self.0.paused.lock().unwrap() = false;
        self.0.held.store(false, Ordering::SeqCst);
        Ok(())
    }
    async fn stop(&self, grace: Duration) -> Result<Exit, MachineError> {
        match timeout(grace, self.wait()).await {
            Ok(exit) => Ok(exit),
            Err(_) => self.kill().await,
        }
    }
    async fn kill(&self) -> Result<Exit, MachineError> {
        self.0.end(ExitCause::Killed);
        Ok(self.wait().await)
    }
    async fn grow_disk(&self, _: Disk, _: u64) -> Result<(), MachineError> {
        Ok(())
    }
    fn shares(&self) -> Vec<Share> {
        self.0.shares.lock().unwrap().clone()
    }
    async fn add_share(&self, share: &Share) -> Result<(), MachineError> {
        let mut shares = self.0.shares.lock().unwrap();
        shares.retain(|other| other.name != share.name);
        shares.push(share.clone());
        Ok(())
    }
    async fn remove_share(&self, name: &str) -> Result<(), MachineError> {
        self.0.shares.lock().unwrap().retain(|share| share.name != name);
        Ok(())
    }
    fn console(&self) -> &Path {
        Path::new("/nonexistent")
    }
    async fn connect(&self, port: u32) -> Result<Connection, MachineError> {
        if self.0.exit.borrow().is_some() {
            return Err(MachineError::Ended);
        }
        {
            let mut script = self.0.script.lock().unwrap();
            if script.refusals > 0 {
                script.refusals -= 1;
                return Err(MachineError::Refused { port });
            }
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guest = Arc::clone(&self.0);
        match port {
            port::CONTROL => drop(tokio::spawn(guest.agent(theirs))),
            _ => drop(tokio::spawn(guest.stream(theirs))),
        }
        Ok(ours.into())
    }
    async fn listen(&self, _: u32) -> Result<Listener, MachineError> {
        Err(MachineError::Ended)
    }
    fn events(&self) -> broadcast::Receiver<MachineEvent> {
        self.0.machine_events.subscribe()
    }
    async fn wait(&self) -> Exit {
        let mut exit = self.0.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.unwrap();
        ended.clone().unwrap()
    }
}

/// A host that runs at most one guest at a time, as its lock would have it.
#[derive(Clone)]
pub(crate) struct FakeHost {
    pub(crate) script: Arc<Mutex<Script>>,
    guest: Arc<Mutex<Option<Arc<Guest>>>>,
    /// How often it was to start one.
    starts: Arc<AtomicUsize>,
}

impl FakeHost {
    /// The guest that was started last.
    pub(crate) fn guest(&self) -> Arc<Guest> {
        self.guest.lock().unwrap().clone().expect("no guest was started")
    }

    /// The machine of the guest that was started last.
    pub(crate) fn machine(&self) -> impl Machine + use<> {
        FakeMachine(self.guest())
    }

    /// How often it was to start a guest.
    pub(crate) fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    fn running(&self) -> Option<Arc<Guest>> {
        let guest = self.guest.lock().unwrap().clone();
        guest.filter(|guest| guest.exit.borrow().is_none())
    }
}

impl Platform for FakeHost {
    fn choose(&self, _: settings::Backend) -> Choice {
        Choice {
            backend: Arc::new(self.clone()),
            reason: "for a test".into(),
            considered: vec![(BackendKind::Emulated, self.probe())],
        }
    }
    fn backend(&self, _: BackendKind) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Backend for FakeHost {
    fn kind(&self) -> BackendKind {
        BackendKind::Emulated
    }
    fn probe(&self) -> Availability {
        Availability::available("a test")
    }
    fn features(&self) -> Features {
        Features::default()
    }
    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, MachineError> {
        if self.running().is_some() {
            return Err(MachineError::Locked {
                directory: spec.directory.clone(),
            });
        }
        self.starts.fetch_add(1, Ordering::SeqCst);
        let (script, crash) = {
            let mut script = self.script.lock().unwrap();
            let crash = (!script.crashes.is_empty()).then(|| script.crashes.remove(0));
            (script.clone(), crash)
        };
        if let Some(Crash::AtOnce) = crash {
            let why = format!("QEMU ended ({}): {}", Crash::STATUS, Crash::SAID);
            return Err(MachineError::Crashed { why });
        }
        let guest = Guest::new(&spec.directory, script);
        if let Some(Crash::Soon) = crash {
            guest.end(Crash::cause());
        }
        *self.guest.lock().unwrap() = Some(Arc::clone(&guest));
        Ok(Box::new(FakeMachine(guest)))
    }
    async fn adopt(&self, spec: &MachineSpec) -> Result<Option<Box<dyn Machine>>, MachineError> {
        let running = self.running().filter(|guest| guest.directory == spec.directory);
        if running.as_ref().is_some_and(|guest| guest.script().foreign) {
            return Err(MachineError::Foreign {
                why: "process 4711".into(),
            });
        }
        Ok(running.map(|guest| Box::new(FakeMachine(guest)) as Box<dyn Machine>))
    }
    async fn evict(&self, _: &Path, _: &Path) -> Result<(), MachineError> {
        self.running().map_or(Ok(()), |guest| {
            guest.end(ExitCause::Killed);
            Ok(())
        })
    }
    fn last_exit(&self, _: &MachineSpec) -> Option<Exit> {
        self.guest.lock().unwrap().as_ref()?.exit.borrow().clone()
    }
}

/// A home directory with an image, and a host.
pub(crate) struct Fixture {
    pub(crate) home: tempfile::TempDir,
    pub(crate) host: FakeHost,
    pub(crate) context: Arc<Context>,
}

impl Fixture {
    pub(crate) fn new(script: Script) -> Self {
        let home = tempfile::tempdir().unwrap();
        let host = FakeHost {
            script: Arc::new(Mutex::new(script)),
            guest: Arc::default(),
            starts: Arc::default(),
        };
        let context = context(home.path(), &host);
        write_image(&context.dirs.image());
        Self { home, host, context }
    }

    /// What a new daemon has in the same place, which remembers nothing of the earlier one.
    pub(crate) fn next_daemon(self) -> Self {
        let home = self.home.path().to_owned();
        self.at(&home)
    }

    /// A daemon on the same host with its files below another directory.
    pub(crate) fn at(self, directory: &Path) -> Self {
        let context = context(directory, &self.host);
        Self { context, ..self }
    }

    /// The settings file with this text.
    pub(crate) fn write_settings(&self, text: &str) {
        let path = self.context.dirs.settings();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// An owner of the default machine.
    pub(crate) fn own(&self) -> (Handle, JoinHandle<()>) {
        Handle::spawn(Arc::clone(&self.context), MachineName::default())
    }

    /// The default machine, running, for as long as its owner's handle is there.
    pub(crate) async fn running(&self) -> (Arc<dyn Machine>, Handle) {
        let (handle, _owner) = self.own();
        let mut starting = handle.begin(Command::Start).await.unwrap();
        while let Some(progress) = starting.next().await {
            assert!(!matches!(progress, Progress::Failed { .. }), "{progress:?}");
        }
        let machine: Arc<dyn Machine> = Arc::new(self.host.machine());
        (machine, handle)
    }
}

fn context(directory: &Path, host: &FakeHost) -> Arc<Context> {
    let dirs = Dirs::below(directory);
    let size = HostSize {
        cpus: 4,
        memory: Some(8 << 30),
    };
    Arc::new(Context {
        settings: Arc::new(SettingsFile::new(dirs.settings(), None, size)),
        trust: TrustStore::new(dirs.certificates()),
        platform: Arc::new(host.clone()),
        events: broadcast::Sender::new(64),
        docker: Some(DockerConfig::at(&directory.join("docker"))),
        dirs,
    })
}

/// An image of tiny files that verifies.
pub(crate) fn write_image(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let entry = |role: Role| {
        let contents = format!("the {role}");
        std::fs::write(directory.join(role.file_name()), &contents).unwrap();
        FileEntry {
            name: role.file_name().into(),
            size: contents.len() as u64,
            sha256: Digest::of(contents.as_bytes()),
        }
    };
    let files = Files {
        kernel: entry(Role::Kernel),
        initramfs: entry(Role::Initramfs),
        rootfs: entry(Role::Rootfs),
        starter: entry(Role::Starter),
    };
    let inputs = Inputs {
        builder: "1".into(),
        recipe: Digest::of(b"r"),
        agent: Digest::of(b"a"),
        mkfs: Digest::of(b"m"),
    };
    let (protocol, architecture) = (cove_wire::PROTOCOL_VERSION, std::env::consts::ARCH);
    let packages: Vec<Package> = Vec::new();
    let manifest = serde_json::json!({
        "format": FORMAT,
        "protocol": protocol,
        "architecture": architecture,
        "fingerprint": Manifest::fingerprint_of(&inputs, &packages),
        "kernel_version": "6.18.0-0-virt",
        "engine_version": "26.1.5",
        "inputs": inputs,
        "files": files,
        "packages": packages,
    });
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
}
