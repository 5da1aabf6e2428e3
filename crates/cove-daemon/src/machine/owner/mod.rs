//! The one task that owns a machine's state.
//!
//! ```text
//!                 start                engine answers            pause
//!     ┌──────────────────▶ Starting ────────────────▶ Running ◀────────▶ Paused
//!     │                     │ ▲  │                     │ │ ▲    resume    │ │
//!     │         failed, or  │ │  │ stop, kill          │ │ │ engine       │ │
//!     │         ended       │ │  │        stop, kill   │ │ │ answers      │ │
//!  Stopped ◀── Stopping ◀───┼─┼──┴─────────────────────┘ │ │              │ │
//!     ▲           │  ▲      │ └─ the guest restarted ────┤ │              │ │
//!     │           │  └──────┼────────────────────────────┼─┼──────────────┘ │
//!     │  restart: └─▶ Starting                           │ │                │
//!     │                     ▼        ended unasked       │ │                │
//!     └── stop ────────── Failed ◀───────────────────────┴─┴────────────────┘
//!                           │ start (what still runs is killed first)
//!                           └─▶ Starting
//! ```
//!
//! An owner begins in `Starting`, looking for a machine that an earlier daemon left running; there being none, it is
//! `Stopped`. A `Failed` machine may still run, so that a person can look into it; when its engine comes up after
//! all, it is `Running`. A guest that powers itself off has not failed: that is `Stopped`. A machine that goes on without
//! being in the owner's hands, such as one of another release, is never said to have stopped: it is `Failed`, and a stop
//! fails as well, unless it is one by force.
//!
//! Long work (start, stop, and what a running guest is brought: see [`errand`]) happens in tasks of its own that report
//! back. The owner itself waits for the machine process alone, to pause or resume it, and not for longer than
//! [`commands::SHORT`], so that it can always be asked to do something else.

mod commands;
mod errand;
mod outcomes;

pub(super) use errand::Errand;

use super::{
    Command, Context, Snapshot,
    agent::Happening,
    disk::Place,
    operation::Operation,
    session::{Outcome, Session, Topic, Update},
    start::Job,
    stop::{self, Stopped},
    timeline::Timeline,
};
use crate::{name::MachineName, ports::Ledger};
use cove_api::{ApiError, BackendReport, Event, MachineState};
use cove_machine::MachineError;
use errand::Brought;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle},
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// How often the clock and the disk are looked at. A computer that wakes from sleep is noticed this soon.
const TICK: Duration = Duration::from_secs(10);

enum Phase {
    Stopped,
    Starting {
        task: JoinHandle<Outcome>,
        cancel: CancellationToken,
        updates: mpsc::Receiver<Update>,
        operation: Operation,
        /// Whether a machine is only being looked for; then whether a start is wanted if there is none.
        looking: Option<bool>,
    },
    Running(Box<Session>),
    Paused(Box<Session>),
    Stopping {
        task: Ending,
        kill: CancellationToken,
        waiters: Waiters,
    },
    Failed {
        error: ApiError,
        console_tail: Vec<String>,
        session: Option<Box<Session>>,
    },
}

/// What a machine that stops waits for.
enum Ending {
    /// The cancelled start, which hands back what it has begun.
    Start(JoinHandle<Outcome>),
    Stop(JoinHandle<Result<Stopped, MachineError>>),
}

/// Who waits for a machine's end.
#[derive(Default)]
struct Waiters {
    stops: Vec<Operation>,
    /// The start that follows.
    start: Option<Operation>,
}

impl Waiters {
    fn each(&mut self) -> impl Iterator<Item = &mut Operation> {
        self.stops.iter_mut().chain(&mut self.start)
    }

    fn fail(self, error: &ApiError) {
        for operation in self.stops.into_iter().chain(self.start) {
            operation.failed(error.clone());
        }
    }

    /// Tells how far the stop is, all of which comes before a start that follows has begun.
    fn stage(&mut self, message: &str, fraction: f32) {
        for stop in &mut self.stops {
            stop.stage(message, fraction);
        }
        if let Some(start) = &mut self.start {
            start.stage(message, 0.0);
        }
    }
}

enum Input {
    Command(Option<Command>),
    Update(Update),
    Started(Result<Outcome, JoinError>),
    Step(stop::Step),
    Stopped(Result<Result<Stopped, MachineError>, JoinError>),
    Happening(Happening),
    Brought(Brought),
    Tick,
}

pub(super) struct Owner {
    context: Arc<Context>,
    name: MachineName,
    place: Place,
    commands: mpsc::Receiver<Command>,
    published: watch::Sender<Arc<Snapshot>>,
    snapshot: Snapshot,
    notices: BTreeMap<Topic, String>,
    phase: Phase,
    /// What the last stop that was begun tells of how far it is.
    steps: mpsc::Receiver<stop::Step>,
    tick: Interval,
    ticks: u32,
    /// Both clocks at the last tick.
    clocks: (Instant, SystemTime),
}

impl Owner {
    pub(super) fn new(
        context: Arc<Context>,
        name: MachineName,
        place: Place,
        commands: mpsc::Receiver<Command>,
    ) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let values = context.settings.in_force().0;
        // What runs it is known at once if something does; else the first look at the backends says it.
        let backend = match place.record() {
            Some(record) => BackendReport {
                kind: record.kind.to_string(),
                reason: record.reason,
            },
            None => BackendReport {
                kind: "undecided".into(),
                reason: "the backends are being looked at".into(),
            },
        };
        let snapshot = Snapshot {
            state: MachineState::Stopped,
            start_follows: false,
            out_of_reach: false,
            backend,
            settings: values.machine(&name, context.settings.host()),
            engine_version: None,
            timings: Vec::new(),
            notices: Vec::new(),
            machine: None,
            shares: Vec::new(),
            ports: Ledger::default(),
            failed_shares: Vec::new(),
            failed_trust: None,
            record: None,
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = MachineState::Starting {
            stage: MachineState::LOOKING.into(),
        };
        let first = Snapshot {
            state: looking,
            ..snapshot.clone()
        };
        let (published, snapshots) = watch::channel(Arc::new(first));
        let owner = Self {
            context,
            name,
            place,
            commands,
            published,
            snapshot,
            notices: BTreeMap::new(),
            phase: Phase::Stopped,
            // Closed from the first: nothing is being stopped.
            steps: mpsc::channel(1).1,
            tick,
            ticks: 0,
            clocks: (Instant::now(), SystemTime::now()),
        };
        (owner, snapshots)
    }

    /// Owns the machine until it is deleted or the daemon ends.
    #[tracing::instrument(name = "machine", skip_all, fields(name = %self.name))]
    pub(super) async fn run(mut self) {
        self.reconsider().await;
        self.begin(Operation::new(), Some(false), Job::adopt);
        self.publish();
        loop {
            match self.next().await {
                Input::Command(Some(command)) => {
                    if self.obey(command).await {
                        return;
                    }
                }
                Input::Command(None) => return self.detach().await,
                Input::Update(update) => self.heed(update),
                Input::Started(outcome) => {
                    self.started(outcome).await;
                    // The settings may have changed since the job looked.
                    self.provide();
                }
                Input::Step(step) => {
                    if let Phase::Stopping { waiters, .. } = &mut self.phase {
                        let (message, fraction) = step.stage();
                        waiters.stage(message, fraction);
                    }
                    // The state is the same.
                    continue;
                }
                Input::Stopped(stopped) => self.stopped(stopped),
                Input::Happening(happening) => self.happened(happening),
                Input::Brought(brought) => self.brought(brought),
                Input::Tick => {
                    self.tend();
                    let relieved = self.relieve().await;
                    self.provide();
                    if !relieved {
                        continue;
                    }
                }
            }
            self.publish();
        }
    }

    async fn next(&mut self) -> Input {
        tokio::select! {
            // What a task says comes before its end.
            biased;
            Some(step) = self.steps.recv() => Input::Step(step),
            input = self.phase.next() => input,
            command = self.commands.recv() => Input::Command(command),
            _ = self.tick.tick() => Input::Tick,
        }
    }

    /// Begins a job. `looking` as in [`Phase::Starting`].
    fn begin<F>(&mut self, mut operation: Operation, looking: Option<bool>, work: impl FnOnce(Job) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let (sender, updates) = mpsc::channel(64);
        let job = Job {
            context: Arc::clone(&self.context),
            name: self.name.clone(),
            place: self.place.clone(),
            cancel: cancel.clone(),
            updates: sender,
            timeline: Timeline::begin(),
            fraction: 0.0,
            inhabited: false,
            greeted: false,
            greeting_due: None,
        };
        self.notices.clear();
        self.snapshot.timings.clear();
        let stage = if looking.is_some() {
            MachineState::LOOKING
        } else {
            "Starting"
        };
        operation.stage(stage, 0.0);
        self.set_stage(stage.into());
        self.phase = Phase::Starting {
            task: tokio::spawn(work(job)),
            cancel,
            updates,
            operation,
            looking,
        };
    }

    /// How long containers may take to stop, by the settings as they are now.
    fn stop_grace(&self) -> Duration {
        let values = self.context.settings.in_force().0;
        values
            .machine(&self.name, self.context.settings.host())
            .stop_grace
    }

    /// Begins to take a machine down.
    fn end(&mut self, session: Session, paused: bool, kill: CancellationToken, mut waiters: Waiters) {
        waiters.stage("Stopping the machine", 0.0);
        let grace = self.stop_grace();
        let (sender, steps) = mpsc::channel(stop::Step::MAX_STEPS);
        self.steps = steps;
        let task = tokio::spawn(stop::stop(session, paused, grace, kill.clone(), sender));
        self.phase = Phase::Stopping {
            task: Ending::Stop(task),
            kill,
            waiters,
        };
    }

    /// Tells an operation that it has come out well.
    fn done(&mut self, operation: Operation) {
        self.publish();
        let snapshot = self.published.borrow().clone();
        operation.done(snapshot.status(&self.context, &self.name, &self.place));
    }

    fn publish(&mut self) {
        self.snapshot.state = match &self.phase {
            Phase::Stopped => MachineState::Stopped,
            // Set with each step.
            Phase::Starting { .. } => self.snapshot.state.clone(),
            Phase::Running(_) => MachineState::Running,
            Phase::Paused(_) => MachineState::Paused,
            Phase::Stopping { .. } => MachineState::Stopping,
            Phase::Failed {
                error, console_tail, ..
            } => MachineState::Failed {
                error: error.clone(),
                console_tail: console_tail.clone(),
            },
        };
        self.snapshot.out_of_reach &= matches!(self.phase, Phase::Failed { .. });
        self.snapshot.start_follows = match &self.phase {
            Phase::Stopping { waiters, .. } => waiters.start.is_some(),
            // Whoever waited for the stop alone is answered between it and the start that follows.
            Phase::Stopped => self.snapshot.start_follows,
            Phase::Starting { .. } | Phase::Running(_) | Phase::Paused(_) | Phase::Failed { .. } => false,
        };
        (
            self.snapshot.shares,
            self.snapshot.failed_shares,
            self.snapshot.failed_trust,
        ) = match &self.phase {
            Phase::Running(session) | Phase::Paused(session) => (
                session.shares.clone(),
                session.failed_shares.clone(),
                session.failed_trust.clone(),
            ),
            _ => Default::default(),
        };
        self.snapshot.ports = match &self.phase {
            Phase::Running(session) | Phase::Paused(session) => session.ports.ledger(),
            _ => Ledger::default(),
        };
        self.snapshot.notices = self.notices.values().cloned().collect();
        self.published.send_replace(Arc::new(self.snapshot.clone()));
        let status = self.snapshot.status(&self.context, &self.name, &self.place);
        self.context.emit(Event::Machine {
            status: Box::new(status),
        });
    }
}

impl Phase {
    fn session(&mut self) -> Option<&mut Session> {
        match self {
            Self::Running(session)
            | Self::Paused(session)
            | Self::Failed {
                session: Some(session),
                ..
            } => Some(session),
            _ => None,
        }
    }

    /// What comes of the machine or of the work on it.
    async fn next(&mut self) -> Input {
        match self {
            Self::Starting { task, updates, .. } => tokio::select! {
                biased;
                Some(update) = updates.recv() => Input::Update(update),
                outcome = task => Input::Started(outcome),
            },
            Self::Running(session)
            | Self::Paused(session)
            | Self::Failed {
                session: Some(session),
                ..
            } => {
                let Session {
                    happenings, errand, ..
                } = &mut **session;
                tokio::select! {
                    biased;
                    // Once there are none, the machine's end was told before.
                    Some(happening) = happenings.recv() => Input::Happening(happening),
                    brought = Errand::finished(errand) => Input::Brought(brought),
                }
            }
            Self::Stopping {
                task: Ending::Start(task),
                ..
            } => Input::Started(task.await),
            Self::Stopping {
                task: Ending::Stop(task),
                ..
            } => Input::Stopped(task.await),
            Self::Stopped | Self::Failed { session: None, .. } => std::future::pending().await,
        }
    }
}
