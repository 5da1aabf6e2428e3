//! Images larger than what anybody should keep in memory, and packed ones.

use cove_tests::harness::Cove;
use sha2::{Digest as _, Sha256};
use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

/// Bytes of a large image's file: as many as a test's machine has memory.
const SIZE: u64 = 1 << 30;
const LIMIT: Duration = Duration::from_mins(8);
const BLOCK: usize = 512;

/// The engine unpacks these by programs that it has to find in the machine.
pub(crate) fn images_packed_by_gzip_and_by_xz_are_loaded(cove: &Cove) {
    for packer in ["pigz", "xz -0"] {
        let load = format!("docker save alpine | {packer} | docker load");
        let said = cove.cove(["exec", "sh", "-c", &load]).limit(LIMIT).ok();
        assert!(said.contains("Loaded image: alpine:latest"), "{packer}: {said}");
    }
}

/// In through standard input, as people do it, and out through standard output. An image's id is the hash of its
/// configuration, which has the hash of the layer: what was loaded is whole, or it is refused.
pub(crate) fn a_gibibyte_is_loaded_and_saved_whole(cove: &Cove) {
    let name = "a-gibibyte";
    let mut digest = Sha256::new();
    write_layer(&mut digest).unwrap();
    let layer = hex(digest);
    let configuration = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    })
    .to_string();
    let id = hex(Sha256::new_with_prefix(&configuration));
    cove.docker(["load"])
        .input_from(move |stdin| write_image(stdin, name, &configuration))
        .limit(LIMIT)
        .ok();
    let loaded = cove.docker(["image", "inspect", "--format", "{{.Id}}", name]);
    assert_eq!(loaded.ok().trim(), format!("sha256:{id}"));

    // Read as it comes: the disk that the tests run on is not ours to fill.
    let mut saving = cove.docker(["save", name]).spawn();
    let mut archive = tar::Archive::new(saving.stdout.take().unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.size() > SIZE).unwrap();
    let mut digest = Sha256::new();
    io::copy(&mut entry, &mut digest).unwrap();
    assert_eq!(hex(digest), layer, "another layer was saved");
    io::copy(&mut archive.into_inner(), &mut io::sink()).unwrap();
    assert!(saving.wait().unwrap().success(), "it ended before it was done");
    cove.docker(["rmi", name]).limit(LIMIT).ok();
}

fn hex(digest: Sha256) -> String {
    let mut text = String::new();
    for byte in digest.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An image of one layer, as `docker load` takes it.
fn write_image(to: &mut impl Write, name: &str, configuration: &str) -> io::Result<()> {
    let tag = format!("{name}:latest");
    let manifest = serde_json::json!([{"Config": "image.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]);
    for (name, text) in [
        ("manifest.json", &*manifest.to_string()),
        ("image.json", configuration),
    ] {
        to.write_all(&header(name, text.len() as u64))?;
        to.write_all(text.as_bytes())?;
        to.write_all(&vec![0; text.len().next_multiple_of(BLOCK) - text.len()])?;
    }
    // Its file, that file's header, and the two blocks that end an archive.
    to.write_all(&header("layer.tar", SIZE + 3 * BLOCK as u64))?;
    write_layer(to)?;
    to.write_all(&[0; 2 * BLOCK])
}

/// A tar archive of one file that nothing compresses.
fn write_layer(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&header("data", SIZE))?;
    // xorshift64: quick, and without a pattern that a compressor would find.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = vec![0_u8; 1 << 20];
    for _ in 0..SIZE >> 20 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        to.write_all(&block)?;
    }
    to.write_all(&[0; 2 * BLOCK])
}

/// A file's header in a tar archive.
fn header(name: &str, length: u64) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_cksum();
    *header.as_bytes()
}
