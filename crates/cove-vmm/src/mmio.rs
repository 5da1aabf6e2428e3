//! The virtio-mmio transport (virtio 1.2, section 4.2): a device's registers in a page of guest-physical memory.
//!
//! ```text
//!                 status: DRIVER_OK                queue broken
//!  configuring ─────────────────────▶ active ─────────────────▶ active, NEEDS_RESET
//!       ▲                             │ ▲ │                            │
//!       │                     suspend ▼ │ │                            │
//!       │              (queues held here) resume                       │
//!       └───────────── status: 0 ─────────┴────────────────────────────┘
//! ```
//!
//! The transport owns the registers. While the device is active its queues belong to it alone; writes to queue
//! registers are ignored until the next reset. A machine that is paused suspends its devices, and the transport holds
//! their queues.
//!
//! A device that still has the guest's memory, since requests of it are stuck, is not reset by a status of 0 alone: until
//! the status reads as 0, as the specification has it (section 2.4), all that it takes is another one. A guest that
//! restarts or powers off in the meantime does so without it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cove_virtio::device::{Activation, Device, DeviceError, FEATURE_EVENT_IDX, FEATURE_VERSION_1, Interrupt};
use cove_virtio::queue::DeviceQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::layout::DEVICES;
use crate::memory::GuestMemory;
use crate::running::ControlError;

/// Bytes of a device's registers.
pub const SIZE: u64 = 0x1000;
/// Where the driver notifies, at which an ioeventfd for each queue listens.
pub const QUEUE_NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
const CONFIG: u64 = 0x100;
/// `virt`, little-endian.
const MAGIC: u32 = 0x7472_6976;
/// Not the legacy interface.
const VERSION: u32 = 2;
/// `COVE`, little-endian.
const VENDOR: u32 = 0x4556_4f43;

const FEATURES_OK: u32 = 8;
const DRIVER_OK: u32 = 4;
const NEEDS_RESET: u32 = 0x40;
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGED: u32 = 2;

/// How the device reaches the driver: an edge-triggered line, and why it was raised.
struct Line {
    raise: EventFd,
    why: AtomicU32,
    broken: AtomicU32,
    /// Counts the changes of the configuration space, so that a driver that reads it in pieces notices one.
    generation: AtomicU32,
}

impl Line {
    fn signal(&self, why: u32) -> io::Result<()> {
        self.why.fetch_or(why, Ordering::SeqCst);
        self.raise.write(1)
    }
}

impl Interrupt for Line {
    fn signal_queue(&self, _queue: u16) -> io::Result<()> {
        self.signal(USED_BUFFER)
    }

    fn signal_config(&self) -> io::Result<()> {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.signal(CONFIG_CHANGED)
    }

    fn signal_broken(&self, _queue: u16) -> io::Result<()> {
        self.broken.store(NEEDS_RESET, Ordering::SeqCst);
        self.signal(CONFIG_CHANGED)
    }
}

/// What the driver set up of one queue.
#[derive(Clone, Copy, Default)]
struct Ring {
    size: u32,
    ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

/// A device behind its registers.
pub struct Transport {
    device: Box<dyn Device>,
    memory: Arc<GuestMemory>,
    kicks: Vec<OwnedFd>,
    line: Arc<Line>,
    rings: Vec<Ring>,
    status: u32,
    active: bool,
    /// The driver has asked for a reset, which is not over.
    resetting: bool,
    /// The device's queues, while it is suspended.
    suspended: Option<Vec<DeviceQueue>>,
    features: u64,
    device_features_page: u32,
    driver_features_page: u32,
    queue: u32,
}

impl Transport {
    /// Puts `device` behind registers. `kicks` has an eventfd for each of its queues, `raise` interrupts the guest.
    pub fn new(
        device: Box<dyn Device>,
        memory: Arc<GuestMemory>,
        kicks: Vec<OwnedFd>,
        raise: EventFd,
    ) -> Self {
        let rings = vec![Ring::default(); device.queues().len()];
        Self {
            device,
            memory,
            kicks,
            line: Arc::new(Line {
                raise,
                why: AtomicU32::new(0),
                broken: AtomicU32::new(0),
                generation: AtomicU32::new(0),
            }),
            rings,
            status: 0,
            active: false,
            resetting: false,
            suspended: None,
            features: 0,
            device_features_page: 0,
            driver_features_page: 0,
            queue: 0,
        }
    }

    /// What the guest reads at `offset`.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.device.read_config(offset, data);
            return;
        }
        data.fill(0);
        if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let index = usize::try_from(self.queue).unwrap_or(usize::MAX);
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device.device_type() as u32,
            0x0c => VENDOR,
            0x10 => half(self.device.features(), self.device_features_page),
            0x34 => self
                .device
                .queues()
                .get(index)
                .map_or(0, |spec| spec.max_size.into()),
            0x44 => self.rings.get(index).map_or(0, |ring| ring.ready.into()),
            0x60 => self.line.why.load(Ordering::SeqCst),
            STATUS => self.status | self.line.broken.load(Ordering::SeqCst),
            // No shared memory: a length of all ones.
            0xb0..=0xbc => u32::MAX,
            0xfc => self.line.generation.load(Ordering::SeqCst),
            _ => 0,
        }
    }

    /// Takes what the guest writes at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.device.write_config(offset, data);
            return;
        }
        let Ok(word) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return;
        };
        match offset {
            0x14 => self.device_features_page = word,
            0x20 if self.status & FEATURES_OK == 0 => {
                set_half(&mut self.features, self.driver_features_page, word);
            }
            0x24 => self.driver_features_page = word,
            0x30 => self.queue = word,
            0x64 => {
                self.line.why.fetch_and(!word, Ordering::SeqCst);
            }
            STATUS => self.set_status(word),
            _ => self.write_ring(offset, word),
        }
    }

    fn write_ring(&mut self, offset: u64, word: u32) {
        let index = usize::try_from(self.queue).unwrap_or(usize::MAX);
        let Some(ring) = self.rings.get_mut(index).filter(|_| !self.active) else {
            return;
        };
        match offset {
            0x38 => ring.size = word,
            0x44 => ring.ready = word == 1,
            0x80 => set_half(&mut ring.descriptors, 0, word),
            0x84 => set_half(&mut ring.descriptors, 1, word),
            0x90 => set_half(&mut ring.available, 0, word),
            0x94 => set_half(&mut ring.available, 1, word),
            0xa0 => set_half(&mut ring.used, 0, word),
            0xa4 => set_half(&mut ring.used, 1, word),
            _ => {}
        }
    }

    fn set_status(&mut self, status: u32) {
        if status == 0 {
            self.reset();
            return;
        }
        if self.resetting {
            return;
        }
        let unknown = self.features & !self.device.features();
        let acceptable = unknown == 0 && self.features & FEATURE_VERSION_1 != 0;
        let mut status = status & !NEEDS_RESET;
        if !acceptable {
            // The driver reads it back, and sees that its choice was refused.
            status &= !(FEATURES_OK | DRIVER_OK);
        }
        self.status |= status;
        if self.status & FEATURES_OK == 0 {
            // Until it is set features may still change, which those of a running device must not.
            self.status &= !DRIVER_OK;
        }
        if self.status & DRIVER_OK != 0 && !self.active {
            match self.activate() {
                Ok(()) => self.active = true,
                Err(why) => {
                    tracing::warn!(%why, "the driver's set-up of a device is refused");
                    // An eventfd that is full has woken the guest already.
                    let _ = self.line.signal_broken(0);
                }
            }
        }
    }

    fn activate(&mut self) -> Result<(), String> {
        let event_idx = self.features & FEATURE_EVENT_IDX != 0;
        let specs = self.device.queues();
        let mut queues = Vec::new();
        for (index, ((ring, spec), kick)) in (0..).zip(self.rings.iter().zip(specs).zip(&self.kicks)) {
            if ring.ready {
                let queue = build(ring, spec.max_size, event_idx)
                    .filter(|queue| queue.is_valid(self.memory.as_ref()))
                    .ok_or_else(|| format!("queue {index} does not lie in guest memory"))?;
                let kick = kick.try_clone().map_err(|error| error.to_string())?;
                queues.push(DeviceQueue::new(index, queue, kick));
            }
        }
        self.hand_over(queues).map_err(|error| error.to_string())
    }

    fn hand_over(&mut self, queues: Vec<DeviceQueue>) -> Result<(), DeviceError> {
        self.device.activate(Activation {
            memory: Arc::clone(&self.memory),
            features: self.features,
            queues,
            interrupt: Arc::clone(&self.line) as Arc<dyn Interrupt>,
        })
    }

    /// Stops the device, if its driver has it going. It finishes what it is at.
    pub fn suspend(&mut self) -> Result<(), DeviceError> {
        if self.resetting {
            self.device.reset()?;
            self.forget();
        }
        if self.active && self.suspended.is_none() {
            self.suspended = Some(self.device.suspend()?);
        }
        Ok(())
    }

    /// Lets a device go on that was stopped by [`Transport::suspend`].
    pub fn resume(&mut self) -> Result<(), DeviceError> {
        let Some(queues) = self.suspended.take() else {
            return Ok(());
        };
        let result = self.hand_over(queues);
        if result.is_err() {
            // Its queues are gone. The driver is told that only a reset helps.
            let _ = self.line.signal_broken(0);
        }
        result
    }

    /// Tells the driver that the configuration space has changed.
    pub fn announce(&self) {
        if self.active
            && let Err(error) = self.line.signal_config()
        {
            tracing::warn!(%error, "cannot tell a driver of its device's new configuration");
        }
    }

    /// Takes the device off the bus of a machine that is no more, as it was before it had a driver.
    pub fn into_device(mut self) -> Box<dyn Device> {
        self.device.leave();
        self.device
    }

    fn reset(&mut self) {
        match self.device.reset() {
            Ok(_) => {}
            Err(error @ DeviceError::Stuck { .. }) => {
                tracing::warn!(%error, "the reset of a device is not over");
                self.resetting = true;
                // What it would be told of is in the registers, whether or not that wakes anybody.
                let _ = self.line.signal_broken(0);
                return;
            }
            Err(error) => tracing::error!(%error, "a device cannot be reset"),
        }
        self.forget();
    }

    /// Forgets what the driver set up.
    fn forget(&mut self) {
        self.rings.fill(Ring::default());
        self.line.why.store(0, Ordering::SeqCst);
        self.line.broken.store(0, Ordering::SeqCst);
        self.suspended = None;
        (self.status, self.active, self.features, self.queue) = (0, false, 0, 0);
        self.resetting = false;
        (self.device_features_page, self.driver_features_page) = (0, 0);
    }
}

fn build(ring: &Ring, max_size: u16, event_idx: bool) -> Option<Queue> {
    let mut queue = Queue::new(max_size).ok()?;
    queue.try_set_size(u16::try_from(ring.size).ok()?).ok()?;
    queue
        .try_set_desc_table_address(GuestAddress(ring.descriptors))
        .ok()?;
    queue
        .try_set_avail_ring_address(GuestAddress(ring.available))
        .ok()?;
    queue.try_set_used_ring_address(GuestAddress(ring.used)).ok()?;
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    Some(queue)
}

/// The devices of a machine, one page of registers each from [`DEVICES`] on.
pub struct Bus(pub Vec<Mutex<Transport>>);

impl Bus {
    /// What the guest reads at `address`; all ones where nothing is.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((device, offset)) => device
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Takes what the guest writes at `address`.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address) {
            device
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(offset, data);
        }
    }

    /// Suspends every device. One that fails goes on, and the others are suspended all the same.
    pub fn suspend(&self) -> Result<(), ControlError> {
        self.each("suspend", Transport::suspend)
    }

    /// Resumes every device that is suspended. One that fails does not keep the others from it.
    pub fn resume(&self) -> Result<(), ControlError> {
        self.each("resume", Transport::resume)
    }

    /// Tells a device's driver that its configuration space has changed.
    pub fn announce(&self, device: usize) {
        if let Some(transport) = self.0.get(device) {
            transport
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .announce();
        }
    }

    /// The devices, in their order, reset.
    pub fn into_devices(self) -> Vec<Box<dyn Device>> {
        let transports = self.0.into_iter();
        transports
            .map(|transport| {
                let transport = transport.into_inner().unwrap_or_else(PoisonError::into_inner);
                transport.into_device()
            })
            .collect()
    }

    /// Does something to every device, and tells of the first that failed.
    fn each(
        &self,
        operation: &'static str,
        act: impl Fn(&mut Transport) -> Result<(), DeviceError>,
    ) -> Result<(), ControlError> {
        let mut result = Ok(());
        for (device, transport) in self.0.iter().enumerate() {
            let done = act(&mut transport.lock().unwrap_or_else(PoisonError::into_inner));
            result = result.and(done.map_err(|source| ControlError::Device {
                operation,
                device,
                source,
            }));
        }
        result
    }

    /// Whether `address` is a device's status, which starts and stops it.
    pub(crate) fn is_status(address: u64) -> bool {
        address
            .checked_sub(DEVICES)
            .is_some_and(|offset| offset % SIZE == STATUS)
    }

    fn find(&self, address: u64) -> Option<(&Mutex<Transport>, u64)> {
        let offset = address.checked_sub(DEVICES)?;
        let device = self.0.get(usize::try_from(offset / SIZE).ok()?)?;
        Some((device, offset % SIZE))
    }
}

/// The low (0) or high (1) half of `value`; there are no others.
fn half(value: u64, page: u32) -> u32 {
    let word = match page {
        0 => value & u64::from(u32::MAX),
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(word).unwrap_or(0)
}

fn set_half(value: &mut u64, page: u32, word: u32) {
    *value = match page {
        0 => *value & 0xffff_ffff_0000_0000 | u64::from(word),
        1 => *value & 0xffff_ffff | u64::from(word) << 32,
        _ => return,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_virtio::device::{DeviceError, DeviceType, QueueSpec};
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    /// Counts its activations, and hands back the queues of the last one. It is stuck for as long as the flag is set.
    struct Probe(Arc<AtomicU32>, Vec<DeviceQueue>, Arc<AtomicBool>);

    impl Probe {
        fn is_over(&self) -> Result<(), DeviceError> {
            let waited = Duration::ZERO;
            if self.2.load(Ordering::SeqCst) {
                return Err(DeviceError::Stuck { requests: 1, waited });
            }
            Ok(())
        }
    }

    impl Device for Probe {
        fn device_type(&self) -> DeviceType {
            DeviceType::Vsock
        }
        fn features(&self) -> u64 {
            FEATURE_VERSION_1
        }
        fn queues(&self) -> &'static [QueueSpec] {
            &[QueueSpec {
                max_size: 64,
                required: true,
            }]
        }
        fn read_config(&self, _: u64, data: &mut [u8]) {
            data.fill(7);
        }
        fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
            assert_eq!(activation.queues[0].queue.size(), 16);
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1 = activation.queues;
            Ok(())
        }
        fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
            self.is_over()?;
            Ok(std::mem::take(&mut self.1))
        }
        fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
            self.is_over()?;
            Ok(Vec::new())
        }
    }

    fn transport() -> (Transport, Arc<AtomicU32>) {
        let (transport, activations, _) = transport_that_may_be_stuck();
        (transport, activations)
    }

    fn transport_that_may_be_stuck() -> (Transport, Arc<AtomicU32>, Arc<AtomicBool>) {
        let activations = Arc::new(AtomicU32::new(0));
        let stuck = Arc::new(AtomicBool::new(false));
        let device = Box::new(Probe(Arc::clone(&activations), Vec::new(), Arc::clone(&stuck)));
        let kick = std::fs::File::open("/dev/null").unwrap().into();
        let memory = Arc::new(crate::memory::map(1 << 20).unwrap());
        let raise = EventFd::new(0).unwrap();
        let transport = Transport::new(device, memory, vec![kick], raise);
        (transport, activations, stuck)
    }

    fn get(transport: &Transport, offset: u64) -> u32 {
        let mut data = [0; 4];
        transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn set_up(transport: &mut Transport, used: u32) {
        let steps = [
            (0x24, 1),
            (0x20, 1),
            (0x70, 0xb),
            (0x38, 16),
            (0x80, 0x1000),
            (0x90, 0x2000),
            (0xa0, used),
            (0x44, 1),
        ];
        for (offset, word) in steps {
            transport.write(offset, &u32::to_le_bytes(word));
        }
        transport.write(0x70, &0xfu32.to_le_bytes());
    }

    #[test]
    fn a_driver_that_follows_the_specification_activates_the_device_once() {
        let (mut transport, activations) = transport();
        set_up(&mut transport, 0x3000);
        transport.write(0x70, &0xfu32.to_le_bytes());
        assert_eq!(activations.load(Ordering::SeqCst), 1);
        assert_eq!(get(&transport, 0x70), 0xf);
    }

    #[test]
    fn queue_registers_are_frozen_until_reset() {
        let (mut transport, _) = transport();
        set_up(&mut transport, 0x3000);
        transport.write(0x44, &0u32.to_le_bytes());
        assert_eq!(get(&transport, 0x44), 1);
        transport.write(0x70, &0u32.to_le_bytes());
        assert_eq!((get(&transport, 0x44), get(&transport, 0x70)), (0, 0));
    }

    #[test]
    fn a_suspended_device_goes_on_with_the_queues_that_it_handed_back() {
        let (mut transport, activations) = transport();
        transport.suspend().unwrap();
        transport.resume().unwrap();
        assert_eq!(activations.load(Ordering::SeqCst), 0, "it has no driver yet");
        set_up(&mut transport, 0x3000);
        for round in 2..4 {
            transport.suspend().unwrap();
            transport.suspend().unwrap();
            transport.resume().unwrap();
            transport.resume().unwrap();
            assert_eq!(activations.load(Ordering::SeqCst), round);
        }
        assert_eq!(get(&transport, 0x70), 0xf);
    }

    #[test]
    fn a_reset_is_over_when_the_device_has_let_go_of_memory_and_not_before() {
        let (mut transport, activations, stuck) = transport_that_may_be_stuck();
        set_up(&mut transport, 0x3000);
        stuck.store(true, Ordering::SeqCst);
        transport.write(0x70, &0u32.to_le_bytes());
        assert_eq!(get(&transport, 0x70), 0xf | NEEDS_RESET);
        // Nor can a queue be moved, or the machine be paused.
        set_up(&mut transport, 0x4000);
        assert!(matches!(transport.suspend(), Err(DeviceError::Stuck { .. })));
        assert_eq!(get(&transport, 0x70), 0xf | NEEDS_RESET);
        stuck.store(false, Ordering::SeqCst);
        transport.suspend().unwrap();
        transport.resume().unwrap();
        assert_eq!(get(&transport, 0x70), 0);
        set_up(&mut transport, 0x3000);
        stuck.store(true, Ordering::SeqCst);
        transport.write(0x70, &0u32.to_le_bytes());
        stuck.store(false, Ordering::SeqCst);
        transport.write(0x70, &0u32.to_le_bytes());
        assert_eq!(get(&transport, 0x70), 0);
        assert_eq!(activations.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_device_that_cannot_be_suspended_goes_on() {
        let (mut transport, activations, stuck) = transport_that_may_be_stuck();
        set_up(&mut transport, 0x3000);
        stuck.store(true, Ordering::SeqCst);
        assert!(matches!(transport.suspend(), Err(DeviceError::Stuck { .. })));
        transport.resume().unwrap();
        assert_eq!(
            (get(&transport, 0x70), activations.load(Ordering::SeqCst)),
            (0xf, 1)
        );
    }

    #[test]
    fn a_driver_sees_that_the_configuration_has_changed() {
        let (mut transport, _) = transport();
        transport.announce();
        assert_eq!(
            (get(&transport, 0xfc), get(&transport, 0x60)),
            (0, 0),
            "nobody listens"
        );
        set_up(&mut transport, 0x3000);
        transport.announce();
        assert_eq!(
            (get(&transport, 0xfc), get(&transport, 0x60)),
            (1, CONFIG_CHANGED)
        );
    }

    #[test]
    fn a_queue_outside_of_memory_breaks_the_device_and_is_never_handed_over() {
        let (mut transport, activations) = transport();
        set_up(&mut transport, 0xffff_f000);
        assert_eq!(activations.load(Ordering::SeqCst), 0);
        assert_ne!(get(&transport, 0x70) & NEEDS_RESET, 0);
    }

    #[test]
    fn features_that_were_not_offered_are_refused() {
        let (mut transport, activations) = transport();
        transport.write(0x20, &u32::MAX.to_le_bytes());
        set_up(&mut transport, 0x3000);
        assert_eq!(get(&transport, 0x70) & FEATURES_OK, 0);
        assert_eq!(activations.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_driver_that_does_not_say_that_features_are_agreed_on_starts_nothing() {
        let (mut transport, activations) = transport();
        let steps = [
            (0x24, 1),
            (0x20, 1),
            (0x38, 16),
            (0x80, 0x1000),
            (0x90, 0x2000),
            (0xa0, 0x3000),
            (0x44, 1),
            (0x70, 7),
        ];
        for (offset, word) in steps {
            transport.write(offset, &u32::to_le_bytes(word));
        }
        assert_eq!(activations.load(Ordering::SeqCst), 0);
        assert_eq!(get(&transport, 0x70), 3);
        transport.write(0x70, &0xfu32.to_le_bytes());
        assert_eq!(activations.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn any_access_of_any_width_is_survived() {
        let (mut transport, _) = transport();
        for offset in 0..SIZE {
            for width in [0, 1, 2, 4, 8] {
                let mut data = vec![0xff; width];
                transport.read(offset, &mut data);
                transport.write(offset, &[0xff; 8][..width]);
            }
        }
    }
}
