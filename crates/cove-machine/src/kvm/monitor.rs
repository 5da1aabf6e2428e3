//! The monitor within the cell: sees the guest to its end, carries out what the daemon asks, and says how it
//! ended.
//!
//! ```text
//!  vCPU threads ── how the guest ended ──▶ ┌───────────┐ ◀── requests ── machine process
//!       ▲                                  │ supervise │
//!       └── pause, resume, restart ─ jobs ─┴───────────┘ ── events ──▶
//! ```
//!
//! The data disk, too, may ask for a pause: when the host has no space for what the guest writes.
//!
//! The one task that runs [`Monitor::supervise`] owns the machine's state ([`super::guest`]). What may take a moment,
//! such as waiting for a disk before a pause, is a job on another thread, one at a time and in the order in which it
//! was asked for; a kill waits for none of them.

use super::{
    Disks, Shared,
    guest::{End, Guest, Step},
};
use crate::{
    Disk, Exit, ExitCause, MachineError, MachineEvent, MachineSpec,
    process::{
        console::Console,
        control::{Asked, Audience, reply},
        hypervisor::Input,
        protocol::Order,
    },
};
use cove_virtio::{balloon::Balloon, block::Gauge, device::Device, net::Cable, rng::Rng};
use cove_vmm::{Config, ControlError, Report, Running, Vm, VmError};
use cove_wire::with_causes;
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

/// Place of the data disk on the bus, behind the root.
const DATA_DISK: usize = 1;

/// Place of the network device.
const NETWORK: usize = 4;

/// How long vCPUs and devices may take to end with the machine. The process's own end takes what remains.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a guest can be neither paused nor resumed.
const UNSETTLED: &str = "the guest is restarting or ending";

/// Bytes of a line of the console that are held back until it ends.
const MAX_HELD: usize = 512;

/// The monitor, and the one machine that it has.
pub(crate) struct Monitor {
    parts: Parts,
    machine: Machine,
    ends: mpsc::UnboundedReceiver<(u64, End)>,
    /// The data disk waits for space on the host.
    full: mpsc::UnboundedReceiver<()>,
}

/// What every machine is made of that this monitor has, one after the other.
#[derive(Clone)]
struct Parts {
    config: Config,
    console: Arc<Mutex<Console>>,
    gauge: Gauge,
    cable: Cable,
    ends: mpsc::UnboundedSender<(u64, End)>,
}

enum Machine {
    /// Its guest has not run yet.
    Ready(Vec<Box<dyn Device>>),
    Begun(Arc<Running>),
}

/// What a job brought about.
enum Done {
    Paused(Answer, Result<(), ControlError>),
    Held(Result<(), ControlError>),
    Resumed(Answer, Result<(), ControlError>),
    Grown(Answer, Result<(), String>),
    Restarted(Result<Arc<Running>, String>),
}

type Answer = oneshot::Sender<Result<(), String>>;

/// What waits for its turn.
enum Wanted {
    /// By somebody.
    Order(Asked),
    /// That the guest stands still, by the data disk.
    Hold,
}

/// The machine's state, while it is supervised.
struct Supervisor {
    parts: Parts,
    running: Arc<Running>,
    guest: Guest,
    /// Counts the machines, so that what vCPUs of an earlier one met is not taken for this one's.
    number: u64,
    waiting: VecDeque<Wanted>,
    jobs: JoinSet<Done>,
    audience: Audience,
}

impl Monitor {
    /// Puts the machine of `spec` together. No guest runs yet.
    pub(crate) fn new(
        spec: &MachineSpec,
        Shared {
            disks,
            vsock,
            fs,
            net,
        }: Shared,
        console: Console,
    ) -> Result<Self, MachineError> {
        let Disks { root, mut data } = disks;
        let (starved, full) = mpsc::unbounded_channel();
        data.on_full(move || {
            // Nobody listens any more to a machine that was given up.
            let _ = starved.send(());
        });
        let gauge = data.gauge();
        let cable = net.cable();
        // Until somebody says that the network is there.
        cable.plug(false);
        let devices: Vec<Box<dyn Device>> = vec![
            Box::new(root),
            Box::new(data),
            Box::new(vsock),
            Box::new(fs),
            Box::new(net),
            Box::new(Rng::new()),
            Box::new(Balloon::new()),
        ];
        let (sender, ends) = mpsc::unbounded_channel();
        Ok(Self {
            parts: Parts {
                config: config(spec)?,
                console: Arc::new(Mutex::new(console)),
                gauge,
                cable,
                ends: sender,
            },
            machine: Machine::Ready(devices),
            ends,
            full,
        })
    }

    /// Has the guest run.
    pub(crate) fn begin(&mut self) -> Result<(), MachineError> {
        if let Machine::Ready(devices) = &mut self.machine {
            let running = self.parts.boot(std::mem::take(devices), 0);
            self.machine = Machine::Begun(running.map_err(|error| MachineError::StartFailed {
                why: with_causes(&error),
            })?);
        }
        Ok(())
    }

    /// Sees the guest, which runs, to its end.
    pub(crate) async fn supervise(
        self,
        Input {
            mut requests,
            mut plugged,
        }: Input,
        audience: Audience,
    ) -> io::Result<Exit> {
        let Self {
            parts,
            machine,
            mut ends,
            mut full,
        } = self;
        let Machine::Begun(running) = machine else {
            return Err(io::Error::other("the guest does not run"));
        };
        let mut supervisor = Supervisor {
            parts,
            running,
            guest: Guest::new(),
            number: 0,
            waiting: VecDeque::new(),
            jobs: JoinSet::new(),
            audience,
        };
        // Told at once, whatever it is.
        plugged.mark_changed();
        let cause = loop {
            supervisor.work();
            let ended = tokio::select! {
                Some((number, end)) = ends.recv() => supervisor.ended(number, end),
                Some(Ok(done)) = supervisor.jobs.join_next() => supervisor.done(done),
                Some(asked) = requests.recv() => if asked.order == Order::Kill {
                    reply(asked.answer, Ok(()));
                    Some(ExitCause::Killed)
                } else {
                    supervisor.waiting.push_back(Wanted::Order(asked));
                    None
                },
                Some(()) = full.recv() => {
                    supervisor.hold();
                    None
                }
                Ok(()) = plugged.changed() => {
                    supervisor.plug(*plugged.borrow_and_update());
                    None
                }
            };
            if let Some(cause) = ended {
                break cause;
            }
        };
        tracing::info!(?cause, "the guest ended");
        let orderly = matches!(cause, ExitCause::PoweredOff | ExitCause::Killed);
        let console = Arc::clone(&supervisor.parts.console);
        supervisor.end().await;
        Ok(Exit {
            cause,
            console_tail: if orderly {
                Vec::new()
            } else {
                held(&console).tail()
            },
        })
    }
}

impl Supervisor {
    /// Takes what a vCPU of machine `number` met; returns why the machine ends, if it does.
    fn ended(&mut self, number: u64, end: End) -> Option<ExitCause> {
        if number != self.number {
            return None;
        }
        let panic = held(&self.parts.console).panic().map(str::to_owned);
        match self.guest.ended(end, panic.as_deref(), Instant::now())? {
            Step::End(cause) => Some(cause),
            Step::Restart => {
                tracing::info!("the guest restarts");
                self.number += 1;
                let (parts, running, number) = (self.parts.clone(), Arc::clone(&self.running), self.number);
                self.jobs
                    .spawn_blocking(move || Done::Restarted(parts.restart(&running, number)));
                None
            }
        }
    }

    /// Begins the next thing that was asked for, unless another is under way.
    fn work(&mut self) {
        while self.jobs.is_empty()
            && let Some(wanted) = self.waiting.pop_front()
        {
            let running = Arc::clone(&self.running);
            let Asked { order, answer } = match wanted {
                Wanted::Order(asked) => asked,
                Wanted::Hold => {
                    // A guest that restarts has given up what it wrote.
                    if self.guest.is_settled() {
                        self.jobs.spawn_blocking(move || Done::Held(running.pause()));
                    }
                    continue;
                }
            };
            match order {
                Order::Pause | Order::Resume if !self.guest.is_settled() => {
                    reply(answer, Err(UNSETTLED.into()));
                }
                Order::Pause => {
                    self.jobs
                        .spawn_blocking(move || Done::Paused(answer, running.pause()));
                }
                Order::Resume => {
                    self.jobs
                        .spawn_blocking(move || Done::Resumed(answer, running.resume()));
                }
                Order::Grow { disk, size } => {
                    let (gauge, place) = match disk {
                        Disk::Data => (self.parts.gauge.clone(), DATA_DISK),
                    };
                    self.jobs
                        .spawn_blocking(move || Done::Grown(answer, grow(&gauge, &running, place, size)));
                }
                // It does not wait in line.
                Order::Kill => reply(answer, Ok(())),
            }
        }
    }

    /// Has the guest stand still, in the moment in which the host has no space for what it writes: it loses nothing,
    /// and whoever hears of the pause lets it go on.
    fn hold(&mut self) {
        tracing::warn!("the host's disk is full, so the guest stands still");
        self.waiting.push_back(Wanted::Hold);
    }

    /// Takes what a job brought about; returns why the machine ends, if that is it.
    fn done(&mut self, done: Done) -> Option<ExitCause> {
        match done {
            // Its vCPUs met an end meanwhile, and those of the next machine run whatever was asked of these.
            Done::Paused(answer, _) | Done::Resumed(answer, _) if !self.guest.is_settled() => {
                reply(answer, Err(UNSETTLED.into()));
            }
            Done::Paused(answer, Ok(())) => {
                self.tell(Guest::paused);
                reply(answer, Ok(()));
            }
            Done::Held(Ok(())) => self.tell(Guest::held),
            // The disk tells again.
            Done::Held(Err(error)) => {
                tracing::warn!(why = with_causes(&error), "the guest could not be held");
            }
            Done::Resumed(answer, Ok(())) => {
                self.tell(Guest::resumed);
                reply(answer, Ok(()));
            }
            Done::Paused(answer, Err(error)) | Done::Resumed(answer, Err(error)) => {
                reply(answer, Err(with_causes(&error)));
            }
            Done::Grown(answer, result) => reply(answer, result),
            Done::Restarted(Ok(running)) => {
                self.running = running;
                self.tell(Guest::restarted);
            }
            Done::Restarted(Err(why)) => {
                return Some(ExitCause::HypervisorDied {
                    status: "ended because it could not restart the guest".into(),
                    stderr: why,
                    crashed: false,
                });
            }
        }
        None
    }

    fn tell(&mut self, change: impl FnOnce(&mut Guest) -> Option<MachineEvent>) {
        if let Some(event) = change(&mut self.guest) {
            self.audience.tell(event);
        }
    }

    /// Plugs the guest's network cable in, or out: without a network, programs in the guest are told so at once instead
    /// of waiting for answers.
    fn plug(&self, up: bool) {
        self.parts.cable.plug(up);
        let running = Arc::clone(&self.running);
        // It waits while the machine pauses or ends, and nothing waits for it: whenever the guest looks, it sees how it
        // is.
        spawn_blocking(move || {
            if let Err(error) = running.announce(NETWORK) {
                tracing::debug!(%error, up, "the guest was not told about its network");
            }
        });
    }

    /// Ends the vCPUs, and with them the last writes to the console.
    async fn end(self) {
        let running = Arc::clone(&self.running);
        drop(self);
        match timeout(END_TIMEOUT, spawn_blocking(move || running.stop().map(drop))).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(why = with_causes(&error), "the machine is cut off"),
            Ok(Err(error)) => tracing::warn!(%error, "the machine is cut off"),
            Err(_) => tracing::warn!("the machine is cut off: it does not end by itself"),
        }
    }
}

impl Parts {
    /// Makes machine `number` and has its guest run.
    fn boot(&self, devices: Vec<Box<dyn Device>>, number: u64) -> Result<Arc<Running>, VmError> {
        let ends = self.ends.clone();
        let report: Report = Arc::new(move |end: Result<cove_vmm::End, VmError>| {
            let end = match end {
                Ok(cove_vmm::End::PoweredOff) => End::PoweredOff,
                Ok(cove_vmm::End::Reset) => End::Reset,
                Err(error) => End::Failed(with_causes(&error)),
            };
            // Nobody listens any more to a machine that was given up.
            let _ = ends.send((number, end));
        });
        let output = Lines {
            console: Arc::clone(&self.console),
            line: Vec::new(),
        };
        let vm = Vm::new(&self.config, Box::new(output), devices)?;
        vm.start(&report).map(Arc::new)
    }

    /// Ends a machine and makes machine `number` of its devices: memory and processors begin anew.
    fn restart(&self, old: &Running, number: u64) -> Result<Arc<Running>, String> {
        let devices = old.stop().map_err(|error| with_causes(&error))?;
        held(&self.console).begin();
        self.boot(devices, number).map_err(|error| with_causes(&error))
    }
}

/// The guest's console, a line at a time: it comes a byte at a time, and each would be a write to the log.
struct Lines {
    console: Arc<Mutex<Console>>,
    line: Vec<u8>,
}

impl Lines {
    fn pass_on(&mut self) {
        if !self.line.is_empty() {
            held(&self.console).write(&self.line);
            self.line.clear();
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") || self.line.len() >= MAX_HELD {
            self.pass_on();
        }
        Ok(bytes.len())
    }

    /// The serial port asks for this after each byte.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.pass_on();
    }
}

/// Tells the guest that the file of the disk at a place on the bus has grown, which whoever asked has seen to.
fn grow(gauge: &Gauge, running: &Running, place: usize, size: u64) -> Result<(), String> {
    let measured = gauge.measure().map_err(|error| with_causes(&error))?;
    if measured != size {
        return Err(format!("the disk's file is {measured} bytes large"));
    }
    running.announce(place).map_err(|error| with_causes(&error))
}

fn held(console: &Mutex<Console>) -> MutexGuard<'_, Console> {
    // A panic of another thread leaves at worst half a line.
    console.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(spec: &MachineSpec) -> Result<Config, MachineError> {
    let too_large = |what: &str| MachineError::InvalidSpec(format!("it has too {what}"));
    let memory = usize::try_from(u64::from(spec.memory_mib) << 20).map_err(|_| too_large("much memory"))?;
    Ok(Config {
        kernel: spec.kernel.clone(),
        initramfs: spec.initramfs.clone(),
        command_line: command_line(&spec.kernel_arguments),
        vcpus: u8::try_from(spec.cpus).map_err(|_| too_large("many vCPUs"))?,
        memory,
    })
}

/// What the guest's kernel is told.
fn command_line(further: &[String]) -> String {
    let ours = [
        "console=ttyS0",
        "quiet",
        // A kernel that panics restarts at once, which the supervisor takes for what it is.
        "panic=-1",
        // A byte to a port restarts the machine. By default the kernel asks ACPI, and then comes to a standstill before
        // anything of it reaches the monitor.
        "reboot=k",
        // Each vCPU would wake every few seconds to see whether it still does, and a host that is busy or was suspended
        // makes that look like a hang.
        "nowatchdog",
        // Where the processors' counter is not steady the guest has KVM's clock, and would compare the two twice a
        // second. Where it is, the kernel does not compare them by itself.
        "tsc=nowatchdog",
        // The kernel would look twice a second whether more than nine tenths of its free memory are in pieces below
        // 2 MiB, and then bring that to eight tenths, which helps little in giving it back.
        "sysctl.vm.compaction_proactiveness=0",
        // The kernel would wake ten times a second to guard another of its allocations, even while nothing is allocated.
        "kfence.sample_interval=0",
    ];
    let further = further.iter().map(String::as_str);
    ours.into_iter().chain(further).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_gets_whole_lines_and_at_the_end_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let console = Arc::new(Mutex::new(Console::open(&path).unwrap()));
        let mut lines = Lines {
            console: Arc::clone(&console),
            line: Vec::new(),
        };
        let logged = || std::fs::read(&path).unwrap();
        for byte in b"one\ntwo" {
            lines.write_all(&[*byte]).unwrap();
            lines.flush().unwrap();
        }
        assert_eq!(logged(), b"one\n");
        lines.write_all(&[b'x'; MAX_HELD]).unwrap();
        assert_eq!(
            logged().len(),
            4 + 3 + MAX_HELD,
            "no guest can have it held back for ever"
        );
        lines.write_all(b"end").unwrap();
        drop(lines);
        assert!(logged().ends_with(b"xend"));
        assert_eq!(held(&console).tail()[0], "one");
    }

    #[test]
    fn a_guests_own_arguments_come_last_and_so_win() {
        let line = command_line(&["quiet=no".into(), "panic=5".into()]);
        assert!(line.starts_with("console=ttyS0 ") && line.ends_with(" quiet=no panic=5"));
    }
}
