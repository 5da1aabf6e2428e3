//! The entropy device.

use super::{Seeds, device, seeds};
use crate::driver::kind::Kind;

/// Plays a script to the device.
pub fn fuzz(input: &[u8]) {
    device::fuzz("rng", Kind::Rng, input);
}

/// What every device is asked.
pub fn seeds() -> Seeds {
    seeds::of(Kind::Rng)
}
