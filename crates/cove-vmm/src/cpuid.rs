//! What the guest sees of the processor: what KVM can do, with the topology of this machine.
//!
//! All vCPUs are cores of one package, with one thread each; a vCPU's APIC id is its index. They share the last cache,
//! as the guest's scheduler has to know: it looks for an idle vCPU among those that share one.
//!
//! What KVM can do and a machine has no use for is hidden: nested virtualisation, performance counters and what else
//! watches or traces the processor, enclaves, memory encryption, tiles, and instructions that wait on the processor
//! instead of leaving it to the host.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use vmm_sys_util::fam;

/// Leaf 1, ECX: the timer of the local APIC takes a deadline. KVM leaves it out and has it always.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: the package has several processors.
const MULTI_THREADED: u32 = 1 << 28;
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
        hide(leaf);
        match leaf.function {
            1 => {
                leaf.ebx = leaf.ebx & 0x0000_ffff | count << 16 | id << 24;
                leaf.ecx |= TSC_DEADLINE | HYPERVISOR;
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

/// Clears what is not for guests.
fn hide(leaf: &mut kvm_cpuid_entry2) {
    let [eax, ebx, ecx, edx] = hidden(leaf.function, leaf.index);
    leaf.eax &= !eax;
    leaf.ebx &= !ebx;
    leaf.ecx &= !ecx;
    leaf.edx &= !edx;
}

/// The bits of EAX, EBX, ECX and EDX that are cleared in a leaf.
fn hidden(function: u32, index: u32) -> [u32; 4] {
    match (function, index) {
        // DTES64, MONITOR, DS-CPL, VMX and PDCM; DS.
        (1, _) => [0, 0, bits(&[2, 3, 4, 5, 15]), bits(&[21])],
        // SGX and Processor Trace; TPAUSE and UMWAIT, and launch control of SGX; its keys, last branch records, and AMX:
        // BF16, tiles, INT8. The host's kernel gives AMX only to processes that ask for it, which this one does not.
        (7, 0) => [0, bits(&[2, 25]), bits(&[5, 30]), bits(&[1, 19, 22, 24, 25])],
        // Further leaves of performance counters, and AMX: FP16; complex numbers.
        (7, 1) => [bits(&[8, 21]), 0, 0, bits(&[8])],
        // SVM, sampling by instructions, SKINIT, counters of core, northbridge and last cache, MONITORX.
        (0x8000_0001, _) => [0, 0, bits(&[2, 10, 12, 23, 24, 28, 29]), 0],
        // The leaves of all these: MONITOR, performance counters, SGX, Processor Trace, last branch records, tiles and
        // their multiplication, more counters; then AMD's: SVM, sampling, memory encryption, counters.
        (
            5
            | 0xa
            | 0x12
            | 0x14
            | 0x1c..=0x1e
            | 0x23
            | 0x8000_000a
            | 0x8000_001b
            | 0x8000_001f
            | 0x8000_0022,
            _,
        ) => [u32::MAX; 4],
        _ => [0; 4],
    }
}

fn bits(numbers: &[u32]) -> u32 {
    numbers.iter().fold(0, |bits, number| bits | (1_u32 << *number))
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

    /// A leaf of which everything is set, as vCPU 2 of 3 sees it.
    fn adapted(function: u32, index: u32) -> kvm_cpuid_entry2 {
        let whole = kvm_cpuid_entry2 {
            eax: u32::MAX,
            edx: u32::MAX,
            ..leaf(function, index)
        };
        let mut leaves = CpuId::from_entries(&[whole]).unwrap();
        adapt(&mut leaves, 2, 3).unwrap();
        leaves.as_slice()[0]
    }

    #[test]
    fn a_processor_is_told_its_own_number_and_no_virtualisation() {
        let (one, extended) = (adapted(1, 0), adapted(0x8000_0001, 0));
        assert_eq!(one.ebx, 0x0203_ffff);
        assert_eq!((one.ecx & 1 << 5, extended.ecx & 1 << 2), (0, 0), "VMX, SVM");
        assert_eq!(one.ecx & (TSC_DEADLINE | HYPERVISOR), TSC_DEADLINE | HYPERVISOR);
    }

    #[test]
    fn what_watches_or_holds_the_processor_is_hidden_and_nothing_beside_it() {
        let (one, seven, extended) = (adapted(1, 0), adapted(7, 0), adapted(0x8000_0001, 0));
        assert_eq!(one.ecx & 1 << 3, 0, "MONITOR");
        assert_eq!(seven.ebx, !(1 << 2 | 1 << 25), "SGX, Processor Trace");
        assert_eq!(seven.ecx & 1 << 5, 0, "TPAUSE, UMWAIT");
        assert_eq!(seven.edx & 0b1101 << 22, 0, "AMX");
        assert_eq!(extended.ecx & 1 << 29, 0, "MONITORX");
        // The same words of other leaves mean something else.
        assert_eq!((seven.eax, adapted(7, 2).edx), (u32::MAX, u32::MAX));
        assert_eq!((extended.ebx, extended.edx), (u32::MAX, u32::MAX));
    }

    #[test]
    fn leaves_about_what_is_hidden_are_empty() {
        let counters = [0xa, 0x23, 0x8000_001b, 0x8000_0022];
        let others = [5, 0x12, 0x14, 0x1c, 0x1d, 0x1e, 0x8000_000a, 0x8000_001f];
        for function in counters.into_iter().chain(others) {
            let leaf = adapted(function, 0);
            assert_eq!(
                [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx],
                [0; 4],
                "leaf {function:#x}"
            );
        }
        assert_eq!(adapted(0x15, 0).eax, u32::MAX, "the clock's is not");
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
