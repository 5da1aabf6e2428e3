//! What is tried with machines under KVM.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cove_machine::{
    Availability, Backend as _, BackendKind, Disk, ExitCause, Hold, Kvm, Layer, MachineEvent, MachineSpec,
    Preference, Share, choose,
};
use cove_wire::{Call, network as addresses};
use rustix::fs::statvfs;
use rustix::mount::{MountFlags, mount_remount};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::guest::{Guest, PATIENCE, spec};
use super::{Place, outer};

/// Memory that the container takes until its end, in KiB.
const TAKEN_KIB: u64 = 128 << 10;
/// How much of it has to come back, in KiB. Only blocks of 2 MiB do of which no page is in use, and other programs take
/// pages at the same time: a container that took 32 MiB has given back all of them, and 12.
const BACK_KIB: u64 = TAKEN_KIB / 4;

/// How long the guest stands still: long enough that a clock which stood still with it would show.
const PAUSE: Duration = Duration::from_secs(10);
/// Seconds by which the guest's clock may be wrong afterwards, on a processor that is emulated twice.
const WRONG: i64 = 5;

/// Space that this computer's disk has left before a container fills it, in bytes.
const ROOM: u64 = 8 << 20;
/// What the container writes, in MiB.
const WRITTEN_MIB: u64 = 40;

/// The size that the data disk grows to while two vCPUs use it, in bytes, and what a container sees of that at least,
/// in KiB: more than the disk had before.
const LARGER: u64 = 6 << 30;
const LARGER_KIB: u64 = (5 << 20) + (1 << 18);
/// What the container on each of two vCPUs writes, in MiB.
const EACH_MIB: u64 = 16;
/// How long the two stand still.
const STILL: Duration = Duration::from_secs(3);
/// Where a kernel tells of its clocks.
const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0";

/// Features of processors that no guest has, as its kernel names them.
const HIDDEN: &str = "svm|vmx|monitor|monitorx|waitpkg|arch_perfmon|perfctr_core|intel_pt|sgx|sev|amx_tile";

/// Bytes before each piece of a container's output, in the engine's framing.
const FRAME: usize = 8;

/// KVM is chosen where it can be used, asked for or not, and the reason names the processor's extension.
pub fn probe() -> Result<()> {
    match Kvm::new(None).probe() {
        Availability::Available { evidence, .. } => ensure!(evidence.starts_with("KVM with "), "{evidence}"),
        Availability::Unavailable { why, .. } => bail!("{why}"),
    }
    for preference in [Preference::Kvm, Preference::Auto] {
        let choice = choose(preference, None);
        ensure!(
            choice.backend.kind() == BackendKind::Kvm && choice.reason.starts_with("kvm (KVM with "),
            "{preference:?}: {}",
            choice.reason
        );
    }
    Ok(())
}

/// The monitor runs the guest in every layer of confinement that there is.
fn confined(guest: &Guest) -> Result<()> {
    let [_, monitor] = guest.machine.processes()[..] else {
        bail!("the monitor is no process of its own");
    };
    let status = std::fs::read_to_string(format!("/proc/{monitor}/status"))?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        ensure!(status.contains(line), "the monitor has no {line:?}: {status}");
    }
    let layers = guest.machine.confinement();
    for Layer { name, hold, evidence } in &layers {
        println!("{name}: {hold:?}, {evidence}");
    }
    let absent = layers.iter().find(|layer| layer.hold == Hold::Absent);
    // Whether the kernel has Landlock is its maker's choice.
    let absent = absent.filter(|layer| layer.name != "Landlock");
    ensure!(absent.is_none() && layers.len() >= 9, "{layers:?}");
    // Whether there are any is the kernel's maker's choice, too.
    let rings = layers.iter().find(|layer| layer.name == "io_uring");
    ensure!(rings.is_some(), "nothing is said of rings: {layers:?}");
    let mut filters = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{monitor}/task"))? {
        let thread = thread?.path();
        let told = std::fs::read_to_string(thread.join("status"))
            .and_then(|status| Ok((std::fs::read_to_string(thread.join("comm"))?, status)));
        // One that has ended meanwhile, as that of a disk's ring does without work, tells nothing.
        let Ok((name, status)) = told else { continue };
        let of_thread = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp_filters:\t"));
        filters.push((name.trim().to_owned(), of_thread.unwrap_or_default().to_owned()));
    }
    println!("filters of each thread: {filters:?}");
    for kind in ["vcpu0", "disk", "vsock", "fs0", "net", "entropy", "balloon"] {
        let of_kind = filters.iter().find(|(name, _)| name == kind);
        // Three for the process, one of its own.
        ensure!(
            of_kind.is_some_and(|(_, filters)| filters == "4"),
            "{kind}: {filters:?}; {}",
            guest.tail()
        );
    }
    Ok(())
}

/// What the monitor takes of the host's memory, in KiB.
struct Taken {
    most: u64,
    now: u64,
}

fn memory_of(guest: &Guest) -> Result<Taken> {
    let monitor = guest.machine.processes()[1];
    let status = std::fs::read_to_string(format!("/proc/{monitor}/status"))?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    let (most, now) = field("VmHWM:")
        .zip(field("VmRSS:"))
        .context("no memory is told of")?;
    Ok(Taken { most, now })
}

/// What the container took is the host's again, though the guest has had it: free memory is reported, some seconds
/// later.
async fn gives_back(guest: &Guest, before: u64) -> Result<()> {
    let most = memory_of(guest)?.most;
    ensure!(
        most >= before + TAKEN_KIB / 2,
        "{before} KiB before the container and {most} at most"
    );
    let given = async {
        while memory_of(guest)?.now + BACK_KIB > most {
            sleep(Duration::from_millis(500)).await;
        }
        anyhow::Ok(())
    };
    let given = timeout(PATIENCE, given).await;
    given.with_context(|| {
        let now = memory_of(guest).map_or(0, |taken| taken.now);
        format!(
            "the guest gives too little memory back: {before} KiB before the container, {most} at most, {now} now; {}",
            guest.tail()
        )
    })?
}

/// From the kernel to a container's output: both disks, the socket device and a shared folder carry it. A pause in
/// between holds everything up, and nothing is lost.
pub async fn containers(place: &Place<'_>) -> Result<()> {
    let folder = place.scratch.join("folder");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("word"), "from the host\n")?;
    let mut guest = Guest::start(&spec(place, &[])?).await?;
    let share = Share {
        name: "folder".to_owned(),
        path: folder.clone(),
        read_only: false,
    };
    guest.machine.add_share(&share).await?;
    guest.boot().await?;
    let path = folder.display().to_string();
    let mount = Call::MountShare {
        name: share.name,
        path: path.clone(),
    };
    guest.call(mount).await?;

    let starter =
        std::fs::read(place.image.join("starter.tar")).context("cannot read the image's own container")?;
    let (status, answer) = guest
        .engine("POST", "/images/load", "application/x-tar", &starter)
        .await?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(
        status == 200 && !answer.contains("error"),
        "loading an image: {answer}"
    );
    let images = guest.engine_json("GET", "/images/json", &json!({})).await?;
    let id = images[0]["Id"].as_str().context("no image was loaded")?;
    // What the processor has, the time, what it is given, what it answers, and memory.
    let task = format!(
        "if grep -qwE '{HIDDEN}' /proc/cpuinfo; then exit 3; fi; date +%s > /shared/clock && \
         cat /shared/word && echo from a container > /shared/answer && head -c {} /dev/zero > /dev/shm/taken",
        TAKEN_KIB << 10
    );
    let config = json!({
        "Image": id,
        "Cmd": ["/bin/sh", "-c", task],
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": [format!("{path}:/shared")],
            "ShmSize": TAKEN_KIB << 11,
        },
    });
    guest
        .engine_json("POST", "/containers/create?name=first", &config)
        .await?;

    confined(&guest)?;

    let mut events = guest.machine.events();
    guest.machine.pause().await?;
    ensure!(
        guest.machine.paused() && events.recv().await? == (MachineEvent::Paused { held: false }),
        "it is not paused"
    );
    let paused = guest.engine("GET", "/_ping", "text/plain", b"");
    ensure!(
        timeout(PAUSE, paused).await.is_err(),
        "a machine that is paused answers"
    );
    guest.machine.resume().await?;
    ensure!(events.recv().await? == MachineEvent::Resumed, "it does not go on");

    let before = memory_of(&guest)?.now;
    guest
        .engine_json("POST", "/containers/first/start", &json!({}))
        .await?;
    let ended = guest
        .engine_json("POST", "/containers/first/wait", &json!({}))
        .await?;
    ensure!(ended["StatusCode"] == 0, "the container ended with {ended}");
    gives_back(&guest, before).await?;
    let (_, output) = guest
        .engine("GET", "/containers/first/logs?stdout=1", "text/plain", b"")
        .await?;
    ensure!(
        output.get(FRAME..) == Some(b"from the host\n"),
        "the container wrote {output:?}"
    );
    let answer = std::fs::read_to_string(folder.join("answer"))?;
    ensure!(answer == "from a container\n", "the host reads {answer:?}");
    let clock = folder.join("clock");
    let told: i64 = std::fs::read_to_string(&clock)?.trim().parse()?;
    // By this computer's clock, whatever the guest says.
    let written = std::fs::metadata(&clock)?.ctime();
    ensure!(
        (written - told).abs() <= WRONG,
        "after a pause the guest's clock says {told} at {written}"
    );

    // Left to run on, for the daemon that comes next.
    Ok(())
}

/// A container on the engine's own network has its way out.
pub async fn network(place: &Place<'_>) -> Result<()> {
    let adopted = Kvm::new(None).adopt(&spec(place, &[])?).await?;
    let guest = Guest::of(adopted.context("the machine does not run any more")?);
    fetch(place, &guest).await
}

/// A container that was waited for did what it should; else what it wrote is told.
async fn ended_well(guest: &Guest, name: &str, ended: &serde_json::Value) -> Result<()> {
    let logs = format!("/containers/{name}/logs?stderr=1");
    let (_, output) = guest.engine("GET", &logs, "text/plain", b"").await?;
    ensure!(
        ended["StatusCode"] == 0,
        "the container ended with {ended}: {}; {}",
        String::from_utf8_lossy(&output),
        guest.tail()
    );
    Ok(())
}

/// Through the device, its stream and passt, a container fetches what a program on this computer's loopback serves:
/// much more than a frame holds.
async fn fetch(place: &Place<'_>, guest: &Guest) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!(
        "http://{}:{}/",
        addresses::GATEWAY_V4,
        listener.local_addr()?.port()
    );
    let body: Vec<u8> = (0u32..1 << 18).flat_map(u32::to_le_bytes).collect();
    let served = body.clone();
    let server = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await?;
        let mut request = [0; 1024];
        let _ = client.read(&mut request).await?;
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", served.len());
        client.write_all(head.as_bytes()).await?;
        client.write_all(&served).await?;
        client.shutdown().await
    });
    let images = guest.engine_json("GET", "/images/json", &json!({})).await?;
    let id = images[0]["Id"].as_str().context("no image was loaded")?;
    let folder = place.scratch.join("folder");
    let config = json!({
        "Image": id,
        "Cmd": ["wget", "-T", "120", "-O", "/shared/fetched", url],
        "HostConfig": { "Binds": [format!("{}:/shared", folder.display())] },
    });
    guest
        .engine_json("POST", "/containers/create?name=fetcher", &config)
        .await?;
    guest
        .engine_json("POST", "/containers/fetcher/start", &json!({}))
        .await?;
    let ended = guest
        .engine_json("POST", "/containers/fetcher/wait", &json!({}))
        .await?;
    ended_well(guest, "fetcher", &ended).await?;
    server.await??;
    let fetched = std::fs::read(folder.join("fetched"))?;
    std::fs::remove_file(folder.join("fetched"))?;
    ensure!(
        fetched == body,
        "{} bytes arrived that are not the {} sent",
        fetched.len(),
        body.len()
    );
    guest
        .engine_json("DELETE", "/containers/fetcher", &json!({}))
        .await?;
    Ok(())
}

/// This computer's disk fills up while a container writes: its guest stands still, goes on when there is space, and
/// reads from its disk what it wrote. Elsewhere than in the outer machine nothing is tried, and the suite says so.
pub async fn full_disk(place: &Place<'_>) -> Result<()> {
    if place.scratch != Path::new(outer::SCRATCH) {
        return Ok(());
    }
    let adopted = Kvm::new(None).adopt(&spec(place, &[])?).await?;
    let guest = Guest::of(adopted.context("the machine does not run any more")?);
    let images = guest.engine_json("GET", "/images/json", &json!({})).await?;
    let id = images[0]["Id"].as_str().context("no image was loaded")?;
    let task = format!(
        "head -c 1048576 /dev/urandom > /dev/shm/piece
         pieces() {{ for _ in $(seq {WRITTEN_MIB}); do cat /dev/shm/piece; done; }}
         pieces > /full && sync && echo 3 > /proc/sys/vm/drop_caches && pieces | cmp - /full"
    );
    let config = json!({
        "Image": id,
        "Cmd": ["/bin/sh", "-c", task],
        // Who may have the kernel forget what it has read.
        "HostConfig": { "NetworkMode": "none", "Privileged": true },
    });
    let mut events = guest.machine.events();
    let full = Full::leave(ROOM)?;
    let writer = async {
        guest
            .engine_json("POST", "/containers/create?name=writer", &config)
            .await?;
        guest
            .engine_json("POST", "/containers/writer/start", &json!({}))
            .await?;
        guest
            .engine_json("POST", "/containers/writer/wait", &json!({}))
            .await
    };
    let space = async {
        let event = timeout(PATIENCE, events.recv()).await;
        let event = event.with_context(|| format!("nothing holds the guest; {}", guest.tail()))??;
        ensure!(
            guest.machine.paused() && event == (MachineEvent::Paused { held: true }),
            "instead of a pause: {event:?}"
        );
        drop(full);
        guest.machine.resume().await?;
        ensure!(events.recv().await? == MachineEvent::Resumed, "it does not go on");
        anyhow::Ok(())
    };
    let (ended, ()) = tokio::try_join!(writer, space)?;
    ended_well(&guest, "writer", &ended).await?;
    guest
        .engine_json("DELETE", "/containers/writer", &json!({}))
        .await?;
    Ok(())
}

/// The outer machine's disk, with little space on it until this is dropped.
struct Full {
    size: u64,
}

impl Full {
    /// Leaves so many bytes.
    fn leave(room: u64) -> Result<Self> {
        let disk = statvfs(outer::DISK)?;
        let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
        resize(used + room).context("cannot make the outer machine's disk small")?;
        Ok(Self {
            size: disk.f_blocks * disk.f_frsize,
        })
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        if let Err(error) = resize(self.size) {
            println!("the outer machine's disk stays small: {error}");
        }
    }
}

fn resize(bytes: u64) -> rustix::io::Result<()> {
    mount_remount(outer::DISK, MountFlags::empty(), format!("size={bytes}"))
}

/// Another daemon takes the machine over. Its guest restarts without the machine ending, with a way out again, and is
/// killed without being asked.
pub async fn restart(place: &Place<'_>) -> Result<()> {
    let adopted = Kvm::new(None).adopt(&spec(place, &[])?).await?;
    let mut guest = Guest::of(adopted.context("the machine does not run any more")?);
    let shares = guest.machine.shares();
    ensure!(shares.len() == 1, "it lost its folder: {shares:?}");
    guest.greet().await?;
    let mut events = guest.machine.events();
    guest.shut_down(true).await?;
    let event = timeout(PATIENCE, events.recv()).await;
    let event = event.with_context(|| format!("it does not restart; {}", guest.tail()))??;
    ensure!(event == MachineEvent::Rebooted, "instead of a restart: {event:?}");
    guest.boot().await?;
    let mount = Call::MountShare {
        name: "folder".to_owned(),
        path: place.scratch.join("folder").display().to_string(),
    };
    guest.call(mount).await?;
    fetch(place, &guest).await?;
    let exit = guest.machine.kill().await?;
    ensure!(exit.cause == ExitCause::Killed, "it ended with {exit:?}");
    Ok(())
}

/// What was written before the power was cut is there afterwards; the disk grows under a guest that runs; and a guest
/// that is asked to ends in order.
pub async fn power_off(place: &Place<'_>) -> Result<()> {
    let mut guest = Guest::start(&spec(place, &[])?).await?;
    guest.boot().await?;
    let containers = guest
        .engine_json("GET", "/containers/json?all=1", &json!({}))
        .await?;
    let mut names = containers.as_array().into_iter().flatten();
    ensure!(
        names.any(|container| container["Names"][0] == "/first"),
        "the container is gone: {containers}"
    );

    let size = 5 << 30;
    let early = guest.machine.grow_disk(Disk::Data, size).await;
    ensure!(early.is_err(), "the disk grew beyond its file");
    File::options()
        .write(true)
        .open(place.scratch.join("data"))?
        .set_len(size)?;
    guest.machine.grow_disk(Disk::Data, size).await?;
    guest.call(Call::GrowData).await?;

    guest.shut_down(false).await?;
    let exit = guest.end().await?;
    ensure!(exit.cause == ExitCause::PoweredOff, "it ended with {exit:?}");
    ensure!(
        Kvm::new(None).adopt(&spec(place, &[])?).await?.is_none(),
        "something is left of the machine"
    );
    Ok(())
}

/// Containers, each on a vCPU of its own, write to the disk and read from it at the same time, through the queue that
/// each vCPU has, and lose nothing by a pause of both. The guest keeps time by the host's clock, and the disk grows
/// while it runs.
pub async fn several_vcpus(place: &Place<'_>) -> Result<()> {
    let spec = MachineSpec {
        cpus: 2,
        ..spec(place, &[])?
    };
    let mut guest = Guest::start(&spec).await?;
    guest.boot().await?;
    File::options()
        .write(true)
        .open(&spec.data_disk)?
        .set_len(LARGER)?;
    guest.machine.grow_disk(Disk::Data, LARGER).await?;
    guest.call(Call::GrowData).await?;

    let images = guest.engine_json("GET", "/images/json", &json!({})).await?;
    let id = images[0]["Id"].as_str().context("no image was loaded")?;
    let names = ["on-vcpu-0", "on-vcpu-1"];
    for (vcpu, name) in names.iter().enumerate() {
        let config = json!({
            "Image": id,
            // What fails is the last line that it writes.
            "Cmd": ["/bin/sh", "-exc", on_vcpu(vcpu, has_ptp(place))],
            "HostConfig": {
                "NetworkMode": "none",
                "CpusetCpus": vcpu.to_string(),
                // Who may have the kernel forget what it has read.
                "Privileged": true,
            },
        });
        let path = format!("/containers/create?name={name}");
        guest.engine_json("POST", &path, &config).await?;
    }
    for name in names {
        let path = format!("/containers/{name}/start");
        guest.engine_json("POST", &path, &json!({})).await?;
    }
    let mut events = guest.machine.events();
    guest.machine.pause().await?;
    ensure!(
        events.recv().await? == (MachineEvent::Paused { held: false }),
        "it is not paused"
    );
    let paused = guest.engine("GET", "/_ping", "text/plain", b"");
    ensure!(
        timeout(STILL, paused).await.is_err(),
        "a machine that is paused answers"
    );
    guest.machine.resume().await?;
    ensure!(events.recv().await? == MachineEvent::Resumed, "it does not go on");
    for name in names {
        let path = format!("/containers/{name}/wait");
        let ended = guest.engine_json("POST", &path, &json!({})).await?;
        ended_well(&guest, name, &ended).await?;
    }
    let exit = guest.machine.kill().await?;
    ensure!(exit.cause == ExitCause::Killed, "it ended with {exit:?}");
    Ok(())
}

/// Whether the guest has to have the host's clock as a device. KVM lends it where the host itself reads the time from
/// its processor, which an outer machine gives up when that is busy.
fn has_ptp(place: &Place<'_>) -> bool {
    let clock = std::fs::read_to_string(format!("{CLOCKS}/current_clocksource"));
    place.scratch != Path::new(outer::SCRATCH) && clock.is_ok_and(|clock| clock.trim() == "tsc")
}

/// What a container does that is bound to one of two vCPUs. The clock is KVM's, or the processor's own counter where
/// the guest is told that it never stops: then Linux prefers it.
fn on_vcpu(vcpu: usize, ptp: bool) -> String {
    let ptp = if ptp {
        "grep -x 'KVM virtual PTP' /sys/class/ptp/ptp*/clock_name"
    } else {
        ":"
    };
    format!(
        "grep -x 'Cpus_allowed_list:.{vcpu}' /proc/self/status
         test $(grep -c ^processor /proc/cpuinfo) = 2
         test $(ls /sys/block/vdb/mq | wc -l) = 2
         grep -w kvm-clock {CLOCKS}/available_clocksource
         case $(cat {CLOCKS}/current_clocksource) in
             kvm-clock) ;;
             tsc) grep -qw nonstop_tsc /proc/cpuinfo ;;
             *) false ;;
         esac
         {ptp}
         test $(df -Pk / | awk 'END {{ print $2 }}') -gt {LARGER_KIB}
         head -c 1048576 /dev/urandom > /dev/shm/piece
         pieces() {{ for _ in $(seq {EACH_MIB}); do cat /dev/shm/piece; done; }}
         pieces > /written
         sync
         echo 3 > /proc/sys/vm/drop_caches
         pieces | cmp - /written"
    )
}

/// A kernel without a root file system panics, and the machine's account of its end says so. Before that, its first
/// processor has started the second, and it has found the memory past the 32-bit hole.
pub async fn panic(place: &Place<'_>) -> Result<()> {
    let arguments = ["rdinit=/nowhere", "root=", "loglevel=7"];
    let spec = MachineSpec {
        cpus: 2,
        memory_mib: 4096,
        ..spec(place, &arguments)?
    };
    let guest = Guest::start(&spec).await?;
    let exit = guest.end().await?;
    let console = std::fs::read(guest.machine.console())?;
    let console = String::from_utf8_lossy(&console);
    for told in [
        "Brought up 1 node, 2 CPUs",
        "0x0000000100000000-0x000000013fffffff",
    ] {
        ensure!(console.contains(told), "no {told:?}; {}", guest.tail());
    }
    let ExitCause::GuestPanicked { message } = &exit.cause else {
        bail!("it ended with {exit:?}");
    };
    ensure!(message.contains("Unable to mount root fs"), "{message}");
    ensure!(!exit.console_tail.is_empty(), "its last words are missing");
    // The account is on disk for a daemon that was not there.
    let told = Kvm::new(None).last_exit(&spec);
    ensure!(told.as_ref() == Some(&exit), "on disk: {told:?}");
    Ok(())
}
