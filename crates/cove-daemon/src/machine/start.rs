//! Takes a machine from nothing to an engine that answers, or finds the one that still runs and takes it from there.
//!
//! ```text
//!  start:  settings ─▶ image ─▶ data disk ─▶ machine process ─┐
//!                                                             ├─▶ greet ─▶ boot ─▶ engine ready ─▶ starter image
//!  adopt:  record ─▶ machine process that still runs ─────────┘
//! ```
//!
//! A job is a task of its own that tells the owner how far it is. It never holds the owner up, can be cancelled at
//! any time, and hands back whatever runs when it ends: what then happens to the machine is the owner's decision.

use super::{
    Context,
    agent::{self, AgentLink, CallError, Happening},
    disk::{Place, Record},
    failure::Failure,
    shares::{self, FailedShare},
    starter, stop,
    timeline::Timeline,
    words::clean,
};
use crate::{
    name::MachineName,
    names::Names,
    ports::Ports,
    settings::{MachineSettings, Share, Values},
};
use cove_image::{Manifest, Role};
use cove_machine::{BackendKind, ExitCause, Machine, MachineSpec};
use cove_wire::{BootConfig, Call, EngineConfig, EngineState, FaultCode};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a guest may take until its agent answers. Emulated ones take seconds, on a busy computer many.
const GREETING: Duration = Duration::from_mins(3);
/// How long the guest may take to finish its boot: a large file system may have to be checked.
const BOOT: Duration = Duration::from_mins(15);
/// How long the engine may take after that.
const ENGINE: Duration = Duration::from_mins(5);
/// How long the starter image may take.
const STARTER: Duration = Duration::from_mins(3);
/// About as many stages as a guest reports, for the progress bar.
const USUAL_STAGES: u8 = 12;

/// What is known of a machine that runs.
pub(super) struct Session {
    pub(super) machine: Arc<dyn Machine>,
    pub(super) link: AgentLink,
    pub(super) happenings: mpsc::Receiver<Happening>,
    pub(super) record: Record,
    /// What its containers publish on this computer.
    pub(super) ports: Ports,
    /// Answers its questions for names.
    #[expect(dead_code, reason = "held so that it lives as long as the session")]
    pub(super) names: Names,
    /// Whether the agent has ever answered, or has answered an earlier daemon: only then can the guest be asked to
    /// stop.
    pub(super) greeted: bool,
    /// The folders that were last asked for, and those that the guest has.
    pub(super) wanted: Vec<Share>,
    pub(super) shares: Vec<Share>,
    /// What went wrong with others.
    pub(super) failed_shares: Vec<FailedShare>,
    /// The certificates that the guest was last given, as far as that is known.
    pub(super) trusted: Option<Vec<String>>,
    /// Why its engine does not trust them.
    pub(super) failed_trust: Option<String>,
}

/// What a job tells its owner meanwhile.
pub(super) enum Update {
    /// A step began.
    Stage { message: String, fraction: f32 },
    /// Something that a person should know.
    Notice { topic: Topic, message: String },
    /// The machine that the job is about.
    Machine {
        machine: Arc<dyn Machine>,
        record: Box<Record>,
    },
    /// The stages so far.
    Timings(Vec<cove_api::Stage>),
}

/// What a notice is about; a later one on the same topic takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Settings,
    Backend,
    Space,
    Agent,
    Engine,
    Guest,
    Shares,
    Trust,
    Starter,
    Context,
    Past,
}

/// How a job ended.
pub(super) enum Outcome {
    /// The engine answers.
    Up(Box<Session>),
    /// It did not come to that.
    Down(Setback),
    /// There was nothing to adopt.
    Nothing {
        /// What became of the machine that was there, if that is worth telling.
        past: Option<String>,
    },
}

/// Why it did not come to that, and what is left.
pub(super) struct Setback {
    pub(super) failure: Failure,
    /// Last lines of the console, where they help.
    pub(super) console_tail: Vec<String>,
    /// The machine, where it still runs.
    pub(super) session: Option<Box<Session>>,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            console_tail: Vec::new(),
            session: None,
        }
    }
}

/// A start or an adoption.
pub(super) struct Job {
    pub(super) context: Arc<Context>,
    pub(super) name: MachineName,
    pub(super) place: Place,
    pub(super) cancel: CancellationToken,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) timeline: Timeline,
    /// How far it is, which never goes back: the guest's stages end in no fixed order.
    pub(super) fraction: f32,
}

impl Job {
    /// Starts the machine.
    pub(super) async fn start(mut self) -> Outcome {
        match self.launch().await {
            Ok((session, manifest)) => {
                let outcome = self.bring_up(session, None).await;
                self.finish(outcome, Some(&manifest)).await
            }
            Err(setback) => Outcome::Down(setback),
        }
    }

    /// Takes over the machine that an earlier daemon started, if it still runs.
    pub(super) async fn adopt(mut self) -> Outcome {
        match self.find().await {
            Ok(Found::Running(session)) if session.machine.paused() => Outcome::Up(session),
            Ok(Found::Running(session)) => match self.bring_up(*session, None).await {
                Err(Setback {
                    failure: Failure::Exited(ExitCause::PoweredOff),
                    ..
                }) => Outcome::Nothing {
                    past: Some("the guest has powered itself off".into()),
                },
                outcome => self.finish(outcome, None).await,
            },
            Ok(Found::Nothing { past }) => Outcome::Nothing { past },
            Err(setback) => Outcome::Down(setback),
        }
    }

    /// Boots a guest that has restarted itself. `kernel_started` is known when its agent has greeted already.
    pub(super) async fn boot_again(mut self, session: Session, kernel_started: Option<Instant>) -> Outcome {
        let outcome = self.bring_up(session, kernel_started).await;
        self.finish(outcome, None).await
    }

    async fn launch(&mut self) -> Result<(Session, Manifest), Setback> {
        let context = Arc::clone(&self.context);
        self.stage("Checking the image", 0.02).await;
        let began = Instant::now();
        let (directory, stamp) = (
            context.dirs.image(),
            context.dirs.cache().join("image-verified.json"),
        );
        let manifest = blocking(move || Ok(cove_image::verify_quick(&directory, &stamp)?)).await?;
        self.timeline.host("check-image", began);

        let values = context.settings.current().map_err(Failure::from)?;
        let host = context.settings.host();
        let mut settings = values.machine(&self.name, host);
        if settings.cpus > host.cpus {
            let message = format!(
                "this computer has {} processors, so that the machine gets no more",
                host.cpus
            );
            self.notice(Topic::Settings, message).await;
        }
        if host.memory_mib().is_some_and(|most| settings.memory_mib > most) {
            let message =
                "the machine gets the memory of this computer, which has less than machine.memory says";
            self.notice(Topic::Settings, message.into()).await;
        }
        settings.fit(host);
        self.stage("Preparing the data disk", 0.05).await;
        let began = Instant::now();
        let place = self.place.clone();
        let size = blocking(move || {
            place.prepare()?;
            place.prepare_disk(settings.disk)
        })
        .await?;
        if size > settings.disk {
            let message = "the data disk is larger than machine.disk says, since disks never shrink";
            self.notice(Topic::Settings, message.into()).await;
        }
        self.timeline.host("prepare-disk", began);

        self.stage("Starting the machine", 0.08).await;
        let began = Instant::now();
        let platform = Arc::clone(&context.platform);
        let choice = blocking(move || Ok(platform.choose(settings.backend))).await?;
        let record = Record {
            kind: choice.backend.kind(),
            reason: choice.reason,
            spec: self.spec(&settings, |role| manifest.file(role)),
            engine_version: manifest.engine_version.clone(),
            boot: boot_config(&self.name, &values, settings.foreign_processors),
            ready_unix_s: None,
            timings: Vec::new(),
        };
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled.into());
        }
        self.place.remember(&record)?;
        let machine = choice.backend.start(&record.spec).await.map_err(Failure::from)?;
        self.timeline.host("start-process", began);
        let session = self.session(Arc::from(machine), record, false).await;
        Ok((session, manifest))
    }

    async fn find(&mut self) -> Result<Found, Setback> {
        let known = self.place.record();
        let platform = Arc::clone(&self.context.platform);
        let wanted = self.settings().backend;
        let kind = known.as_ref().map(|record| record.kind);
        let backend = blocking(move || {
            Ok(match kind {
                Some(kind) => platform.backend(kind),
                None => platform.choose(wanted).backend,
            })
        })
        .await?;
        let remembered = known.is_some();
        // A machine may run although its record cannot be read: then it is taken for what it would be today.
        let record = known.unwrap_or_else(|| self.supposed(backend.kind()));
        if remembered {
            self.place.prepare()?;
        }
        if let Some(machine) = backend.adopt(&record.spec).await.map_err(Failure::from)? {
            tracing::info!(machine = %self.name, "took over a machine that runs");
            self.stage("Taking over the machine that runs", 0.5).await;
            let session = self.session(Arc::from(machine), record, true).await;
            return Ok(Found::Running(Box::new(session)));
        }
        self.place.forget();
        if !remembered {
            return Ok(Found::Nothing { past: None });
        }
        match backend.last_exit(&record.spec) {
            None => Ok(Found::Nothing {
                past: Some(
                    "the machine had ended while the daemon was away, as after a restart of the computer"
                        .into(),
                ),
            }),
            Some(exit) if exit.cause == ExitCause::PoweredOff => Ok(Found::Nothing {
                past: Some("the guest had powered itself off while the daemon was away".into()),
            }),
            Some(exit) => Err(Setback {
                failure: Failure::Exited(exit.cause),
                console_tail: exit.console_tail,
                session: None,
            }),
        }
    }

    async fn session(&mut self, machine: Arc<dyn Machine>, record: Record, greeted: bool) -> Session {
        self.tell(Update::Machine {
            machine: Arc::clone(&machine),
            record: Box::new(record.clone()),
        })
        .await;
        for message in machine.notices() {
            self.notice(Topic::Backend, message).await;
        }
        // Before the engine comes up: it publishes the ports of containers that start with it.
        let ports = Ports::of(Arc::clone(&machine));
        let names = Names::of(Arc::clone(&machine));
        let (link, happenings) = agent::attach(Arc::clone(&machine));
        Session {
            shares: shares::given(&*machine),
            failed_shares: Vec::new(),
            // Nothing is as the settings say before it was looked at.
            wanted: Vec::new(),
            trusted: None,
            failed_trust: None,
            machine,
            link,
            happenings,
            record,
            ports,
            names,
            greeted,
        }
    }

    /// The machine's settings as they are in force.
    fn settings(&self) -> MachineSettings {
        let values = self.context.settings.in_force().0;
        values.machine(&self.name, self.context.settings.host())
    }

    /// The record of a machine that runs, as far as it can be known without one.
    fn supposed(&self, kind: BackendKind) -> Record {
        let image = self.context.dirs.image();
        let values = self.context.settings.in_force().0;
        Record {
            kind,
            reason: "it was found running, without a record of its start".into(),
            spec: self.spec(&self.settings(), |role| image.join(role.file_name())),
            engine_version: "unknown".into(),
            boot: boot_config(&self.name, &values, self.settings().foreign_processors),
            ready_unix_s: None,
            timings: Vec::new(),
        }
    }

    fn spec(&self, settings: &MachineSettings, file: impl Fn(Role) -> PathBuf) -> MachineSpec {
        MachineSpec {
            name: self.name.to_string(),
            directory: self.place.directory().to_owned(),
            runtime: self.place.runtime().to_owned(),
            kernel: file(Role::Kernel),
            initramfs: file(Role::Initramfs),
            rootfs: file(Role::Rootfs),
            data_disk: self.place.data_disk(),
            cpus: settings.cpus,
            memory_mib: settings.memory_mib,
            kernel_arguments: Vec::new(),
        }
    }

    /// From a machine process to an engine that answers.
    async fn bring_up(&mut self, mut session: Session, greeted: Option<Instant>) -> Result<Session, Setback> {
        let mut kernel_started = greeted;
        let mut ready = false;
        let mut why_not = None;
        let mut boot = kernel_started.map(|_| self.boot_call(&session));
        let mut booted = false;
        let mut stages: u8 = 0;
        let mut patience = if greeted.is_some() { BOOT } else { GREETING };
        let mut deadline = Instant::now() + patience;
        let waiting_since = Instant::now();
        self.stage("Waiting for the guest", 0.1).await;
        while !(ready && booted) {
            let failure = tokio::select! {
                () = self.cancel.cancelled() => Failure::Cancelled,
                () = sleep_until(deadline) => match (kernel_started, booted) {
                    (None, _) => Failure::Silent { after: patience, why: why_not },
                    (Some(_), false) => Failure::Boot(CallError::Timeout(patience)),
                    (Some(_), true) => Failure::EngineSilent { after: patience, why: why_not },
                },
                result = finished(&mut boot) => {
                    boot = None;
                    match result {
                        Ok(Booted { wanted, outcome, trusted, failed_trust }) => {
                            session.trusted = Some(trusted);
                            if let Some(why) = &failed_trust {
                                self.notice(Topic::Trust, distrusted(why)).await;
                            }
                            session.failed_trust = failed_trust;
                            session.wanted = wanted;
                            session.shares = outcome.served;
                            if !outcome.failures.is_empty() {
                                let notice = FailedShare::notice(&outcome.failures);
                                self.notice(Topic::Shares, notice).await;
                            }
                            session.failed_shares = outcome.failures;
                            booted = true;
                            patience = ENGINE;
                            deadline = Instant::now() + patience;
                            self.stage("Waiting for the Docker engine", 0.7).await;
                            continue;
                        }
                        // It is made again when the agent has greeted anew.
                        Err(CallError::Lost) => continue,
                        // An earlier daemon has asked for it; what is left to do is to see it off.
                        Err(CallError::Fault(fault)) if fault.code == FaultCode::ShuttingDown => {
                            patience = self.settings().stop_grace + stop::ENGINE + stop::POWER_OFF;
                            deadline = Instant::now() + patience;
                            self.stage("Waiting until the guest has shut down", 0.2).await;
                            continue;
                        }
                        Err(error) => Failure::Boot(error),
                    }
                }
                happening = session.happenings.recv() => match happening {
                    Some(Happening::Greeted { status, kernel_started: started }) => {
                        session.greeted = true;
                        if kernel_started.is_none() {
                            self.timeline.host("greet", waiting_since);
                            patience = BOOT;
                            deadline = Instant::now() + patience;
                        }
                        kernel_started = Some(started);
                        ready = status.engine == EngineState::Ready;
                        if !booted {
                            boot = Some(self.boot_call(&session));
                        }
                        continue;
                    }
                    Some(Happening::Stage(stage)) => {
                        // The stages of a start that is over are told again, but they are on record.
                        if let Some(started) = kernel_started
                            && session.record.ready_unix_s.is_none()
                        {
                            self.timeline.guest(&stage, started);
                            self.tell(Update::Timings(self.timeline.stages())).await;
                            stages = stages.saturating_add(1).min(USUAL_STAGES);
                            let fraction = 0.15 + 0.65 * f32::from(stages) / f32::from(USUAL_STAGES);
                            self.stage(format!("Booting: {} is ready", stage.name), fraction).await;
                        }
                        continue;
                    }
                    Some(Happening::Engine(state)) => {
                        ready = state == EngineState::Ready;
                        if let EngineState::Restarting { why, .. } = state {
                            self.notice(Topic::Engine, format!("the Docker engine failed and is started again: {why}"))
                                .await;
                            why_not = Some(why);
                        }
                        continue;
                    }
                    Some(Happening::Warning(message)) => {
                        self.notice(Topic::Guest, message).await;
                        continue;
                    }
                    Some(Happening::Lost { why }) => {
                        tracing::debug!(machine = %self.name, why, "lost the agent during the boot");
                        why_not = Some(why);
                        continue;
                    }
                    Some(Happening::Rebooted) => {
                        (booted, ready, boot, kernel_started) = (false, false, None, None);
                        patience = GREETING;
                        deadline = Instant::now() + patience;
                        continue;
                    }
                    Some(Happening::Refused(mismatch)) => Failure::Protocol(mismatch),
                    Some(Happening::Exited(exit)) => {
                        return Err(Setback {
                            failure: Failure::Exited(exit.cause),
                            console_tail: exit.console_tail,
                            session: None,
                        });
                    }
                    None => Failure::Unforeseen("the conversation with the agent ended".into()),
                },
            };
            let console_tail = super::logs::last_lines(session.machine.console(), 20);
            let left = if failure.leaves_something_to_look_into() {
                Some(Box::new(session))
            } else {
                if let Err(error) = session.machine.kill().await {
                    tracing::warn!(machine = %self.name, %error, "killing what was started failed");
                }
                None
            };
            return Err(Setback {
                failure,
                console_tail,
                session: left,
            });
        }
        Ok(session)
    }

    /// What follows when the engine answers.
    async fn finish(&mut self, outcome: Result<Session, Setback>, manifest: Option<&Manifest>) -> Outcome {
        let mut session = match outcome {
            Ok(session) => session,
            Err(setback) => return Outcome::Down(setback),
        };
        if let Some(manifest) = manifest {
            self.load_starter(&session, manifest).await;
        }
        self.make_context().await;
        if session.record.ready_unix_s.is_none() {
            session.record.ready_unix_s = Some(unix_seconds());
            session.record.timings = self.timeline.stages();
            self.tell(Update::Timings(self.timeline.stages())).await;
        }
        if let Err(failure) = self.place.remember(&session.record) {
            // Only a later daemon's knowledge of this machine suffers.
            tracing::warn!(machine = %self.name, "{failure}");
        }
        Outcome::Up(Box::new(session))
    }

    async fn load_starter(&mut self, session: &Session, manifest: &Manifest) {
        let digest = manifest.entry(Role::Starter).sha256.to_string();
        if self.place.loaded_starter().is_some() {
            return;
        }
        self.stage("Loading the starter image", 0.85).await;
        let began = Instant::now();
        let archive = manifest.file(Role::Starter);
        let loading = timeout(STARTER, starter::load(&*session.machine, &archive));
        let outcome = tokio::select! {
            () = self.cancel.cancelled() => return,
            outcome = loading => match outcome {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err(format!("it took more than {} seconds", STARTER.as_secs())),
            },
        };
        let remembered = outcome.and_then(|()| {
            let remembered = self.place.remember_starter(&digest);
            remembered.map_err(|failure| failure.to_string())
        });
        self.timeline.host("starter-image", began);
        if let Err(why) = remembered {
            let message = format!(
                "the starter image `alpine` was not loaded ({why}); it is tried again at the next start"
            );
            self.notice(Topic::Starter, message).await;
        }
    }

    async fn make_context(&mut self) {
        let context = Arc::clone(&self.context);
        let name = self.name.clone();
        let docker_host = context.docker_host(&name);
        let made = match &context.docker {
            Some(docker) => docker.create(&name, &docker_host),
            None => return,
        };
        if let Err(error) = made {
            let message = format!("the Docker context `{}` is not there: {error}", name.context());
            self.notice(Topic::Context, message).await;
        }
    }

    /// Gives the guest its folders and certificates and asks it to finish its boot, in this order: containers that start
    /// with the engine find what they mount. A task of its own, since happenings have to be listened to meanwhile.
    fn boot_call(&self, session: &Session) -> BootCall {
        let (link, machine) = (session.link.clone(), Arc::clone(&session.machine));
        let config = BootConfig {
            unix_ns: unix_nanos(),
            ..session.record.boot.clone()
        };
        let wanted = self.context.settings.shares();
        let trusted = self.context.trust.pem();
        tokio::spawn(async move {
            let outcome = shares::apply(&*machine, &link, &wanted, BOOT).await?;
            let certificates = trusted.clone();
            let failed_trust = match link.call(Call::Trust { certificates }, BOOT).await {
                Ok(_) => None,
                Err(CallError::Fault(fault)) if fault.code != FaultCode::ShuttingDown => {
                    Some(clean(&fault.message))
                }
                Err(error) => return Err(error),
            };
            link.call(Call::Boot(Box::new(config)), BOOT).await?;
            Ok(Booted {
                wanted,
                outcome,
                trusted,
                failed_trust,
            })
        })
    }

    async fn stage(&mut self, message: impl Into<String>, fraction: f32) {
        let message = message.into();
        self.fraction = self.fraction.max(fraction);
        let fraction = self.fraction;
        self.tell(Update::Stage { message, fraction }).await;
    }

    async fn notice(&self, topic: Topic, message: String) {
        self.tell(Update::Notice { topic, message }).await;
    }

    async fn tell(&self, update: Update) {
        // An owner that is gone has aborted this task as well.
        let _ = self.updates.send(update).await;
    }
}

enum Found {
    Running(Box<Session>),
    Nothing { past: Option<String> },
}

/// A guest that has finished its boot.
struct Booted {
    /// The folders that it was to have.
    wanted: Vec<Share>,
    /// What came of that.
    outcome: shares::Outcome,
    /// The certificates that its engine was to trust.
    trusted: Vec<String>,
    /// Why it does not.
    failed_trust: Option<String>,
}

type BootCall = tokio::task::JoinHandle<Result<Booted, CallError>>;

async fn finished(call: &mut Option<BootCall>) -> Result<Booted, CallError> {
    match call {
        Some(call) => call.await.unwrap_or(Err(CallError::Lost)),
        None => std::future::pending().await,
    }
}

/// A notice that the engine trusts an earlier list.
pub(super) fn distrusted(why: &str) -> String {
    format!("the Docker engine does not trust the certificates that it should: {why}")
}

/// How the guest is to be booted by these settings.
fn boot_config(name: &MachineName, values: &Values, foreign_processors: bool) -> BootConfig {
    BootConfig {
        hostname: name.context(),
        unix_ns: unix_nanos(),
        foreign_processors,
        engine: engine_config(values),
    }
}

pub(super) fn engine_config(values: &Values) -> EngineConfig {
    EngineConfig {
        daemon_json: values.daemon_json(),
        environment: values.engine_environment(),
    }
}

/// The host's clock, in nanoseconds since the Unix epoch.
pub(super) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The host's clock, in seconds since the Unix epoch.
pub(super) fn unix_seconds() -> u64 {
    unix_nanos() / 1_000_000_000
}

/// Runs what waits for the disk or for a process on a thread where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::Unforeseen(error.to_string())),
    }
}
