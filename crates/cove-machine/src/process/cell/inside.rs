//! The cell from its start to its end.
//!
//! ```text
//!  confine ──▶ make devices ──▶ Ready ── Begin ──▶ the guest runs ──▶ Ended
//!     │            │                                   ▲ │
//!     ▼            ▼                                   └─┘ asks, answers, events
//!   NoView       Failed              any: the machine process is gone ──▶ end
//! ```
//!
//! With QEMU the guest runs elsewhere; the cell serves it two devices and ends when its conversation does.

use super::{
    confine::confine,
    panics,
    words::{self, Ask, Asking, Line, Word},
};
use crate::{
    Exit, FolderHealth, MachineError, MachineEvent, MachineSpec, Share, kvm, nat,
    process::{
        changes,
        console::Console,
        control::{Asked, Audience},
        hypervisor::Input,
        protocol::{self, Reply, Vcpus},
        record::{self, Launch},
    },
    sockets,
};
use cove_fs::{Config, Server, ShareOptions};
use cove_virtio::{
    fs::Fs,
    net::{Net, NetConfig},
    vhost_user,
    vsock::{Vsock, VsockConfig},
};
use cove_wire::{network, with_causes};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Resource, getrlimit};
use std::{
    fs::File,
    future::{Future, pending},
    io::{self, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Threads that answer the guest's file requests. Two do while the host's disks are quick; the others, where some wait
/// for what does not come, as from a server that has gone away.
const FS_WORKERS: usize = 8;

/// How long work that cannot be broken off may go on when the guest has ended.
const LINGER: Duration = Duration::from_secs(2);

/// Asks that may be unanswered, and events that may be untold.
const IN_FLIGHT: usize = 64;

/// The cell's life. To be called with one thread.
pub(in super::super) fn run(directory: &Path, bare: Option<&str>) -> ExitCode {
    panics::end_the_process();
    let mut stream = match rustix::stdio::stdin().try_clone_to_owned() {
        Ok(stream) => UnixStream::from(stream),
        Err(error) => {
            tracing::error!(%error, "there is nobody to talk to");
            return ExitCode::FAILURE;
        }
    };
    let result = set_up(directory, bare).and_then(|prepared| {
        let ours = stream
            .try_clone()
            .map_err(|error| Word::Failed(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Word::Failed(format!("cannot start the runtime: {error}")))?;
        let result = runtime.block_on(live(ours, prepared));
        runtime.shutdown_timeout(LINGER);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(word) => {
            // The machine process logs it, and its end of the conversation may be gone.
            let _ = stream.set_nonblocking(false);
            let _ = writeln!(stream, "{}", protocol::encode(&word));
            ExitCode::FAILURE
        }
    }
}

/// A cell that is confined, before it has more than one thread.
struct Prepared {
    launch: Launch,
    layers: Vec<cove_confine::Layer>,
    /// Those of a machine on KVM.
    disks: Option<kvm::Disks>,
}

fn set_up(directory: &Path, bare: Option<&str>) -> Result<Prepared, Word> {
    let launch = record::read::<Launch>(directory)
        .map_err(|error| Word::Failed(with_causes(&error)))?
        .ok_or_else(|| Word::Failed(format!("there is no specification in {}", directory.display())))?;
    let (layers, disks) = confine(&launch, directory, bare)?;
    Ok(Prepared {
        launch,
        layers,
        disks,
    })
}

/// What it serves the guest.
enum Devices {
    /// To QEMU. They end when dropped.
    Served { _devices: [vhost_user::Server; 2] },
    /// The monitor.
    Monitor(Box<kvm::Monitor>),
}

async fn live(stream: UnixStream, prepared: Prepared) -> Result<(), Word> {
    let Prepared {
        launch,
        layers,
        disks,
    } = prepared;
    let failed = |error: MachineError| Word::Failed(with_causes(&error));
    let io = |error: io::Error| Word::Failed(error.to_string());
    stream.set_nonblocking(true).map_err(io)?;
    let mut line = words::line(tokio::net::UnixStream::from_std(stream).map_err(io)?);
    // Every socket is made with its mode. What the file server makes should have the modes that containers name.
    rustix::process::umask(rustix::fs::Mode::empty());
    let folders = Arc::new(Folders::new(launch.spec.own.clone(), launch.spec.memory_mib).map_err(failed)?);
    let runtime = &launch.spec.runtime;
    let repeated = sockets::listen_to_guest(runtime, cove_wire::port::CHANGES).map_err(failed)?;
    let _telling = changes::begin(repeated, folders.server());
    let devices = make(&launch, disks, &folders).map_err(failed)?;
    send(&mut line, &Word::Ready { layers }).await.map_err(io)?;
    // From here on whatever fails is told by the end of the conversation.
    if let Err(error) = converse(&mut line, &folders, devices).await {
        tracing::warn!(%error, "the conversation with the machine process ended");
    }
    Ok(())
}

fn make(launch: &Launch, disks: Option<kvm::Disks>, folders: &Folders) -> Result<Devices, MachineError> {
    let runtime = &launch.spec.runtime;
    let vsock = socket_device(runtime)?;
    let fs = file_system_device(folders)?;
    if let Some(disks) = disks {
        let net = network_device(runtime)?;
        let devices = kvm::Shared {
            disks,
            vsock,
            fs,
            net,
        };
        return monitor(&launch.spec, devices);
    }
    let serve = |served: Result<_, vhost_user::ServeError>| served.map_err(|error| failed(&error));
    Ok(Devices::Served {
        _devices: [
            serve(vhost_user::serve(vsock, &sockets::vhost(runtime)))?,
            serve(vhost_user::serve(fs, &sockets::fs(runtime)))?,
        ],
    })
}

fn monitor(spec: &MachineSpec, devices: kvm::Shared) -> Result<Devices, MachineError> {
    let console = rustix::stdio::stdout()
        .try_clone_to_owned()
        .map_err(|error| failed(&error))?;
    let console = Console::to_pipe(File::from(console));
    Ok(Devices::Monitor(Box::new(kvm::Monitor::new(
        spec, devices, console,
    )?)))
}

type Guest = Pin<Box<dyn Future<Output = io::Result<Exit>>>>;

/// Answers until the guest has ended, or nobody asks any more.
async fn converse(line: &mut Line, folders: &Arc<Folders>, devices: Devices) -> io::Result<()> {
    let (requests_sender, requests) = mpsc::channel(1);
    let (plugged_sender, plugged) = watch::channel(false);
    let (vcpus, _) = watch::channel(Vcpus::Running);
    let (events_sender, mut events) = broadcast::channel::<MachineEvent>(IN_FLIGHT);
    let (answers_sender, mut answers) = mpsc::channel::<Word>(IN_FLIGHT);
    let input = Input { requests, plugged };
    let audience = Audience {
        vcpus,
        events: events_sender,
    };
    let mut idle = match devices {
        Devices::Monitor(monitor) => Some((monitor, input, audience)),
        // They serve for as long as this goes on.
        served @ Devices::Served { .. } => {
            return serve(line, folders, served).await;
        }
    };
    let mut guest: Guest = Box::pin(pending());
    loop {
        tokio::select! {
            biased;
            Ok(event) = events.recv() => send(line, &Word::Event(event)).await?,
            Some(word) = answers.recv() => send(line, &word).await?,
            exit = &mut guest => return send(line, &Word::Ended(exit?)).await,
            text = line.next(), if answers_sender.capacity() > 0 => {
                let Some(Asking { id, ask }) = asking(text)? else { return Ok(()) };
                let answer = |result| Word::Answer { id, result };
                match ask {
                    Ask::Begin => {
                        let Some((mut monitor, input, audience)) = idle.take() else {
                            send(line, &answer(Err("the guest has begun".into()))).await?;
                            continue;
                        };
                        let begun = monitor.begin();
                        if begun.is_ok() {
                            guest = Box::pin(monitor.supervise(input, audience));
                        }
                        let result = begun.map(|()| Reply::Done).map_err(|error| with_causes(&error));
                        send(line, &answer(result)).await?;
                    }
                    Ask::Machine(order) => {
                        let (sender, result) = oneshot::channel();
                        let asked = Asked { order, answer: sender };
                        let (requests, answers) = (requests_sender.clone(), answers_sender.clone());
                        tokio::spawn(async move {
                            // Without an answer the guest is ending, which is told by itself.
                            if requests.send(asked).await.is_ok() && let Ok(result) = result.await {
                                let _ = answers.send(Word::Answer { id, result: result.map(|()| Reply::Done) }).await;
                            }
                        });
                    }
                    Ask::Plug(up) => {
                        plugged_sender.send_replace(up);
                        send(line, &answer(Ok(Reply::Done))).await?;
                    }
                    ask => about_folders(id, ask, folders, &answers_sender),
                }
            }
        }
    }
}

/// The same where the guest runs elsewhere.
async fn serve(line: &mut Line, folders: &Arc<Folders>, _served: Devices) -> io::Result<()> {
    let (answers_sender, mut answers) = mpsc::channel::<Word>(IN_FLIGHT);
    loop {
        tokio::select! {
            Some(word) = answers.recv() => send(line, &word).await?,
            text = line.next(), if answers_sender.capacity() > 0 => {
                let Some(Asking { id, ask }) = asking(text)? else { return Ok(()) };
                about_folders(id, ask, folders, &answers_sender);
            }
        }
    }
}

/// Answers what is asked about folders, where that may take long.
fn about_folders(id: u64, ask: Ask, folders: &Arc<Folders>, answers: &mpsc::Sender<Word>) {
    let (folders, answers) = (Arc::clone(folders), answers.clone());
    tokio::task::spawn_blocking(move || {
        let result = match ask {
            Ask::AddShare { share, at } => folders.add(share, &at).map(|()| Reply::Done),
            Ask::RemoveShare { name } => folders.remove(&name).map(|()| Reply::Done),
            Ask::FolderHealth => Ok(Reply::Folders(folders.health())),
            Ask::Begin | Ask::Machine(_) | Ask::Plug(_) => Err("the guest does not run here".into()),
        };
        // It fails only at the end of the conversation.
        let _ = answers.blocking_send(Word::Answer { id, result });
    });
}

fn asking(text: Option<Result<String, tokio_util::codec::LinesCodecError>>) -> io::Result<Option<Asking>> {
    let Some(text) = text else { return Ok(None) };
    let text = text.map_err(io::Error::other)?;
    protocol::decode(&text).map(Some).map_err(io::Error::other)
}

async fn send(line: &mut Line, word: &Word) -> io::Result<()> {
    line.send(protocol::encode(word)).await.map_err(io::Error::other)
}

/// The guest's socket device, which host programs reach by a socket in `runtime`.
fn socket_device(runtime: &Path) -> Result<Vsock, MachineError> {
    let config = VsockConfig::new(cove_wire::GUEST_CID.into(), sockets::vsock(runtime));
    Vsock::new(config).map_err(|error| failed(&error))
}

/// The guest's file system device, for the host's folders.
fn file_system_device(folders: &Folders) -> Result<Fs, MachineError> {
    Fs::new(cove_wire::SHARES_TAG, folders.server(), FS_WORKERS).map_err(|error| failed(&error))
}

/// The guest's network device, whose frames go to the socket in `runtime` that the way out begins at.
fn network_device(runtime: &Path) -> Result<Net, MachineError> {
    let config = NetConfig {
        mac: nat::GUEST_MAC,
        mtu: u16::try_from(network::MTU).unwrap_or(u16::MAX),
        socket: sockets::net(runtime),
    };
    Net::new(config).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> MachineError {
    MachineError::StartFailed {
        why: with_causes(error),
    }
}

/// The folders that the guest may reach, and their file server.
#[derive(Debug)]
struct Folders {
    server: Arc<Server>,
    list: Mutex<Vec<(String, PathBuf)>>,
    /// Cove's own directories on the host, which are not watched.
    own: Vec<PathBuf>,
}

impl Folders {
    /// A file server without a folder, for a guest with so much memory.
    fn new(own: Vec<PathBuf>, memory_mib: u32) -> Result<Self, MachineError> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let usual = within(limit);
        // The guest's kernel spends more than a kibibyte of its memory on each, so it forgets some before these are as
        // many.
        let files = usize::try_from(u64::from(memory_mib) << 10).unwrap_or(usize::MAX);
        let config = Config {
            replay_uid: cove_wire::REPEATER_UID,
            max_nodes: files.max(usual.max_nodes),
            ..usual
        };
        let server = Server::new(config).map_err(|error| MachineError::StartFailed {
            why: format!("the file server did not start: {error}"),
        })?;
        Ok(Self {
            server: Arc::new(server),
            list: Mutex::default(),
            own,
        })
    }

    fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server)
    }

    fn health(&self) -> FolderHealth {
        let health = self.server.health();
        let paths = |names: &[String]| {
            let held = self.held();
            let named = held.iter().filter(|(name, _)| names.contains(name));
            named.map(|(_, path)| path.clone()).collect::<Vec<_>>()
        };
        FolderHealth {
            watching: health.watching,
            repeating: health.repeating,
            watched: health.watched as u64,
            exhausted: health.watches_exhausted,
            full: health.nodes_exhausted,
            untold: paths(&health.shares_untold),
            without_attributes: paths(&health.shares_without_attributes),
        }
    }

    /// Adds a folder that is at `at` in the cell's view. Blocks while it is opened.
    fn add(&self, share: Share, at: &Path) -> Result<(), String> {
        let options = ShareOptions {
            name: share.name.clone(),
            read_only: share.read_only,
        };
        self.server
            .add_share(at, options)
            .map_err(|error| with_causes(&error))?;
        for own in &self.own {
            if let Ok(inner) = own.strip_prefix(&share.path)
                && let Err(error) = self.server.leave_unwatched(&at.join(inner))
            {
                tracing::debug!(%error, directory = %own.display(), "one of Cove's own directories is not there");
            }
        }
        self.held().push((share.name, share.path));
        Ok(())
    }

    /// Takes a folder away, if it is there.
    fn remove(&self, name: &str) -> Result<(), String> {
        let mut list = self.held();
        let Some(at) = list.iter().position(|(known, _)| known == name) else {
            return Ok(());
        };
        self.server
            .remove_share(name)
            .map_err(|error| with_causes(&error))?;
        list.remove(at);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Vec<(String, PathBuf)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many more directories the server has at hand for moments than it is told.
const SPARE: usize = 256;

/// The settings for a process that may have at most `limit` descriptors: those that the guest has opened are half of them,
/// less what the server has besides for directories at hand, which are an eighth, and the rest is for all else. A guest that opens too many is then told so (`ENFILE`),
/// and no connection or device of its own lacks one.
fn within(limit: u64) -> Config {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let config = Config::default();
    Config {
        max_open: config.max_open.min((limit / 2).saturating_sub(SPARE)),
        max_pins: config.max_pins.min(limit / 8),
        ..config
    }
}

/// A cell without confinement around it, for tests of those who talk to one.
#[cfg(test)]
pub(in super::super) async fn unconfined(stream: tokio::net::UnixStream) {
    let folders = Arc::new(Folders::new(Vec::new(), 0).unwrap());
    let mut line = words::line(stream);
    let (answers_sender, mut answers) = mpsc::channel::<Word>(IN_FLIGHT);
    loop {
        tokio::select! {
            Some(word) = answers.recv() => send(&mut line, &word).await.unwrap(),
            text = line.next() => {
                let Ok(Some(Asking { id, ask })) = asking(text) else { return };
                about_folders(id, ask, &folders, &answers_sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_may_open_half_of_what_the_process_may_and_never_more_than_usual() {
        let bounds = |limit| {
            let config = within(limit);
            (config.max_open, config.max_pins)
        };
        assert_eq!(bounds(4096), (1792, 512));
        let usual = Config::default();
        assert_eq!(bounds(1 << 20), (usual.max_open, usual.max_pins));
        assert_eq!(bounds(u64::MAX), (usual.max_open, usual.max_pins));
    }
}
