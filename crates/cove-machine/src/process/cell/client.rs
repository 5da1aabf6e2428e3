//! The machine process's end: starts porter and cell, and talks to them.
//!
//! ```text
//!  start ──▶ the porter has namespaces? ──▶ the cell has its view? ──▶ Ready
//!                 │ no                          │ no
//!                 └──────────────┬──────────────┘
//!                     start again, bare: the layers that do without
//! ```

use super::words::{self, Ask, Asking, Line, Part, PorterSaid, Word};
use crate::{
    MachineError,
    process::{
        ansi,
        lock::Lock,
        protocol::{self, Reply},
        spawn::{self, Bond},
    },
};
use cove_confine::Layer;
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

/// How long porter and cell may take to be ready.
const TIMEOUT: Duration = Duration::from_secs(40);

/// How long the log of processes that have ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes of their log that are kept for the account of a bad end.
const MAX_KEPT: usize = 2048;

/// A cell that is ready. Dropped, it is killed.
pub(crate) struct Cell {
    /// Its process, as everybody outside knows it.
    pub(crate) pid: u32,
    /// Every layer of its confinement, as it reported it.
    pub(crate) layers: Vec<Layer>,
    /// The way to ask it.
    pub(crate) handle: Handle,
    /// What it says unasked; ends with it.
    pub(super) words: mpsc::Receiver<Word>,
    conversation: AbortHandle,
    /// The guest's console, where the cell runs the guest.
    pub(super) console: ChildStdout,
    porter: Child,
    errands: Option<Line>,
    log: tokio::task::JoinHandle<()>,
    kept: Arc<Mutex<String>>,
    has_view: bool,
}

/// The way to ask a cell.
#[derive(Debug, Clone)]
pub(crate) struct Handle(mpsc::Sender<(Ask, Answer)>);

type Answer = oneshot::Sender<Result<Reply, String>>;

impl Handle {
    /// Asks, and waits for what comes of it.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Reply, String> {
        let gone = || "the process that faces the guest has ended".to_owned();
        let (sender, answer) = oneshot::channel();
        self.0.send((ask, sender)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Asks a cell behind `line`, and has what it says unasked come out of the other.
    pub(crate) fn to(line: Line) -> (Self, mpsc::Receiver<Word>, AbortHandle) {
        let (asks_sender, asks) = mpsc::channel(16);
        let (words_sender, words) = mpsc::channel(16);
        let conversation = tokio::spawn(attend(line, asks, words_sender));
        (Self(asks_sender), words, conversation.abort_handle())
    }
}

enum Attempt {
    Ready(Box<Cell>),
    /// Only without namespaces, because of this.
    Bare(String),
}

impl Cell {
    /// Starts porter and cell for the machine in `directory`. They inherit `locks`, of what the cell may write to. To
    /// be called on the main thread, with whose end they end.
    pub(crate) async fn start(directory: &Path, locks: &[&Lock]) -> Result<Self, MachineError> {
        let why = match attempt(directory, locks, None).await? {
            Attempt::Ready(cell) => return Ok(*cell),
            Attempt::Bare(why) => why,
        };
        tracing::warn!(why, "the guest's devices are confined without namespaces");
        match attempt(directory, locks, Some(why)).await? {
            Attempt::Ready(cell) => Ok(*cell),
            Attempt::Bare(why) => Err(MachineError::StartFailed { why }),
        }
    }

    /// Whether it has a view of its own, into which folders have to be brought.
    pub(crate) fn has_view(&self) -> bool {
        self.has_view
    }

    /// The conversation with the porter, once.
    pub(crate) fn errands(&mut self) -> Option<Line> {
        self.errands.take()
    }

    /// Waits until it has ended by itself. To be called where it says nothing unasked.
    pub(in super::super) async fn ended(&mut self) {
        while let Some(word) = self.words.recv().await {
            tracing::warn!(?word, "the process that faces the guest speaks out of turn");
        }
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        // The porter takes it along. It fails only for one that has ended.
        let _ = self.porter.start_kill();
    }

    /// Ends the conversation, upon which it ends by itself; returns the last that it logged.
    pub(in super::super) async fn end(mut self) -> String {
        self.conversation.abort();
        drop(self.errands.take());
        if timeout(LAST_WORDS, self.porter.wait()).await.is_err() {
            self.kill();
            let _ = self.porter.wait().await;
        }
        let _ = timeout(LAST_WORDS, &mut self.log).await;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Porter and cell that were started, and have not said how they are.
struct Started {
    porter: Child,
    /// To the porter.
    errands: Line,
    /// To the cell.
    line: Line,
    console: ChildStdout,
    log: tokio::task::JoinHandle<()>,
    kept: Arc<Mutex<String>>,
}

/// How porter and cell are.
enum Greeting {
    Ready {
        pid: u32,
        layers: Vec<Layer>,
    },
    /// Only without namespaces, because of this.
    Bare(String),
    Failed(String),
}

async fn attempt(directory: &Path, locks: &[&Lock], bare: Option<String>) -> Result<Attempt, MachineError> {
    let has_view = bare.is_none();
    let mut started = Started::new(directory, locks, bare)?;
    let greeting = timeout(TIMEOUT, started.greeting())
        .await
        .unwrap_or_else(|_| Greeting::Failed(format!("nothing happened for {} seconds", TIMEOUT.as_secs())));
    match greeting {
        Greeting::Ready { pid, layers } => {
            let (handle, words, conversation) = Handle::to(started.line);
            Ok(Attempt::Ready(Box::new(Cell {
                pid,
                layers,
                handle,
                words,
                conversation,
                console: started.console,
                porter: started.porter,
                errands: Some(started.errands),
                log: started.log,
                kept: started.kept,
                has_view,
            })))
        }
        Greeting::Bare(why) if has_view => Ok(Attempt::Bare(why)),
        Greeting::Bare(why) | Greeting::Failed(why) => {
            let said = started.last_words().await;
            let said = if said.is_empty() {
                said
            } else {
                format!(" ({said})")
            };
            Err(MachineError::StartFailed {
                why: format!("the process that faces the guest did not start: {why}{said}"),
            })
        }
    }
}

impl Started {
    fn new(directory: &Path, locks: &[&Lock], bare: Option<String>) -> Result<Self, MachineError> {
        let failed = |operation| {
            move |source: io::Error| MachineError::Io {
                operation,
                path: directory.to_owned(),
                source,
            }
        };
        let pair = || {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            Ok((
                words::line(tokio::net::UnixStream::from_std(ours)?),
                OwnedFd::from(theirs),
            ))
        };
        let connect = failed("make a connection for the devices of the machine in");
        let (errands, errands_theirs) = pair().map_err(connect)?;
        let (line, line_theirs) = pair().map_err(connect)?;
        let part = Part::Porter {
            line: line_theirs.as_raw_fd(),
            bare,
        };
        let mut command = super::again(directory, &part);
        command
            .stdin(Stdio::from(errands_theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut inherited = vec![line_theirs];
        for lock in locks {
            inherited.push(lock.share().map_err(failed("pass on a lock of the machine in"))?);
        }
        spawn::set_up(&mut command, Bond::DiesWithParent, inherited);
        let start = failed("start the process for the devices of the machine in");
        let mut porter = Command::from(command).kill_on_drop(true).spawn().map_err(start)?;
        let (Some(console), Some(stderr)) = (porter.stdout.take(), porter.stderr.take()) else {
            return Err(start(io::ErrorKind::BrokenPipe.into()));
        };
        let kept = Arc::new(Mutex::new(String::new()));
        let log = tokio::spawn(pass_on(stderr, Arc::clone(&kept)));
        Ok(Self {
            porter,
            errands,
            line,
            console,
            log,
            kept,
        })
    }

    /// The porter speaks first, then the cell.
    async fn greeting(&mut self) -> Greeting {
        let pid = match hear(&mut self.errands).await {
            Some(PorterSaid::Started(pid)) => pid,
            Some(PorterSaid::NoNamespaces(why)) => return Greeting::Bare(why),
            Some(PorterSaid::Done(_)) | None => {
                return Greeting::Failed("the porter did not start it".to_owned());
            }
        };
        match hear(&mut self.line).await {
            Some(Word::Ready { layers }) => Greeting::Ready { pid, layers },
            Some(Word::NoView(why)) => Greeting::Bare(why),
            Some(Word::Failed(why)) => Greeting::Failed(why),
            Some(Word::Answer { .. } | Word::Event(_) | Word::Ended(_)) | None => {
                Greeting::Failed("it gave no account of itself".to_owned())
            }
        }
    }

    /// Sees them off, and returns the last that they logged.
    async fn last_words(mut self) -> String {
        drop((self.errands, self.line));
        let _ = timeout(LAST_WORDS, self.porter.wait()).await;
        let _ = timeout(LAST_WORDS, self.log).await;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn hear<T: serde::de::DeserializeOwned>(line: &mut Line) -> Option<T> {
    let text = line.next().await?.ok()?;
    protocol::decode(&text)
        .inspect_err(|why| tracing::warn!(why, "a confined process broke its protocol"))
        .ok()
}

/// Owns the conversation with the cell until either end is gone.
async fn attend(mut line: Line, mut asks: mpsc::Receiver<(Ask, Answer)>, words: mpsc::Sender<Word>) {
    let mut unanswered: HashMap<u64, Answer> = HashMap::new();
    let mut last = 0u64;
    loop {
        tokio::select! {
            asked = asks.recv() => {
                let Some((ask, answer)) = asked else { return };
                last += 1;
                unanswered.insert(last, answer);
                if line.send(protocol::encode(&Asking { id: last, ask })).await.is_err() {
                    return;
                }
            }
            word = hear::<Word>(&mut line) => match word {
                Some(Word::Answer { id, result }) => if let Some(answer) = unanswered.remove(&id) {
                    // Whoever asked may have lost interest.
                    let _ = answer.send(result);
                }
                Some(word) => if words.send(word).await.is_err() {
                    return;
                }
                None => return,
            }
        }
    }
}

/// Passes on what porter and cell log to this process's own log, which is bounded, and keeps the last of it.
async fn pass_on(stderr: ChildStderr, kept: Arc<Mutex<String>>) {
    /// Longest line, in bytes; a longer one is cut up.
    const LONGEST: u64 = 4096;
    use tokio::io::AsyncReadExt;
    let mut lines = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        match (&mut lines).take(LONGEST).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let text = ansi::plain(&line);
        eprintln!("{text}");
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.is_empty() {
            kept.push('\n');
        }
        kept.push_str(&text);
        let mut excess = kept.len().saturating_sub(MAX_KEPT);
        while !kept.is_char_boundary(excess) {
            excess += 1;
        }
        kept.drain(..excess);
    }
}
