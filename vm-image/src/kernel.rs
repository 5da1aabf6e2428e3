//! The kernel: from the compressed `bzImage` that a distribution ships to the ELF file that a machine starts
//! directly.
//!
//! The header of a `bzImage` says where its payload lies (Documentation/arch/x86/boot.rst, protocol 2.08 and
//! later), and the payload is a gzip stream of `vmlinux`. What comes out must be a 64-bit ELF with the note
//! through which a PVH loader finds its entry point, and of the release that the modules are for.

use std::io::Read as _;

use object::LittleEndian;
use object::elf::{EM_X86_64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::error::ImageError;

/// `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's `public/elfnote.h`.
const PVH_ENTRY: u32 = 18;
/// The oldest boot protocol whose header has the payload's place.
const PROTOCOL: u16 = 0x0208;
/// A kernel that is larger than this is none: ours has 40 MB.
const MAX_KERNEL: u64 = 256 << 20;

/// Unpacks `bzimage` and checks that it can be started and is `release`.
pub(crate) fn unpack(bzimage: &[u8], release: &str) -> Result<Vec<u8>, ImageError> {
    let vmlinux = payload(bzimage).map_err(unusable)?;
    check_elf(&vmlinux).map_err(unusable)?;
    let banner = format!("Linux version {release} ");
    if !contains(&vmlinux, banner.as_bytes()) {
        return Err(unusable(format!(
            "it is not release {release}, for which the modules are"
        )));
    }
    Ok(vmlinux)
}

fn payload(bzimage: &[u8]) -> Result<Vec<u8>, String> {
    let header = bzimage
        .get(0x1f1..0x250)
        .ok_or("it is too short for a boot header")?;
    let at = |offset: usize| offset - 0x1f1;
    let u16_at = |offset: usize| u16::from_le_bytes([header[at(offset)], header[at(offset) + 1]]);
    let u32_at = |offset: usize| u32::from(u16_at(offset)) | u32::from(u16_at(offset + 2)) << 16;
    if header[at(0x202)..at(0x206)] != *b"HdrS" {
        return Err("it has no boot header".into());
    }
    if u16_at(0x206) < PROTOCOL {
        return Err("its boot protocol is older than 2.08".into());
    }
    // Zero means four, for the sake of very old boot loaders.
    let setup_sectors = match header[0] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + u64::from(u32_at(0x248));
    let end = start + u64::from(u32_at(0x24c));
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let compressed = range
        .and_then(|(start, end)| bzimage.get(start..end))
        .ok_or("its payload is outside of the file")?;
    if !compressed.starts_with(&[0x1f, 0x8b]) {
        return Err("its payload is not gzip".into());
    }
    let mut vmlinux = Vec::new();
    let decoder = flate2::read::GzDecoder::new(compressed);
    decoder
        .take(MAX_KERNEL)
        .read_to_end(&mut vmlinux)
        .map_err(|error| format!("its payload is damaged: {error}"))?;
    Ok(vmlinux)
}

fn check_elf(vmlinux: &[u8]) -> Result<(), String> {
    let fault = |error: object::Error| format!("it is not a valid ELF file: {error}");
    let header = FileHeader64::<LittleEndian>::parse(vmlinux).map_err(fault)?;
    let endian = header.endian().map_err(fault)?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err("it is not for x86-64".into());
    }
    let segments = header.program_headers(endian, vmlinux).map_err(fault)?;
    if !segments.iter().any(|segment| segment.p_type(endian) == PT_LOAD) {
        return Err("it has nothing to load".into());
    }
    for segment in segments {
        let Some(mut notes) = segment.notes(endian, vmlinux).map_err(fault)? else {
            continue;
        };
        while let Some(note) = notes.next().map_err(fault)? {
            if note.name() == b"Xen" && note.n_type(endian).0 == PVH_ENTRY {
                return Ok(());
            }
        }
    }
    Err("it has no PVH entry point".into())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn unusable(reason: String) -> ImageError {
    ImageError::Kernel { reason }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// The smallest ELF with one loadable segment and, if wanted, a PVH note.
    fn elf(note_type: u32, banner: &str) -> Vec<u8> {
        let mut elf = vec![0; 64 + 2 * 56];
        let put =
            |elf: &mut Vec<u8>, at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        put(&mut elf, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        put(&mut elf, 16, &[2, 0, 62, 0, 1]);
        put(&mut elf, 32, &64u64.to_le_bytes());
        put(&mut elf, 52, &[64, 0, 56, 0, 2, 0]);
        put(&mut elf, 64, &PT_LOAD.0.to_le_bytes());
        let notes = elf.len();
        elf.extend(
            4u32.to_le_bytes()
                .iter()
                .chain(&4u32.to_le_bytes())
                .chain(&note_type.to_le_bytes()),
        );
        elf.extend(b"Xen\0\0\0\x10\0");
        let length = (elf.len() - notes) as u64;
        put(&mut elf, 64 + 56, &object::elf::PT_NOTE.0.to_le_bytes());
        put(&mut elf, 64 + 56 + 8, &(notes as u64).to_le_bytes());
        put(&mut elf, 64 + 56 + 32, &length.to_le_bytes());
        put(&mut elf, 64 + 56 + 48, &4u64.to_le_bytes());
        elf.extend(banner.as_bytes());
        elf
    }

    /// A `bzImage` around `vmlinux`.
    fn bzimage(vmlinux: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(vmlinux).unwrap();
        let payload = gzip.finish().unwrap();
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image
    }

    #[test]
    fn a_kernel_comes_out_as_the_elf_that_was_packed() {
        let vmlinux = elf(PVH_ENTRY, "Linux version 6.18.56-0-virt (builder)");
        assert_eq!(unpack(&bzimage(&vmlinux), "6.18.56-0-virt").unwrap(), vmlinux);
    }

    #[test]
    fn a_kernel_of_another_release_than_its_modules_is_refused() {
        let error = unpack(
            &bzimage(&elf(PVH_ENTRY, "Linux version 6.18.5 ")),
            "6.18.56-0-virt",
        )
        .unwrap_err();
        assert!(error.to_string().contains("6.18.56-0-virt"), "{error}");
    }

    #[test]
    fn a_kernel_without_a_pvh_note_is_refused() {
        let error = unpack(&bzimage(&elf(17, "Linux version 1 ")), "1").unwrap_err();
        assert!(error.to_string().contains("PVH"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_bzimage_is_refused() {
        for bytes in [vec![], vec![0; 4096], b"\x7fELF".repeat(1024)] {
            assert!(unpack(&bytes, "1").is_err());
        }
    }

    proptest! {
        #[test]
        fn no_damage_makes_the_unpacker_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            inner in any::<bool>(),
        ) {
            let mut vmlinux = elf(PVH_ENTRY, "Linux version 1 ");
            let mut image = bzimage(&vmlinux);
            let target = if inner { &mut vmlinux } else { &mut image };
            for (at, byte) in damage {
                let at = at.index(target.len());
                target[at] = byte;
            }
            let image = if inner { bzimage(&vmlinux) } else { image };
            let _ = unpack(&image, "1");
        }
    }
}
