//! A reader for qcow2 disk images, as far as the Alpine base needs one: version 2 or 3, no backing file, no
//! encryption, plain and zlib-compressed clusters.
//!
//! Every number in the file is checked before use; what is outside of the file or of the disk is an error.
//! Layout and names follow QEMU's `docs/interop/qcow2.txt`.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{ImageError, ResultExt as _};

const MAGIC: u32 = 0x5146_49fb;
/// Offset bits of an L1 or L2 entry.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// L2: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// L2, version 3: the cluster reads as zeros.
const ZERO: u64 = 1;
/// The largest disk that is read: the base has 1 GiB.
const MAX_DISK: u64 = 64 << 30;
/// How many decompressed clusters are remembered: directory blocks and inode tables are read again and again.
const CACHED: usize = 64;

/// An open disk image.
pub(crate) struct Qcow2 {
    file: File,
    file_len: u64,
    size: u64,
    cluster_bits: u32,
    l1: Vec<u64>,
    /// The L2 table read last, with its offset.
    l2: (u64, Vec<u64>),
    cache: VecDeque<(u64, Vec<u8>)>,
}

impl Qcow2 {
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let file = File::open(path).at("open", path)?;
        let file_len = file.metadata().at("read", path)?.len();
        Self::read_header(file, file_len).map_err(|error| ImageError::Archive {
            archive: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    fn read_header(file: File, file_len: u64) -> io::Result<Self> {
        let mut header = [0; 80];
        file.read_exact_at(&mut header, 0)?;
        let u32_at =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));

        let version = u32_at(4);
        let (backing, cluster_bits, size) = (u64_at(8), u32_at(20), u64_at(24));
        let (crypt, l1_entries, l1_offset) = (u32_at(32), u32_at(36), u64_at(40));
        let incompatible = if version >= 3 { u64_at(72) } else { 0 };
        check(u32_at(0) == MAGIC, "it is not a qcow2 image")?;
        check(matches!(version, 2 | 3), "its version is not 2 or 3")?;
        check(backing == 0, "it has a backing file")?;
        check(crypt == 0, "it is encrypted")?;
        check(incompatible == 0, "it uses features that this reader lacks")?;
        check(
            (9..=21).contains(&cluster_bits),
            "its cluster size is out of range",
        )?;
        check(size <= MAX_DISK, "its disk is larger than 64 GiB")?;
        // An L2 table has one cluster of eight-byte entries, so that one L1 entry spans this much.
        let span = 1u64 << (2 * cluster_bits - 3);
        check(
            u64::from(l1_entries) >= size.div_ceil(span),
            "its L1 table is too short",
        )?;
        check(u64::from(l1_entries) <= MAX_DISK >> 9, "its L1 table is too long")?;

        let mut qcow2 = Self {
            file,
            file_len,
            size,
            cluster_bits,
            l1: vec![],
            l2: (0, vec![]),
            cache: VecDeque::new(),
        };
        let used = usize::try_from(size.div_ceil(span)).map_err(|_| malformed("its disk is too large"))?;
        qcow2.l1 = qcow2.table(l1_offset, used)?;
        Ok(qcow2)
    }

    /// Reads `buffer.len()` bytes of the disk at `offset`.
    pub(crate) fn read_at(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        check(
            end.is_some_and(|end| end <= self.size),
            "a read reaches past the disk's end",
        )?;
        let cluster_size = 1u64 << self.cluster_bits;
        while !buffer.is_empty() {
            let within = offset & (cluster_size - 1);
            // Bounded by the buffer's length, so it fits.
            let count = usize::try_from(cluster_size - within)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let (now, later) = buffer.split_at_mut(count);
            self.read_cluster(offset >> self.cluster_bits, within, now)?;
            offset += count as u64;
            buffer = later;
        }
        Ok(())
    }

    fn read_cluster(&mut self, cluster: u64, within: u64, out: &mut [u8]) -> io::Result<()> {
        let entry = self.l2_entry(cluster)?;
        if entry & COMPRESSED != 0 {
            let at = usize::try_from(within).map_err(|_| malformed("a cluster is too large"))?;
            let bytes = self.decompressed(entry)?;
            out.copy_from_slice(&bytes[at..at + out.len()]);
            return Ok(());
        }
        let host = entry & OFFSET;
        if host == 0 || entry & ZERO != 0 {
            out.fill(0);
            return Ok(());
        }
        self.within_file(host, within + out.len() as u64)?;
        self.file.read_exact_at(out, host + within)
    }

    fn l2_entry(&mut self, cluster: u64) -> io::Result<u64> {
        let entries = 1u64 << (self.cluster_bits - 3);
        let index = usize::try_from(cluster / entries).map_err(|_| malformed("an index is too large"))?;
        let table = self
            .l1
            .get(index)
            .ok_or_else(|| malformed("an L1 entry is missing"))?
            & OFFSET;
        if table == 0 {
            return Ok(0);
        }
        if self.l2.0 != table {
            let entries = usize::try_from(entries).map_err(|_| malformed("a table is too large"))?;
            self.l2 = (table, self.table(table, entries)?);
        }
        let at = usize::try_from(cluster % entries).map_err(|_| malformed("an index is too large"))?;
        self.l2
            .1
            .get(at)
            .copied()
            .ok_or_else(|| malformed("an L2 entry is missing"))
    }

    /// The cluster that a compressed entry describes: a byte offset, and a count of 512-byte sectors.
    fn decompressed(&mut self, entry: u64) -> io::Result<&[u8]> {
        if let Some(found) = self.cache.iter().position(|(key, _)| *key == entry) {
            return Ok(&self.cache[found].1);
        }
        let offset_bits = 62 - (self.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
        let length = (sectors + 1) * 512 - (offset & 511);
        check(
            offset < self.file_len,
            "a compressed cluster is outside of the file",
        )?;
        // The last sector may be cut off by the end of the file.
        let length = length.min(self.file_len - offset);
        let mut input = vec![0; usize::try_from(length).map_err(|_| malformed("a cluster is too large"))?];
        self.file.read_exact_at(&mut input, offset)?;

        let mut output = vec![0; 1 << self.cluster_bits];
        let mut inflate = Decompress::new(false);
        let status = inflate.decompress(&input, &mut output, FlushDecompress::Finish);
        let whole = inflate.total_out() == output.len() as u64;
        check(
            matches!(status, Ok(Status::StreamEnd | Status::Ok | Status::BufError)) && whole,
            "a cluster does not inflate",
        )?;

        if self.cache.len() == CACHED {
            self.cache.pop_front();
        }
        self.cache.push_back((entry, output));
        Ok(&self.cache[self.cache.len() - 1].1)
    }

    fn table(&self, offset: u64, entries: usize) -> io::Result<Vec<u64>> {
        self.within_file(offset, entries as u64 * 8)?;
        let mut bytes = vec![0; entries * 8];
        self.file.read_exact_at(&mut bytes, offset)?;
        let (entries, _) = bytes.as_chunks::<8>();
        Ok(entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    fn within_file(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length);
        check(
            end.is_some_and(|end| end <= self.file_len),
            "an offset is outside of the file",
        )
    }
}

impl ext4_view::Ext4Read for Qcow2 {
    fn read(
        &mut self,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.read_at(start, buffer)?)
    }
}

fn check(holds: bool, otherwise: &'static str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(malformed(otherwise)) }
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const CLUSTER: usize = 512;

    /// An image of three clusters: one plain (all `p`), one compressed (all `c`), one absent.
    fn sample() -> Vec<u8> {
        let mut image = vec![0; CLUSTER * 5];
        let put =
            |image: &mut Vec<u8>, at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(&mut image, 0, &MAGIC.to_be_bytes());
        put(&mut image, 4, &3u32.to_be_bytes());
        put(&mut image, 20, &9u32.to_be_bytes());
        put(&mut image, 24, &(3 * CLUSTER as u64).to_be_bytes());
        put(&mut image, 36, &1u32.to_be_bytes());
        put(&mut image, 40, &512u64.to_be_bytes());
        // L1 at 512, L2 at 1024, data at 1536 and 2048.
        put(&mut image, 512, &(0x400u64 | 1 << 63).to_be_bytes());
        put(&mut image, 1024, &(0x600u64 | 1 << 63).to_be_bytes());
        let compressed = 0x800u64 | COMPRESSED;
        put(&mut image, 1032, &compressed.to_be_bytes());
        image[1536..2048].fill(b'p');
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        deflate.write_all(&[b'c'; CLUSTER]).unwrap();
        let deflated = deflate.finish().unwrap();
        put(&mut image, 2048, &deflated);
        image
    }

    fn open(bytes: &[u8]) -> Result<Qcow2, ImageError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Qcow2::open(file.path())
    }

    #[test]
    fn plain_compressed_and_absent_clusters_read_as_one_disk() {
        let mut disk = open(&sample()).unwrap();
        let mut bytes = vec![0; 3 * CLUSTER];
        disk.read_at(0, &mut bytes).unwrap();
        let expected = [[b'p'; CLUSTER], [b'c'; CLUSTER], [0; CLUSTER]].concat();
        assert_eq!(bytes, expected);
        let mut across = [0; 4];
        disk.read_at(CLUSTER as u64 - 2, &mut across).unwrap();
        assert_eq!(&across, b"ppcc");
    }

    #[test]
    fn a_read_past_the_end_is_an_error() {
        let mut disk = open(&sample()).unwrap();
        assert!(disk.read_at(3 * CLUSTER as u64 - 1, &mut [0; 2]).is_err());
        assert!(disk.read_at(u64::MAX, &mut [0; 2]).is_err());
    }

    #[test]
    fn an_image_with_a_backing_file_is_refused() {
        let mut image = sample();
        image[15] = 1;
        assert!(open(&image).is_err_and(|error| error.to_string().contains("backing file")));
    }

    proptest! {
        #[test]
        fn no_damage_makes_the_reader_panic(
            damage in proptest::collection::vec((0usize..2560, any::<u8>()), 1..8),
        ) {
            let mut image = sample();
            for (at, byte) in damage {
                image[at] = byte;
            }
            if let Ok(mut disk) = open(&image) {
                let mut bytes = vec![0; 3 * CLUSTER];
                let _ = disk.read_at(0, &mut bytes);
            }
        }
    }
}
