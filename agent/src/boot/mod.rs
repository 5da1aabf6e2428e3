//! The boot, and the end.
//!
//! Steps run side by side and wait only for what they need:
//!
//! ```text
//!  modules ──┬─ vsock ─────────▶ hello: the control port serves
//!            ├─ erofs, overlay ▶ root ┬▶ system ─▶ network ─┬─▶ base ─▶ Call::Boot starts the engine
//!            │                        └▶ engine-modules     │
//!            ├─ ext4 ──────────▶ data-disk ─────────────────┤
//!            └─ all ───────────▶ processors ────────────────┘
//! ```
//!
//! A step that fails does not end the boot. The host is told, the engine is not started when it cannot be, and the
//! control port and the shell are served wherever that is possible.

mod cmdline;
mod modules;
pub(crate) mod mounts;
mod network;
pub(crate) mod preload;
mod processors;
mod root;
mod settle;

pub(crate) use settle::{is_host_name, set_host_name};

use crate::{
    changes, data,
    engine::Engine,
    guest::Guest,
    logs::{Logs, subscriber},
    names,
    power::Ending,
    process::{self, cgroup},
    report::Report,
    serve, shares, watch,
};
use cmdline::Disks;
use cove_wire::{Fault, FaultCode};
use modules::Modules;
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    system::{RebootCommand, reboot},
};
use std::{io, path::Path, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch as value},
    time::timeout,
};

/// How long a disk may take to appear after its driver was loaded.
const DISK: Duration = Duration::from_secs(10);

/// What containers get to stop when somebody in the guest asks for its end.
const OWN_GRACE: Duration = Duration::from_secs(10);

/// Boots the guest and returns when it is to end.
pub(crate) fn run() -> Ending {
    let prepared = mounts::first(Path::new("/"));
    let logs = Logs::default();
    subscriber::install(&logs.agent);
    if let Err(error) = prepared {
        // Nothing works without these; the console has the reason.
        tracing::error!("{error}");
        return Ending::PowerOff;
    }
    limits();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(live(logs)),
        Err(error) => {
            tracing::error!("starting the agent's runtime failed: {error}");
            Ending::PowerOff
        }
    }
}

fn limits() {
    let descriptors = Some(serve::DESCRIPTORS);
    let limit = Rlimit {
        current: descriptors,
        // Children may ask for more.
        maximum: Some(1 << 20),
    };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("raising the limit of descriptors failed: {error}");
    }
    // The agent's end is the guest's end.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::warn!("protecting the agent from a lack of memory failed: {error}");
    }
    // Ctrl-Alt-Del on a console becomes a signal instead of an immediate restart.
    if let Err(error) = reboot(RebootCommand::CadOff) {
        tracing::warn!("taking over Ctrl-Alt-Del failed: {error}");
    }
}

/// The whole life of the guest.
async fn live(logs: Logs) -> Ending {
    let report = Report::new();
    drop(report.stage_since("kernel", 0));
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let disks = Disks::from_cmdline(&cmdline);
    tracing::info!(
        build = env!("CARGO_PKG_VERSION"),
        ?disks,
        cmdline = cmdline.trim_end(),
        "the agent starts"
    );
    tokio::spawn({
        let report = report.clone();
        async move {
            if let Err(error) = process::reap().await {
                report.warn(format!("collecting ended processes failed: {error}"));
            }
        }
    });

    let engine = Engine::supervise(report.clone(), &logs);
    let (base_sender, base) = value::channel(None);
    let (end, mut ending) = mpsc::channel(1);
    let guest = Guest::new(report.clone(), logs, engine, base, disks.data.clone(), end);
    tokio::spawn(obey_signals(guest.clone()));
    let modules = load_modules(&report);
    tokio::spawn(open_ports(guest, modules.clone()));
    tokio::spawn(async move {
        let result = prepare(&report, disks, modules).await;
        if let Err(fault) = &result {
            report.set_problem(fault.clone());
        }
        base_sender.send_replace(Some(result));
    });

    // The sender lives in the guest, which the ports and the signals hold.
    let ending = ending.recv().await.unwrap_or(Ending::PowerOff);
    if let Err(error) = tokio::task::spawn_blocking(close_down).await {
        tracing::error!("closing down failed: {error}");
    }
    ending
}

fn load_modules(report: &Report) -> Option<Modules> {
    let stage = report.stage("modules");
    let finished = {
        let report = report.clone();
        move |failed: Vec<String>| {
            for failure in failed {
                report.warn(failure);
            }
            drop(stage);
        }
    };
    match Modules::load(finished) {
        Ok(modules) => Some(modules),
        Err(error) => {
            report.warn(format!("the list of kernel modules could not be read: {error}"));
            None
        }
    }
}

async fn settled(modules: Option<&Modules>, names: &[&str]) {
    if let Some(modules) = modules {
        modules.settled(names).await;
    }
}

/// Serves the host as soon as it can be reached.
async fn open_ports(guest: Guest, modules: Option<Modules>) {
    let stage = guest.report().stage("vsock");
    settled(modules.as_ref(), &["vmw_vsock_virtio_transport"]).await;
    drop(stage);
    let hello = guest.report().stage("hello");
    if let Err(error) = serve::listen(&guest, hello) {
        // Without the host there is nobody to serve.
        tracing::error!("listening on vsock failed: {error}");
        let _ = guest.shutdown(Duration::ZERO, Ending::PowerOff).await;
    }
}

/// Makes the system fit for the engine.
async fn prepare(report: &Report, disks: Disks, modules: Option<Modules>) -> Result<(), Fault> {
    let (entered, mut has_root) = value::channel(false);
    let system = async {
        enter_root(report, &disks.root, modules.as_ref()).await?;
        entered.send_replace(true);
        attach_shares(report, modules.as_ref()).await?;
        Ok::<_, Fault>(())
    };
    let data = async {
        settled(modules.as_ref(), &["virtio_blk", "ext4"]).await;
        let _stage = report.stage("data-disk");
        device(&disks.data).await?;
        let tools = async {
            // Fails only together with the root, and then everything does.
            let _ = has_root.wait_for(|has_root| *has_root).await;
        };
        Ok::<_, Fault>(data::open(&disks.data, tools).await?)
    };
    // Without a system nothing is left to wait for. Without its data it is made all the same: whoever mends the disk
    // needs a shell and what e2fsprogs has.
    let data = async { Ok::<_, Fault>(data.await) };
    let ((), data, ()) = tokio::try_join!(system, data, start_processors(report, modules.as_ref()))?;
    if let Some(error) = data?.place().await? {
        report.warn(error.to_string());
    }
    Ok(())
}

async fn enter_root(report: &Report, disk: &Path, modules: Option<&Modules>) -> Result<(), Fault> {
    settled(modules, &["virtio_blk", "erofs", "overlay"]).await;
    let stage = report.stage("root");
    device(disk).await?;
    let entered = blocking({
        let disk = disk.to_owned();
        move || root::enter(&disk)
    });
    entered.await?.map_err(|error| {
        Fault::new(
            FaultCode::Failed,
            format!("{error}; check the image with `cove image verify`"),
        )
    })?;
    drop(stage);
    tokio::spawn(preload(report.clone(), modules.cloned()));

    let stage = report.stage("system");
    for failure in blocking(settle::settle).await? {
        report.warn(failure);
    }
    drop(stage);

    let _stage = report.stage("network");
    if let Err(error) = network::bring_up_loopback() {
        report.warn(format!("bringing up the loopback device failed: {error}"));
    }
    tokio::spawn(names::serve(report.clone()));
    settled(modules, &["virtio_net"]).await;
    for failure in blocking(network::bring_up_outward).await? {
        report.warn(failure);
    }
    Ok(())
}

/// Brings the host's folders within reach; where each of them goes, the host says later. A machine without the device
/// shares nothing.
async fn attach_shares(report: &Report, modules: Option<&Modules>) -> Result<(), Fault> {
    settled(modules, &["virtiofs"]).await;
    let _stage = report.stage("shares");
    if let Err(error) = blocking(shares::attach).await? {
        tracing::warn!("the host's folders cannot be reached: {error}");
        return Ok(());
    }
    // What the host changes comes over a connection of its own.
    settled(modules, &["vmw_vsock_virtio_transport"]).await;
    if let Err(error) = changes::begin() {
        report.warn(format!(
            "what the host changes in folders cannot be repeated: {error}"
        ));
    }
    Ok(())
}

/// Starts the processors that the kernel was told to leave, which the engine counts as it starts. Not before the drivers
/// are there, since that is what they were left for.
async fn start_processors(report: &Report, modules: Option<&Modules>) -> Result<(), Fault> {
    if let Some(modules) = modules {
        modules.all_settled().await;
    }
    let _stage = report.stage("processors");
    for failure in blocking(processors::start_all).await? {
        report.warn(failure);
    }
    Ok(())
}

/// Loads the engine's modules, after those that the boot waits for. It is not waited for itself: the engine can do
/// the same, only later.
async fn preload(report: Report, modules: Option<Modules>) {
    settled(modules.as_ref(), &["ext4"]).await;
    let _stage = report.stage("engine-modules");
    match blocking(preload::load_for_the_engine).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("loading the engine's modules ahead failed: {error}"),
        Err(fault) => tracing::warn!("{fault}"),
    }
}

async fn device(disk: &Path) -> Result<(), Fault> {
    let missing = |why: &dyn std::fmt::Display| {
        Fault::new(
            FaultCode::NotFound,
            format!(
                "the disk {} did not appear: {why}; check the machine's disks",
                disk.display()
            ),
        )
    };
    match timeout(DISK, watch::appeared(disk)).await {
        Ok(result) => result.map_err(|error| missing(&error)),
        Err(_) => Err(missing(&format!("waited {DISK:?}"))),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| Fault::new(FaultCode::Failed, format!("a step of the boot failed: {error}")))
}

/// Ends the guest when a program in it asks for that: Ctrl-Alt-Del, and busybox's `reboot`, `poweroff` and `halt`,
/// which send these signals to the first process.
async fn obey_signals(guest: Guest) {
    let listen = || -> io::Result<_> {
        Ok((
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::user_defined1())?,
            signal(SignalKind::user_defined2())?,
        ))
    };
    match listen() {
        Ok((mut cad, mut reboot, mut halt, mut power_off)) => {
            let ending = tokio::select! {
                _ = cad.recv() => Ending::Restart,
                _ = reboot.recv() => Ending::Restart,
                _ = halt.recv() => Ending::PowerOff,
                _ = power_off.recv() => Ending::PowerOff,
            };
            if let Err(fault) = guest.shutdown(OWN_GRACE, ending).await {
                tracing::warn!("ending the guest as asked by a signal: {fault}");
            }
        }
        Err(error) => guest
            .report()
            .warn(format!("listening to signals failed: {error}")),
    }
}

/// Takes down what is left when the engine has stopped.
fn close_down() {
    for group in [cgroup::DOCKERD, cgroup::CONTAINERD, cgroup::SHELL] {
        if let Err(error) = cgroup::Cgroup::make(group).and_then(|group| group.kill()) {
            tracing::warn!(group, "killing what is left failed: {error}");
        }
    }
    match cgroup::containers() {
        Ok(groups) => {
            for group in groups {
                if let Err(error) = group.kill() {
                    tracing::warn!(?group, "killing what is left failed: {error}");
                }
            }
        }
        Err(error) => tracing::warn!("listing the control groups failed: {error}"),
    }
    for failure in data::unmount_all() {
        tracing::warn!("{failure}");
    }
}
