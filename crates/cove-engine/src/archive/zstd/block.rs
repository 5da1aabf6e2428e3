//! Packed blocks (section 3.1.1.3): literals, and sequences that say how many of them follow and what is repeated of
//! what came before.

use super::{Fault, MOST_BLOCK, bits::Backward, fse::Table, huffman::Huffman};

/// A code's meaning: the number that it begins at, and how many bits are added.
type Range = (u32, u32);

/// Lengths of literals (section 3.1.1.3.2.1.1).
const LITERALS: [Range; 36] = [
    (0, 0),
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];
/// Lengths of what is repeated, from code 32 on; those before stand for 3 and what follows it.
const MATCHES: [Range; 21] = [
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16387, 14),
    (32771, 15),
    (65539, 16),
];
/// The largest code of an offset: 32 bits.
const MOST_OFFSET: u8 = 31;

/// A kind of codes: the bits of its largest table, how many codes there are, and the table that needs no description
/// (section 3.1.1.3.2.2).
struct Kind {
    most_accuracy: u32,
    codes: usize,
    accuracy: u32,
    shares: &'static [i16],
}

/// Literals, offsets, matches, in the order of a block.
const KINDS: [Kind; 3] = [
    Kind {
        most_accuracy: 9,
        codes: 36,
        accuracy: 6,
        shares: &[
            4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
            -1, -1, -1, -1,
        ],
    },
    Kind {
        most_accuracy: 8,
        codes: 32,
        accuracy: 5,
        shares: &[
            1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
        ],
    },
    Kind {
        most_accuracy: 9,
        codes: 53,
        accuracy: 6,
        shares: &[
            1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
        ],
    },
];

/// What the packed blocks of a frame hand on to one another.
pub(super) struct Blocks {
    huffman: Option<Huffman>,
    /// By [`KINDS`].
    tables: [Option<Table>; 3],
    /// The offsets that were used last.
    offsets: [u64; 3],
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            huffman: None,
            tables: [None, None, None],
            offsets: [1, 4, 8],
        }
    }
}

impl Blocks {
    /// Appends what a block holds to `out`, where it may refer to what is there: `most` bytes at most.
    pub(super) fn unpack(&mut self, block: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        let most = out.len() + most;
        let too_long = Fault("a block that is larger than any");
        let (literals, length) = self.literals(block)?;
        let mut literals = literals.as_slice();
        let mut rest = Bytes(block.get(length..).unwrap_or_default());
        let count = match rest.byte()? {
            count @ 0..128 => usize::from(count),
            high @ 128..255 => (usize::from(high - 128) << 8) | usize::from(rest.byte()?),
            255 => size(rest.number(2)?) + 0x7f00,
        };
        if count > 0 {
            let modes = rest.byte()?;
            for ((kind, table), shift) in KINDS.iter().zip(&mut self.tables).zip([6, 4, 2]) {
                match (modes >> shift) & 3 {
                    0 => *table = Some(Table::of_shares(kind.accuracy, kind.shares)?),
                    1 => *table = Some(Table::of_one(rest.byte()?)),
                    2 => {
                        let (read, length) = Table::read(rest.0, kind.most_accuracy, kind.codes)?;
                        rest.take(length)?;
                        *table = Some(read);
                    }
                    _ => {}
                }
            }
            let [Some(of_literals), Some(of_offsets), Some(of_matches)] = &self.tables else {
                return Err(Fault("a block that repeats a table that was not there"));
            };
            let mut bits = Backward::new(rest.0)?;
            let mut literal = of_literals.begin(&mut bits);
            let mut offset = of_offsets.begin(&mut bits);
            let mut matched = of_matches.begin(&mut bits);
            for at in 1..=count {
                let code = of_offsets.symbol(offset);
                if code > MOST_OFFSET {
                    return Err(Fault("an offset of no known code"));
                }
                let value = (1 << code) + u64::from(bits.read(u32::from(code)));
                let repeated = number(match_range(of_matches.symbol(matched))?, &mut bits);
                let range = LITERALS.get(usize::from(of_literals.symbol(literal)));
                let copied = number(*range.ok_or(Fault("a length of no known code"))?, &mut bits);
                if at < count {
                    literal = of_literals.next(literal, &mut bits);
                    matched = of_matches.next(matched, &mut bits);
                    offset = of_offsets.next(offset, &mut bits);
                }
                if bits.is_over() {
                    return Err(Fault("sequences that break off"));
                }
                let back = turn(&mut self.offsets, value, copied == 0);
                let (now, later) = literals
                    .split_at_checked(copied)
                    .ok_or(Fault("sequences with more literals than there are"))?;
                if out.len() + copied + repeated > most {
                    return Err(too_long);
                }
                out.extend_from_slice(now);
                literals = later;
                repeat(out, back, repeated)?;
            }
            if !bits.is_at_its_end() {
                return Err(Fault("something else behind the sequences"));
            }
        }
        if out.len() + literals.len() > most {
            return Err(too_long);
        }
        out.extend_from_slice(literals);
        Ok(())
    }

    /// A block's literals, and the length of their section in bytes.
    fn literals(&mut self, block: &[u8]) -> Result<(Vec<u8>, usize), Fault> {
        let mut rest = Bytes(block);
        let head = *block.first().ok_or(Fault("a block without literals"))?;
        let (kind, format) = (head & 3, (head >> 2) & 3);
        if kind < 2 {
            let (bytes, shift) = match format {
                1 => (2, 4),
                3 => (3, 4),
                _ => (1, 3),
            };
            let count = size(rest.number(bytes)? >> shift);
            check_literals(count)?;
            let literals = if kind == 0 {
                rest.take(count)?.to_vec()
            } else {
                vec![rest.byte()?; count]
            };
            return Ok((literals, block.len() - rest.0.len()));
        }
        let (bytes, width, streams) = match format {
            0 => (3, 10, 1),
            1 => (3, 10, 4),
            2 => (4, 14, 4),
            _ => (5, 18, 4),
        };
        let sizes = rest.number(bytes)? >> 4;
        let (count, packed) = (size(sizes & ((1 << width) - 1)), size(sizes >> width));
        check_literals(count)?;
        let mut coded = Bytes(rest.take(packed)?);
        if kind == 2 {
            let (huffman, length) = Huffman::read(coded.0)?;
            coded.take(length)?;
            self.huffman = Some(huffman);
        }
        let huffman = self.huffman.as_ref();
        let huffman = huffman.ok_or(Fault("a block that repeats a code that was not there"))?;
        let mut literals = Vec::with_capacity(count);
        if streams == 1 {
            huffman.decode(coded.0, count, &mut literals)?;
        } else {
            let lengths = [coded.number(2)?, coded.number(2)?, coded.number(2)?];
            let each = count.div_ceil(4);
            let last = count
                .checked_sub(3 * each)
                .ok_or(Fault("fewer literals than streams"))?;
            for length in lengths {
                huffman.decode(coded.take(size(length))?, each, &mut literals)?;
            }
            huffman.decode(coded.0, last, &mut literals)?;
        }
        Ok((literals, block.len() - rest.0.len()))
    }
}

fn check_literals(count: usize) -> Result<(), Fault> {
    if count > MOST_BLOCK {
        return Err(Fault("more literals than a block holds"));
    }
    Ok(())
}

/// A number of bytes. What is beyond this computer's is more than there are.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The range of a match's code.
fn match_range(code: u8) -> Result<Range, Fault> {
    match code.checked_sub(32) {
        None => Ok((u32::from(code) + 3, 0)),
        Some(large) => {
            let range = MATCHES.get(usize::from(large));
            range.copied().ok_or(Fault("a length of no known code"))
        }
    }
}

fn number((base, count): Range, bits: &mut Backward<'_>) -> usize {
    (base + bits.read(count)) as usize
}

/// How far back a sequence refers, of whose literals there may be none: a distance, or one of the last three, which are
/// put in their new order (section 3.1.1.5).
fn turn(last: &mut [u64; 3], value: u64, no_literals: bool) -> u64 {
    let [first, second, third] = *last;
    let which = value - 1 + u64::from(no_literals);
    let (back, order) = match (value, which) {
        (4.., _) => (value - 3, [value - 3, first, second]),
        (_, 0) => (first, *last),
        (_, 1) => (second, [second, first, third]),
        (_, 2) => (third, [third, first, second]),
        _ => (first - 1, [first - 1, first, second]),
    };
    *last = order;
    back
}

/// Appends so many bytes of those that begin so far back; they may be among those that are appended.
fn repeat(out: &mut Vec<u8>, back: u64, mut count: usize) -> Result<(), Fault> {
    let back = usize::try_from(back).ok().filter(|&back| back > 0);
    let from = back.and_then(|back| out.len().checked_sub(back));
    let from = from.ok_or(Fault("a sequence that refers to what was not there"))?;
    while count > 0 {
        // Twice as much with each turn, if need be.
        let piece = count.min(out.len() - from);
        out.extend_from_within(from..from + piece);
        count -= piece;
    }
    Ok(())
}

/// What is left of a block.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Fault("a block that breaks off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    /// A number of so many bytes, eight at most, the lowest first.
    fn number(&mut self, bytes: usize) -> Result<u64, Fault> {
        let taken = self.take(bytes)?.iter().rev();
        Ok(taken.fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
}
