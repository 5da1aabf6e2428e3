//! What the `zstd` program has packed, frames made by hand, and bytes that mean harm.

use super::*;
use proptest::prelude::*;
use std::io::Write as _;

/// The text of [`text`] by `zstd --fast=3`, `-3`, `-19`, and `-3 --zstd=wlog=10 --no-check`.
const SAMPLES: [(&str, &[u8]); 4] = [
    ("fast", include_bytes!("samples/fast.zst")),
    ("usual", include_bytes!("samples/usual.zst")),
    ("best", include_bytes!("samples/best.zst")),
    ("narrow", include_bytes!("samples/narrow.zst")),
];

/// Lines that are hard to pack, and then what is repeated over several blocks.
fn text() -> Vec<u8> {
    let mut text = Vec::new();
    for at in 0_u32..1500 {
        writeln!(text, "{at}: {}", at * at % 977).unwrap();
    }
    text.resize(text.len() + 300_000, b'-');
    text
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Unpacked::new(packed).read_to_end(&mut out)?;
    Ok(out)
}

fn refused(packed: &[u8]) -> bool {
    unpack(packed).is_err()
}

/// A frame with a window of 1 KiB and without a checksum, of blocks with their kinds and sizes.
fn frame(blocks: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut frame = [&MAGIC[..], &[0, 0]].concat();
    for (at, (kind, size, content)) in blocks.iter().enumerate() {
        let last = u32::from(at + 1 == blocks.len());
        frame.extend_from_slice(&(last | (kind << 1) | (size << 3)).to_le_bytes()[..3]);
        frame.extend_from_slice(content);
    }
    frame
}

#[test]
fn what_the_program_packs_at_any_level_is_unpacked() {
    let text = text();
    for (name, packed) in SAMPLES {
        assert!(unpack(packed).unwrap() == text, "{name}");
        // However little is read at a time.
        let mut unpacked = Unpacked::new(packed);
        let mut piece = [0; 7];
        unpacked.read_exact(&mut piece).unwrap();
        assert_eq!(piece, text[..7], "{name}");
    }
}

#[test]
fn frames_follow_one_another_and_some_are_passed_over() {
    let text = text();
    let skippable = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let (_, one) = SAMPLES[0];
    let (_, other) = SAMPLES[3];
    let packed = [&skippable[..], one, &skippable, other].concat();
    assert!(unpack(&packed).unwrap() == text.repeat(2));
    assert!(unpack(&[]).unwrap().is_empty());
    assert!(refused(&[one, b"tail"].concat()));
    for end in 1..skippable.len() {
        assert!(unpack(&skippable[..end]).is_err(), "{end}");
    }
}

#[test]
fn blocks_that_hold_more_than_they_may_are_refused_before_they_are_unpacked() {
    assert_eq!(
        unpack(&frame(&[(0, 2, b"ab"), (1, 1024, b"c")])).unwrap().len(),
        1026
    );
    assert!(refused(&frame(&[(0, 1025, &[7; 1025])])));
    assert!(refused(&frame(&[(1, 1025, b"c")])));
    assert!(refused(&frame(&[(3, 0, b"")])));
    // One literal, and one sequence that repeats it 65,539 times: offset 1, and codes of one symbol each.
    let sequence = [0b0000_1000, b'x', 1, 0b0101_0100, 1, 0, 52, 0, 0, 1];
    assert!(refused(&frame(&[(2, 10, &sequence)])));
    // The same, three times.
    let sequence = [0b0000_1000, b'x', 1, 0b0101_0100, 1, 0, 0, 1];
    assert_eq!(unpack(&frame(&[(2, 8, &sequence)])).unwrap(), b"xxxx");
}

#[test]
fn a_window_beyond_what_is_kept_and_a_dictionary_are_refused() {
    let header = |descriptor: u8, rest: &[u8]| [&MAGIC[..], &[descriptor], rest, &[1, 0, 0]].concat();
    // 1 << 41, and one of 32 MiB and an eighth.
    assert!(refused(&header(0, &[31 << 3])));
    assert!(refused(&header(0, &[(15 << 3) | 1])));
    assert!(unpack(&header(0, &[15 << 3])).unwrap().is_empty());
    // A whole that is as large as no memory.
    assert!(refused(&header(0xe0, &[0xff; 8])));
    // A dictionary, and none.
    assert!(refused(&header(1, &[0, 7])));
    assert!(unpack(&header(1, &[0, 0])).unwrap().is_empty());
}

proptest! {
    #[test]
    fn whatever_follows_a_header_is_unpacked_or_refused_and_never_more_than_blocks_hold(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let packed = [&MAGIC[..], &[0, 0], &bytes].concat();
        let mut out = Vec::new();
        let _ = Unpacked::new(&packed[..]).read_to_end(&mut out);
        // Three bytes are the least that a block takes. What it gives fits into the window, but for literals that no
        // sequence follows: `ruzstd` holds those to the 20 bits of their size.
        prop_assert!(out.len() <= (bytes.len() / 3 + 1) << 20);
    }

    #[test]
    fn a_sample_with_wrong_bits_is_unpacked_or_refused(
        sample in 0_usize..4,
        wrong in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut packed = SAMPLES[sample].1.to_vec();
        for (at, byte) in wrong {
            let at = at.index(packed.len());
            packed[at] ^= byte;
        }
        let mut out = Vec::new();
        let _ = Unpacked::new(&packed[..]).read_to_end(&mut out);
        prop_assert!(out.len() <= packed.len() << 17);
    }
}
