//! A device that a script is played to: what it is made of, what the host does behind it, and what must stay as it was.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Result, ensure};
use cove_virtio::balloon::Balloon;
use cove_virtio::block::Access;
use cove_virtio::device::Device;
use cove_virtio::rng::Rng;
use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;

use super::script::Mode;
use super::trap::Trap;
use crate::driver::kind::{self, DISK, Kind};

/// The host's port that somebody listens at.
pub(super) const PORT: u32 = 3;
/// Most streams of the host's at a time.
const STREAMS: usize = 8;

/// What the host does behind a device that has streams: the values of `Step::Host::what`.
pub(super) mod act {
    /// Takes a connection of the device's.
    pub(in super::super) const ACCEPT: u8 = 0;
    /// Sends bytes behind their length, which is what a frame is.
    pub(in super::super) const FRAME: u8 = 1;
    /// Sends bytes.
    pub(in super::super) const SEND: u8 = 2;
    /// Takes what there is.
    pub(in super::super) const DRAIN: u8 = 3;
    /// Hangs up.
    pub(in super::super) const HANG_UP: u8 = 4;
    /// Connects to the device, and asks for the guest's port that the first byte says.
    pub(in super::super) const CONNECT: u8 = 5;
}

/// See the module's header.
pub(super) struct Subject {
    disk: Option<(File, Access)>,
    trap: Option<Trap>,
    listener: Option<UnixListener>,
    streams: Vec<UnixStream>,
    dir: TempDir,
}

impl Subject {
    /// A device of that kind, and what belongs to it.
    pub(super) fn new(kind: Kind, mode: Mode) -> Result<(Self, Box<dyn Device>)> {
        let mut subject = Self {
            disk: None,
            trap: None,
            listener: None,
            streams: Vec::new(),
            dir: tempfile::tempdir()?,
        };
        let dir = subject.dir.path();
        let device: Box<dyn Device> = match kind {
            Kind::Block | Kind::BlockInFlight => {
                let access = if mode.read_only {
                    Access::ReadOnly
                } else {
                    Access::ReadWrite
                };
                let file = disk_file()?;
                let mut device = kind::disk(file.try_clone()?, access)?;
                if kind == Kind::BlockInFlight {
                    device = device.with_rings();
                }
                subject.disk = Some((file, access));
                Box::new(device)
            }
            Kind::Vsock => {
                subject.listener = Some(listen(&dir.join(format!("vsock_{PORT}")))?);
                Box::new(kind::vsock(dir)?)
            }
            Kind::Fs => {
                let trap = Trap::new(dir)?;
                let server = kind::serve_folder(&trap.share())?;
                subject.trap = Some(trap);
                Box::new(kind::fs(server)?)
            }
            Kind::Net => {
                subject.listener = Some(listen(&dir.join("net"))?);
                Box::new(kind::net(dir)?)
            }
            Kind::Rng => Box::new(Rng::new()),
            Kind::Balloon => Box::new(Balloon::new()),
        };
        Ok((subject, device))
    }

    /// The host does something. Whatever fails, fails as it does for any program.
    pub(super) fn act(&mut self, what: u8, bytes: &[u8]) -> Result<()> {
        match what % 6 {
            act::ACCEPT => {
                if let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
                    self.keep(stream)?;
                }
            }
            act::FRAME => {
                let mut frame = u32::try_from(bytes.len())?.to_be_bytes().to_vec();
                frame.extend(bytes);
                self.send(&frame);
            }
            act::SEND => self.send(bytes),
            act::DRAIN => {
                for stream in &mut self.streams {
                    // One that has ended, or holds nothing, is as good as any.
                    let _ = stream.read(&mut [0; 4096]);
                }
            }
            act::HANG_UP => {
                self.streams.pop();
            }
            _ => {
                if let Ok(stream) = UnixStream::connect(self.dir.path().join("vsock")) {
                    self.keep(stream)?;
                    let port = bytes.first().copied().unwrap_or_default();
                    self.send(format!("CONNECT {port}\n").as_bytes());
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, stream: UnixStream) -> Result<()> {
        stream.set_nonblocking(true)?;
        if self.streams.len() == STREAMS {
            self.streams.remove(0);
        }
        self.streams.push(stream);
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(stream) = self.streams.last_mut() {
            // A device that has hung up, or takes no more, is as good as any.
            let _ = stream.write(bytes);
        }
    }

    /// That all is as it was which the guest, whose memory is `memory`, must not change.
    pub(super) fn check(&self, memory: &[u8]) -> Result<()> {
        if let Some((file, access)) = &self.disk {
            ensure!(file.metadata()?.len() == DISK, "the disk's file has another size");
            if *access == Access::ReadOnly {
                let mut now = vec![0; usize::try_from(DISK)?];
                file.read_exact_at(&mut now, 0)?;
                ensure!(
                    now == kind::disk_content(),
                    "a disk that can only be read was written to"
                );
            }
        }
        match &self.trap {
            Some(trap) => trap.check(memory),
            None => Ok(()),
        }
    }
}

/// A disk's file in memory, where to flush it takes no time.
pub(super) fn disk_file() -> Result<File> {
    let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC)?);
    file.write_all_at(&kind::disk_content(), 0)?;
    Ok(file)
}

fn listen(path: &Path) -> Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
