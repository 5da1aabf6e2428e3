//! Guest memory that can be shared with another process.

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result};
use cove_virtio::device::GuestMemory;
use rustix::fs::MemfdFlags;
use vm_memory::{FileOffset, GuestAddress};

/// Where guest memory starts. Not zero, so that an address of zero is as wrong as it is in a real guest's pointers.
pub const START: u64 = 0x10_0000;

/// One region of guest memory, backed by a memfd, handed out from its start.
pub struct SharedMemory {
    /// The mapping.
    pub memory: Arc<GuestMemory>,
    /// The file behind it.
    pub file: Arc<File>,
    /// Its size in bytes.
    pub size: u64,
    next: u64,
}

impl SharedMemory {
    /// Maps `size` bytes of zeroes.
    pub fn new(size: u64) -> Result<Self> {
        let memfd = rustix::fs::memfd_create("guest-memory", MemfdFlags::CLOEXEC)
            .context("cannot create guest memory")?;
        let file = Arc::new(File::from(memfd));
        file.set_len(size).context("cannot size guest memory")?;
        let backing = FileOffset::from_arc(Arc::clone(&file), 0);
        let ranges = [(GuestAddress(START), usize::try_from(size)?, Some(backing))];
        let memory = GuestMemory::from_ranges_with_files(ranges).context("cannot map guest memory")?;
        Ok(Self {
            memory: Arc::new(memory),
            file,
            size,
            next: START,
        })
    }

    /// The first address past the end.
    pub fn end(&self) -> u64 {
        START + self.size
    }

    /// The next `len` unused bytes, aligned to a page.
    pub fn allocate(&mut self, len: u64) -> Result<u64> {
        let address = self.next;
        let next = (address + len).next_multiple_of(4096);
        anyhow::ensure!(next <= self.end(), "guest memory is too small");
        self.next = next;
        Ok(address)
    }
}
