//! What the guest sees of the processor: what KVM can do, with the topology of this machine.
//!
//! All vCPUs are cores of one package, with one thread each; a vCPU's APIC id is its index. They share the last cache,
//! as the guest's scheduler has to know: it looks for an idle vCPU among those that share one.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use vmm_sys_util::fam;

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
/// The leaves that list the levels of the topology, by the level.
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];
/// The first level of cache that vCPUs share.
const SHARED_CACHE: u32 = 3;

/// Makes the leaves of vCPU `index` of `count` out of what KVM supports. Fails when they are more than KVM takes.
pub fn adapt(leaves: &mut CpuId, index: u8, count: u8) -> Result<(), fam::Error> {
    let (id, count) = (u32::from(index), u32::from(count));
    // Bits of an APIC id that tell the cores of the package apart.
    let core_bits = count.next_power_of_two().trailing_zeros();
    for leaf in leaves.as_mut_slice() {
        match leaf.function {
            1 => {
                leaf.ebx = leaf.ebx & 0x0000_ffff | count << 16 | id << 24;
                leaf.ecx = (leaf.ecx | TSC_DEADLINE | HYPERVISOR) & !VMX;
                leaf.edx = if count > 1 {
                    leaf.edx | MULTI_THREADED
                } else {
                    leaf.edx & !MULTI_THREADED
                };
            }
            // A cache, Intel's way and AMD's. Intel has the package's cores there as well, in six bits.
            4 | 0x8000_001d if leaf.eax & 0x1f != 0 => {
                let level = leaf.eax >> 5 & 7;
                let sharing = if level >= SHARED_CACHE { count - 1 } else { 0 };
                let cores = if leaf.function == 4 {
                    (count - 1).min(0x3f)
                } else {
                    0
                };
                leaf.eax = leaf.eax & 0x3fff | sharing << 14 | cores << 26;
            }
            0x8000_0001 => leaf.ecx &= !SVM,
            0x8000_0008 => leaf.ecx = core_bits << 12 | (count - 1),
            0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id, 0),
            _ => {}
        }
    }
    // Newer kernels tell nothing but the first of their levels, and that as empty.
    for function in TOPOLOGY {
        let known = leaves.as_slice().iter().any(|leaf| leaf.function == function);
        if !known {
            continue;
        }
        leaves.retain(|leaf| leaf.function != function);
        // The threads of a core, and the cores of the package. KVM answers for the levels beyond.
        for (level, shift, logical) in [(0, 0, 1), (1, core_bits, count)] {
            leaves.push(kvm_cpuid_entry2 {
                function,
                index: level,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax: shift,
                ebx: logical,
                ecx: level | (level + 1) << 8,
                edx: id,
                ..Default::default()
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut leaves = CpuId::from_entries(&[leaf(1, 0), leaf(0x8000_0001, 0)]).unwrap();
        adapt(&mut leaves, 2, 3).unwrap();
        let [one, extended] = leaves.as_slice() else {
            panic!("two leaves");
        };
        assert_eq!(one.ebx, 0x0203_ffff);
        assert_eq!((one.ecx & VMX, extended.ecx & SVM), (0, 0));
    }

    #[test]
    fn the_levels_of_the_topology_are_there_whether_kvm_told_one_of_them_or_all() {
        for told in [1, 3] {
            let given: Vec<_> = (0..told).map(|level| leaf(0xb, level)).collect();
            let mut leaves = CpuId::from_entries(&given).unwrap();
            adapt(&mut leaves, 2, 3).unwrap();
            let levels = leaves.as_slice().iter();
            let levels: Vec<_> = levels
                .map(|level| (level.index, level.eax, level.ebx, level.ecx, level.edx))
                .collect();
            // Threads of a core are of kind 1, cores of a package of kind 2.
            assert_eq!(levels, [(0, 0, 1, 0x100, 2), (1, 2, 3, 0x201, 2)]);
        }
    }

    #[test]
    fn the_last_cache_is_everybodys_and_the_others_are_each_vcpus_own() {
        let cache = |function, level: u32| kvm_cpuid_entry2 {
            eax: 7 << 14 | level << 5 | 1,
            ..leaf(function, 0)
        };
        let end = kvm_cpuid_entry2 { eax: 0, ..leaf(4, 4) };
        let given = [cache(4, 2), cache(4, 3), cache(0x8000_001d, 3), end];
        let mut leaves = CpuId::from_entries(&given).unwrap();
        adapt(&mut leaves, 0, 2).unwrap();
        let caches: Vec<_> = leaves.as_slice().iter().map(|leaf| leaf.eax).collect();
        let all = 1 << 14;
        assert_eq!(
            caches,
            [
                1 << 26 | 2 << 5 | 1,
                1 << 26 | all | 3 << 5 | 1,
                all | 3 << 5 | 1,
                0
            ]
        );
    }
}
