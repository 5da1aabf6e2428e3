//! Images larger than what anybody should keep in memory.

use cove_tests::harness::Cove;
use std::{
    fs::{self, File},
    io::{self, Write},
    time::Duration,
};

const GIBIBYTE: u64 = 1 << 30;
const LIMIT: Duration = Duration::from_mins(8);

/// In by `import`, out by `save`, in again by `load`. An image's id is the hash of its content, so the same id means
/// the same gibibyte.
pub(crate) fn a_gibibyte_goes_in_and_out_and_in_again(cove: &Cove) {
    cove.docker(["import", "-", "gibibyte"])
        .input_from(write_archive)
        .limit(LIMIT)
        .ok();
    let id = |name: &str| {
        cove.docker(["image", "inspect", "--format", "{{.Id}}", name])
            .ok()
    };
    let before = id("gibibyte");

    let saved = cove.scratch().join("saved.tar");
    cove.docker(["save", "--output"])
        .arg(&saved)
        .arg("gibibyte")
        .limit(LIMIT)
        .ok();
    let length = saved.metadata().map_or(0, |file| file.len());
    assert!(length > GIBIBYTE, "only {length} bytes were saved");
    cove.docker(["rmi", "gibibyte"]).limit(LIMIT).ok();
    cove.docker(["image", "inspect", "gibibyte"]).run().fails_with(1);

    // Through standard input, as people do it.
    let from = saved.clone();
    cove.docker(["load"])
        .input_from(move |stdin| io::copy(&mut File::open(from)?, stdin).map(drop))
        .limit(LIMIT)
        .ok();
    assert_eq!(id("gibibyte"), before);
    cove.docker(["rmi", "gibibyte"]).limit(LIMIT).ok();
    // The disk that the tests run on is not ours to fill.
    let _ = fs::remove_file(saved);
}

/// A tar archive of one file of a gibibyte that nothing compresses.
fn write_archive(to: &mut impl Write) -> io::Result<()> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"data");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{GIBIBYTE:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    to.write_all(&header)?;
    // xorshift64: quick, and without a pattern that a compressor would find.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = vec![0_u8; 1 << 20];
    for _ in 0..GIBIBYTE >> 20 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        to.write_all(&block)?;
    }
    to.write_all(&[0; 1024])
}
