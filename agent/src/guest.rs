//! The life of the guest, as the host directs it.
//!
//! ```text
//!             Boot, base ready               Shutdown
//!  Waiting ─────────────────────▶ Running ───────────────▶ Stopping ─▶ unmounted, machine ends
//!     │                                                       ▲
//!     └───────────────────────────── Shutdown ────────────────┘
//! ```
//!
//! The phase is owned by [`Guest`]. It changes only by looking at it and setting it in one step.
//! *Base* is everything that the engine needs of the system: the root and the data disk.

use crate::{
    boot::{is_host_name, set_host_name},
    clock, data,
    engine::{Config, Engine},
    logs::Logs,
    power::Ending,
    report::Report,
    shares::Shares,
    trust::Trust,
};
use cove_wire::{BootConfig, Call, CpuTime, Fault, FaultCode, GuestStatus, Memory, Reply};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// Longest time that containers may be given to stop. A host that asks for more has made a mistake.
const LONGEST_GRACE: Duration = Duration::from_hours(1);

/// What the engine needs of the system: nothing until it is known, then whether it is there.
pub(crate) type Base = watch::Receiver<Option<Result<(), Fault>>>;

/// The guest; clones share it.
#[derive(Clone)]
pub(crate) struct Guest(Arc<Shared>);

struct Shared {
    report: Report,
    logs: Logs,
    engine: Engine,
    base: Base,
    data_disk: PathBuf,
    phase: watch::Sender<Phase>,
    /// Takes how the guest is to end, once its engine has stopped.
    end: mpsc::Sender<Ending>,
    /// Held while the data file system is grown, which is done once at a time.
    growing: tokio::sync::Mutex<()>,
    shares: Shares,
    trust: Trust,
}

enum Phase {
    Waiting,
    Running(Box<BootConfig>),
    Stopping,
}

impl Guest {
    pub(crate) fn new(
        report: Report,
        logs: Logs,
        engine: Engine,
        base: Base,
        data_disk: PathBuf,
        end: mpsc::Sender<Ending>,
    ) -> Self {
        Self(Arc::new(Shared {
            report,
            logs,
            engine,
            base,
            data_disk,
            phase: watch::Sender::new(Phase::Waiting),
            end,
            growing: tokio::sync::Mutex::default(),
            shares: Shares::default(),
            trust: Trust::default(),
        }))
    }

    pub(crate) fn report(&self) -> &Report {
        &self.0.report
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.0.logs
    }

    /// Carries out what the host asks for. [`Call::Subscribe`] concerns the connection only and is answered there.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, Fault> {
        match call {
            Call::Boot(config) => self.boot(config).await.map(|()| Reply::Done),
            Call::Status => Ok(Reply::Status(Box::new(self.status()))),
            Call::Subscribe => Ok(Reply::Done),
            Call::SetTime { unix_ns } => clock::set_time_of_day(unix_ns).map(|()| Reply::Done),
            Call::RestartEngine => self.restart_engine().await.map(|()| Reply::Done),
            Call::GrowData => self.grow_data().await.map(|()| Reply::Done),
            Call::TrimData => self.trim_data().await.map(|bytes| Reply::Trimmed { bytes }),
            Call::MountShare { name, path } => self.mount_share(name, path).await.map(|()| Reply::Done),
            Call::UnmountShare { path } => self.unmount_share(path).await.map(|()| Reply::Done),
            Call::Trust { certificates } => self.trust(certificates).await.map(|()| Reply::Done),
            Call::Shutdown { grace_ms, reboot } => {
                let ending = if reboot { Ending::Restart } else { Ending::PowerOff };
                self.shutdown(Duration::from_millis(grace_ms), ending)
                    .await
                    .map(|()| Reply::Done)
            }
        }
    }

    /// Stops containers and engine; the machine ends after that.
    pub(crate) async fn shutdown(&self, grace: Duration, ending: Ending) -> Result<(), Fault> {
        if let Phase::Stopping = self.0.phase.send_replace(Phase::Stopping) {
            return Err(stopping());
        }
        tracing::info!(?grace, ?ending, "shutting down");
        let guest = self.clone();
        // What was begun is finished, even if the host that asked for it goes away.
        let finishing = tokio::spawn(async move {
            let stopped = guest.0.engine.stop(grace.min(LONGEST_GRACE)).await;
            // The receiver is gone only when the guest ends already.
            let _ = guest.0.end.send(ending).await;
            stopped
        });
        finishing.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Returns when, and why, the engine will not come up any more.
    pub(crate) async fn hopeless(&self) -> Fault {
        let mut base = self.0.base.clone();
        let mut phase = self.0.phase.subscribe();
        let broken = async {
            let broken = base.wait_for(|base| matches!(base, Some(Err(_)))).await;
            let fault = broken.ok().and_then(|base| base.clone()?.err());
            match fault {
                Some(fault) => fault,
                // Nothing more will be known about the base, so that it cannot become hopeless either.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            fault = broken => fault,
            _ = phase.wait_for(|phase| matches!(phase, Phase::Stopping)) => stopping(),
        }
    }

    async fn boot(&self, config: Box<BootConfig>) -> Result<(), Fault> {
        if !is_host_name(&config.hostname) {
            return Err(Fault::new(
                FaultCode::Invalid,
                format!(
                    "{:?} is not a host name: letters, digits and hyphens, up to 64 in all",
                    config.hostname
                ),
            ));
        }
        let engine = Config::new(&config.engine)?;
        if let Repeated::Yes = self.enter_running(&config)? {
            return Ok(());
        }
        let guest = self.clone();
        // What was begun is finished, even if the host that asked for it goes away: the next one finds it under way.
        let starting = tokio::spawn(async move {
            let started = guest.start(&config, engine).await;
            if started.is_err() {
                guest.wait_again();
            }
            started
        });
        starting.await.unwrap_or_else(|_| {
            self.wait_again();
            Err(Fault::new(FaultCode::Failed, "starting the guest was broken off"))
        })
    }

    /// A start has failed and may be tried again.
    fn wait_again(&self) {
        self.0.phase.send_if_modified(|phase| {
            let running = matches!(phase, Phase::Running(_));
            if running {
                *phase = Phase::Waiting;
            }
            running
        });
    }

    /// Takes the guest from waiting to running with `config`, unless it does run with it already.
    fn enter_running(&self, config: &BootConfig) -> Result<Repeated, Fault> {
        let mut entered = Ok(Repeated::No);
        self.0.phase.send_if_modified(|phase| {
            entered = match phase {
                Phase::Waiting => {
                    *phase = Phase::Running(Box::new(config.clone()));
                    return true;
                }
                Phase::Running(now) if now.is_repeated_by(config) => Ok(Repeated::Yes),
                Phase::Running(_) => Err(Fault::new(
                    FaultCode::WrongState,
                    "the guest was booted with another configuration; stop the machine and start it again to change it",
                )),
                Phase::Stopping => Err(stopping()),
            };
            false
        });
        entered
    }

    async fn start(&self, config: &BootConfig, engine: Config) -> Result<(), Fault> {
        clock::set_time_of_day(config.unix_ns)?;
        self.base().await?;
        set_host_name(&config.hostname)
            .map_err(|error| Fault::new(FaultCode::Failed, format!("naming the guest failed: {error}")))?;
        if config.foreign_processors {
            let enabled = tokio::task::spawn_blocking(crate::processors::enable).await;
            if let Ok(Err(error)) = enabled {
                let message = format!("programs for other processors do not run: {error}");
                self.0.report.warn(message);
            }
        }
        self.refuse_when_stopping()?;
        self.0.engine.start(engine).await
    }

    async fn restart_engine(&self) -> Result<(), Fault> {
        self.refuse_when_stopping()?;
        self.0.engine.restart().await
    }

    async fn grow_data(&self) -> Result<(), Fault> {
        self.base().await?;
        let _one_at_a_time = self.0.growing.lock().await;
        Ok(data::grow(&self.0.data_disk).await?)
    }

    async fn trim_data(&self) -> Result<u64, Fault> {
        self.base().await?;
        data::trim().await.map_err(|error| {
            Fault::new(
                FaultCode::Failed,
                format!("discarding unused blocks failed: {error}"),
            )
        })
    }

    async fn mount_share(&self, name: String, path: String) -> Result<(), Fault> {
        self.base().await?;
        Ok(self.0.shares.mount(name, path).await?)
    }

    async fn unmount_share(&self, path: String) -> Result<(), Fault> {
        self.base().await?;
        Ok(self.0.shares.unmount(path).await?)
    }

    async fn trust(&self, certificates: Vec<String>) -> Result<(), Fault> {
        self.base().await?;
        self.refuse_when_stopping()?;
        let renew = || self.0.engine.renew();
        self.0.trust.replace(certificates, renew).await
    }

    /// Waits until it is known whether the system is fit for the engine.
    pub(crate) async fn base(&self) -> Result<(), Fault> {
        let mut base = self.0.base.clone();
        let known = base.wait_for(Option::is_some).await;
        known.ok().and_then(|known| known.clone()).unwrap_or_else(|| {
            Err(Fault::new(
                FaultCode::Failed,
                "the boot ended without a result; see `cove logs agent`",
            ))
        })
    }

    fn status(&self) -> GuestStatus {
        let (data_size, data_used) = self.data_usage().unwrap_or_default();
        GuestStatus {
            uptime_us: clock::uptime_us(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            stages: self.0.report.stages(),
            engine: self.0.report.engine().borrow().clone(),
            problem: self.0.report.problem(),
            memory: memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            cpu: cpu_time(&std::fs::read_to_string("/proc/stat").unwrap_or_default()),
            data_size,
            data_used,
        }
    }

    fn data_usage(&self) -> Option<(u64, u64)> {
        let ready = matches!(*self.0.base.borrow(), Some(Ok(())));
        ready.then(data::usage).flatten()
    }

    fn refuse_when_stopping(&self) -> Result<(), Fault> {
        match *self.0.phase.borrow() {
            Phase::Stopping => Err(stopping()),
            Phase::Waiting | Phase::Running(_) => Ok(()),
        }
    }
}

enum Repeated {
    Yes,
    No,
}

fn stopping() -> Fault {
    Fault::new(FaultCode::ShuttingDown, "the guest is shutting down")
}

/// Reads `/proc/meminfo`, whose unit is the KiB.
fn memory(meminfo: &str) -> Memory {
    let field = |name: &str| {
        let value = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = value.and_then(|value| value.split_ascii_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0).saturating_mul(1024)
    };
    Memory {
        total: field("MemTotal"),
        available: field("MemAvailable"),
    }
}

/// Reads of `/proc/stat` the line of all processors: ticks for user, nice, system, idle, iowait, irq, softirq and steal,
/// and more that is counted as user already (`proc_stat(5)`).
fn cpu_time(stat: &str) -> Option<CpuTime> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = line.split_ascii_whitespace().map(str::parse::<u64>);
    let ticks: Vec<u64> = ticks.collect::<Result<_, _>>().ok()?;
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    let busy = user + nice + system + irq + softirq;
    Some(CpuTime {
        busy,
        all: busy + idle + iowait + steal,
    })
}

#[cfg(test)]
impl Guest {
    /// A guest that waits for its boot, on a base that is as it is; and how it ends.
    pub(crate) fn waiting(base: Option<Result<(), Fault>>) -> (Self, mpsc::Receiver<Ending>) {
        let (report, logs) = (Report::new(), Logs::default());
        let engine = Engine::supervise(report.clone(), &logs);
        let (end, endings) = mpsc::channel(1);
        let (sender, base) = watch::channel(base);
        tokio::spawn(async move { sender.closed().await });
        (
            Self::new(report, logs, engine, base, "/dev/null".into(), end),
            endings,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::{EngineConfig, EngineState};
    use std::collections::BTreeMap;

    fn boot(hostname: &str) -> Call {
        Call::Boot(Box::new(BootConfig {
            hostname: hostname.into(),
            unix_ns: 0,
            foreign_processors: false,
            engine: EngineConfig {
                daemon_json: serde_json::json!({}),
                environment: BTreeMap::new(),
            },
        }))
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let memory = memory("MemTotal:        1000 kB\nMemFree:  1 kB\nMemAvailable:    600 kB\n");
        assert_eq!((memory.total, memory.available), (1_024_000, 614_400));
        assert_eq!(super::memory("").total, 0);
    }

    #[test]
    fn processors_work_neither_while_they_wait_for_a_disk_nor_while_the_host_has_them() {
        let stat = "cpu  40 1 20 900 30 2 3 4 7 0\ncpu0 40 1 20 900 30 2 3 4 7 0\nintr 5\n";
        assert_eq!(cpu_time(stat), Some(CpuTime { busy: 66, all: 1000 }));
        assert_eq!(cpu_time("cpu  1 2 3\n"), None);
        assert_eq!(cpu_time(""), None);
    }

    #[tokio::test]
    async fn a_bad_host_name_does_not_use_up_the_boot() {
        let (guest, _endings) = Guest::waiting(None);
        assert_eq!(
            guest.call(boot("a b")).await.unwrap_err().code,
            FaultCode::Invalid
        );
        assert!(matches!(*guest.0.phase.borrow(), Phase::Waiting));
    }

    #[tokio::test]
    async fn a_boot_that_failed_may_be_asked_for_again() {
        let (guest, _endings) = Guest::waiting(Some(Ok(())));
        // The time 0 is refused before anything is touched.
        for _ in 0..2 {
            assert_eq!(
                guest.call(boot("cove")).await.unwrap_err().code,
                FaultCode::Invalid
            );
        }
    }

    #[tokio::test]
    async fn a_shutdown_without_an_engine_ends_the_guest_once() {
        let (guest, mut endings) = Guest::waiting(None);
        let shutdown = Call::Shutdown {
            grace_ms: 1000,
            reboot: true,
        };
        assert_eq!(guest.call(shutdown.clone()).await, Ok(Reply::Done));
        assert_eq!(endings.recv().await, Some(Ending::Restart));
        assert_eq!(
            guest.call(shutdown).await.unwrap_err().code,
            FaultCode::ShuttingDown
        );
        assert_eq!(
            guest.call(boot("cove")).await.unwrap_err().code,
            FaultCode::ShuttingDown
        );
    }

    #[tokio::test]
    async fn a_guest_without_a_data_disk_says_so_to_whoever_needs_it() {
        let fault = Fault::new(FaultCode::Failed, "the data disk is gone");
        let (guest, _endings) = Guest::waiting(Some(Err(fault.clone())));
        assert_eq!(guest.call(Call::TrimData).await, Err(fault.clone()));
        assert_eq!(guest.call(Call::GrowData).await, Err(fault));
        assert_eq!(
            guest.call(Call::RestartEngine).await.unwrap_err().code,
            FaultCode::WrongState
        );
        let Ok(Reply::Status(status)) = guest.call(Call::Status).await else {
            panic!("no status");
        };
        assert_eq!((status.engine, status.data_size), (EngineState::Stopped, 0));
    }
}
