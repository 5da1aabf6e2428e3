//! Gives the builder a revision of its own: a digest over this crate's sources. An image that another revision
//! built is built again, so that nobody has to remember to raise a number.

use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    let mut sources = Vec::new();
    collect(Path::new("src"), &mut sources)?;
    sources.sort();
    let mut hash = Fnv::new();
    for source in sources {
        // The path as it is written, so that a moved file counts as a change.
        hash.update(source.to_string_lossy().as_bytes());
        hash.update(&fs::read(&source)?);
    }
    println!("cargo::rustc-env=COVE_IMAGE_BUILDER={:016x}", hash.0);
    Ok(())
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// FNV-1a, 64 bits: it tells revisions apart and guards against nothing.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
