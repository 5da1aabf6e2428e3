//! A machine for unit tests: a backend that starts no process, and an agent that speaks the real protocol over a
//! socket pair. What a test does not script behaves as a healthy guest does.

mod guest;
mod host;

use super::{Command, Context, Handle};
use crate::{
    context::DockerConfig,
    name::MachineName,
    settings::{HostSize, SettingsFile},
    trust::TrustStore,
};
use cove_api::{Dirs, Progress};
use cove_image::{Digest, FORMAT, FileEntry, Files, Inputs, Manifest, Package, Role};
use cove_machine::{ExitCause, Machine};
use cove_wire::Fault;
use std::{path::Path, sync::Arc};
use tokio::{sync::broadcast, task::JoinHandle};

pub(crate) use guest::Guest;
pub(crate) use host::FakeHost;

/// When a hypervisor crashes, each time before the agent has answered.
#[derive(Clone, Copy)]
pub(crate) enum Crash {
    /// Before it says that its guest runs.
    AtOnce,
    /// With a guest that runs.
    Soon,
}

impl Crash {
    const STATUS: &str = "signal: 6 (SIGABRT)";
    const SAID: &str = "iotlb_to_section: Assertion failed.";

    /// The end that it is.
    pub(crate) fn cause() -> ExitCause {
        ExitCause::HypervisorDied {
            status: Self::STATUS.into(),
            stderr: Self::SAID.into(),
            crashed: true,
        }
    }
}

/// What a guest is to do.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a trait of its own, none a state"
)]
pub(crate) struct Script {
    /// Connections to the agent that are refused first, as they are while a guest boots.
    pub(crate) refusals: u32,
    /// The protocol version of its agent.
    pub(crate) version: u32,
    /// How it answers [`Call::Boot`](cove_wire::Call::Boot).
    pub(crate) boot: Result<(), Fault>,
    /// Whether its engine comes up after that.
    pub(crate) engine: bool,
    /// Whether it powers off when it is asked to shut down; a guest that does not hangs.
    pub(crate) powers_off: bool,
    /// Whether it is shutting down from the first.
    pub(crate) going_down: bool,
    /// Bytes that its agent sends instead of its greeting.
    pub(crate) garbage: Option<Vec<u8>>,
    /// Whether its machine process is another release's.
    pub(crate) foreign: bool,
    /// How the hypervisors of the next starts crash.
    pub(crate) crashes: Vec<Crash>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            refusals: 2,
            version: cove_wire::PROTOCOL_VERSION,
            boot: Ok(()),
            engine: true,
            powers_off: true,
            going_down: false,
            garbage: None,
            foreign: false,
            crashes: Vec::new(),
        }
    }
}

/// A home directory with an image, and a host.
pub(crate) struct Fixture {
    pub(crate) home: tempfile::TempDir,
    pub(crate) host: FakeHost,
    pub(crate) context: Arc<Context>,
}

impl Fixture {
    pub(crate) fn new(script: Script) -> Self {
        let home = tempfile::tempdir().unwrap();
        let host = FakeHost::new(script);
        let context = context(home.path(), &host);
        write_image(&context.dirs.image());
        Self { home, host, context }
    }

    /// What a new daemon has in the same place, which remembers nothing of the earlier one.
    pub(crate) fn next_daemon(self) -> Self {
        let home = self.home.path().to_owned();
        self.at(&home)
    }

    /// A daemon on the same host with its files below another directory.
    pub(crate) fn at(self, directory: &Path) -> Self {
        let context = context(directory, &self.host);
        Self { context, ..self }
    }

    /// The settings file with this text.
    pub(crate) fn write_settings(&self, text: &str) {
        let path = self.context.dirs.settings();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// An owner of the default machine.
    pub(crate) fn own(&self) -> (Handle, JoinHandle<()>) {
        Handle::spawn(Arc::clone(&self.context), MachineName::default())
    }

    /// The default machine, running, for as long as its owner's handle is there.
    pub(crate) async fn running(&self) -> (Arc<dyn Machine>, Handle) {
        let (handle, _owner) = self.own();
        let mut starting = handle.begin(Command::Start).await.unwrap();
        while let Some(progress) = starting.next().await {
            assert!(!matches!(progress, Progress::Failed { .. }), "{progress:?}");
        }
        let machine: Arc<dyn Machine> = Arc::new(self.host.machine());
        (machine, handle)
    }
}

fn context(directory: &Path, host: &FakeHost) -> Arc<Context> {
    let dirs = Dirs::below(directory);
    let size = HostSize {
        cpus: 4,
        memory: Some(8 << 30),
    };
    Arc::new(Context {
        settings: Arc::new(SettingsFile::new(dirs.settings(), None, size)),
        trust: TrustStore::new(dirs.certificates()),
        platform: Arc::new(host.clone()),
        events: broadcast::Sender::new(64),
        docker: Some(DockerConfig::at(&directory.join("docker"))),
        dirs,
    })
}

/// An image of tiny files that verifies.
pub(crate) fn write_image(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let entry = |role: Role| {
        let contents = format!("the {role}");
        std::fs::write(directory.join(role.file_name()), &contents).unwrap();
        FileEntry {
            name: role.file_name().into(),
            size: contents.len() as u64,
            sha256: Digest::of(contents.as_bytes()),
        }
    };
    let files = Files {
        kernel: entry(Role::Kernel),
        initramfs: entry(Role::Initramfs),
        rootfs: entry(Role::Rootfs),
        starter: entry(Role::Starter),
    };
    let inputs = Inputs {
        builder: "1".into(),
        recipe: Digest::of(b"r"),
        agent: Digest::of(b"a"),
        mkfs: Digest::of(b"m"),
    };
    let (protocol, architecture) = (cove_wire::PROTOCOL_VERSION, std::env::consts::ARCH);
    let packages: Vec<Package> = Vec::new();
    let manifest = serde_json::json!({
        "format": FORMAT,
        "protocol": protocol,
        "architecture": architecture,
        "fingerprint": Manifest::fingerprint_of(&inputs, &packages),
        "kernel_version": "6.18.0-0-virt",
        "engine_version": "26.1.5",
        "inputs": inputs,
        "files": files,
        "packages": packages,
    });
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
}
