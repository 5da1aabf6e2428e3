//! Loads a kernel by the PVH protocol: an ELF file with an entry in 32-bit protected mode, which is handed a start info
//! (`include/public/arch-x86/hvm/start_info.h` of Xen).

use std::fs::File;
use std::path::{Path, PathBuf};

use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{Error as LoaderError, KernelLoader as _};
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemory as _, GuestMemoryRegion as _};

use crate::layout::{ACPI, COMMAND_LINE, COMMAND_LINE_SIZE, HIGH_MEMORY, HOLE, LOW_MEMORY_END, START_INFO};
use crate::memory::GuestMemory;

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
/// Bytes of the start info in its version 1, and so the place of the module list behind it.
const START_INFO_SIZE: u64 = 56;
/// Bytes of one module's entry.
const MODULE_SIZE: u64 = 32;
const RAM: u32 = 1;
const RESERVED: u32 = 2;
const PAGE: u64 = 4096;

/// Why a kernel could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel is not an ELF file that fits the guest's memory.
    #[error("cannot load the kernel {}", path.display())]
    Kernel {
        /// Which.
        path: PathBuf,
        /// What was wrong with it.
        source: LoaderError,
    },
    /// The kernel does not speak PVH.
    #[error("the kernel {} has no PVH entry", path.display())]
    NoEntry {
        /// Which.
        path: PathBuf,
    },
    /// The initramfs does not fit between the kernel and the end of memory.
    #[error("the initramfs of {size} bytes does not fit the guest's memory")]
    InitramfsTooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The command line is too long or holds a zero.
    #[error("the kernel's command line is longer than {} bytes or holds a zero", COMMAND_LINE_SIZE - 1)]
    CommandLine,
    /// The guest has too little memory.
    #[error("cannot write the start info to the guest's memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Loads everything and returns the address of the kernel's first instruction. `rsdp` is where the ACPI tables begin.
pub fn load(
    memory: &GuestMemory,
    kernel: &Path,
    initramfs: &Path,
    command_line: &str,
    rsdp: u64,
) -> Result<u64, BootError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| BootError::Read { path, source }
    };
    let mut file = File::open(kernel).map_err(read(kernel))?;
    let loaded = Elf::load(memory, None, &mut file, Some(GuestAddress(HIGH_MEMORY))).map_err(|source| {
        BootError::Kernel {
            path: kernel.to_owned(),
            source,
        }
    })?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(BootError::NoEntry {
            path: kernel.to_owned(),
        });
    };

    let mut file = File::open(initramfs).map_err(read(initramfs))?;
    let size = file.metadata().map_err(read(initramfs))?.len();
    let low_end = memory.last_addr().raw_value().saturating_add(1).min(HOLE);
    let address = place(low_end, loaded.kernel_end, size).ok_or(BootError::InitramfsTooLarge { size })?;
    let length = usize::try_from(size).map_err(|_| BootError::InitramfsTooLarge { size })?;
    memory.read_exact_volatile_from(GuestAddress(address), &mut file, length)?;

    if command_line.len() >= COMMAND_LINE_SIZE || command_line.contains('\0') {
        return Err(BootError::CommandLine);
    }
    memory.write_slice(command_line.as_bytes(), GuestAddress(COMMAND_LINE))?;
    memory.write_obj(0u8, GuestAddress(COMMAND_LINE + command_line.len() as u64))?;
    memory.write_slice(
        &start_info(memory, (address, size), rsdp),
        GuestAddress(START_INFO),
    )?;
    Ok(entry.raw_value())
}

/// The highest page below `low_end` at which `size` bytes fit without touching what ends at `kernel_end`.
fn place(low_end: u64, kernel_end: u64, size: u64) -> Option<u64> {
    let address = low_end.checked_sub(size)? & !(PAGE - 1);
    (address >= kernel_end).then_some(address)
}

/// Start info, the one module and the memory map, one behind the other.
fn start_info(memory: &GuestMemory, (initramfs, size): (u64, u64), rsdp: u64) -> Vec<u8> {
    let mut map = vec![(0, LOW_MEMORY_END, RAM), (ACPI, HIGH_MEMORY - ACPI, RESERVED)];
    for region in memory.iter() {
        let start = region.start_addr().raw_value();
        let end = start + region.len();
        let start = start.max(HIGH_MEMORY);
        if end > start {
            map.push((start, end - start, RAM));
        }
    }
    let modules = START_INFO + START_INFO_SIZE;
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, 0, 1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for address in [modules, COMMAND_LINE, rsdp, modules + MODULE_SIZE] {
        bytes.extend_from_slice(&address.to_le_bytes());
    }
    bytes.extend_from_slice(&(map.len() as u64).to_le_bytes());
    for word in [initramfs, size, 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for (start, size, kind) in map {
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&u64::from(kind).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initramfs_ends_in_the_last_page_below_the_hole() {
        assert_eq!(place(0x1000_0000, 0x20_0000, 0x1001), Some(0x0fff_e000));
    }

    #[test]
    fn an_initramfs_that_would_touch_the_kernel_is_refused() {
        assert_eq!(place(0x30_0000, 0x20_0000, 0x10_0001), None);
        assert_eq!(place(0x30_0000, 0x20_0000, u64::MAX), None);
    }

    #[test]
    fn the_module_list_lies_where_the_start_info_says() {
        let memory = crate::memory::map(256 << 20).unwrap();
        let bytes = start_info(&memory, (0x123_4000, 77), ACPI);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let module = usize::try_from(word(16) - START_INFO).unwrap();
        assert_eq!((word(module), word(module + 8)), (0x123_4000, 77));
        let map = usize::try_from(word(40) - START_INFO).unwrap();
        assert_eq!(bytes.len(), map + 3 * 24, "three entries");
    }
}
