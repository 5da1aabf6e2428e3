//! What the `zstd` program has packed, frames made by hand, and bytes that mean harm.

use super::*;
use proptest::prelude::*;

/// The text of [`text`] by `zstd --fast=3`, `-3`, `-19`, and `-3 --zstd=wlog=10 --no-check`.
const SAMPLES: [(&str, &[u8]); 4] = [
    ("fast", include_bytes!("samples/fast.zst")),
    ("usual", include_bytes!("samples/usual.zst")),
    ("best", include_bytes!("samples/best.zst")),
    ("narrow", include_bytes!("samples/narrow.zst")),
];

/// Lines that are hard to pack, and then what is repeated over several blocks.
fn text() -> Vec<u8> {
    let lines: String = (0_u32..1500)
        .map(|at| format!("{at}: {}\n", at * at % 977))
        .collect();
    let mut text = lines.into_bytes();
    text.resize(text.len() + 300_000, b'-');
    text
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Unpacked::new(packed).read_to_end(&mut out)?;
    Ok(out)
}

fn fault(packed: &[u8]) -> String {
    unpack(packed).unwrap_err().to_string()
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
    assert_eq!(fault(&[one, b"tail"].concat()), "something else behind a frame");
    for end in 1..skippable.len() {
        assert!(unpack(&skippable[..end]).is_err(), "{end}");
    }
}

#[test]
fn no_more_is_kept_than_the_window_and_a_block() {
    let (_, narrow) = SAMPLES[3];
    let mut unpacked = Unpacked::new(narrow);
    let (mut whole, mut piece) = (0, [0; 1000]);
    loop {
        let count = unpacked.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        whole += count;
        assert!(
            unpacked.out.len() <= 2 * MOST_BLOCK + (1 << 10),
            "{}",
            unpacked.out.len()
        );
    }
    assert_eq!(whole, text().len());
}

#[test]
fn blocks_that_hold_more_than_they_may_are_refused_before_they_are_unpacked() {
    assert_eq!(
        unpack(&frame(&[(0, 2, b"ab"), (1, 1024, b"c")])).unwrap().len(),
        1026
    );
    let larger = "a block that is larger than any";
    assert_eq!(fault(&frame(&[(0, 1025, &[7; 1025])])), larger);
    assert_eq!(fault(&frame(&[(1, 1025, b"c")])), larger);
    assert_eq!(fault(&frame(&[(3, 0, b"")])), "a block of no known kind");
    // One literal, and one sequence that repeats it 65,539 times: offset 1, and codes of one symbol each.
    let sequence = [0b0000_1000, b'x', 1, 0b0101_0100, 1, 0, 52, 0, 0, 1];
    assert_eq!(fault(&frame(&[(2, 10, &sequence)])), larger);
    // The same, three times.
    let sequence = [0b0000_1000, b'x', 1, 0b0101_0100, 1, 0, 0, 1];
    assert_eq!(unpack(&frame(&[(2, 8, &sequence)])).unwrap(), b"xxxx");
}

#[test]
fn a_window_beyond_what_is_kept_and_a_dictionary_are_refused() {
    let header = |descriptor: u8, rest: &[u8]| [&MAGIC[..], &[descriptor], rest, &[1, 0, 0]].concat();
    let too_far = "a frame that refers further back than is kept";
    // 1 << 41, and one of 32 MiB and an eighth.
    assert_eq!(fault(&header(0, &[31 << 3])), too_far);
    assert_eq!(fault(&header(0, &[(15 << 3) | 1])), too_far);
    assert!(unpack(&header(0, &[15 << 3])).unwrap().is_empty());
    // A whole that is as large as no memory.
    assert_eq!(fault(&header(0xe0, &[0xff; 8])), too_far);
    assert_eq!(fault(&header(1, &[0, 7])), "a frame that needs a dictionary");
    assert!(unpack(&header(1, &[0, 0])).unwrap().is_empty());
    assert_eq!(fault(&header(8, &[0])), "a frame of a later format");
}

proptest! {
    #[test]
    fn whatever_follows_a_header_is_unpacked_or_refused_and_never_more_than_blocks_hold(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let packed = [&MAGIC[..], &[0, 0], &bytes].concat();
        let mut out = Vec::new();
        let _ = Unpacked::new(&packed[..]).read_to_end(&mut out);
        // Three bytes are the least that a block takes, and a kibibyte is the most that it gives.
        prop_assert!(out.len() <= (bytes.len() / 3 + 1) << 10);
    }

    #[test]
    fn a_packed_block_of_any_bytes_is_unpacked_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut out = b"what was there before".to_vec();
        let before = out.len();
        let _ = Blocks::default().unpack(&bytes, 1000, &mut out);
        prop_assert!(out.len() <= before + 1000);
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
        prop_assert!(out.len() <= packed.len() * MOST_BLOCK);
    }
}
