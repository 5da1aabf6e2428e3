//! The guest: what its agent and its engine answer.

use super::Script;
use cove_machine::{Exit, ExitCause, MachineEvent, Share};
use cove_wire::{
    Call, Codec, CpuTime, Dial, EngineState, Event, Fault, FaultCode, FromGuest, FromHost, GuestStatus,
    Hello, Memory, Open, Opened, Reply, Stage,
};
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{broadcast, watch},
};
use tokio_util::codec::Framed;

/// A running guest.
pub(crate) struct Guest {
    /// The machine's own.
    pub(super) directory: PathBuf,
    pub(super) script: Mutex<Script>,
    pub(super) exit: watch::Sender<Option<Exit>>,
    pub(super) machine_events: broadcast::Sender<MachineEvent>,
    agent_events: broadcast::Sender<Event>,
    /// Sent when connections to the agent are to be cut.
    cut: broadcast::Sender<()>,
    engine: Mutex<EngineState>,
    pub(super) paused: Mutex<bool>,
    /// Whether it is since there was no space.
    pub(super) held: AtomicBool,
    /// Whether its machine process never answers whoever lets it go on.
    pub(super) stuck: AtomicBool,
    /// Whether its agent leaves calls about folders without an answer.
    mute: AtomicBool,
    /// What its engine answers to requests for these paths; an empty object to all others.
    answers: Mutex<HashMap<String, String>>,
    /// The folders that its machine process has.
    pub(super) shares: Mutex<Vec<Share>>,
    /// The addresses within it that connections were asked for to.
    pub(crate) dials: Mutex<Vec<Dial>>,
    /// The calls that its agent got, by name.
    pub(crate) calls: Mutex<Vec<&'static str>>,
}

impl Guest {
    pub(super) fn new(directory: &Path, script: Script) -> Arc<Self> {
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
            stuck: AtomicBool::new(false),
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

    /// Goes on no more once it stands, and whoever asks for that waits for ever.
    pub(crate) fn sticks(&self) {
        self.stuck.store(true, Ordering::SeqCst);
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

    pub(super) fn script(&self) -> Script {
        self.script.lock().unwrap().clone()
    }

    pub(super) async fn agent(self: Arc<Self>, stream: UnixStream) {
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
    pub(super) async fn stream(self: Arc<Self>, mut stream: UnixStream) {
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
