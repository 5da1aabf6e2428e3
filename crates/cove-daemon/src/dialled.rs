//! TCP connections to addresses within a machine.

use crate::machine::agent::{OpenError, open_stream};
use cove_machine::{Connection, Machine};
use cove_wire::{Dial, Open};
use std::net::SocketAddr;

/// A connection, which tells a reset from an end.
pub(crate) type Dialled = cove_api::Dialled<Connection>;

/// Connects to an address as seen from within a network namespace of the guest's, the path of its file, or else from
/// within the guest's own.
pub(crate) async fn dial(
    machine: &dyn Machine,
    address: SocketAddr,
    namespace: Option<String>,
) -> Result<Dialled, OpenError> {
    let open = Open::Connection(Dial { address, namespace });
    Ok(Dialled::new(open_stream(machine, &open).await?))
}
