//! Accounts at registries, lent by the host to the Docker clients that it runs in the guest: both programs on the way,
//! which are the agent under another name and with another argument. The picture is in `cove_wire`'s module of the same
//! name.
//!
//! Neither keeps anything: what is asked and answered is in their memory for as long as they pass it on.

mod helper;
mod lender;

pub(crate) use helper::{help, is_helper};
pub(crate) use lender::{is_lender, lend};

use cove_wire::{HEADER_LEN, WireError, body_len};
use std::io::Read;

/// The body of the next frame.
fn read_body(from: &mut impl Read) -> Result<Vec<u8>, WireError> {
    let mut header = [0; HEADER_LEN];
    from.read_exact(&mut header)?;
    let mut body = vec![0; body_len(header)?];
    from.read_exact(&mut body)?;
    Ok(body)
}
