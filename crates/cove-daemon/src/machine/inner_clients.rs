//! Docker clients in the guest, such as that of `cove docker`, on their way to the gateway.

use super::{Handle, agent::open_stream};
use crate::gateway::Clients;
use cove_machine::Connection;
use cove_wire::Open;
use std::{io, time::Duration};
use tokio::time::timeout;

/// The pause before a guest is asked again that is not up yet, or has just gone.
const RETRY: Duration = Duration::from_secs(1);

/// The clients in the machine behind a handle, whenever it runs.
pub(crate) struct InnerClients(pub(crate) Handle);

impl Clients for InnerClients {
    type Client = Connection;

    async fn accept(&mut self) -> io::Result<Connection> {
        let mut snapshots = self.0.watch();
        loop {
            let machine = snapshots.wait_for(|snapshot| snapshot.machine.is_some()).await;
            // The gateway ends with the owner.
            let Some(machine) = machine.map_err(io::Error::other)?.machine.clone() else {
                continue;
            };
            match open_stream(&*machine, &Open::Client).await {
                Ok(client) => return Ok(client),
                Err(error) => {
                    tracing::trace!("the guest has no client: {error}");
                    let _ = timeout(RETRY, snapshots.changed()).await;
                }
            }
        }
    }
}
