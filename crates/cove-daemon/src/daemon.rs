//! The daemon as a process: what it is given, what it begins with, and how it ends.
//!
//! ```text
//!  claim ─▶ open machines (adopting those that run) ─▶ serve ─┬─ SIGTERM, SIGINT ─▶ let go ─▶ end
//!                                                             └─ /v1/shutdown, ──▶ stop machines ─▶ let go ─▶ end
//!                                                                sockets gone
//! ```
//!
//! A signal ends the daemon and nothing else: machines go on running, and the next daemon adopts them, so that an
//! update of Cove or a crash of the daemon costs no container its life. What ends machines is `cove stop`, or a
//! shutdown that was asked for over the API; or the same signal, where machine processes get it as well, as when the
//! computer shuts down: they see to an orderly end themselves. A daemon without machines that run stays: it holds the
//! Docker sockets, at which clients are told that the machine is stopped and how to start it.
//!
//! Where the directory of the sockets is taken away, as systemd does at the end of its user's last session, nobody can
//! reach daemon or machines any more, nor could the next daemon: they are stopped while they can be asked to.

use crate::{
    api::{self, Server},
    context::DockerConfig,
    file, host,
    instance::{self, Instance},
    log,
    machine::{Context, Host, chain},
    machines::Machines,
    settings::{self, SettingsFile},
    signals::Signals,
    trust::TrustStore,
    web,
};
use cove_api::{ApiError, Dirs, ErrorCode, transport};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::broadcast, time::timeout};
use tokio_util::sync::CancellationToken;

/// Threads of the async runtime. The work is moving bytes and waiting; the machines have processes of their own.
const WORKERS: usize = 4;
/// Events that a slow receiver may be behind before it misses some.
const EVENTS: usize = 256;
/// How long answers that are under way may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// How to run the daemon.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that becomes a machine process when called with `machine-process --directory DIR`.
    pub program: PathBuf,
    /// Write the log to standard error as well.
    pub log_to_stderr: bool,
}

/// Why the daemon did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon serves these directories: nothing is wrong, talk to that one.
    #[error("a Cove daemon is already running (process {pid})")]
    AlreadyRunning {
        /// Its process id, 0 when it has not written it yet.
        pid: u32,
    },
    /// Another daemon has the same machines, and its sockets elsewhere.
    #[error(
        "a Cove daemon with its sockets in {} already has these machines (process {pid}); \
         end it, or use the XDG_RUNTIME_DIR that it has", runtime.display()
    )]
    RunsElsewhere {
        /// Its process id, 0 when it has not written it yet.
        pid: u32,
        /// Its runtime directory.
        runtime: PathBuf,
    },
    /// Another daemon has the same machines, and cannot be reached.
    #[error(
        "the Cove daemon that has these machines (process {pid}) cannot be reached, since {} was taken away under it, \
         as when its user's last session ends; it stops them and ends: try again in a minute", runtime.display()
    )]
    LostSockets {
        /// Its process id, 0 when it has not written it yet.
        pid: u32,
        /// Its runtime directory.
        runtime: PathBuf,
    },
    /// A socket's path does not fit into a socket's address.
    #[error(
        "the socket's path {} is {} bytes long, and {} are the most that work; \
         set XDG_RUNTIME_DIR or COVE_HOME to a shorter directory",
        path.display(), path.as_os_str().len(), transport::MAX_SOCKET_PATH
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The directory for the sockets is one that other users could reach into.
    #[error("{} cannot hold Cove's sockets: {why}", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The host failed an operation on a file.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<DaemonError> for ApiError {
    fn from(error: DaemonError) -> Self {
        let (code, hint) = match &error {
            DaemonError::SocketPathTooLong { .. } => (ErrorCode::InvalidRequest, ""),
            DaemonError::Io { source, .. } if file::is_full(source) => (
                ErrorCode::DiskFull,
                "free some space on this disk, then try again",
            ),
            _ => (ErrorCode::Internal, "`cove doctor` checks the directories"),
        };
        Self::new(code, chain(&error), hint)
    }
}

/// Runs the daemon until SIGTERM, SIGINT or a shutdown request. Makes its own async runtime and blocks.
pub fn run(dirs: &Dirs, options: &Options) -> Result<(), DaemonError> {
    let instance = Instance::claim(dirs)?;
    let logs = dirs.logs();
    log::begin(&logs, options.log_to_stderr).map_err(io_error("write the log in", &logs))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(io_error("start the async runtime of", &options.program))?;
    let ended = runtime.block_on(serve(dirs.clone(), options, instance));
    // A blocking read of a file may still be under way; nobody waits for it any more.
    runtime.shutdown_timeout(FAREWELL);
    ended
}

async fn serve(dirs: Dirs, options: &Options, instance: Instance) -> Result<(), DaemonError> {
    // Before there is anything to end: a signal that comes early is not lost.
    let mut signals = Signals::catch().map_err(io_error("catch signals in", &options.program))?;
    let settings = SettingsFile::new(dirs.settings(), settings::home(), host::size());
    let docker = DockerConfig::from_env()
        .inspect_err(|error| tracing::warn!("there will be no Docker context: {error}"))
        .ok();
    let own = dirs.clone();
    let context = Arc::new(Context {
        settings: Arc::new(settings),
        trust: TrustStore::new(dirs.certificates()),
        platform: Arc::new(Host {
            program: options.program.clone(),
        }),
        events: broadcast::Sender::new(EVENTS),
        docker,
        dirs,
    });
    let machines = Arc::new(Machines::open(Arc::clone(&context), instance)?);
    let listener = machines.listen_for_clients()?;
    let end = CancellationToken::new();
    // Dropped with everything below it when this function ends.
    let (_web, web_port) = web::begin(Arc::clone(&context), Arc::clone(&machines));
    let server = Arc::new(Server {
        context,
        machines: Arc::clone(&machines),
        web_port,
        end: end.clone(),
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "the daemon runs"
    );
    let serving = tokio::spawn(api::serve(listener, server, end.clone()));
    tokio::select! {
        signal = signals.next() => tracing::info!("{signal}: the daemon ends, and machines that run go on running"),
        () = end.cancelled() => tracing::info!("the daemon ends on request"),
        () = instance::lost(&own) => {
            tracing::warn!("the sockets were taken away: the daemon stops its machines and ends");
            tokio::select! {
                stopped = machines.stop() => if let Err(error) = stopped {
                    tracing::error!("stopping the machines failed: {error}");
                },
                signal = signals.next() => tracing::info!("{signal}: the daemon ends at once"),
            }
        }
    }
    end.cancel();
    machines.close().await;
    // A client that does not read its answer is not waited for.
    let _ = timeout(FAREWELL, serving).await;
    Ok(())
}

/// Attaches what was done, and to what.
pub(crate) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DaemonError {
    move |source| DaemonError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}
