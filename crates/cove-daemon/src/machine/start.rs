//! Takes a machine from nothing to an engine that answers, or finds the one that still runs and takes it from there.
//!
//! ```text
//!  start:  settings ─▶ image ─▶ data disk ─▶ machine process ─┐
//!                                                             ├─▶ greet ─▶ boot ─▶ engine ready ─▶ starter image
//!  adopt:  record ─▶ machine process that still runs ─────────┘
//! ```
//!
//! A hypervisor may crash in a start and not in the next: QEMU does, by an assertion of its own, once in a great many.
//! So a start that ends by such a crash before the agent has greeted begins once more with the machine process, on its
//! own, for as long as the first try had left. Until then nobody has told the guest to start an engine or to mount a
//! folder: its agent may have begun to make, check or mount the file system of the data disk, for which the crash is a
//! power cut, as for whoever would start the machine again. A machine process whose crash is known has let go of its
//! locks, sockets and processes.
//!
//! A job is a task of its own that tells the owner how far it is. It never holds the owner up, can be cancelled at
//! any time, and hands back whatever runs when it ends: what then happens to the machine is the owner's decision.

use super::{
    Context, agent,
    disk::{Place, Record},
    failure::Failure,
    session::{Outcome, Session, Setback, Topic, Update},
    shares, starter,
    timeline::Timeline,
};
use crate::{
    name::MachineName,
    names::Names,
    ports::Ports,
    settings::{MachineSettings, Proxy, Values},
};
use cove_image::{Manifest, Role};
use cove_machine::{BackendKind, ExitCause, Machine, MachineError, MachineSpec};
use cove_wire::{BootConfig, EngineConfig};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long the starter image may take.
const STARTER: Duration = Duration::from_mins(3);

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
    /// Whether containers run in the guest already, since an earlier daemon has brought it up.
    pub(super) inhabited: bool,
    /// Whether the agent has answered.
    pub(super) greeted: bool,
    /// When it has to have done so, once it is waited for. A second try is given no more time.
    pub(super) greeting_due: Option<Instant>,
}

/// What a start has found before there is a machine.
struct Prepared {
    manifest: Manifest,
    values: Arc<Values>,
    settings: MachineSettings,
}

impl Job {
    /// Starts the machine.
    pub(super) async fn start(mut self) -> Outcome {
        let prepared = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(setback) => return Outcome::Down(setback),
        };
        let mut outcome = self.launch(&prepared).await;
        if let Some(crash) = self.crash_in(&outcome) {
            self.place.forget();
            self.tell(Update::Crashed).await;
            let message = format!("the machine was started a second time: {crash}");
            self.notice(Topic::SecondTry, message).await;
            outcome = self.launch(&prepared).await;
        }
        self.finish(outcome, Some(&prepared.manifest)).await
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

    /// What crashed, where another try may help and does no harm.
    fn crash_in(&self, outcome: &Result<Session, Setback>) -> Option<String> {
        let Err(Setback { failure, .. }) = outcome else {
            return None;
        };
        let again = failure.is_a_crash() && !self.greeted && !self.cancel.is_cancelled();
        again.then(|| failure.to_string())
    }

    /// All that comes before there is a machine.
    async fn prepare(&mut self) -> Result<Prepared, Setback> {
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
        let settings = self.fitting_settings(&values).await;
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
        Ok(Prepared {
            manifest,
            values,
            settings,
        })
    }

    /// From no machine to an engine that answers.
    async fn launch(&mut self, prepared: &Prepared) -> Result<Session, Setback> {
        let Prepared {
            manifest,
            values,
            settings,
        } = prepared;
        self.stage("Starting the machine", 0.08).await;
        let began = Instant::now();
        let (platform, wanted) = (Arc::clone(&self.context.platform), settings.backend);
        let choice = blocking(move || Ok(platform.choose(wanted))).await?;
        let record = Record {
            kind: choice.backend.kind(),
            reason: choice.reason,
            spec: self.spec(settings, |role| manifest.file(role)),
            engine_version: manifest.engine_version.clone(),
            boot: boot_config(&self.name, values, settings.foreign_processors),
            ready_unix_s: None,
            timings: Vec::new(),
        };
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled.into());
        }
        // What is remembered of a machine that goes on here is not replaced: it is what the machine is taken over by.
        if self.place.is_locked() {
            let directory = self.place.directory().to_owned();
            return Err(Failure::from(MachineError::Locked { directory }).into());
        }
        self.place.remember(&record)?;
        let machine = match choice.backend.start(&record.spec).await {
            Ok(machine) => machine,
            Err(error) => {
                // What could not be started ends, and may still be about to.
                self.place.forget();
                return Err(Failure::from(error).into());
            }
        };
        self.timeline.host("start-process", began);
        let session = self.session(Arc::from(machine), record, false).await;
        self.bring_up(session, None).await
    }

    /// What the settings say of the machine, as far as this computer has it.
    async fn fitting_settings(&self, values: &Values) -> MachineSettings {
        let host = self.context.settings.host();
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
        settings
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
            self.inhabited = record.ready_unix_s.is_some() || !remembered;
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
            wanted: None,
            trusted: None,
            failed_trust: None,
            errand: None,
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
    pub(super) fn settings(&self) -> MachineSettings {
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
            own: self.context.dirs.own(),
        }
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
        if self.place.has_starter() {
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
            let remembered = self.place.remember_starter();
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

    pub(super) async fn stage(&mut self, message: impl Into<String>, fraction: f32) {
        let message = message.into();
        self.fraction = self.fraction.max(fraction);
        let fraction = self.fraction;
        self.tell(Update::Stage { message, fraction }).await;
    }

    pub(super) async fn notice(&self, topic: Topic, message: String) {
        self.tell(Update::Notice { topic, message }).await;
    }

    pub(super) async fn tell(&self, update: Update) {
        // An owner that is gone has aborted this task as well.
        let _ = self.updates.send(update).await;
    }
}

enum Found {
    Running(Box<Session>),
    Nothing { past: Option<String> },
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
        environment: values
            .proxies(&Proxy::from_environment())
            .variables_of_the_engine(),
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
