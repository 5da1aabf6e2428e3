//! The machine process from its start to its end.

use super::{
    cell::{self, words::Part},
    console::Console,
    control::{self, Audience, Desk},
    ending::{self, Way},
    hypervisor::Hypervisor,
    identity::ProcessId,
    left_over::console_path,
    lock::Lock,
    log,
    protocol::{self, Hello, StartReport, Vcpus},
    record::{self, Launch, Processes},
};
use crate::{Exit, MachineError, sockets};
use cove_wire::with_causes;
use rustix::{
    fs::Mode,
    process::{Resource, getrlimit, setrlimit},
};
use std::{
    ffi::CStr,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, watch};

/// Events that a connection may lag behind before it is closed.
const EVENTS: usize = 64;

/// How long work that cannot be broken off may go on when the machine has ended, such as that of a server that is away.
const LINGER: Duration = Duration::from_secs(2);

/// Runs the machine whose specification a backend left in `directory`, to its end; with `part`, the part of it that the
/// machine process started this process for. To be called on the main thread of a process of its own, before anything
/// else: it logs to standard error, and standard output belongs to the parent, which is told there how the start went.
pub fn run(directory: &Path, part: Option<&str>) -> ExitCode {
    log::begin();
    match part.map(protocol::decode).transpose() {
        Ok(None) => run_machine(directory),
        Ok(Some(Part::Porter { line, bare })) => {
            name(c"cove-porter");
            cell::porter::run(directory, line, bare)
        }
        Ok(Some(Part::Cell { bare })) => {
            name(c"cove-cell");
            cell::inside::run(directory, bare.as_deref())
        }
        Err(why) => {
            tracing::error!(why, "this is no part of a machine");
            ExitCode::FAILURE
        }
    }
}

/// Names this process for those who look at the host's list of them: it was started by a name that says nothing.
fn name(name: &CStr) {
    // It fails for no name of this length.
    let _ = rustix::thread::set_name(name);
}

fn run_machine(directory: &Path) -> ExitCode {
    let mut report = match Report::take() {
        Ok(report) => report,
        Err(error) => {
            tracing::error!(%error, "cannot report to the daemon");
            return ExitCode::FAILURE;
        }
    };
    // Everything that this process makes is its user's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    raise_descriptor_limit();
    give_up_privileges();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| MachineError::Io {
            operation: "start the machine process in",
            path: directory.to_owned(),
            source,
        })
        .and_then(|runtime| {
            // Held until the runtime, and with it every child, is gone.
            let lock = Lock::take(directory)?;
            let result = runtime.block_on(live(directory, &lock, &mut report));
            runtime.shutdown_timeout(LINGER);
            drop(lock);
            result
        });
    match result {
        Ok(exit) => {
            tracing::info!(cause = ?exit.cause, "the machine ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let why = with_causes(&error);
            tracing::error!(%why, "the machine failed");
            report.send(&match error {
                MachineError::Locked { .. } => StartReport::Locked,
                MachineError::Crashed { why } => StartReport::Failed { why, crashed: true },
                MachineError::StartFailed { why } => StartReport::Failed { why, crashed: false },
                _ => StartReport::Failed { why, crashed: false },
            });
            ExitCode::FAILURE
        }
    }
}

/// The machine's life. What it started ends with it, however it returns.
async fn live(directory: &Path, lock: &Lock, report: &mut Report) -> Result<Exit, MachineError> {
    let launch: Launch = record::read(directory)?.ok_or_else(|| MachineError::StartFailed {
        why: format!("there is no specification in {}", directory.display()),
    })?;
    let disk = Lock::take_disk(&launch.spec.data_disk).await?;
    let mut processes = Processes {
        process: identify(std::process::id())?,
        hypervisor: None,
    };
    record::write(directory, &processes)?;
    record::remove::<Exit>(directory)?;
    let result = supervised(directory, &launch, [lock, &disk], &mut processes, report).await;
    record::remove::<Processes>(directory)?;
    sockets::remove_left_over(&launch.spec.runtime);
    result
}

async fn supervised(
    directory: &Path,
    launch: &Launch,
    locks: [&Lock; 2],
    processes: &mut Processes,
    report: &mut Report,
) -> Result<Exit, MachineError> {
    log::keep_bounded(directory);
    let runtime = &launch.spec.runtime;
    let path = console_path(directory);
    let console = Console::open(&path).map_err(|source| MachineError::Io {
        operation: "open the console's log",
        path,
        source,
    })?;
    sockets::remove_left_over(runtime);
    let listener = sockets::bind(&sockets::control(runtime))?;
    let mut hypervisor = Hypervisor::new(launch, directory, locks, console).await?;
    // On record before the first instruction: from then on somebody may have to end it. One that has ended already says
    // why when it is to begin.
    processes.hypervisor = identify(hypervisor.pid()).ok();
    record::write(directory, processes)?;
    let folders = Arc::new(hypervisor.folders());
    if let Err(error) = hypervisor.begin().await {
        hypervisor.end().await;
        return Err(error);
    }

    let (vcpus_sender, vcpus) = watch::channel(Vcpus::Running);
    let (events, _) = broadcast::channel(EVENTS);
    let (requests_sender, requests) = mpsc::channel(1);
    let ending = ending::begin(Way {
        runtime: runtime.clone(),
        vcpus: vcpus.clone(),
        orders: requests_sender.clone(),
    })
    .map_err(|source| MachineError::Io {
        operation: "listen to the signals that end the machine in",
        path: directory.to_owned(),
        source,
    })?;
    let desk = Desk {
        hello: Hello {
            version: protocol::VERSION,
            processes: std::iter::once(std::process::id())
                .chain(hypervisor.processes())
                .collect(),
            backend: hypervisor.kind(),
            features: hypervisor.features(),
            notices: hypervisor.notices(),
            confinement: hypervisor.confinement(),
            paused: false,
            held: false,
            shares: Vec::new(),
        },
        vcpus,
        events: events.clone(),
        requests: requests_sender,
        folders,
    };
    let server = tokio::spawn(control::serve(listener, desk));
    report.send(&StartReport::Running);
    let audience = Audience {
        vcpus: vcpus_sender,
        events,
    };
    let exit = hypervisor.supervise(requests, &launch.spec, audience).await;
    ending.abort();

    // The daemon learns it from the end of its connection, and then reads the account, which is there before.
    server.abort();
    record::write(directory, &exit)?;
    Ok(exit)
}

/// Every connection to the guest takes a descriptor, and the usual limit of 1024 was made for programs that use
/// `select`.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Neither this process nor a child of it ever gains a privilege by starting a program, which is where a guest that
/// broke out would look first.
fn give_up_privileges() {
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!(%error, "programs that this process starts may gain privileges");
    }
}

fn identify(pid: u32) -> Result<ProcessId, MachineError> {
    ProcessId::of(pid).map_err(|source| MachineError::Io {
        operation: "identify the process",
        path: format!("/proc/{pid}").into(),
        source,
    })
}

/// The way to tell the daemon, once, how the start went. The daemon reads it from this process's standard output.
struct Report(Option<std::fs::File>);

impl Report {
    /// Takes standard output over; what is written there from now on goes to standard error, the log.
    fn take() -> io::Result<Self> {
        let pipe = rustix::stdio::stdout().try_clone_to_owned()?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(Self(Some(pipe.into())))
    }

    fn send(&mut self, report: &StartReport) {
        if let Some(mut pipe) = self.0.take()
            && let Err(error) = writeln!(pipe, "{}", protocol::encode(report))
        {
            // The daemon died. The next one adopts the machine.
            tracing::warn!(%error, "nobody waits for the machine's start");
        }
    }
}
