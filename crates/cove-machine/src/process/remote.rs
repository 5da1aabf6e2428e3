//! The daemon's end of a running machine: drives it, and finds out how it ended.
//!
//! ```text
//!  start, adopt ───▶ attended by a task ── connection ends ──▶ settling ──▶ Exit
//!                            ▲                                     │
//!                            └─────── the process lives on ────────┘
//! ```
//!
//! A task of each [`Remote`] owns the connection. When it ends, the task finds out what became of the process: it
//! connects anew, or cleans up and accounts for the end.

use super::{
    left_over::{self, console_path},
    protocol::{self, Call, Line, Order, Reply, Request, Said, Vcpus},
    record,
    start::{Greeted, clear, connect},
};
use crate::{
    BackendKind, Connection, Disk, Exit, ExitCause, Features, FolderHealth, Listener, Machine, MachineError,
    MachineEvent, MachineSpec, Share, sockets,
};
use async_trait::async_trait;
use cove_confine::Layer;
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, timeout},
};

/// How long a machine process may take to kill its hypervisor, before both are killed, and how long one whose
/// connection ended may take to answer or be gone.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Events that a listener may lag behind.
const EVENTS: usize = 64;

/// A machine in a machine process.
#[derive(Debug)]
pub(crate) struct Remote {
    shared: Arc<Shared>,
    runtime: PathBuf,
    console: PathBuf,
    backend: BackendKind,
    features: Features,
    processes: Vec<u32>,
    notices: Vec<String>,
    confinement: Vec<Layer>,
    requests: mpsc::Sender<Asked>,
    exit: watch::Receiver<Option<Exit>>,
}

/// What the connection's task and the machine's users both know.
#[derive(Debug)]
struct Shared {
    spec: MachineSpec,
    vcpus: watch::Sender<Turns>,
    shares: Mutex<Vec<Share>>,
    /// Somebody wants it killed: an end without an account is this and no mystery.
    killing: AtomicBool,
    events: broadcast::Sender<MachineEvent>,
    exit: watch::Sender<Option<Exit>>,
}

/// What the vCPUs do. Only what the machine process says changes it: a guest that is let go on while the host's disk is
/// still full stands again before the answer has arrived.
#[derive(Debug, Clone, Copy)]
struct Turns {
    now: Vcpus,
    /// How often they were said to have stopped or gone on.
    count: u64,
}

#[derive(Debug)]
struct Asked {
    request: Request,
    answer: oneshot::Sender<Result<Reply, String>>,
}

impl Remote {
    /// Drives the machine that greeted.
    pub(super) fn attend(spec: &MachineSpec, Greeted { line, hello }: Greeted) -> Self {
        let (exit_sender, exit) = watch::channel(None);
        let shared = Arc::new(Shared {
            spec: spec.clone(),
            vcpus: watch::Sender::new(Turns {
                now: hello.vcpus(),
                count: 0,
            }),
            shares: Mutex::new(hello.shares),
            killing: AtomicBool::new(false),
            events: broadcast::channel(EVENTS).0,
            exit: exit_sender,
        });
        let (requests, requests_receiver) = mpsc::channel(1);
        tokio::spawn(attend(line, requests_receiver, Arc::clone(&shared)));
        Self {
            shared,
            runtime: spec.runtime.clone(),
            console: console_path(&spec.directory),
            backend: hello.backend,
            features: hello.features,
            processes: hello.processes,
            notices: hello.notices,
            confinement: hello.confinement,
            requests,
            exit,
        }
    }

    async fn order(&self, operation: &'static str, order: Order) -> Result<(), MachineError> {
        self.ask(operation, Request::Machine(order)).await.map(drop)
    }

    /// The same for an order that stops the vCPUs or lets them go on: returns once the event that says so has arrived,
    /// too.
    async fn turn(&self, operation: &'static str, order: Order, wanted: Vcpus) -> Result<(), MachineError> {
        let mut vcpus = self.shared.vcpus.subscribe();
        let before = *vcpus.borrow();
        self.order(operation, order).await?;
        if before.now != wanted {
            // Those that went on may be held again by now; those that stand may have been held first.
            let told = vcpus.wait_for(|turns| {
                turns.now == wanted || (wanted == Vcpus::Running && turns.count != before.count)
            });
            // Without it the machine is as it was asked to be all the same.
            if timeout(TIMEOUT, told).await.is_err() {
                tracing::warn!(operation, "the machine process does not say what it did");
            }
        }
        Ok(())
    }

    async fn ask(&self, operation: &'static str, request: Request) -> Result<Reply, MachineError> {
        let (answer, result) = oneshot::channel();
        let asked = Asked { request, answer };
        self.requests.send(asked).await.map_err(|_| MachineError::Ended)?;
        match result.await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(why)) => Err(MachineError::Failed { operation, why }),
            Err(_) => Err(MachineError::Ended),
        }
    }
}

#[async_trait]
impl Machine for Remote {
    fn kind(&self) -> BackendKind {
        self.backend
    }

    fn features(&self) -> Features {
        self.features
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }

    fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    fn confinement(&self) -> Vec<Layer> {
        self.confinement.clone()
    }

    fn paused(&self) -> bool {
        self.shared.vcpus.borrow().now != Vcpus::Running
    }

    fn held(&self) -> bool {
        self.shared.vcpus.borrow().now == Vcpus::Held
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.turn("pause", Order::Pause, Vcpus::Paused).await
    }

    async fn resume(&self) -> Result<(), MachineError> {
        self.turn("resume", Order::Resume, Vcpus::Running).await
    }

    async fn stop(&self, grace: Duration) -> Result<Exit, MachineError> {
        match timeout(grace, self.wait()).await {
            Ok(exit) => Ok(exit),
            Err(_) => self.kill().await,
        }
    }

    async fn kill(&self) -> Result<Exit, MachineError> {
        self.shared.killing.store(true, Ordering::Relaxed);
        let asked = async {
            match self.order("end", Order::Kill).await {
                // An end that is under way already is as good.
                Ok(()) | Err(MachineError::Ended) => Ok(self.wait().await),
                Err(error) => Err(error),
            }
        };
        match timeout(TIMEOUT, asked).await {
            Ok(Ok(exit)) => Ok(exit),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the machine process is ended by force");
                self.kill_by_force().await
            }
            Err(_) => {
                tracing::warn!("the machine process does not answer and is ended by force");
                self.kill_by_force().await
            }
        }
    }

    async fn grow_disk(&self, disk: Disk, size: u64) -> Result<(), MachineError> {
        self.order("grow the disk", Order::Grow { disk, size }).await
    }

    async fn add_share(&self, share: &Share) -> Result<(), MachineError> {
        self.ask("share the folder", Request::AddShare(share.clone()))
            .await?;
        let mut shares = self.shared.shares();
        if !shares.contains(share) {
            shares.push(share.clone());
        }
        Ok(())
    }

    async fn remove_share(&self, name: &str) -> Result<(), MachineError> {
        let request = Request::RemoveShare {
            name: name.to_owned(),
        };
        self.ask("take the folder away", request).await?;
        self.shared.shares().retain(|share| share.name != name);
        Ok(())
    }

    fn shares(&self) -> Vec<Share> {
        self.shared.shares().clone()
    }

    async fn folder_health(&self) -> Result<FolderHealth, MachineError> {
        match self.ask("look at the folders", Request::FolderHealth).await? {
            Reply::Folders(health) => Ok(health),
            Reply::Done => Err(MachineError::Protocol(
                "it did not say how its folders are".into(),
            )),
        }
    }

    fn console(&self) -> &Path {
        &self.console
    }

    async fn connect(&self, port: u32) -> Result<Connection, MachineError> {
        if self.exit.borrow().is_some() {
            return Err(MachineError::Ended);
        }
        sockets::connect_to_guest(&self.runtime, port).await
    }

    async fn listen(&self, port: u32) -> Result<Listener, MachineError> {
        if self.exit.borrow().is_some() {
            return Err(MachineError::Ended);
        }
        sockets::listen_to_guest(&self.runtime, port)
    }

    fn events(&self) -> broadcast::Receiver<MachineEvent> {
        self.shared.events.subscribe()
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| exit.clone());
        // The task that knows only ends after it has told, unless the runtime goes down with it.
        ended.unwrap_or(Exit {
            cause: ExitCause::Vanished,
            console_tail: Vec::new(),
        })
    }
}

impl Shared {
    fn turned(&self, now: Vcpus) {
        self.vcpus.send_modify(|turns| {
            turns.now = now;
            turns.count += 1;
        });
    }

    fn shares(&self) -> MutexGuard<'_, Vec<Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    async fn kill_by_force(&self) -> Result<Exit, MachineError> {
        let spec = &self.shared.spec;
        clear(spec.directory.clone(), spec.runtime.clone(), ExitCause::Killed).await?;
        // The task that attends the connection sees it end.
        Ok(self.wait().await)
    }
}

/// Owns the connection to a machine process until the machine has ended or nobody is interested any more.
async fn attend(mut line: Line, mut requests: mpsc::Receiver<Asked>, shared: Arc<Shared>) {
    let mut unanswered = Unanswered::new();
    loop {
        match converse(&mut line, &mut requests, &mut unanswered, &shared).await {
            Ending::Unwanted => return,
            Ending::Lost => {}
        }
        match settle(&shared).await {
            Settled::Alive(greeted) => {
                shared.turned(greeted.hello.vcpus());
                *shared.shares() = greeted.hello.shares;
                line = greeted.line;
                for (_, answer) in unanswered.drain() {
                    let _ = answer.send(Err(
                        "the connection to the machine process was lost meanwhile".into()
                    ));
                }
            }
            Settled::Over(exit) => {
                shared.exit.send_replace(Some(exit.clone()));
                // Nobody may be listening.
                let _ = shared.events.send(MachineEvent::Exited(exit));
                return;
            }
        }
    }
}

/// Who waits for an answer, by the number of the request.
type Unanswered = HashMap<u64, oneshot::Sender<Result<Reply, String>>>;

enum Ending {
    /// The [`Remote`] was dropped; the machine goes on.
    Unwanted,
    /// The connection ended.
    Lost,
}

async fn converse(
    line: &mut Line,
    requests: &mut mpsc::Receiver<Asked>,
    unanswered: &mut Unanswered,
    shared: &Shared,
) -> Ending {
    let mut last = 0u64;
    loop {
        tokio::select! {
            asked = requests.recv() => {
                let Some(Asked { request, answer }) = asked else {
                    return Ending::Unwanted;
                };
                last += 1;
                unanswered.insert(last, answer);
                if line.send(protocol::encode(&Call { id: last, request })).await.is_err() {
                    return Ending::Lost;
                }
            }
            text = line.next() => {
                let said = match text {
                    Some(Ok(text)) => protocol::decode(&text),
                    Some(Err(error)) => Err(error.to_string()),
                    None => return Ending::Lost,
                };
                match said {
                    Ok(Said::Answer { id, result }) => if let Some(answer) = unanswered.remove(&id) {
                        // Whoever asked may have lost interest.
                        let _ = answer.send(result);
                    }
                    Ok(Said::Event(event)) => {
                        shared.turned(Vcpus::after(&event));
                        let _ = shared.events.send(event);
                    }
                    Err(why) => {
                        tracing::warn!(%why, "the machine process broke its protocol");
                        return Ending::Lost;
                    }
                }
            }
        }
    }
}

enum Settled {
    /// The machine process lives and greeted.
    Alive(Greeted),
    /// The machine ended like this.
    Over(Exit),
}

/// Finds out what became of a machine process whose connection ended.
async fn settle(shared: &Shared) -> Settled {
    let directory = &shared.spec.directory;
    let deadline = Instant::now() + TIMEOUT;
    while matches!(left_over::is_free(directory), Ok(false)) && Instant::now() < deadline {
        if matches!(record::read::<Exit>(directory), Ok(None))
            && let Ok(greeted) = connect(&shared.spec.runtime).await
        {
            return Settled::Alive(greeted);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cause = if shared.killing.load(Ordering::Relaxed) {
        ExitCause::Killed
    } else {
        ExitCause::Vanished
    };
    let MachineSpec {
        directory, runtime, ..
    } = shared.spec.clone();
    let exit = clear(directory, runtime, cause.clone())
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "cannot clean up after the machine");
            None
        });
    Settled::Over(exit.unwrap_or_else(|| Exit {
        cause,
        console_tail: Vec::new(),
    }))
}
