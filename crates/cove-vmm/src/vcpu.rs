//! One vCPU: its registers at the start, and the loop that runs it.

// UNSAFETY: the details of an exit are a union, of which the exit's reason names the member.
#![expect(unsafe_code, reason = "reading a member of KVM's union of exits")]

use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_INTERNAL_ERROR_DELIVERY_EV, Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use crate::cpuid;
use crate::fitter::Fitter;
use crate::gate::{Gate, Pass};
use crate::layout::START_INFO;
use crate::mmio::Bus;
use crate::ports::Ports;
use crate::vm::{End, VmError};

/// Makes vCPU `index` of `count`. The first one starts at `entry` as PVH wants it; the others wait for the kernel.
pub(crate) fn create(
    vm: &VmFd,
    mut leaves: CpuId,
    index: u8,
    count: u8,
    entry: u64,
) -> Result<VcpuFd, VmError> {
    let kvm = |operation| move |source| VmError::Kvm { operation, source };
    let vcpu = vm.create_vcpu(index.into()).map_err(kvm("create a vCPU"))?;
    let adapted = cpuid::adapt(&mut leaves, index, count).map_err(|_| kvm_ioctls::Error::new(E2BIG));
    adapted
        .and_then(|()| vcpu.set_cpuid2(&leaves))
        .map_err(kvm("set a vCPU's CPUID"))?;
    allow_fast_strings(&vcpu).map_err(kvm("allow a vCPU fast strings"))?;
    if index == 0 {
        set_registers(&vcpu, entry).map_err(kvm("set a vCPU's registers"))?;
    }
    Ok(vcpu)
}

/// Says that string instructions may copy more than their unit at once. KVM starts without it, and Linux then takes an
/// Intel processor's fast string instructions for switched off. Processors without the register do nothing here.
fn allow_fast_strings(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let register = kvm_msr_entry {
        index: MISC_ENABLE,
        ..Default::default()
    };
    let mut registers = Msrs::from_entries(&[register]).map_err(|_| kvm_ioctls::Error::new(E2BIG))?;
    if vcpu.get_msrs(&mut registers)? == 0 {
        return Ok(());
    }
    if let [register] = registers.as_mut_slice() {
        register.data |= FAST_STRINGS;
    }
    vcpu.set_msrs(&registers).map(drop)
}

/// 32-bit protected mode with flat segments, no paging, the start info's address in EBX.
fn set_registers(vcpu: &VcpuFd, entry: u64) -> Result<(), kvm_ioctls::Error> {
    let mut special = vcpu.get_sregs()?;
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x8,
        type_: 0xb,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x10,
        type_: 0x3,
        ..code
    };
    special.cs = code;
    for segment in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *segment = data;
    }
    special.tr = kvm_segment {
        limit: 0x67,
        selector: 0x18,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    // Protection on, paging off.
    special.cr0 = 1;
    special.cr4 = 0;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs {
        // The bit that is always set.
        rflags: 2,
        rip: entry,
        rbx: START_INFO,
        ..Default::default()
    })
}

/// Runs the vCPU until it meets the machine's end, or is sent home, which is nothing to report. The guest can bring
/// about any exit; none of them is this program's end.
pub(crate) fn run(
    vcpu: &mut VcpuFd,
    gate: &Gate,
    ports: &Ports,
    bus: &Arc<Bus>,
    fitter: &Fitter,
) -> Result<Option<End>, VmError> {
    let mut failures = 0;
    loop {
        match gate.pass() {
            Pass::Leave => return Ok(None),
            Pass::Enter { waited: true } => {
                // The guest's watchdogs must not take the pause for a hang. A guest without kvmclock has no way to be
                // told, and KVM says so.
                let _ = vcpu.kvmclock_ctrl();
            }
            Pass::Enter { waited: false } => {}
        }
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => ports.read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(end) = ports.write(port, data) {
                    return Ok(Some(end));
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => fitter.write(bus, address, data),
            Ok(VcpuExit::Intr | VcpuExit::Hlt) => {}
            // A triple fault.
            Ok(VcpuExit::Shutdown) => return Ok(Some(End::Reset)),
            Ok(VcpuExit::InternalError) => {
                let error = internal_error(vcpu);
                failures += 1;
                if failures > MAX_FAILURES || !is_phantom_delivery(&error, vcpu) {
                    return Err(error);
                }
                tracing::debug!(%error, "the instruction is run again");
                continue;
            }
            Ok(exit) => return Err(VmError::Exit(format!("{exit:?}"))),
            Err(error) if error.errno() == EINTR || error.errno() == EAGAIN => {}
            Err(source) => {
                return Err(VmError::Kvm {
                    operation: "run a vCPU",
                    source,
                });
            }
        }
        failures = 0;
    }
}

/// Whether KVM gave up on delivering an event while there is no event that it is delivering.
///
/// KVM does not emulate an access to a device that happens while an event is being delivered. On AMD processors it
/// recognises that from the type in the field `EXITINTINFO`, without a look at the bit which says whether the field
/// holds anything; a processor that leaves the rest of an old event there, as QEMU's emulation does, makes it refuse an
/// ordinary access. The vCPU then stands before the instruction with nothing lost, and running it again is right. An
/// event that is really being delivered is queued to be injected once more, which is how the two are told apart.
fn is_phantom_delivery(error: &VmError, vcpu: &VcpuFd) -> bool {
    let failed_delivery =
        matches!(error, VmError::Internal { suberror, .. } if *suberror == KVM_INTERNAL_ERROR_DELIVERY_EV);
    failed_delivery
        && vcpu.get_vcpu_events().is_ok_and(|events| {
            events.exception.injected == 0 && events.interrupt.injected == 0 && events.nmi.injected == 0
        })
}

/// What KVM says of an instruction or event of the guest that it could not deal with.
fn internal_error(vcpu: &mut VcpuFd) -> VmError {
    let rip = vcpu.get_regs().map_or(0, |registers| registers.rip);
    // SAFETY: the exit was KVM_EXIT_INTERNAL_ERROR, for which KVM fills this member of the union; all of it is
    // integers.
    let internal = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    let count = usize::try_from(internal.ndata).unwrap_or(usize::MAX);
    let data = &internal.data[..count.min(internal.data.len())];
    VmError::Internal {
        suberror: internal.suberror,
        rip,
        data: data.to_vec(),
    }
}

/// The register `IA32_MISC_ENABLE`, and in it the bit for fast strings.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// KVM takes no more of them, and would answer with this.
const E2BIG: i32 = 7;
/// The thread took a signal.
const EINTR: i32 = 4;
/// KVM asks to be called again, such as for a vCPU that has not been started yet.
const EAGAIN: i32 = 11;
/// Failures of KVM in a row, without anything else that reaches this program in between, after which it is believed.
const MAX_FAILURES: u32 = 1000;
