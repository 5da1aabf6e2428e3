//! How a driver's queues and features reach a device: called in-process, or over vhost-user.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use cove_virtio::device::{Activation, Device, FEATURE_EVENT_IDX, Interrupt};
use cove_virtio::queue::DeviceQueue;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryRegion};

use super::event::Event;
use super::memory::SharedMemory;
use super::queue::DriverQueue;

/// A way to a device. A device that was stopped goes on where it was when started again with the same queues.
pub trait Transport: Send {
    /// The features that the device offers.
    fn features(&mut self) -> Result<u64>;

    /// `len` bytes of the configuration space.
    fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>>;

    /// Writes `data` to the configuration space at `offset`.
    fn set_config(&mut self, offset: u32, data: &[u8]) -> Result<()>;

    /// Hands `queues` to the device.
    fn start(&mut self, features: u64, memory: &SharedMemory, queues: &[&DriverQueue]) -> Result<()>;

    /// Takes the queues back, as when a machine is paused. Returns the index of the next chain that the device would
    /// have taken, for each.
    fn stop(&mut self) -> Result<Vec<u16>>;

    /// Where a device that has just been created is to go on, when another one served the queues before.
    fn set_bases(&mut self, bases: &[u16]);

    /// Maps guest memory anew while the queues run, as machines do when their memory map changes. Only a front end in
    /// another process has to.
    fn remap(&mut self, regions: &[VhostUserMemoryRegionInfo]) -> Result<()> {
        let _ = regions;
        Ok(())
    }

    /// Resets the device, as a driver does when its guest reboots.
    fn reset(&mut self) -> Result<()>;
}

/// A device called directly.
pub struct InProcess {
    device: Box<dyn Device>,
    bases: Vec<u16>,
    changed: Option<Arc<Event>>,
}

impl InProcess {
    /// Drives `device`.
    pub fn new(device: impl Device + 'static) -> Self {
        let bases = vec![0; device.queues().len()];
        Self {
            device: Box::new(device),
            bases,
            changed: None,
        }
    }

    /// Drives `device`, which rings `changed` when its configuration space has changed.
    pub fn hearing(device: impl Device + 'static, changed: Arc<Event>) -> Self {
        Self {
            changed: Some(changed),
            ..Self::new(device)
        }
    }
}

impl Transport for InProcess {
    fn features(&mut self) -> Result<u64> {
        Ok(self.device.features())
    }

    fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>> {
        let mut data = vec![0; len as usize];
        self.device.read_config(u64::from(offset), &mut data);
        Ok(data)
    }

    fn set_config(&mut self, offset: u32, data: &[u8]) -> Result<()> {
        self.device.write_config(u64::from(offset), data);
        Ok(())
    }

    fn start(&mut self, features: u64, memory: &SharedMemory, queues: &[&DriverQueue]) -> Result<()> {
        let mut interrupt = Events {
            queues: Vec::new(),
            changed: self.changed.clone(),
        };
        let mut device_queues = Vec::new();
        for queue in queues {
            let spec = self.device.queues()[usize::from(queue.index)];
            let mut state = Queue::new(spec.max_size)?;
            state.try_set_size(queue.size)?;
            state.try_set_desc_table_address(GuestAddress(queue.descriptors))?;
            state.try_set_avail_ring_address(GuestAddress(queue.available))?;
            state.try_set_used_ring_address(GuestAddress(queue.used))?;
            state.set_next_avail(self.bases[usize::from(queue.index)]);
            let used: u16 = memory
                .memory
                .read_obj(GuestAddress(queue.used + 2))
                .unwrap_or_default();
            state.set_next_used(u16::from_le(used));
            state.set_event_idx(features & FEATURE_EVENT_IDX != 0);
            state.set_ready(true);
            device_queues.push(DeviceQueue::new(queue.index, state, queue.kick.duplicate()?));
            interrupt
                .queues
                .push((queue.index, queue.call.duplicate()?, queue.broken.duplicate()?));
        }
        let memory = Arc::clone(&memory.memory);
        let interrupt = Arc::new(interrupt);
        self.device.activate(Activation {
            memory,
            features,
            queues: device_queues,
            interrupt,
        })?;
        Ok(())
    }

    fn stop(&mut self) -> Result<Vec<u16>> {
        for queue in self.device.suspend()? {
            self.bases[usize::from(queue.index)] = queue.queue.next_avail();
        }
        Ok(self.bases.clone())
    }

    fn set_bases(&mut self, bases: &[u16]) {
        self.bases = bases.to_vec();
    }

    fn reset(&mut self) -> Result<()> {
        self.device.reset()?;
        self.bases.fill(0);
        Ok(())
    }
}

/// Passes a device's signals on to the eventfds of the driver's queues.
struct Events {
    queues: Vec<(u16, OwnedFd, OwnedFd)>,
    changed: Option<Arc<Event>>,
}

impl Interrupt for Events {
    fn signal_queue(&self, queue: u16) -> io::Result<()> {
        ring(
            self.queues
                .iter()
                .find(|(index, ..)| *index == queue)
                .map(|(_, call, _)| call),
        )
    }

    fn signal_config(&self) -> io::Result<()> {
        let changed = self.changed.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        changed.0.write(1)
    }

    fn signal_broken(&self, queue: u16) -> io::Result<()> {
        ring(
            self.queues
                .iter()
                .find(|(index, ..)| *index == queue)
                .map(|(_, _, broken)| broken),
        )
    }
}

fn ring(event: Option<&OwnedFd>) -> io::Result<()> {
    let event = event.ok_or(io::ErrorKind::NotFound)?;
    rustix::io::write(event, &1u64.to_ne_bytes())?;
    Ok(())
}

/// A device behind a vhost-user socket, ours or anybody's.
pub struct VhostUser {
    front_end: Frontend,
    protocol: VhostUserProtocolFeatures,
    bases: Vec<u16>,
    started: Vec<u16>,
}

impl VhostUser {
    /// Connects to the device at `socket`, which has up to `queues` queues, and negotiates the protocol.
    pub fn connect(socket: &Path, queues: u16) -> Result<Self> {
        Self::connect_without(socket, queues, VhostUserProtocolFeatures::empty())
    }

    /// The same as a front end that does not know some of the protocol's features.
    pub fn connect_without(socket: &Path, queues: u16, unknown: VhostUserProtocolFeatures) -> Result<Self> {
        let mut front_end = Frontend::connect(socket, u64::from(queues))
            .with_context(|| format!("cannot connect to the device at {}", socket.display()))?;
        front_end.set_owner().context("cannot own the device")?;
        front_end.get_features().context("cannot ask for features")?;
        let offered = front_end
            .get_protocol_features()
            .context("cannot ask for protocol features")?;
        let protocol = offered
            & !unknown
            & (VhostUserProtocolFeatures::CONFIG
                | VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::RESET_DEVICE);
        front_end
            .set_protocol_features(protocol)
            .context("cannot agree on protocol features")?;
        if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            // Every request is answered, so a refused one is an error here and not a guess.
            front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        Ok(Self {
            front_end,
            protocol,
            bases: vec![0; usize::from(queues)],
            started: Vec::new(),
        })
    }

    /// The protocol's front end, for messages that no well-behaved driver sends.
    pub fn front_end(&mut self) -> &mut Frontend {
        &mut self.front_end
    }
}

impl Transport for VhostUser {
    fn features(&mut self) -> Result<u64> {
        Ok(self.front_end.get_features()? & !VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>> {
        let (_, data) =
            self.front_end
                .get_config(offset, len, VhostUserConfigFlags::empty(), &vec![0; len as usize])?;
        Ok(data)
    }

    fn set_config(&mut self, offset: u32, data: &[u8]) -> Result<()> {
        self.front_end
            .set_config(offset, VhostUserConfigFlags::WRITABLE, data)
            .context("cannot write to the configuration space")
    }

    fn start(&mut self, features: u64, memory: &SharedMemory, queues: &[&DriverQueue]) -> Result<()> {
        self.front_end
            .set_features(features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
            .context("cannot agree on features")?;
        let region = memory.memory.iter().next().context("there is no guest memory")?;
        let mapping = VhostUserMemoryRegionInfo::from_guest_region(region)?;
        self.front_end
            .set_mem_table(&[mapping])
            .context("cannot share guest memory")?;
        let here = |address: u64| mapping.userspace_addr + (address - region.start_addr().raw_value());
        self.started.clear();
        for queue in queues {
            let index = usize::from(queue.index);
            self.front_end
                .set_vring_num(index, queue.size)
                .context("cannot size a ring")?;
            let config = VringConfigData {
                queue_max_size: queue.size,
                queue_size: queue.size,
                flags: 0,
                desc_table_addr: here(queue.descriptors),
                used_ring_addr: here(queue.used),
                avail_ring_addr: here(queue.available),
                log_addr: None,
            };
            self.front_end
                .set_vring_base(index, self.bases[index])
                .context("cannot place a ring")?;
            self.front_end
                .set_vring_addr(index, &config)
                .context("cannot address a ring")?;
            self.front_end.set_vring_call(index, &queue.call.0)?;
            self.front_end.set_vring_err(index, &queue.broken.0)?;
            self.front_end
                .set_vring_kick(index, &queue.kick.0)
                .context("cannot start a ring")?;
            self.started.push(queue.index);
        }
        for queue in queues {
            self.front_end
                .set_vring_enable(usize::from(queue.index), true)
                .context("cannot enable a ring")?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<Vec<u16>> {
        for index in std::mem::take(&mut self.started) {
            let base = self
                .front_end
                .get_vring_base(usize::from(index))
                .context("cannot stop a ring")?;
            self.bases[usize::from(index)] = u16::try_from(base)?;
        }
        Ok(self.bases.clone())
    }

    fn set_bases(&mut self, bases: &[u16]) {
        self.bases = bases.to_vec();
    }

    fn remap(&mut self, regions: &[VhostUserMemoryRegionInfo]) -> Result<()> {
        Ok(self.front_end.set_mem_table(regions)?)
    }

    /// As QEMU does it: the rings are stopped, then the device is reset if it knows how.
    fn reset(&mut self) -> Result<()> {
        self.stop()?;
        if self.protocol.contains(VhostUserProtocolFeatures::RESET_DEVICE) {
            self.front_end.reset_device().context("cannot reset the device")?;
        }
        self.bases.fill(0);
        Ok(())
    }
}
