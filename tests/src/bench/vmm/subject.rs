//! A machine under measurement: in Cove's monitor, as the daemon would start it, or in QEMU.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cove_machine::{Backend as _, Kvm, Machine, MachineSpec};
use rustix::io::Errno;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::console::{Console, tail};
use super::net;
use crate::bench::process::{self, Memory, Usage};
use crate::harness::Running;
use crate::rings;

/// The guest's memory.
const MEMORY_MIB: u32 = 1024;
/// The size of the disk that the guest writes to. A hole at first.
const DISK: u64 = 256 << 20;
/// How often the console is looked at. Both monitors write it to a file, and each look is as dear for both.
const LOOK: Duration = Duration::from_millis(2);
/// How long processes may take to end after their guest.
const ENDING: Duration = Duration::from_secs(10);
/// Added to the kernel's command line by both.
const ARGUMENTS: [&str; 2] = [
    "rdinit=/cove-exercise",
    // They cost much where a processor is emulated.
    "mitigations=off",
];

/// Has the guest's program pass the disk over.
const PAST_THE_DISK: &str = "exercise=rest";
/// What QEMU says when KVM can run the guest no more. It stops the guest then, and stays.
const GIVEN_UP: &str = "KVM internal error";

/// What the guest's program is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task<'a> {
    /// Everything but the network.
    All,
    /// The same without the disk.
    Rest,
    /// Its work with the network, as these kernel arguments say. Our machine has that device anyway, QEMU's for this.
    Network(&'a [String]),
}

impl Task<'_> {
    /// What both monitors add to the kernel's command line.
    fn arguments(self) -> Vec<String> {
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        match self {
            Self::All => {}
            Self::Rest => arguments.push(PAST_THE_DISK.to_owned()),
            Self::Network(further) => arguments.extend_from_slice(further),
        }
        arguments
    }
}

/// Where everything is that a machine is made of.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The guest image.
    pub(super) image: &'a Path,
    /// The image's initramfs with the guest's program behind it.
    pub(super) initramfs: &'a Path,
    /// Where machines may write.
    pub(super) scratch: &'a Path,
    pub(super) cove: &'a Path,
    pub(super) qemu: &'a Path,
    pub(super) passt: &'a Path,
    /// Machines of ours are driven on this.
    pub(super) runtime: &'a Runtime,
    /// And those that may have no rings on this, whose threads may have none either.
    pub(super) without_rings: &'a Runtime,
}

/// What QEMU is asked to be, and with which processor.
#[derive(Clone, Copy)]
pub(super) struct Board {
    pub(super) machine: &'static str,
    pub(super) cpu: &'static str,
}

/// The quickest first: its own documentation's smallest machine, without ACPI, so that `qboot` starts the kernel. KVM
/// within an emulated processor may tell of an XSAVE that a kernel does not believe; and the last is what QEMU makes
/// of `microvm` by itself.
pub(super) const BOARDS: [Board; 3] = [
    Board {
        machine: LEAN,
        cpu: "host",
    },
    Board {
        machine: LEAN,
        cpu: "host,-xsave",
    },
    Board {
        machine: "microvm",
        cpu: "host,-xsave",
    },
];
const LEAN: &str = "microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off";

/// Which monitor.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Ours,
    /// The same where the system lets it have no rings, so that its disks serve a request at a time.
    WithoutRings,
    Peer(Board),
}

/// A machine that was started. Dropping it ends it, and removes what it wrote.
pub(super) struct Subject<'a> {
    /// Just before its first process was started.
    pub(super) began: Instant,
    /// When whoever started it was told that the guest runs, if it is told.
    pub(super) told: Option<Instant>,
    console: Console,
    monitor: Monitor<'a>,
    _dir: TempDir,
}

enum Monitor<'a> {
    Ours(Ours<'a>),
    Peer {
        process: Running,
        /// What it and its passt wrote to standard error.
        words: PathBuf,
        _passt: Option<Running>,
    },
}

struct Ours<'a> {
    machine: Box<dyn Machine>,
    runtime: &'a Runtime,
}

type Started = Result<Box<dyn Machine>>;

/// Starts a machine that can have no rings.
fn forbidding_rings(start: &(dyn Fn() -> Started + Sync)) -> Started {
    let machine = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rings::forbid(Errno::PERM)?;
            start()
        });
        thread
            .join()
            .map_err(|_| anyhow!("the thread that starts it panicked"))?
    })?;
    let layers = machine.confinement();
    ensure!(
        layers
            .iter()
            .any(|layer| layer.name == "io_uring" && layer.evidence == "not used"),
        "its disks have rings: {layers:?}"
    );
    Ok(machine)
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        let processes = self.machine.processes();
        self.runtime.block_on(async {
            // It may have ended already.
            let _ = self.machine.kill().await;
            // The next machine is not to be measured while this one still takes its leave.
            let deadline = Instant::now() + ENDING;
            while Instant::now() < deadline && processes.iter().any(|pid| is_there(*pid)) {
                tokio::time::sleep(LOOK).await;
            }
        });
    }
}

impl<'a> Subject<'a> {
    /// Starts a machine with a data disk of its own, whose guest does `task`.
    pub(super) fn start(place: &Place<'a>, kind: Kind, task: Task<'_>) -> Result<Self> {
        let dir = tempfile::tempdir_in(place.scratch)?;
        let disk = dir.path().join("data");
        File::create(&disk)?.set_len(DISK)?;
        match kind {
            Kind::Ours => Self::start_ours(place.runtime, place, dir, disk, task, |start| start()),
            Kind::WithoutRings => {
                Self::start_ours(place.without_rings, place, dir, disk, task, forbidding_rings)
            }
            Kind::Peer(board) => Self::start_peer(place, dir, &disk, task, board),
        }
    }

    /// What starts a machine is called by `by`.
    fn start_ours(
        runtime: &'a Runtime,
        place: &Place<'a>,
        dir: TempDir,
        disk: PathBuf,
        task: Task<'_>,
        by: impl FnOnce(&(dyn Fn() -> Started + Sync)) -> Started,
    ) -> Result<Self> {
        let spec = MachineSpec {
            name: "bench".to_owned(),
            directory: dir.path().join("machine"),
            runtime: dir.path().join("run"),
            kernel: place.image.join("kernel"),
            initramfs: place.initramfs.to_owned(),
            rootfs: place.image.join("rootfs.erofs"),
            data_disk: disk,
            cpus: 1,
            memory_mib: MEMORY_MIB,
            kernel_arguments: task.arguments(),
            own: Vec::new(),
        };
        let backend = Kvm::new(Some(place.cove.to_owned()));
        let began = Instant::now();
        let machine = by(&|| Ok(runtime.block_on(backend.start(&spec))?))?;
        let told = Some(Instant::now());
        let console = Console::new(machine.console().to_owned());
        Ok(Self {
            began,
            told,
            console,
            monitor: Monitor::Ours(Ours { machine, runtime }),
            _dir: dir,
        })
    }

    fn start_peer(
        place: &Place<'a>,
        dir: TempDir,
        disk: &Path,
        task: Task<'_>,
        board: Board,
    ) -> Result<Self> {
        let console = dir.path().join("console");
        let words = dir.path().join("words");
        let mut command = qemu(place, disk, &console, task, board);
        let socket = match task {
            Task::Network(_) => Some(net::Socket::bind(dir.path())?),
            Task::All | Task::Rest => None,
        };
        if let Some(socket) = &socket {
            socket.add_device(&mut command);
        }
        // Its passt writes there, too.
        let said = File::options().create(true).append(true).open(&words)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let began = Instant::now();
        let mut process = Running(command.spawn().context("cannot start QEMU")?);
        let passt = socket
            .map(|socket| socket.serve(place.passt, &mut process, &words))
            .transpose()?;
        Ok(Self {
            began,
            told: None,
            console: Console::new(console),
            monitor: Monitor::Peer {
                process,
                words,
                _passt: passt,
            },
            _dir: dir,
        })
    }

    /// Waits until the guest's program says something that begins with `words`; when that was seen, and the rest of it.
    /// Anything else that it says is an error.
    pub(super) fn expect(&mut self, words: &str, patience: Duration) -> Result<(Instant, String)> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((at, line)) = self.console.next()? {
                let rest = line
                    .strip_prefix(words)
                    .with_context(|| format!("the guest said {line:?} instead of {words:?}"))?;
                return Ok((at, rest.to_owned()));
            }
            ensure!(
                Instant::now() < deadline,
                "the guest did not say {words:?} within {} s; {}",
                patience.as_secs(),
                self.account()
            );
            if self.ended()? {
                bail!(
                    "the machine ended before the guest said {words:?}; {}",
                    self.account()
                );
            }
            sleep(LOOK);
        }
    }

    /// Whether the guest's program has said something that was not expected yet.
    pub(super) fn has_said_more(&mut self) -> Result<bool> {
        Ok(self.console.next()?.is_some())
    }

    /// What is resident of the monitor, if we may know.
    pub(super) fn memory(&self) -> Result<Option<Memory>> {
        process::memory(self.monitor_pid()?, u64::from(MEMORY_MIB) << 20)
    }

    /// What all processes of the machine have used.
    pub(super) fn usage(&self) -> Result<Usage> {
        process::usage(&self.pids())
    }

    /// Resident bytes of the machine's processes but the monitor.
    pub(super) fn memory_of_others(&self) -> Result<u64> {
        let monitor = self.monitor_pid()?;
        let others = self.pids().into_iter().filter(|pid| *pid != monitor);
        others.map(process::resident).sum()
    }

    /// The process that has the guest's memory, which comes last.
    fn monitor_pid(&self) -> Result<u32> {
        self.pids().last().copied().context("the machine has no process")
    }

    fn pids(&self) -> Vec<u32> {
        match &self.monitor {
            Monitor::Ours(ours) => ours.machine.processes(),
            Monitor::Peer { process, .. } => vec![process.0.id()],
        }
    }

    fn ended(&mut self) -> Result<bool> {
        let pid = self.monitor_pid()?;
        match &mut self.monitor {
            Monitor::Ours(_) => Ok(!is_there(pid)),
            Monitor::Peer { process, words, .. } => {
                let given_up = || fs::read_to_string(&*words).is_ok_and(|said| said.contains(GIVEN_UP));
                Ok(process.0.try_wait()?.is_some() || given_up())
            }
        }
    }

    /// What there is to say about a machine that did not do what it should.
    pub(super) fn account(&self) -> String {
        let log = match &self.monitor {
            Monitor::Ours(ours) => ours.machine.console().with_file_name("process.log"),
            Monitor::Peer { words, .. } => words.clone(),
        };
        let log = fs::read(log).unwrap_or_default();
        format!(
            "its console ends with {:?}, what its monitor said with {:?}",
            self.console.tail(),
            tail(&log)
        )
    }
}

/// Whether there is a process of that number, or what is left of one that nobody has asked after.
fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// The same machine in QEMU: one vCPU, both disks through the page cache of this computer, flushed when the guest
/// says so, and a balloon for what the guest gives back. It has no devices for the host's folders and sockets, one for
/// the network only where that is measured, and nothing locks it in.
fn qemu(place: &Place<'_>, disk: &Path, console: &Path, task: Task<'_>, board: Board) -> Command {
    let mut qemu = Command::new(place.qemu);
    qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
    // So that vCPUs are known by their names.
    qemu.args(["-name", "bench,debug-threads=on"]);
    qemu.args(["-machine", board.machine, "-accel", "kvm", "-cpu", board.cpu]);
    qemu.args(["-smp", "1"]);
    qemu.arg("-m").arg(format!("{MEMORY_MIB}M"));
    qemu.arg("-kernel").arg(place.image.join("kernel"));
    qemu.arg("-initrd").arg(place.initramfs);
    qemu.arg("-append").arg(format!(
        "console=ttyS0 quiet panic=-1 reboot=k nowatchdog tsc=nowatchdog \
         sysctl.vm.compaction_proactiveness=0 kfence.sample_interval=0 {}",
        task.arguments().join(" ")
    ));
    qemu.arg("-chardev")
        .arg(format!("file,id=console,path={}", console.display()));
    qemu.args(["-serial", "chardev:console"]);
    let root = place.image.join("rootfs.erofs");
    for (id, file, read_only) in [("root", root.as_path(), true), ("data", disk, false)] {
        let node = json!({
            "node-name": format!("{id}-disk"),
            "driver": "raw",
            "read-only": read_only,
            "file": { "driver": "file", "filename": file.to_string_lossy(), "locking": "off" },
        });
        qemu.arg("-blockdev").arg(node.to_string());
        qemu.arg("-device")
            .arg(format!("virtio-blk-device,drive={id}-disk,serial={id}"));
    }
    qemu.args(["-device", "virtio-balloon-device,free-page-reporting=on"]);
    qemu
}
