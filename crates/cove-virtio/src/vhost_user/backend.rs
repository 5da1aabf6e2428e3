//! The vhost-user protocol's messages as calls of a device.
//!
//! ```text
//!            all required rings live                  a ring stops, or memory changes
//!   Idle ───────────────────────────────► Active ─────────────────────────────────────► Suspended
//!    ▲                                      │  ▲                                           │  │
//!    │ device reset, driver started anew,   │  └─── live again where they stopped ─────────┘  │
//!    └──── or front end gone ───────────────┴─────────────────────────────────────────────────┘
//! ```
//!
//! The protocol has no message that says "the driver starts anew": a front end stops the rings both when the guest
//! reboots and when the machine is paused. Newer ones send `RESET_DEVICE` for the former. For others, rings that
//! start where they stopped, with a used ring that says the same, are a pause, and anything else is a new driver.
//!
//! A ring is live once it has a kick and is enabled; from then until `GET_VRING_BASE` its configuration is frozen.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryRegion, GuestRegionMmap};

use super::vring::{Addresses, Signals, Vring};
use crate::device::{Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, GuestMemory};
use crate::queue::DeviceQueue;

/// The largest configuration space that any device has, with room to spare.
const MAX_CONFIG: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Active,
    Suspended,
}

/// A stretch of guest memory in the front end's address space.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    front_end: u64,
    guest: u64,
    size: u64,
}

/// A device and what its front end has said about it.
pub(super) struct Backend {
    device: Box<dyn Device>,
    phase: Phase,
    features: u64,
    memory: Option<Arc<GuestMemory>>,
    mappings: Vec<Mapping>,
    vrings: Vec<Vring>,
    signals: Arc<Signals>,
}

impl Backend {
    pub(super) fn new(device: Box<dyn Device>) -> Self {
        let (vrings, signals) = fresh_vrings(device.as_ref());
        Self {
            device,
            phase: Phase::Idle,
            features: 0,
            memory: None,
            mappings: Vec::new(),
            vrings,
            signals,
        }
    }

    /// The front end is gone: nothing of what it said holds any longer.
    pub(super) fn end_session(&mut self) {
        self.reset();
        self.features = 0;
        self.memory = None;
        self.mappings.clear();
        (self.vrings, self.signals) = fresh_vrings(self.device.as_ref());
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        self.vrings.get_mut(index as usize).ok_or(Error::InvalidParam)
    }

    /// A ring whose configuration may be changed.
    fn stopped_vring(&mut self, index: u32) -> Result<&mut Vring> {
        let vring = self.vring(index)?;
        if vring.started {
            return Err(Error::InvalidOperation(
                "the ring is started, its configuration is frozen",
            ));
        }
        Ok(vring)
    }

    fn all_required_live(&self) -> bool {
        self.device
            .queues()
            .iter()
            .zip(&self.vrings)
            .all(|(spec, vring)| !spec.required || vring.is_live())
    }

    /// Brings the device into line with the rings: called after every change to them.
    fn update(&mut self) -> Result<()> {
        if self.phase == Phase::Active || !self.all_required_live() {
            return Ok(());
        }
        let Some(memory) = self.memory.clone() else {
            return Err(Error::InvalidOperation(
                "rings were started before the memory table was set",
            ));
        };
        let queues = self.build_queues(&memory)?;
        if self.phase == Phase::Suspended && !self.goes_on(&queues) {
            tracing::debug!("a new driver took over the device");
            self.reset();
        }
        let activation = Activation {
            memory,
            features: self.features & self.device.features(),
            queues,
            interrupt: Arc::clone(&self.signals) as Arc<dyn crate::device::Interrupt>,
        };
        self.device.activate(activation).map_err(device_failed)?;
        self.phase = Phase::Active;
        Ok(())
    }

    fn build_queues(&self, memory: &GuestMemory) -> Result<Vec<DeviceQueue>> {
        let event_idx = self.features & FEATURE_EVENT_IDX != 0;
        let mut queues = Vec::new();
        for ((index, vring), spec) in (0u16..).zip(&self.vrings).zip(self.device.queues()) {
            let Some(kick) = vring.kick.as_ref().filter(|_| vring.is_live()) else {
                continue;
            };
            let queue = vring
                .build(memory, spec.max_size, event_idx, |address| {
                    self.translate(address)
                })
                .ok_or(Error::InvalidParam)?;
            let kick = kick.try_clone().map_err(Error::ReqHandlerError)?;
            queues.push(DeviceQueue::new(index, queue, kick));
        }
        Ok(queues)
    }

    /// Whether the rings are where the suspended device left them.
    fn goes_on(&self, queues: &[DeviceQueue]) -> bool {
        queues.iter().all(|queue| {
            // They differ by the chains that the device has kept.
            let begins_at = (queue.queue.next_avail(), queue.queue.next_used());
            self.vrings
                .get(usize::from(queue.index))
                .is_some_and(|vring| vring.stopped_at == Some(begins_at))
        })
    }

    /// Takes the queues back from the device, connections and all else in it kept.
    fn suspend(&mut self) -> Result<()> {
        if self.phase != Phase::Active {
            return Ok(());
        }
        self.phase = Phase::Suspended;
        let queues = patiently(|| self.device.suspend()).map_err(device_failed)?;
        self.take_back(&queues);
        Ok(())
    }

    /// Makes the device forget its driver.
    fn reset(&mut self) {
        self.phase = Phase::Idle;
        match patiently(|| self.device.reset()) {
            Ok(queues) => self.take_back(&queues),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot reset a vhost-user device"
                );
            }
        }
    }

    fn take_back(&mut self, queues: &[DeviceQueue]) {
        for queue in queues {
            if let Some(vring) = self.vrings.get_mut(usize::from(queue.index)) {
                vring.base = queue.queue.next_avail();
                vring.stopped_at = Some((vring.base, queue.queue.next_used()));
            }
        }
    }

    /// The guest's address of one of the front end's.
    fn translate(&self, address: u64) -> Option<u64> {
        self.mappings.iter().find_map(|mapping| {
            let offset = address.checked_sub(mapping.front_end)?;
            (offset < mapping.size)
                .then(|| mapping.guest.checked_add(offset))
                .flatten()
        })
    }
}

impl VhostUserBackendReqHandlerMut for Backend {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        for vring in &mut self.vrings {
            *vring = Vring::default();
        }
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.device.features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if self.phase == Phase::Active {
            return Err(Error::InvalidOperation(
                "the device is active, its features are frozen",
            ));
        }
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            // Without protocol features there is no message to enable a ring, and all are.
            for vring in &mut self.vrings {
                vring.enabled = true;
            }
        }
        Ok(())
    }

    fn set_mem_table(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        let mut mapped = Vec::with_capacity(regions.len());
        let mut mappings = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            let region_map =
                GuestRegionMmap::new(region.mmap_region(file)?, GuestAddress(region.guest_phys_addr))
                    .ok_or(Error::InvalidParam)?;
            mapped.push(region_map);
            mappings.push(Mapping {
                front_end: region.user_addr,
                guest: region.guest_phys_addr,
                size: region.memory_size,
            });
        }
        mapped.sort_by_key(GuestMemoryRegion::start_addr);
        let memory = GuestMemory::from_regions(mapped)
            .map_err(|error| Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        // The device holds the old memory only while it is active.
        self.suspend()?;
        self.memory = Some(Arc::new(memory));
        self.mappings = mappings;
        self.update()
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let max_size = self
            .device
            .queues()
            .get(index as usize)
            .ok_or(Error::InvalidParam)?
            .max_size;
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        if size > max_size || !size.is_power_of_two() {
            return Err(Error::InvalidParam);
        }
        self.stopped_vring(index)?.size = size;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        if self.memory.is_some()
            && [descriptors, used, available]
                .iter()
                .any(|&at| self.translate(at).is_none())
        {
            return Err(Error::InvalidParam);
        }
        self.stopped_vring(index)?.addresses = Addresses {
            descriptors,
            available,
            used,
        };
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.stopped_vring(index)?.base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.vring(index)?;
        self.suspend()?;
        let vring = self.vring(index)?;
        vring.started = false;
        vring.kick = None;
        let base = u32::from(vring.base);
        self.signals.set_call(index as usize, None);
        // A device that can do without the ring goes on.
        self.update()?;
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        let index = u32::from(index);
        let kick = kick.ok_or(Error::InvalidOperation("rings without a kick are not served"))?;
        self.vring(index)?;
        self.suspend()?;
        let vring = self.vring(index)?;
        vring.kick = Some(OwnedFd::from(kick));
        vring.started = true;
        self.update()
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.vring(u32::from(index))?;
        self.signals.set_call(usize::from(index), call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, error: Option<File>) -> Result<()> {
        self.vring(u32::from(index))?;
        self.signals.set_error(usize::from(index), error);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut offered = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE;
        // Front ends keep a file system's configuration space themselves, and warn of a back end that has one.
        if self.device.device_type() != DeviceType::Fs {
            offered |= VhostUserProtocolFeatures::CONFIG;
        }
        Ok(offered)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let offered = self.get_protocol_features()?.bits();
        if features & !offered != 0 {
            return Err(Error::InvalidParam);
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.vrings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        if self.vring(index)?.enabled == enable {
            return Ok(());
        }
        self.suspend()?;
        self.vring(index)?.enabled = enable;
        self.update()
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        if size > MAX_CONFIG || offset > MAX_CONFIG {
            return Err(Error::InvalidParam);
        }
        let mut data = vec![0; size as usize];
        self.device.read_config(u64::from(offset), &mut data);
        Ok(data)
    }

    fn set_config(&mut self, offset: u32, data: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        self.device.write_config(u64::from(offset), data);
        Ok(())
    }

    // What follows belongs to protocol features that are not offered.

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(NOT_OFFERED)
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(NOT_OFFERED)
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(NOT_OFFERED)
    }

    fn add_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion, _file: File) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(NOT_OFFERED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(NOT_OFFERED)
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(NOT_OFFERED)
    }
}

const NOT_OFFERED: Error = Error::InvalidOperation("the message belongs to a feature that is not offered");

fn fresh_vrings(device: &dyn Device) -> (Vec<Vring>, Arc<Signals>) {
    let count = device.queues().len();
    (
        std::iter::repeat_with(Vring::default).take(count).collect(),
        Arc::new(Signals::new(count)),
    )
}

/// Takes queues back from a device as soon as its requests are over. The protocol has no word for requests that are
/// stuck, and a front end that was told of an end would give their memory to others: so it waits.
fn patiently(
    mut take_back: impl FnMut() -> std::result::Result<Vec<DeviceQueue>, DeviceError>,
) -> std::result::Result<Vec<DeviceQueue>, DeviceError> {
    loop {
        match take_back() {
            Err(error @ DeviceError::Stuck { .. }) => {
                tracing::warn!(%error, "a vhost-user front end waits for its device");
            }
            result => return result,
        }
    }
}

fn device_failed(error: DeviceError) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}
