//! Programs for other processors: told to the kernel, which then runs them by emulation, also in containers.
//!
//! Nothing of it is in memory before it is asked for: the kernel's module is loaded only then, and the emulators are
//! read from the image when the first program of theirs starts.

use crate::boot::{
    mounts::{MountError, attach},
    preload,
};
use rustix::mount::MountFlags;
use std::{fs, io, path::Path};

const MODULE: &str = "binfmt_misc";
/// Where the kernel listens (Documentation/admin-guide/binfmt-misc.rst).
const PLACE: &str = "/proc/sys/fs/binfmt_misc";

/// Opened when it is registered, and not when a program starts, so that containers need not have it (F); with the
/// program's own first argument (P), and with the rights of its file, as `sudo` needs them (C, which needs O).
const FLAGS: &str = "POCF";

/// A processor whose programs can be run.
struct Processor {
    name: &'static str,
    emulator: &'static str,
    /// `EI_CLASS` of `elf(5)`: 1 for 32 bits, 2 for 64.
    class: u8,
    /// `e_machine`.
    machine: u8,
}

const PROCESSORS: [Processor; 2] = [
    Processor {
        name: "arm64",
        emulator: "/usr/bin/qemu-aarch64",
        class: 2,
        machine: 183,
    },
    Processor {
        name: "arm",
        emulator: "/usr/bin/qemu-arm",
        class: 1,
        machine: 40,
    },
];

/// Why programs for other processors do not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessorError {
    #[error("loading the kernel module {MODULE} failed: {0}")]
    Module(#[from] io::Error),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("the kernel did not take {emulator} for programs of {name}: {source}")]
    Refused {
        name: &'static str,
        emulator: &'static str,
        source: io::Error,
    },
}

/// Has the kernel run programs for other processors. It may be asked for twice.
pub(crate) fn enable() -> Result<(), ProcessorError> {
    preload::load(&[MODULE])?;
    let place = Path::new(PLACE);
    if !place.join("register").exists() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        attach(MODULE, place, MODULE, flags, "")?;
    }
    for processor in PROCESSORS {
        if place.join(processor.name).exists() {
            continue;
        }
        fs::write(place.join("register"), processor.registration()).map_err(|source| {
            ProcessorError::Refused {
                name: processor.name,
                emulator: processor.emulator,
                source,
            }
        })?;
    }
    Ok(())
}

impl Processor {
    /// The line for the kernel: a program is recognised by the first twenty bytes of its ELF header. Of these the
    /// system (`EI_OSABI`) and the padding say nothing, and `e_type` is 2 or 3, as it is position-independent or not.
    fn registration(&self) -> String {
        let mut magic = [0_u8; 20];
        let mut mask = [0xff_u8; 20];
        magic[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', self.class, 1, 1]);
        mask[7..16].fill(0);
        (magic[16], mask[16]) = (2, 0xfe);
        magic[18] = self.machine;
        let text = |bytes: &[u8]| -> String {
            use std::fmt::Write as _;
            bytes.iter().fold(String::new(), |mut text, byte| {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
                text
            })
        };
        let Self { name, emulator, .. } = self;
        format!(":{name}:M:0:{}:{}:{emulator}:{FLAGS}", text(&magic), text(&mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_recognised_by_its_elf_header() {
        let [arm64, arm] = PROCESSORS;
        assert_eq!(
            arm64.registration(),
            ":arm64:M:0:\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00\
             :\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xfe\\xff\\xff\\xff\
             :/usr/bin/qemu-aarch64:POCF"
        );
        assert!(
            arm.registration().contains("\\x46\\x01\\x01\\x01") && arm.registration().contains("\\x28\\x00:")
        );
        // The kernel takes no longer line.
        assert!(arm64.registration().len() < 1920);
    }
}
