//! One vCPU: its registers at the start, and the loop that runs it.

// UNSAFETY: the details of an exit are a union, of which the exit's reason names the member.
#![expect(unsafe_code, reason = "reading a member of KVM's union of exits")]

use kvm_bindings::{CpuId, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use crate::cpuid;
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
    cpuid::adapt(&mut leaves, index, count);
    vcpu.set_cpuid2(&leaves).map_err(kvm("set a vCPU's CPUID"))?;
    if index == 0 {
        set_registers(&vcpu, entry).map_err(kvm("set a vCPU's registers"))?;
    }
    Ok(vcpu)
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

/// Runs the vCPU until the machine ends. The guest can bring about any exit; none of them is this program's end.
pub(crate) fn run(vcpu: &mut VcpuFd, ports: &Ports, bus: &Bus) -> Result<End, VmError> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => ports.read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(end) = ports.write(port, data) {
                    return Ok(end);
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.write(address, data),
            Ok(VcpuExit::Intr | VcpuExit::Hlt) => {}
            // A triple fault.
            Ok(VcpuExit::Shutdown) => return Ok(End::Reset),
            Ok(VcpuExit::InternalError) => return Err(internal_error(vcpu)),
            Ok(exit) => return Err(VmError::Exit(format!("{exit:?}"))),
            Err(error) if error.errno() == EINTR || error.errno() == EAGAIN => {}
            Err(source) => {
                return Err(VmError::Kvm {
                    operation: "run a vCPU",
                    source,
                });
            }
        }
    }
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

/// The thread took a signal.
const EINTR: i32 = 4;
/// KVM asks to be called again, such as for a vCPU that has not been started yet.
const EAGAIN: i32 = 11;
