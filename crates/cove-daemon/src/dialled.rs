//! TCP connections to addresses within a machine.

use crate::machine::agent::{OpenError, open_stream};
use cove_machine::{Connection, Machine};
use cove_wire::{Dial, Open};
use std::net::SocketAddr;

/// A connection, which tells a reset from an end.
pub(crate) type Dialled = cove_api::Dialled<Connection>;

/// Connects to an address as seen from within the guest.
pub(crate) async fn dial(machine: &dyn Machine, address: SocketAddr) -> Result<Dialled, OpenError> {
    let open = Open::Connection(Dial {
        address,
        namespace: None,
    });
    Ok(Dialled::new(open_stream(machine, &open).await?))
}
