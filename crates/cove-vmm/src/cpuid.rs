//! What the guest sees of the processor: what KVM can do, with the topology of this machine.
//!
//! Each vCPU is a socket's core of its own, one thread each, all in one package; its APIC id is its index.

use kvm_bindings::CpuId;

/// Leaf 1, ECX: the timer of the local APIC takes a deadline. KVM leaves it out and has it always.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: the package has several processors.
const MULTI_THREADED: u32 = 1 << 28;
/// Leaf 1, ECX: the processor's own virtualisation, Intel's.
const VMX: u32 = 1 << 5;
/// Leaf `0x8000_0001`, ECX: the same, AMD's.
const SVM: u32 = 1 << 2;

/// Makes the leaves of vCPU `index` of `count` out of what KVM supports.
pub fn adapt(leaves: &mut CpuId, index: u8, count: u8) {
    let id = u32::from(index);
    // Bits of an APIC id that tell the cores of the package apart.
    let core_bits = u32::from(count).next_power_of_two().trailing_zeros();
    for leaf in leaves.as_mut_slice() {
        match leaf.function {
            1 => {
                leaf.ebx = leaf.ebx & 0x0000_ffff | u32::from(count) << 16 | id << 24;
                leaf.ecx = (leaf.ecx | TSC_DEADLINE | HYPERVISOR) & !VMX;
                leaf.edx = if count > 1 {
                    leaf.edx | MULTI_THREADED
                } else {
                    leaf.edx & !MULTI_THREADED
                };
            }
            // Caches: shared by one thread at the first levels, the package has `count` cores (Intel).
            4 => leaf.eax = leaf.eax & 0x3fff | (u32::from(count) - 1) << 26,
            0xb | 0x1f => {
                let (shift, logical, kind) = match leaf.index {
                    0 => (0, 1, 1),
                    1 => (core_bits, u32::from(count), 2),
                    _ => (0, 0, 0),
                };
                leaf.eax = shift;
                leaf.ebx = logical;
                leaf.ecx = leaf.index | kind << 8;
                leaf.edx = id;
            }
            0x8000_0001 => leaf.ecx &= !SVM,
            0x8000_0008 => leaf.ecx = core_bits << 12 | (u32::from(count) - 1),
            0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id, 0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ebx: u32::MAX,
            ecx: u32::MAX,
            ..Default::default()
        }
    }

    #[test]
    fn a_processor_is_told_its_own_number_and_no_virtualisation() {
        let mut leaves = CpuId::from_entries(&[leaf(1, 0), leaf(0xb, 1), leaf(0x8000_0001, 0)]).unwrap();
        adapt(&mut leaves, 2, 3);
        let [one, topology, extended] = leaves.as_slice() else {
            panic!("three leaves");
        };
        assert_eq!(one.ebx, 0x0203_ffff);
        assert_eq!((one.ecx & VMX, extended.ecx & SVM), (0, 0));
        assert_eq!((topology.eax, topology.ebx, topology.edx), (2, 3, 2));
    }
}
