//! Tables of the entropy coder FSE (section 4.1): each state stands for a symbol, and says how to come to the next one.

use super::{
    Fault,
    bits::{Backward, Forward},
};

/// A table of `1 << accuracy` states.
#[derive(Debug)]
pub(super) struct Table {
    accuracy: u32,
    states: Vec<State>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    symbol: u8,
    /// The next state is `base` and a number of so many bits.
    bits: u32,
    base: u32,
}

impl Table {
    /// The table of one symbol that is always meant.
    pub(super) fn of_one(symbol: u8) -> Self {
        Self {
            accuracy: 0,
            states: vec![State {
                symbol,
                ..State::default()
            }],
        }
    }

    /// The table in which each symbol has so many states; -1 stands for less than one. Together they are all states.
    pub(super) fn of_shares(accuracy: u32, shares: &[i16]) -> Result<Self, Fault> {
        let wrong = Fault("a table whose shares are not its states");
        let size = 1_u32 << accuracy;
        let all = size as usize;
        let taken: usize = shares.iter().map(|share| usize::from(share.unsigned_abs())).sum();
        if taken != all {
            return Err(wrong);
        }
        let mut states = vec![State::default(); all];
        let mut nexts = vec![0_u32; shares.len()];
        // Those with less than one state are at the end.
        let mut high = all;
        for ((symbol, share), next) in (0_u8..=u8::MAX).zip(shares).zip(&mut nexts) {
            if *share == -1 {
                high -= 1;
                states[high].symbol = symbol;
                *next = 1;
            }
        }
        let step = (all >> 1) + (all >> 3) + 3;
        let mut at = 0;
        for ((symbol, share), next) in (0_u8..=u8::MAX).zip(shares).zip(&mut nexts) {
            let Ok(share) = u32::try_from(*share) else {
                continue;
            };
            for _ in 0..share {
                states[at].symbol = symbol;
                // The step has no divisor in common with the size, and so comes to all states.
                at = (at + step) % all;
                while at >= high {
                    at = (at + step) % all;
                }
            }
            *next = share;
        }
        for state in &mut states {
            let next = nexts.get_mut(usize::from(state.symbol)).ok_or(wrong)?;
            state.bits = accuracy - next.checked_ilog2().ok_or(wrong)?;
            state.base = (*next << state.bits) - size;
            *next += 1;
        }
        Ok(Self { accuracy, states })
    }

    /// Reads a table's description, with at most so many bits and symbols. Also returns its length in bytes.
    pub(super) fn read(
        bytes: &[u8],
        most_accuracy: u32,
        most_symbols: usize,
    ) -> Result<(Self, usize), Fault> {
        let mut bits = Forward::new(bytes);
        let accuracy = bits.read(4)? + 5;
        if accuracy > most_accuracy {
            return Err(Fault("a table that is larger than it may be"));
        }
        let mut left = 1_u32 << accuracy;
        let mut shares = Vec::new();
        while left > 0 {
            // Small numbers take a bit less than the others.
            let width = (left + 1).ilog2();
            let low = bits.read(width)?;
            let small = (2 << width) - 2 - left;
            let value = if low < small || bits.read(1)? == 0 {
                low
            } else {
                low + (1 << width) - small
            };
            let share = i16::try_from(value).unwrap_or(i16::MAX) - 1;
            let taken = left.checked_sub(u32::from(share.unsigned_abs()));
            left = taken.ok_or(Fault("a table with more shares than states"))?;
            shares.push(share);
            let mut more = share == 0;
            while more {
                let zeros = bits.read(2)?;
                shares.extend(std::iter::repeat_n(0, zeros as usize));
                more = zeros == 3 && shares.len() <= most_symbols;
            }
            if shares.len() > most_symbols {
                return Err(Fault("a table of more symbols than there are"));
            }
        }
        Ok((Self::of_shares(accuracy, &shares)?, bits.bytes_read()))
    }

    /// The state that the bits begin with.
    pub(super) fn begin(&self, bits: &mut Backward<'_>) -> usize {
        bits.read(self.accuracy) as usize
    }

    /// What a state stands for.
    pub(super) fn symbol(&self, state: usize) -> u8 {
        self.states[state].symbol
    }

    /// The state that follows one.
    pub(super) fn next(&self, state: usize, bits: &mut Backward<'_>) -> usize {
        let State {
            bits: count, base, ..
        } = self.states[state];
        // By the way in which tables are made this is a state again.
        (base + bits.read(count)) as usize
    }
}
