//! An initramfs for guests that do nothing but work for a bench.

use std::path::Path;

use anyhow::{Context, Result};
use cove_image::Cpio;

/// The initramfs of `image`, which has the modules, and `program` behind it, as `/NAME`: the kernel unpacks one after
/// the other.
pub(super) fn with_program(image: &Path, program: &Path, name: &str) -> Result<Vec<u8>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = read(&image.join("initramfs"))?;
    let mut ours = Cpio::new(0);
    ours.file(name, 0o755, &read(program)?);
    archive.extend(ours.finish());
    Ok(archive)
}
