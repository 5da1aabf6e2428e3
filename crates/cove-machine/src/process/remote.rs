//! The daemon's end: starts machine processes, finds those that an earlier daemon started, and drives them.
//!
//! ```text
//!           start, adopt                   connection ends
//!  (nothing) ──────────▶ attended by a task ─────────────▶ settling ──▶ Exit
//!                                ▲                             │
//!                                └── the process lives on ─────┘
//! ```
//!
//! A task of each [`Remote`] owns the connection. When it ends without the machine having said so, the task finds out
//! what became of the process: it connects anew, or cleans up and accounts for the end.

use super::{
    left_over::{self, console_path},
    lock::Lock,
    protocol::{self, Call, Hello, Line, Request, Said, StartReport},
    record::{self, Launch},
    spawn::{self, Bond},
};
use crate::{
    BackendKind, Connection, Disk, Exit, ExitCause, Features, Listener, Machine, MachineError, MachineEvent,
    MachineSpec, process::console, sockets,
};
use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::codec::LinesCodecError;

/// How long a machine process may take to have its guest run. QEMU takes a third of a second on an idle computer.
const START_PATIENCE: Duration = Duration::from_mins(1);

/// How long a process that holds the lock may take to answer.
const ADOPT_PATIENCE: Duration = Duration::from_secs(10);

/// How long a machine process may take to kill its hypervisor, before both are killed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Longest line in which a start is reported, in bytes.
const MAX_REPORT: u64 = 64 << 10;

/// Size above which the machine process's log is moved aside before a start, in bytes.
const LOG_LIMIT: u64 = 1 << 20;

/// Events that a listener may lag behind.
const EVENTS: usize = 64;

/// Starts a machine process as `program machine-process --directory DIR` and waits until its guest runs.
pub(crate) async fn start(program: &Path, launch: &Launch) -> Result<Remote, MachineError> {
    let spec = &launch.spec;
    sockets::check_lengths(&spec.runtime)?;
    create(&spec.directory)?;
    create(&spec.runtime)?;
    {
        // The machine process takes the lock for itself; until then it keeps the specification from being replaced
        // under a machine that runs.
        let _lock = Lock::take(&spec.directory)?;
        record::write(&spec.directory, launch)?;
    }
    let path = spec.directory.join("process.log");
    let log = open_log(&path).map_err(|source| MachineError::Io {
        operation: "open the log",
        path: path.clone(),
        source,
    })?;
    let log_start = log.metadata().map_or(0, |metadata| metadata.len());
    let mut command = std::process::Command::new(program);
    command
        .arg("machine-process")
        .arg("--directory")
        .arg(&spec.directory)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    spawn::set_up(&mut command, Bond::Free, Vec::new());
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(|source| MachineError::Io {
            operation: "start the machine process",
            path: program.to_owned(),
            source,
        })?;
    let stdout = child.stdout.take();
    // Whatever becomes of this call, somebody has to reap the process when it ends.
    let (ended_sender, ended) = oneshot::channel();
    let (kill, mut killed) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let status = tokio::select! {
            status = child.wait() => status,
            Ok(()) = &mut killed => {
                let _ = child.start_kill();
                child.wait().await
            }
        };
        // Only a start that failed is interested.
        let _ = ended_sender.send(status);
    });
    let mut report = String::new();
    if let Some(stdout) = stdout {
        let mut stdout = BufReader::new(stdout).take(MAX_REPORT);
        if timeout(START_PATIENCE, stdout.read_line(&mut report))
            .await
            .is_err()
        {
            let _ = kill.send(());
            return Err(MachineError::StartFailed {
                why: format!("nothing happened for {} seconds", START_PATIENCE.as_secs()),
            });
        }
    }
    match protocol::decode(&report) {
        Ok(StartReport::Running) => {
            let line = connect(&spec.runtime).await?;
            Ok(Remote::attend(spec, line))
        }
        Ok(StartReport::Locked) => Err(MachineError::Locked {
            directory: spec.directory.clone(),
        }),
        Ok(StartReport::Failed { why }) => Err(MachineError::StartFailed { why }),
        Err(_) => {
            let status = match timeout(KILL_PATIENCE, ended).await {
                Ok(Ok(Ok(status))) => status.to_string(),
                _ => "it is still there".to_owned(),
            };
            let said = said_since(&path, log_start);
            Err(MachineError::StartFailed {
                why: format!("the machine process gave no account of itself ({status}){said}"),
            })
        }
    }
}

/// Takes over the machine in `spec.directory`, or cleans up after one that is gone.
pub(crate) async fn adopt(spec: &MachineSpec) -> Result<Option<Remote>, MachineError> {
    if !spec.directory.exists() {
        return Ok(None);
    }
    // The machine's own specification says where its sockets are, even if they would be elsewhere today.
    let running = record::read::<Launch>(&spec.directory).ok().flatten();
    let spec = running.map_or_else(|| spec.clone(), |launch| launch.spec);
    let deadline = Instant::now() + ADOPT_PATIENCE;
    while !left_over::is_free(&spec.directory)? {
        match connect(&spec.runtime).await {
            Ok(line) => return Ok(Some(Remote::attend(&spec, line))),
            Err(error @ MachineError::Protocol(_)) => return Err(error),
            Err(error) if Instant::now() < deadline => {
                // It may be starting or ending.
                tracing::debug!(%error, "waiting for the machine process");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the machine process does not answer and is ended");
                break;
            }
        }
    }
    clear(spec, ExitCause::Vanished).await?;
    Ok(None)
}

/// [`left_over::clear`], where it may block.
async fn clear(spec: MachineSpec, cause: ExitCause) -> Result<Option<Exit>, MachineError> {
    match tokio::task::spawn_blocking(move || left_over::clear(&spec, cause)).await {
        Ok(result) => result,
        Err(error) => Err(MachineError::Protocol(error.to_string())),
    }
}

/// Makes a directory for its owner alone, if it is not there.
fn create(directory: &Path) -> Result<(), MachineError> {
    let mut builder = DirBuilder::new();
    let result = builder.recursive(true).mode(0o700).create(directory);
    result.map_err(|source| MachineError::Io {
        operation: "create the directory",
        path: directory.to_owned(),
        source,
    })
}

/// Opens the machine process's log for appending, after moving a long one aside.
fn open_log(path: &Path) -> io::Result<std::fs::File> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
        std::fs::rename(path, console::older(path))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// The last lines of the log at `path`, if it grew beyond `start`.
fn said_since(path: &Path, start: u64) -> String {
    let grew = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > start);
    let lines = if grew {
        console::tail_of_file(path)
    } else {
        Vec::new()
    };
    match &lines[lines.len().saturating_sub(5)..] {
        [] => String::new(),
        last => format!(": {}", last.join("; ")),
    }
}

/// A connection on which the machine process has greeted.
struct Greeted {
    line: Line,
    hello: Hello,
}

/// Connects to the machine process.
async fn connect(runtime: &Path) -> Result<Greeted, MachineError> {
    let path = sockets::control(runtime);
    let stream = sockets::open(&path).await.map_err(|source| MachineError::Io {
        operation: "reach the machine process through",
        path: path.clone(),
        source,
    })?;
    let mut line = protocol::line(stream);
    let greeting = match timeout(KILL_PATIENCE, line.next()).await {
        Ok(Some(Ok(greeting))) => greeting,
        Ok(Some(Err(LinesCodecError::MaxLineLengthExceeded))) => {
            return Err(MachineError::Protocol("its greeting is too long".into()));
        }
        // It ended while it was to greet.
        Ok(Some(Err(LinesCodecError::Io(_))) | None) => return Err(MachineError::Ended),
        Err(_) => {
            return Err(MachineError::Io {
                operation: "get an answer from the machine process through",
                path,
                source: io::ErrorKind::TimedOut.into(),
            });
        }
    };
    let hello: Hello = protocol::decode(&greeting).map_err(MachineError::Protocol)?;
    if hello.version != protocol::VERSION {
        return Err(MachineError::Protocol(format!(
            "it speaks version {} and this daemon speaks version {}; the machine was started by another release of Cove: \
             stop it with that one, or end its process {:?}",
            hello.version,
            protocol::VERSION,
            hello.processes.first()
        )));
    }
    Ok(Greeted { line, hello })
}

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
    requests: mpsc::Sender<Asked>,
    exit: watch::Receiver<Option<Exit>>,
}

/// What the connection's task and the machine's users both know.
#[derive(Debug)]
struct Shared {
    spec: MachineSpec,
    paused: AtomicBool,
    /// Somebody wants it killed: an end without an account is this and no mystery.
    killing: AtomicBool,
    events: broadcast::Sender<MachineEvent>,
    exit: watch::Sender<Option<Exit>>,
}

#[derive(Debug)]
struct Asked {
    request: Request,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Remote {
    fn attend(spec: &MachineSpec, Greeted { line, hello }: Greeted) -> Self {
        let (exit_sender, exit) = watch::channel(None);
        let shared = Arc::new(Shared {
            spec: spec.clone(),
            paused: AtomicBool::new(hello.paused),
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
            requests,
            exit,
        }
    }

    async fn ask(&self, operation: &'static str, request: Request) -> Result<(), MachineError> {
        let (answer, result) = oneshot::channel();
        let asked = Asked { request, answer };
        self.requests.send(asked).await.map_err(|_| MachineError::Ended)?;
        match result.await {
            Ok(Ok(())) => Ok(()),
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

    fn paused(&self) -> bool {
        self.shared.paused.load(Ordering::Relaxed)
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.ask("pause", Request::Pause).await?;
        // The event that says so may still be on its way.
        self.shared.paused.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn resume(&self) -> Result<(), MachineError> {
        self.ask("resume", Request::Resume).await?;
        self.shared.paused.store(false, Ordering::Relaxed);
        Ok(())
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
            match self.ask("end", Request::Kill).await {
                // An end that is under way already is as good.
                Ok(()) | Err(MachineError::Ended) => Ok(self.wait().await),
                Err(error) => Err(error),
            }
        };
        match timeout(KILL_PATIENCE, asked).await {
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
        self.ask("grow the disk", Request::Grow { disk, size }).await
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

impl Remote {
    async fn kill_by_force(&self) -> Result<Exit, MachineError> {
        clear(self.shared.spec.clone(), ExitCause::Killed).await?;
        // The task that attends the connection sees it end.
        Ok(self.wait().await)
    }
}

/// Owns the connection to a machine process until the machine has ended or nobody is interested any more.
async fn attend(mut line: Line, mut requests: mpsc::Receiver<Asked>, shared: Arc<Shared>) {
    loop {
        match converse(&mut line, &mut requests, &shared).await {
            Ending::Unwanted => return,
            Ending::Lost => {}
        }
        match settle(&shared).await {
            Settled::Alive(greeted) => {
                shared.paused.store(greeted.hello.paused, Ordering::Relaxed);
                line = greeted.line;
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

enum Ending {
    /// The [`Remote`] was dropped; the machine goes on.
    Unwanted,
    /// The connection ended.
    Lost,
}

async fn converse(line: &mut Line, requests: &mut mpsc::Receiver<Asked>, shared: &Shared) -> Ending {
    let mut unanswered = HashMap::new();
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
                        shared.paused.store(matches!(event, MachineEvent::Paused), Ordering::Relaxed);
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
    let deadline = Instant::now() + KILL_PATIENCE;
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
    let exit = clear(shared.spec.clone(), cause.clone())
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
