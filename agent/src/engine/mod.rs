//! The engine: dockerd and containerd under supervision.
//!
//! ```text
//!            start                ping answered
//!  Stopped ─────────▶ Starting ─────────────────▶ Ready
//!     ▲                │    ▲                       │
//!     │ stop           │    │ pause over            │ dockerd or containerd ends
//!     │                ▼    │                       │
//!     └─────────────── Restarting ◀─────────────────┘
//! ```
//!
//! One task, [`Supervisor::run`], owns both programs; everybody else sends it orders through [`Engine`]. The programs
//! are started at once, not one after the other: dockerd needs containerd only late in its own start, and waits for
//! it. When one of them ends, only that one is started again. Containers survive the end of containerd, because
//! their shims are processes of their own, and dockerd connects to the next containerd by itself. (What it misses is
//! a container that ends in the moment between: it shows as running until somebody stops it. Starting dockerd again
//! would tell, and would end all other containers unless they are configured to outlive it.)

mod backoff;
mod config;
mod orphans;
mod ping;
mod program;
mod programs;

pub(crate) use config::{Config, ENGINE_SOCKET};

use crate::{
    logs::Logs,
    process::cgroup,
    report::{Report, Running as Stage},
    watch,
};
use config::{CONTAINERD_SOCKET, Files};
use cove_wire::{EngineState, Fault, FaultCode};
use program::{Happened, Program};
use rustix::process::Signal;
use std::{os::fd::OwnedFd, path::Path, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// How long dockerd may take to end after its containers have, and containerd with nothing left to do.
const LAST: Duration = Duration::from_secs(5);

/// How long a restarted engine's containers may take to stop.
const RESTART_GRACE: Duration = Duration::from_secs(20);

/// How long containers may take to stop whose dockerd is not there: what it gives those that name no time.
const ORPHANS_GRACE: Duration = Duration::from_secs(10);

/// How long dockerd may take to read its configuration again.
const RELOAD: Duration = Duration::from_secs(3);

/// The way to the supervisor; clones lead to the same one.
#[derive(Clone)]
pub(crate) struct Engine(mpsc::Sender<Order>);

enum Order {
    Start(Config, oneshot::Sender<Result<(), Fault>>),
    Restart(oneshot::Sender<Result<(), Fault>>),
    Renew(oneshot::Sender<Result<(), Fault>>),
    Stop(Duration, oneshot::Sender<Result<(), Fault>>),
}

impl Engine {
    /// Spawns the supervisor.
    pub(crate) fn supervise(report: Report, logs: &Logs) -> Self {
        let (sender, orders) = mpsc::channel(8);
        let supervisor = Supervisor {
            report,
            orders,
            containerd: Program::new("containerd", logs.containerd.clone()),
            dockerd: Program::new("dockerd", logs.engine.clone()),
            setup: None,
            answering: Answering::No,
            renewed: false,
            first_start: None,
        };
        tokio::spawn(supervisor.run());
        Self(sender)
    }

    /// Starts the engine. Returns when its programs have been started.
    pub(crate) async fn start(&self, config: Config) -> Result<(), Fault> {
        self.order(|done| Order::Start(config, done)).await
    }

    /// Stops the engine and starts it again.
    pub(crate) async fn restart(&self) -> Result<(), Fault> {
        self.order(Order::Restart).await
    }

    /// Starts dockerd again beneath its containers, so that it reads the system's files anew. Returns when the next one
    /// has been started; does nothing before the first.
    pub(crate) async fn renew(&self) -> Result<(), Fault> {
        self.order(Order::Renew).await
    }

    /// Stops containers and engine. Containers that have not stopped after `grace` are killed.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<(), Fault> {
        self.order(|done| Order::Stop(grace, done)).await
    }

    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), Fault>>) -> Order,
    ) -> Result<(), Fault> {
        let (sender, done) = oneshot::channel();
        // Both fail only without a supervisor, which ends only with the agent.
        let gone = || Fault::new(FaultCode::Failed, "the engine's supervisor has ended");
        self.0.send(order(sender)).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}

struct Supervisor {
    report: Report,
    orders: mpsc::Receiver<Order>,
    containerd: Program,
    dockerd: Program,
    /// What the engine is started with, from the first start on.
    setup: Option<Setup>,
    answering: Answering,
    /// Whether dockerd's configuration lets containers outlive it only for the sake of its renewal.
    renewed: bool,
    /// The boot's stage, until the engine answers for the first time.
    first_start: Option<Stage>,
}

struct Setup {
    config: Config,
    files: Files,
    socket: OwnedFd,
}

/// Whether the engine answers.
enum Answering {
    No,
    Asked(JoinHandle<()>),
    Yes,
}

impl Supervisor {
    async fn run(mut self) {
        loop {
            self.report.set_engine(self.state());
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => return,
                },
                happened = self.containerd.event() => match happened {
                    Happened::Ended => {
                        self.stop_asking();
                        self.containerd.ended().await;
                    }
                    Happened::PauseOver => self.start_containerd(),
                },
                happened = self.dockerd.event() => match happened {
                    Happened::Ended => {
                        self.stop_asking();
                        self.dockerd.ended().await;
                    }
                    Happened::PauseOver => self.start_dockerd(),
                },
                () = self.answering.answer() => {
                    self.answering = Answering::Yes;
                    self.first_start = None;
                    self.settle();
                }
            }
        }
    }

    async fn carry_out(&mut self, order: Order) {
        // A caller that no longer waits for the answer does not undo the order.
        match order {
            Order::Start(config, done) => {
                let _ = done.send(self.start(config));
            }
            Order::Restart(done) => {
                let _ = done.send(self.restart().await);
            }
            Order::Renew(done) => {
                let _ = done.send(self.renew().await);
            }
            Order::Stop(grace, done) => {
                self.stop(grace).await;
                let _ = done.send(Ok(()));
            }
        }
    }

    fn start(&mut self, config: Config) -> Result<(), Fault> {
        let failed = |what: &str, error| Fault::new(FaultCode::Failed, format!("{what} failed: {error}"));
        let files = config
            .write()
            .map_err(|error| failed("writing the engine's configuration", error))?;
        let socket = programs::listen().map_err(|error| failed("opening the engine's socket", error))?;
        self.setup = Some(Setup {
            config,
            files,
            socket,
        });
        let stage = self.report.stage("containerd");
        self.first_start = Some(self.report.stage("dockerd"));
        self.start_containerd();
        self.start_dockerd();
        tokio::spawn(async move {
            // The stage ends either way; what is wrong with containerd its log says.
            let _ = watch::appeared(Path::new(CONTAINERD_SOCKET)).await;
            drop(stage);
        });
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Fault> {
        if self.setup.is_none() {
            return Err(Fault::new(
                FaultCode::WrongState,
                "the engine cannot be restarted because it was not started yet",
            ));
        }
        self.stop_asking();
        self.settle();
        self.report.set_engine(EngineState::Starting);
        self.dockerd.stop(RESTART_GRACE).await;
        self.containerd.stop(LAST).await;
        self.start_containerd();
        self.start_dockerd();
        Ok(())
    }

    /// dockerd reads some files of the system only once, so that another one has to take its place. Containers go on
    /// where they outlive dockerd; where they do not, both the one that ends and the next one are told that they do,
    /// and the next one is told the truth when it answers.
    async fn renew(&mut self) -> Result<(), Fault> {
        let Some(setup) = self.setup.as_ref().filter(|_| self.dockerd.is_running()) else {
            return Ok(());
        };
        if !self.renewed && !setup.config.keeps_containers() {
            let told = timeout(RELOAD, ping::has_no_swarm()).await;
            if !told.unwrap_or(false) {
                return Err(Fault::new(
                    FaultCode::WrongState,
                    "the engine cannot be started again beneath its containers now, because it is part of a swarm or \
                     does not answer; restart the machine",
                ));
            }
            let written = setup.config.with_containers_kept().write();
            written.map_err(|error| {
                Fault::new(
                    FaultCode::Failed,
                    format!("writing the engine's configuration failed: {error}"),
                )
            })?;
            self.renewed = true;
            self.dockerd.signal(Signal::HUP);
            if timeout(RELOAD, ping::keeps_containers()).await.is_err() {
                self.settle();
                return Err(Fault::new(
                    FaultCode::Failed,
                    "the engine did not take up that its containers outlive it, and was not started again",
                ));
            }
        }
        self.stop_asking();
        self.report.set_engine(EngineState::Starting);
        self.dockerd.stop(LAST).await;
        self.start_dockerd();
        Ok(())
    }

    /// Has dockerd run with the configuration that was asked for, once its renewal is over.
    fn settle(&mut self) {
        if !std::mem::take(&mut self.renewed) {
            return;
        }
        let Some(setup) = &self.setup else {
            return;
        };
        match setup.config.write() {
            Ok(_) => self.dockerd.signal(Signal::HUP),
            Err(error) => self
                .report
                .warn(format!("writing the engine's configuration failed: {error}")),
        }
    }

    async fn stop(&mut self, grace: Duration) {
        self.stop_asking();
        self.stop_dockerd(grace).await;
        if self.setup.is_some() {
            self.stop_orphans(grace.min(ORPHANS_GRACE)).await;
        }
        self.containerd.stop(LAST).await;
        self.first_start = None;
    }

    /// dockerd stops the containers before it ends, each with its own patience; `grace` bounds it for all.
    async fn stop_dockerd(&mut self, grace: Duration) {
        if !self.dockerd.is_running() {
            return self.dockerd.stop(LAST).await;
        }
        if let Some(setup) = self
            .setup
            .as_ref()
            .filter(|setup| self.renewed || setup.config.keeps_containers())
        {
            match setup.config.for_shutdown(grace.as_secs()).write() {
                Ok(_) => {
                    self.dockerd.signal(Signal::HUP);
                    if timeout(RELOAD, ping::ends_containers()).await.is_err() {
                        self.report.warn(
                            "the engine did not take up its last configuration; containers are stopped without it",
                        );
                    }
                }
                Err(error) => self
                    .report
                    .warn(format!("writing the engine's last configuration failed: {error}")),
            }
        }
        self.dockerd.signal(Signal::TERM);
        if timeout(grace, self.dockerd.event()).await.is_err() {
            self.report
                .warn(format!("containers did not stop within {grace:?} and are killed"));
            kill_containers();
        }
        self.dockerd.stop(LAST).await;
    }

    /// Stops the containers that dockerd has left: when it crashes, it leaves all.
    async fn stop_orphans(&self, grace: Duration) {
        match timeout(grace, orphans::stop()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => self.report.warn(format!(
                "containers without an engine could not be stopped: {error}"
            )),
            Err(_) => self.report.warn(format!(
                "containers without an engine did not stop within {grace:?} and are killed"
            )),
        }
        kill_containers();
    }

    fn start_containerd(&mut self) {
        if let Some(setup) = &self.setup {
            self.containerd
                .start(programs::containerd(&setup.config, &setup.files));
            self.ask();
        }
    }

    fn start_dockerd(&mut self) {
        if let Some(setup) = &self.setup {
            self.dockerd
                .start(programs::dockerd(&setup.config, &setup.files, &setup.socket));
            self.ask();
        }
    }

    fn ask(&mut self) {
        self.stop_asking();
        self.answering = Answering::Asked(tokio::spawn(ping::answers()));
    }

    fn stop_asking(&mut self) {
        if let Answering::Asked(question) = std::mem::replace(&mut self.answering, Answering::No) {
            question.abort();
        }
    }

    fn state(&self) -> EngineState {
        // dockerd's failure is the one that people know what to do about.
        if let Some(failure) = self.dockerd.failure().or_else(|| self.containerd.failure()) {
            return EngineState::Restarting {
                attempt: failure.attempt,
                pause_ms: u64::try_from(failure.pause.as_millis()).unwrap_or(u64::MAX),
                why: failure.why.clone(),
            };
        }
        match (
            self.dockerd.is_running() && self.containerd.is_running(),
            &self.answering,
        ) {
            (false, _) => EngineState::Stopped,
            (true, Answering::Yes) => EngineState::Ready,
            (true, _) => EngineState::Starting,
        }
    }
}

impl Answering {
    /// Returns when the engine has answered the question that it was asked; never when it was not asked.
    async fn answer(&mut self) {
        match self {
            Self::Asked(question) => {
                // Only this supervisor aborts it, and then asks another one.
                let _ = question.await;
            }
            Self::No | Self::Yes => std::future::pending().await,
        }
    }
}

fn kill_containers() {
    let killed = cgroup::containers().and_then(|groups| groups.iter().try_for_each(cgroup::Cgroup::kill));
    if let Err(error) = killed {
        tracing::warn!("killing the containers failed: {error}");
    }
}
