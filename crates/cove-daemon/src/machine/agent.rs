//! The conversation with a machine's agent: one task that connects, greets, carries calls and events, and connects
//! anew whenever the connection is lost, for as long as the machine runs and somebody listens.
//!
//! ```text
//!              connected            greeted, subscribed
//!  Connecting ──────────▶ Greeting ────────────────────▶ Talking
//!      ▲                     │ another protocol version     │ lost, guest restarted
//!      │                     ▼                              │
//!      │                  Refused: waits for the end        │
//!      └────────────────────────────────────────────────────┘
//! ```
//!
//! The guest may be hostile: frames are bounded by the codec, calls in flight and unread happenings by the channels,
//! and text is cleaned before anybody sees it.

use super::{failure::chain, words::clean};
use cove_machine::{Connection, Exit, Machine, MachineError, MachineEvent};
use cove_wire::{
    Call, Codec, EngineState, Event, Fault, FromGuest, FromHost, GuestStatus, Hello, Look, Open, Opened,
    Reply, Seen, Stage, VersionMismatch, WireError, port,
};
use futures_util::{SinkExt, StreamExt};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{broadcast, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::codec::Framed;

/// How long one attempt to connect, and each step of the greeting, may take. An emulated guest is slow.
const STEP: Duration = Duration::from_secs(10);
/// The first and the longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// The longest pause between conversations that fail at once.
const MEND: Duration = Duration::from_secs(5);
/// Most calls without an answer yet.
const MAX_IN_FLIGHT: usize = 64;
/// Most events before the greeting is over: every stage, and some warnings.
const MAX_EARLY: usize = 256;
/// Most stages that a guest may report, and the longest name of one.
pub(super) const MAX_STAGES: usize = 64;
const MAX_STAGE_NAME: usize = 32;

/// Why a call brought no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The agent refused or failed it.
    #[error("{}", clean(&.0.message))]
    Fault(Fault),
    /// The conversation ended first.
    #[error("the connection to the guest's agent was lost")]
    Lost,
    /// There was no answer in time.
    #[error("the guest's agent did not answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
}

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The agent refused or failed it.
    #[error("{}", clean(&.0.message))]
    Fault(Fault),
    /// What it was to be asked does not fit into a request.
    #[error("the request is too long for the guest's agent: {0}")]
    Request(WireError),
    /// The machine could not be reached.
    #[error("cannot reach the guest: {0}")]
    Machine(#[from] MachineError),
    /// The agent broke the protocol, or hung up.
    #[error("the guest's agent broke off: {0}")]
    Wire(#[from] WireError),
}

/// What happens to a machine and in it, in one order.
#[derive(Debug)]
pub(super) enum Happening {
    /// A conversation has begun; events follow.
    Greeted {
        /// The guest as it is.
        status: Box<GuestStatus>,
        /// When its kernel started, on the host's clock.
        kernel_started: Instant,
    },
    /// A stage of the boot has ended, in microseconds since the guest's kernel started.
    Stage(Stage),
    /// The engine's state changed.
    Engine(EngineState),
    /// Something that a person should know.
    Warning(String),
    /// The conversation was lost; another one is being tried.
    Lost {
        /// Why.
        why: String,
    },
    /// The agent speaks another version of the protocol; there will be no conversation.
    Refused(VersionMismatch),
    /// The guest restarted itself.
    Rebooted,
    /// The vCPUs stopped or go on, whoever made them; the machine says which.
    Turned,
    /// The machine ended.
    Exited(Exit),
}

/// Makes calls. Dropping the last one, together with the happenings, ends the conversation.
#[derive(Debug, Clone)]
pub(crate) struct AgentLink(mpsc::Sender<(Call, oneshot::Sender<Result<Reply, CallError>>)>);

impl AgentLink {
    /// One whose calls nobody answers.
    #[cfg(test)]
    pub(super) fn to_nobody() -> (Self, impl Send) {
        let (calls, queue) = mpsc::channel(MAX_IN_FLIGHT);
        (Self(calls), queue)
    }

    /// Makes a call; waits for a conversation if there is none.
    pub(super) async fn call(&self, call: Call, patience: Duration) -> Result<Reply, CallError> {
        let (sender, reply) = oneshot::channel();
        let exchange = async {
            self.0.send((call, sender)).await.map_err(|_| CallError::Lost)?;
            reply.await.map_err(|_| CallError::Lost)?
        };
        timeout(patience, exchange)
            .await
            .unwrap_or(Err(CallError::Timeout(patience)))
    }
}

/// Begins to talk to a machine's agent.
pub(super) fn attach(machine: Arc<dyn Machine>) -> (AgentLink, mpsc::Receiver<Happening>) {
    let (calls, queue) = mpsc::channel(MAX_IN_FLIGHT);
    let (happenings, receiver) = mpsc::channel(64);
    let events = machine.events();
    let conversation = Conversation {
        machine,
        queue,
        happenings,
    };
    tokio::spawn(conversation.run(events));
    (AgentLink(calls), receiver)
}

/// Opens a stream to something in the guest.
pub(crate) async fn open_stream(machine: &dyn Machine, open: &Open) -> Result<Connection, OpenError> {
    let request = cove_wire::encode(open).map_err(OpenError::Request)?;
    let mut connection = machine.connect(port::STREAM).await?;
    let lost = |error| OpenError::Wire(WireError::Io(error));
    connection.write_all(&request).await.map_err(lost)?;
    match receive::<Opened>(&mut connection).await?.result {
        Ok(()) => Ok(connection),
        Err(fault) => Err(OpenError::Fault(fault)),
    }
}

/// Reads one frame to the byte: what follows belongs to whoever gets the stream.
async fn receive<T: serde::de::DeserializeOwned>(connection: &mut Connection) -> Result<T, WireError> {
    let mut header = [0; cove_wire::HEADER_LEN];
    connection.read_exact(&mut header).await?;
    let mut body = vec![0; cove_wire::body_len(header)?];
    connection.read_exact(&mut body).await?;
    cove_wire::decode(&body)
}

/// Looks at the guest's network.
pub(crate) async fn look(machine: &dyn Machine, look: Look) -> Result<Seen, OpenError> {
    let mut connection = open_stream(machine, &Open::Look(look)).await?;
    Ok(receive(&mut connection).await?)
}

/// Why a conversation ended.
enum End {
    /// It can be tried again.
    Lost(String),
    /// It cannot.
    Refused(VersionMismatch),
    /// Nobody listens any more.
    Unwanted,
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Lost(chain(&error))
    }
}

type Wire = Framed<Connection, Codec<FromGuest, FromHost>>;

struct Conversation {
    machine: Arc<dyn Machine>,
    queue: mpsc::Receiver<(Call, oneshot::Sender<Result<Reply, CallError>>)>,
    happenings: mpsc::Sender<Happening>,
}

impl Conversation {
    async fn run(mut self, mut events: broadcast::Receiver<MachineEvent>) {
        let machine = Arc::clone(&self.machine);
        let happenings = self.happenings.clone();
        loop {
            let happening = tokio::select! {
                exit = machine.wait() => Happening::Exited(exit),
                () = rebooted(&mut events, &happenings) => Happening::Rebooted,
                () = happenings.closed() => return,
                () = self.talk_for_ever() => return,
            };
            let over = matches!(happening, Happening::Exited(_));
            // Nobody listening is no error: the machine was let go.
            let _ = happenings.send(happening).await;
            if over {
                return;
            }
        }
    }

    async fn talk_for_ever(&mut self) {
        let mut pause = PAUSES.1;
        loop {
            let mut greeted = false;
            let happening = match self.talk(&mut greeted).await {
                End::Unwanted => return,
                End::Lost(why) => Happening::Lost { why },
                End::Refused(mismatch) => {
                    self.tell(Happening::Refused(mismatch)).await;
                    // Only the machine's end can change this.
                    return std::future::pending().await;
                }
            };
            self.tell(happening).await;
            // An agent that cannot even greet is not likely to learn it soon.
            pause = if greeted { PAUSES.1 } else { (pause * 2).min(MEND) };
            sleep(pause).await;
        }
    }

    async fn tell(&self, happening: Happening) {
        // Whoever stopped listening has also stopped this task.
        let _ = self.happenings.send(happening).await;
    }

    async fn talk(&mut self, greeted: &mut bool) -> End {
        let connection = self.connect().await;
        let mut wire = Framed::new(connection, Codec::default());
        match self.greet(&mut wire).await {
            Ok(()) => *greeted = true,
            Err(end) => return end,
        }
        match self.converse(&mut wire).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn connect(&self) -> Connection {
        let mut pause = PAUSES.0;
        loop {
            match timeout(STEP, self.machine.connect(port::CONTROL)).await {
                Ok(Ok(connection)) => return connection,
                Ok(Err(error)) => tracing::trace!(%error, "the agent cannot be reached yet"),
                Err(_) => tracing::debug!("connecting to the agent took too long"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn greet(&self, wire: &mut Wire) -> Result<(), End> {
        let ours = Hello::new("cove");
        wire.send(FromHost::Hello(ours.clone())).await?;
        match next(wire).await? {
            FromGuest::Hello(theirs) => {
                let theirs = Hello {
                    build: clean(&theirs.build),
                    ..theirs
                };
                ours.accept(&theirs).map_err(End::Refused)?;
                tracing::debug!(agent = theirs.build, "greeted the agent");
            }
            _ => return Err(End::Lost("it did not greet".into())),
        }
        // The round trip bounds the error of the guest's clock on ours; half of it is the best guess.
        let asked = Instant::now();
        let mut early = Vec::new();
        let Reply::Status(status) = request(wire, 0, Call::Status, &mut early).await? else {
            return Err(End::Lost("it gave a wrong answer".into()));
        };
        let uptime = Duration::from_micros(status.uptime_us);
        let kernel_started = (asked + asked.elapsed() / 2).checked_sub(uptime).unwrap_or(asked);
        request(wire, 1, Call::Subscribe, &mut early).await?;
        self.tell(Happening::Greeted {
            status,
            kernel_started,
        })
        .await;
        for happening in early {
            self.tell(happening).await;
        }
        Ok(())
    }

    async fn converse(&mut self, wire: &mut Wire) -> Result<std::convert::Infallible, End> {
        let mut in_flight: HashMap<u64, oneshot::Sender<Result<Reply, CallError>>> = HashMap::new();
        let mut next_id = 2;
        loop {
            in_flight.retain(|_, waiting| !waiting.is_closed());
            tokio::select! {
                frame = wire.next() => match frame {
                    None => return Err(End::Lost("it hung up".into())),
                    Some(frame) => match frame? {
                        FromGuest::Hello(_) => return Err(End::Lost("it greeted twice".into())),
                        FromGuest::Event(event) => {
                            if let Some(happening) = checked(event) {
                                self.tell(happening).await;
                            }
                        }
                        FromGuest::Response { id, result } => {
                            if let Some(caller) = in_flight.remove(&id) {
                                // Whoever asked may have stopped waiting.
                                drop(caller.send(result.map_err(CallError::Fault)));
                            } else {
                                tracing::warn!(id, "the agent answered what nobody asked");
                            }
                        }
                    },
                },
                call = self.queue.recv(), if in_flight.len() < MAX_IN_FLIGHT => {
                    let Some((call, caller)) = call else {
                        return Err(End::Unwanted);
                    };
                    in_flight.insert(next_id, caller);
                    wire.send(FromHost::Request { id: next_id, call }).await?;
                    next_id += 1;
                }
            }
        }
    }
}

/// Tells when the vCPUs stop or go on, until the guest restarts itself. The machine's end is noticed by waiting for it.
async fn rebooted(events: &mut broadcast::Receiver<MachineEvent>, happenings: &mpsc::Sender<Happening>) {
    loop {
        match events.recv().await {
            Ok(MachineEvent::Rebooted) => return,
            Ok(MachineEvent::Exited(_)) => {}
            // What was missed may have been one of them.
            Ok(MachineEvent::Paused { .. } | MachineEvent::Resumed)
            | Err(broadcast::error::RecvError::Lagged(_)) => {
                // Nobody listening is no error: the machine was let go.
                let _ = happenings.send(Happening::Turned).await;
            }
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

async fn next(wire: &mut Wire) -> Result<FromGuest, End> {
    match timeout(STEP, wire.next()).await {
        Ok(Some(frame)) => Ok(frame?),
        Ok(None) => Err(End::Lost("it hung up".into())),
        Err(_) => Err(End::Lost(format!("it was silent for {} seconds", STEP.as_secs()))),
    }
}

/// A call of the greeting, when nothing else is in flight. Events that come before its answer are kept for later:
/// what happened so far may be told as soon as it was asked for.
async fn request(wire: &mut Wire, id: u64, call: Call, early: &mut Vec<Happening>) -> Result<Reply, End> {
    wire.send(FromHost::Request { id, call }).await?;
    loop {
        match next(wire).await? {
            FromGuest::Response { id: answered, result } if answered == id => {
                return result.map_err(|fault| End::Lost(clean(&fault.message)));
            }
            FromGuest::Event(event) if early.len() < MAX_EARLY => early.extend(checked(event)),
            _ => return Err(End::Lost("it spoke out of turn".into())),
        }
    }
}

/// An event with its texts cleaned; nothing when it makes no sense.
fn checked(event: Event) -> Option<Happening> {
    Some(match event {
        Event::Stage(stage) => {
            let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let good = (1..=MAX_STAGE_NAME).contains(&stage.name.len())
                && stage.name.bytes().all(named)
                && stage.start_us <= stage.end_us;
            if !good {
                return None;
            }
            Happening::Stage(stage)
        }
        Event::Engine(EngineState::Restarting {
            attempt,
            pause_ms,
            why,
        }) => Happening::Engine(EngineState::Restarting {
            attempt,
            pause_ms,
            why: clean(&why),
        }),
        Event::Engine(state) => Happening::Engine(state),
        Event::Warning { message } => Happening::Warning(clean(&message)),
    })
}
