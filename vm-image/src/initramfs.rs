//! The initramfs: the agent as `/init`, and the modules without which it reaches neither its root file system
//! nor its host.
//!
//! ```text
//!  /init                   the agent
//!  /modules/*.ko           uncompressed, ready for finit_module
//!  /modules/modules.load   for each module a line: name, path, names of the modules that must be there first
//!  /dev/console            so that the agent's first words are heard
//!  /dev /proc /run /sys    where the agent mounts
//! ```
//!
//! The lines of `modules.load` are in an order in which the modules can be loaded one after the other; the names
//! at their ends are what an agent needs that loads several at once. The archive is not compressed:
//! an emulated processor takes 0.5 s to inflate it from gzip and 0.2 s from lz4, and 0.07 s to unpack it as it is.

use std::fmt::Write as _;

use crate::cpio::Cpio;
use crate::error::ImageError;
use crate::modules::Modules;

/// The whole archive.
pub(crate) fn write(
    agent: &[u8],
    modules: &Modules<'_>,
    names: &[String],
    time: u32,
) -> Result<Vec<u8>, ImageError> {
    let mut cpio = Cpio::new(time);
    for directory in ["dev", "modules", "proc", "run", "sys"] {
        cpio.directory(directory, 0o755);
    }
    cpio.character_device("dev/console", 0o600, 5, 1);
    cpio.character_device("dev/null", 0o666, 1, 3);
    let mut list = String::new();
    for module in modules.load_order(names)? {
        let path = format!("modules/{}", module.file_name());
        cpio.file(&path, 0o644, &modules.bytes(module)?);
        // Writing to a string does not fail.
        let _ = write!(list, "{} /{path}", module.name);
        for need in modules.needs(module) {
            let _ = write!(list, " {need}");
        }
        list.push('\n');
    }
    cpio.file("modules/modules.load", 0o644, list.as_bytes());
    cpio.file("init", 0o755, agent);
    Ok(cpio.finish())
}
