//! A machine: made of KVM's parts, run to its end.
//!
//! [`Vm`] owns guest memory, vCPUs and devices until `Vm::start` gives each vCPU a thread ([`crate::running`]).

// UNSAFETY: KVM is given addresses of this process to use as the guest's memory.
#![expect(unsafe_code, reason = "guest memory is registered with KVM by address")]

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use cove_virtio::device::Device;
use kvm_bindings::{
    KVM_CAP_PMU_CAPABILITY, KVM_MAX_CPUID_ENTRIES, KVM_PMU_CAP_DISABLE, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemory as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::layout::{ACPI, DEVICE_IRQ, DEVICES, MAX_DEVICES, SERIAL_IRQ, TSS};
use crate::memory::GuestMemory;
use crate::mmio::{Bus, Transport};
use crate::ports::{Output, Ports};
use crate::running::Report;
use crate::{acpi, boot, memory, mmio, vcpu};

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kernel, an ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Number of vCPUs, 1 to 254.
    pub vcpus: u8,
    /// Memory in bytes, a multiple of the page size.
    pub memory: usize,
}

/// How the guest ended the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It powered off.
    PoweredOff,
    /// It restarted, or faulted beyond recovery.
    Reset,
}

/// Why a machine could not be made or run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// KVM refused.
    #[error("cannot {operation}")]
    Kvm {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// The system refused.
    #[error("cannot {operation}")]
    Os {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is not enough address space for the guest's memory.
    #[error("cannot map the guest's memory")]
    Memory(#[from] vm_memory::mmap::FromRangesError),
    /// The guest's memory does not reach as far as the boot protocol needs.
    #[error("cannot write the ACPI tables to the guest's memory")]
    Tables(#[from] vm_memory::GuestMemoryError),
    /// Kernel or initramfs are not fit to boot.
    #[error("cannot load the guest")]
    Boot(#[from] boot::BootError),
    /// No ACPI table can list so many, or none.
    #[error("{0} vCPUs are not possible: use 1 to 254")]
    Vcpus(u8),
    /// The interrupt controller has inputs for fewer.
    #[error("{0} devices are too many")]
    Devices(usize),
    /// A vCPU stopped for a reason that this monitor has no answer to.
    #[error("a vCPU stopped with {0}")]
    Exit(String),
    /// KVM could not go on with what the guest did.
    #[error("KVM gave up on the guest at {rip:#x}: internal error {suberror}, {data:x?}")]
    Internal {
        /// `KVM_INTERNAL_ERROR_*`: 1 is an instruction that it cannot emulate, 3 an event that it cannot deliver.
        suberror: u32,
        /// Where the guest was.
        rip: u64,
        /// What KVM adds, such as flags and the instruction's bytes.
        data: Vec<u64>,
    },
    /// A vCPU's thread ended without saying why.
    #[error("the vCPUs' threads are gone")]
    ThreadsGone,
}

/// A machine that has not run yet.
pub struct Vm {
    pub(crate) vcpus: Vec<VcpuFd>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) handle: VmFd,
}

impl Vm {
    /// Sets up a machine with `devices`, whose console is written to `output`.
    pub fn new(config: &Config, output: Output, devices: Vec<Box<dyn Device>>) -> Result<Self, VmError> {
        if !(1..=254).contains(&config.vcpus) {
            return Err(VmError::Vcpus(config.vcpus));
        }
        let failed = |operation| move |source| VmError::Kvm { operation, source };
        let os = |operation| move |source| VmError::Os { operation, source };
        let device_count = u8::try_from(devices.len())
            .ok()
            .filter(|count| *count <= MAX_DEVICES)
            .ok_or(VmError::Devices(devices.len()))?;
        let kvm = Kvm::new().map_err(failed("open /dev/kvm"))?;
        let vm = kvm.create_vm().map_err(failed("create a machine"))?;
        take_counters(&vm);
        vm.set_tss_address(TSS).map_err(failed("place KVM's own pages"))?;
        vm.create_irq_chip()
            .map_err(failed("create the interrupt controllers"))?;
        let memory = Arc::new(memory::map(config.memory)?);
        register(&vm, &memory).map_err(failed("register the guest's memory"))?;

        memory.write_slice(&acpi::tables(config.vcpus, device_count), GuestAddress(ACPI))?;
        let entry = boot::load(
            &memory,
            &config.kernel,
            &config.initramfs,
            &config.command_line,
            ACPI,
        )?;

        let line = EventFd::new(EFD_NONBLOCK).map_err(os("create the console's interrupt"))?;
        vm.register_irqfd(&line, SERIAL_IRQ)
            .map_err(failed("connect the console's interrupt"))?;
        let bus = (0..)
            .zip(devices)
            .map(|(index, device)| plug(&vm, &memory, index, device).map(Mutex::new))
            .collect::<Result<_, _>>()
            .map(Bus)?;
        let leaves = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("ask what the processor can do"))?;
        let vcpus = (0..config.vcpus)
            .map(|index| vcpu::create(&vm, leaves.clone(), index, config.vcpus, entry))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            vcpus,
            ports: Arc::new(Ports::new(line, output)),
            memory,
            bus: Arc::new(bus),
            handle: vm,
        })
    }

    /// Runs the machine until its guest ends it.
    pub fn run(self) -> Result<End, VmError> {
        let (sender, ends) = mpsc::channel();
        // Nobody listens any more when another vCPU was first.
        let report: Report = Arc::new(move |end| drop(sender.send(end)));
        let running = self.start(&report)?;
        drop(report);
        let end = ends.recv().map_err(|_| VmError::ThreadsGone)?;
        drop(running);
        end
    }
}

/// Takes the processor's performance counters from the guest, before it has a vCPU: AMD's are there whatever CPUID
/// says. A kernel before 5.18 has no such switch, and a host without counters none to take.
fn take_counters(vm: &VmFd) {
    let capability = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        args: [KVM_PMU_CAP_DISABLE.into(), 0, 0, 0],
        ..Default::default()
    };
    if let Err(error) = vm.enable_cap(&capability) {
        tracing::debug!(%error, "the guest's performance counters are left to KVM");
    }
}

/// Gives `device` the registers, the interrupt and an ioeventfd for each queue that its place on the bus has.
fn plug(
    vm: &VmFd,
    memory: &Arc<GuestMemory>,
    index: u32,
    device: Box<dyn Device>,
) -> Result<Transport, VmError> {
    let failed = |operation| move |source| VmError::Kvm { operation, source };
    let os = |operation| move |source| VmError::Os { operation, source };
    let line = EventFd::new(EFD_NONBLOCK).map_err(os("create a device's interrupt"))?;
    vm.register_irqfd(&line, DEVICE_IRQ + index)
        .map_err(failed("connect a device's interrupt"))?;
    let notify = IoEventAddress::Mmio(DEVICES + u64::from(index) * mmio::SIZE + mmio::QUEUE_NOTIFY);
    let mut kicks = Vec::new();
    for (queue, _) in (0u32..).zip(device.queues()) {
        let kick = EventFd::new(EFD_NONBLOCK).map_err(os("create a queue's notification"))?;
        vm.register_ioevent(&kick, &notify, queue)
            .map_err(failed("connect a queue's notification"))?;
        // SAFETY: the descriptor is open and `into_raw_fd` gave up its only owner.
        kicks.push(unsafe { OwnedFd::from_raw_fd(kick.into_raw_fd()) });
    }
    Ok(Transport::new(device, Arc::clone(memory), kicks, line))
}

/// Tells KVM where in this process the guest's memory is.
fn register(vm: &VmFd, memory: &GuestMemory) -> Result<(), kvm_ioctls::Error> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let host = memory
            .get_host_address(region.start_addr())
            .map_err(|_| kvm_ioctls::Error::new(14))?;
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: host.addr() as u64,
        };
        // SAFETY: the range is the mapping of one region of `memory`, which outlives the vCPUs: every thread that runs
        // one holds it.
        unsafe { vm.set_user_memory_region(region) }?;
    }
    Ok(())
}
