//! Huffman codes of literals (section 4.2).

use super::{Fault, bits::Backward, fse::Table};

/// Bits of the longest code.
const LONGEST: u32 = 11;
/// Bits of the table by which weights are coded, and the number of weights that there are.
const ACCURACY: u32 = 6;
const WEIGHTS: usize = 13;
/// Symbols whose weights are told: that of the last one follows from the others.
const MOST_TOLD: usize = 255;

/// A code for bytes: what the next `longest` bits begin with.
#[derive(Debug)]
pub(super) struct Huffman {
    longest: u32,
    codes: Vec<Code>,
}

#[derive(Debug, Clone, Copy)]
struct Code {
    symbol: u8,
    bits: u32,
}

impl Huffman {
    /// Reads a code's description. Also returns its length in bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, usize), Fault> {
        let short = Fault("a Huffman code that breaks off");
        let (&head, rest) = bytes.split_first().ok_or(short)?;
        let told = usize::from(head);
        let (mut weights, length): (Vec<u8>, usize) = if told >= 128 {
            let count = told - 127;
            let length = count.div_ceil(2);
            let packed = rest.get(..length).ok_or(short)?;
            let pairs = packed.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            (pairs.take(count).collect(), length)
        } else {
            (coded_weights(rest.get(..told).ok_or(short)?)?, told)
        };
        let wrong = Fault("weights that are no Huffman code's");
        let share = |weight: &u8| weight.checked_sub(1).map_or(0, |power| 1_u32 << power);
        let taken: u32 = weights.iter().map(share).sum();
        let longest = taken.checked_ilog2().ok_or(wrong)? + 1;
        let left = (1 << longest) - taken;
        if longest > LONGEST || !left.is_power_of_two() {
            return Err(wrong);
        }
        weights.push(u8::try_from(left.ilog2() + 1).map_err(|_| wrong)?);
        let mut codes = Vec::with_capacity(1 << longest);
        for weight in 1..=longest {
            for (symbol, _) in (0..=u8::MAX)
                .zip(&weights)
                .filter(|(_, of)| u32::from(**of) == weight)
            {
                let code = Code {
                    symbol,
                    bits: longest + 1 - weight,
                };
                codes.extend(std::iter::repeat_n(code, 1 << (weight - 1)));
            }
        }
        Ok((Self { longest, codes }, 1 + length))
    }

    /// Appends the `count` bytes that these bits stand for.
    pub(super) fn decode(&self, bytes: &[u8], count: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut bits = Backward::new(bytes)?;
        for _ in 0..count {
            // The weights' shares make just as many codes as there are values of these bits.
            let code = self.codes[bits.peek(self.longest) as usize];
            out.push(code.symbol);
            bits.consume(code.bits);
        }
        if bits.is_at_its_end() {
            Ok(())
        } else {
            Err(Fault("literals that are more or less than was said"))
        }
    }
}

/// Weights that are coded by a table, two states taking turns until the bits have ended.
fn coded_weights(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let (table, length) = Table::read(bytes, ACCURACY, WEIGHTS)?;
    let mut bits = Backward::new(bytes.get(length..).unwrap_or_default())?;
    let (mut one, mut other) = (table.begin(&mut bits), table.begin(&mut bits));
    if bits.is_over() {
        return Err(Fault("a Huffman code that breaks off"));
    }
    let mut weights = Vec::new();
    // Two more may follow.
    while weights.len() + 2 <= MOST_TOLD {
        weights.push(table.symbol(one));
        one = table.next(one, &mut bits);
        if bits.is_over() {
            weights.push(table.symbol(other));
            return Ok(weights);
        }
        (one, other) = (other, one);
    }
    Err(Fault("a Huffman code of more bytes than there are"))
}
