//! Inputs made of others, the same ones whenever a seed is: what stands in for a fuzzer where time is bounded.

use fastrand::Rng;

/// Most bytes of an input.
const LONGEST: usize = 4096;
/// Most bytes that are put in, taken out or repeated at a time.
const PIECE: usize = 64;

/// Numbers at which things change.
const INTERESTING: [u64; 24] = [
    0,
    1,
    2,
    3,
    4,
    8,
    15,
    16,
    17,
    0x40,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xfff,
    0x1000,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];

/// Makes inputs of a pool of others.
pub struct Mutator {
    rng: Rng,
    pool: Vec<Vec<u8>>,
}

impl Mutator {
    /// One that makes the same inputs for the same `seed` and `pool`.
    pub fn new(seed: u64, pool: Vec<Vec<u8>>) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            pool,
        }
    }

    /// The next input.
    pub fn make(&mut self) -> Vec<u8> {
        let mut input = self.pick();
        for _ in 0..self.rng.usize(1..=8) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn pick(&mut self) -> Vec<u8> {
        let at = self.rng.usize(0..self.pool.len().max(1));
        self.pool.get(at).cloned().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.usize(0..=input.len());
        let end = (at + self.rng.usize(0..=PIECE)).min(input.len());
        match self.rng.u8(0..8) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.u8(0..8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.rng.u8(..);
                }
            }
            2 | 3 => {
                let number = INTERESTING[self.rng.usize(0..INTERESTING.len())];
                let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
                let number = match self.rng.u8(0..4) {
                    0 => &little[..2],
                    1 => &little[..],
                    2 => &big[6..],
                    _ => &big[4..],
                };
                for (place, byte) in input[at..].iter_mut().zip(number) {
                    *place = *byte;
                }
            }
            4 => {
                input.drain(at..end);
            }
            5 => {
                let mut piece = vec![0; self.rng.usize(1..=8)];
                self.rng.fill(&mut piece);
                input.splice(at..at, piece);
            }
            6 => {
                let piece = input[at..end].to_vec();
                let to = self.rng.usize(0..=input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let other = self.pick();
                let from = self.rng.usize(0..=other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_inputs_again_and_others_differ() {
        let pool = vec![vec![1; 40], Vec::new(), (0..200).collect()];
        let make = |seed| {
            let mut mutator = Mutator::new(seed, pool.clone());
            (0..200).map(|_| mutator.make()).collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(1).iter().all(|input| input.len() <= LONGEST));
    }
}
