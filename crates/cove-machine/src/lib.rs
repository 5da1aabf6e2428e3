//! The seam between Cove and the platform: what a machine is, what a backend can do, and one module a backend.
//!
//! Everything above this crate is the same on Linux, macOS and Windows. A [`Backend`] says whether this computer
//! can run it ([`Backend::probe`]) and what its machines can do ([`Features`]); what it cannot do is a typed
//! [`MachineError::Unsupported`]. A running machine lives in a process of its own, the machine process, so that it
//! outlives the daemon: a daemon that starts again adopts it ([`Backend::adopt`]).
//!
//! ```text
//!            start                  guest runs
//!  (nothing) ─────▶ machine process ──────────▶ Running ⇄ Paused
//!                         │                        │ power-off, kill, crash
//!                         ▼                        ▼
//!                    MachineError               Exit{cause, console tail}
//! ```
//!
//! The machine process holds the lock on the machine's directory for as long as anything that writes to its disk
//! is alive, so that there are never two machines on one disk.

#[cfg(not(target_os = "linux"))]
mod absent;
mod choose;
mod connection;
#[cfg(target_os = "linux")]
mod emulated;
mod error;
#[cfg(target_os = "linux")]
mod kvm;
#[cfg(target_os = "linux")]
mod nat;
pub mod process;
#[cfg(unix)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(
        dead_code,
        reason = "the backends that use it on this platform are still to come"
    )
)]
mod sockets;
mod spec;
#[cfg(target_os = "linux")]
mod system;
#[cfg(all(test, unix))]
mod test_script;

pub use choose::{Choice, Preference, choose};
pub use connection::{Connection, Listener};
#[cfg(target_os = "linux")]
pub use emulated::Emulated;
pub use error::MachineError;
#[cfg(target_os = "linux")]
pub use kvm::Kvm;
pub use spec::{Disk, FolderHealth, MachineSpec, Share, longest_socket};

pub use cove_confine::{Hold, Layer};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path, time::Duration};
use tokio::sync::broadcast;

/// The kinds of backend there are, on any platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Cove's own monitor on KVM (Linux).
    Kvm,
    /// QEMU without hardware virtualisation: works everywhere QEMU does, slower.
    Emulated,
    /// Apple's Virtualization.framework (macOS).
    Vz,
    /// The Host Compute System (Windows).
    HyperV,
}

impl fmt::Display for BackendKind {
    /// The name that settings and messages use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Emulated => "emulated",
            Self::Vz => "vz",
            Self::HyperV => "hyperv",
        })
    }
}

/// Whether this computer can run a backend, found out in milliseconds and without side effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "availability")]
pub enum Availability {
    /// It can.
    Available {
        /// What was found, such as `QEMU 10.0.2`.
        evidence: String,
        /// What is short of the promise all the same.
        caveat: Option<Caveat>,
    },
    /// It cannot.
    Unavailable {
        /// What was found.
        why: String,
        /// What a person can do about it.
        hint: String,
        /// The command line that does it, where one does.
        command: Option<String>,
    },
}

impl Availability {
    /// It can, without a caveat.
    pub fn available(evidence: impl Into<String>) -> Self {
        Self::Available {
            evidence: evidence.into(),
            caveat: None,
        }
    }

    /// It cannot, and no command alone changes that.
    pub fn unavailable(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unavailable {
            why: why.into(),
            hint: hint.into(),
            command: None,
        }
    }
}

/// What something that will do cannot do as another one could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caveat {
    /// What it comes to, as a clause.
    pub what: String,
    /// What a person can do about it.
    pub hint: String,
    /// The command line that does it, where one does.
    pub command: Option<String>,
}

/// What the machines of a backend can do beyond starting and stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a capability of its own, none a state"
)]
pub struct Features {
    /// [`Machine::pause`] and [`Machine::resume`].
    pub pause: bool,
    /// [`Machine::listen`]: connections from the guest.
    pub guest_connections: bool,
    /// [`Machine::grow_disk`] while the machine runs.
    pub online_grow: bool,
    /// [`Machine::add_share`] and [`Machine::remove_share`].
    pub shares: bool,
    /// Runs on hardware virtualisation.
    pub hardware: bool,
}

/// Starts machines of one kind. Holds no state of any machine.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> BackendKind;

    /// Whether this computer can run it.
    fn probe(&self) -> Availability;

    /// What its machines can do.
    fn features(&self) -> Features;

    /// Whether its machines reach the network. A machine runs without it, and published ports work.
    fn outbound(&self) -> Availability {
        Availability::unavailable(
            format!("{} machines have no way to the network yet", self.kind()),
            "bring images in with `docker load`",
        )
    }

    /// Starts a machine process and returns once the guest's first instruction is on its way. The caller has
    /// verified the image. Fails with [`MachineError::Locked`] when a machine runs on this disk already. When it fails
    /// with [`MachineError::Crashed`], nothing is left of the machine, and it may be called again at once.
    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, MachineError>;

    /// Takes over the machine that an earlier daemon started in `spec.directory`, if it still runs. Cleans up after
    /// one that does not: left-over sockets, a process that lost its supervisor.
    async fn adopt(&self, spec: &MachineSpec) -> Result<Option<Box<dyn Machine>>, MachineError>;

    /// Ends the machine that runs in `directory` as if its power were cut, also one that cannot be talked to, and
    /// returns once nothing of it is left. Its sockets are in `runtime`, unless it says otherwise itself. As it stands
    /// here it is for backends that never run one.
    async fn evict(&self, directory: &Path, runtime: &Path) -> Result<(), MachineError> {
        let _ = (directory, runtime);
        Ok(())
    }

    /// How the last machine in `spec.directory` ended, for a daemon that was not there to see it; nothing when none
    /// has run since it was last started, or it still runs. Ask after [`Backend::adopt`] found no machine.
    fn last_exit(&self, spec: &MachineSpec) -> Option<Exit> {
        let _ = spec;
        None
    }
}

/// A running machine. Dropping it leaves the machine running; [`Machine::kill`] ends it.
///
/// Any method may be called from any task at any time, and a call that is dropped half-way leaves nothing behind. An
/// operation on a machine that has ended fails with [`MachineError::Ended`], except for [`Machine::stop`],
/// [`Machine::kill`] and [`Machine::wait`], which return how it ended. None of them blocks the calling thread.
#[async_trait]
pub trait Machine: Send + Sync {
    /// Which kind of backend runs it.
    fn kind(&self) -> BackendKind;

    /// What it can do.
    fn features(&self) -> Features;

    /// Process id of the machine process, and of the hypervisor's where that is another.
    fn processes(&self) -> Vec<u32>;

    /// What a person should know about how it was set up, such as a setting that could not be honoured; one sentence
    /// each.
    fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// How the process that faces the guest is confined: every layer, as it found it at its start.
    fn confinement(&self) -> Vec<Layer> {
        Vec::new()
    }

    /// Whether the vCPUs stand still: on request, or since the host had no space for what the guest wrote. A machine
    /// may be adopted in this state.
    fn paused(&self) -> bool {
        false
    }

    /// Whether they stand still since the host had no space for what the guest wrote, and nobody has asked for a pause
    /// since: they are to go on as soon as there is some. Never without [`Machine::paused`].
    fn held(&self) -> bool {
        false
    }

    /// Stops the vCPUs; connections stay open and wait. A machine that is held stands on request from then on.
    async fn pause(&self) -> Result<(), MachineError>;

    /// Lets the vCPUs go on.
    async fn resume(&self) -> Result<(), MachineError>;

    /// Waits until the guest has powered off, which the caller asked the agent for, and kills it after `grace`.
    async fn stop(&self, grace: Duration) -> Result<Exit, MachineError>;

    /// Ends it at once, as if the power were cut.
    async fn kill(&self) -> Result<Exit, MachineError>;

    /// Tells the guest that the disk's file has grown to `size` bytes.
    async fn grow_disk(&self, disk: Disk, size: u64) -> Result<(), MachineError>;

    /// Lets the guest reach a host folder, from now on; it has to mount it. One that is there already, by all of its
    /// fields, is no error.
    async fn add_share(&self, share: &Share) -> Result<(), MachineError> {
        let _ = share;
        Err(MachineError::Unsupported {
            operation: "sharing a folder",
            backend: self.kind(),
        })
    }

    /// Takes a folder away from the guest. What programs in it hold of the folder fails from now on with `ESTALE`.
    /// One that is not there is no error.
    async fn remove_share(&self, name: &str) -> Result<(), MachineError> {
        let _ = name;
        Err(MachineError::Unsupported {
            operation: "taking a folder away",
            backend: self.kind(),
        })
    }

    /// The folders that the guest may reach.
    fn shares(&self) -> Vec<Share> {
        Vec::new()
    }

    /// How the file server of the folders is doing.
    async fn folder_health(&self) -> Result<FolderHealth, MachineError> {
        Err(MachineError::Unsupported {
            operation: "sharing a folder",
            backend: self.kind(),
        })
    }

    /// The file that the guest's console is written to; bounded, the older part in `<file>.1`.
    fn console(&self) -> &Path;

    /// Connects to a vsock port that the guest listens on.
    async fn connect(&self, port: u32) -> Result<Connection, MachineError>;

    /// Listens on a vsock port of the host for connections from the guest.
    async fn listen(&self, port: u32) -> Result<Listener, MachineError>;

    /// What happens to it from now on; ends with [`MachineEvent::Exited`].
    fn events(&self) -> broadcast::Receiver<MachineEvent>;

    /// Waits until it has ended, for whatever reason; at once when it has already.
    async fn wait(&self) -> Exit;
}

/// What happens to a running machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum MachineEvent {
    /// The vCPUs stopped. Told once more when a machine that is held is asked to pause.
    Paused {
        /// Whether it was since the host had no space for what the guest wrote, and not on request.
        #[serde(default)]
        held: bool,
    },
    /// The vCPUs go on.
    Resumed,
    /// The guest restarted itself; its agent has to be greeted anew.
    Rebooted,
    /// The machine ended.
    Exited(Exit),
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Why.
    pub cause: ExitCause,
    /// Last lines of the guest's console, at most 20, empty after an orderly end.
    pub console_tail: Vec<String>,
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum ExitCause {
    /// The guest powered off.
    PoweredOff,
    /// [`Machine::kill`], or the grace of [`Machine::stop`] ran out.
    Killed,
    /// The guest's kernel panicked.
    GuestPanicked {
        /// The panic's own line.
        message: String,
    },
    /// The hypervisor ended without being asked.
    HypervisorDied {
        /// Its exit status or signal.
        status: String,
        /// The last of what it wrote to standard error.
        stderr: String,
        /// Whether a fault of its own ended it, which another try may not meet, and not somebody else or an error that
        /// it told.
        #[serde(default)]
        crashed: bool,
    },
    /// A thread of Cove's own that served the guest panicked: a vCPU's, a device's, the file server's.
    CellPanicked {
        /// Which thread, where, and why.
        words: String,
    },
    /// The machine process is gone and left no account of itself.
    Vanished,
}
