//! Connections to a published TCP port, each carried to its container by a stream of its own.

use super::PAUSE;
use crate::machine::agent::{OpenError, open_stream};
use cove_machine::Machine;
use cove_wire::{Dial, FaultCode, Open};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

/// Connections to one port at once; further ones wait in the listener's backlog.
const MOST: usize = 4096;
/// How long after it was published a port's server may still be starting: clients wait for it instead of being
/// turned away, because `docker run` returns before a program in the container can listen.
const STARTING: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(100);
/// Bytes on their way in each direction.
const BUFFER: usize = 32 << 10;

/// Serves the port, for ever.
pub(super) async fn serve(listener: &TcpListener, machine: &Arc<dyn Machine>, container: SocketAddr) {
    let patient_until = Instant::now() + STARTING;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST => match accepted {
                Ok((client, _)) => {
                    connections.spawn(carry(client, Arc::clone(machine), container, patient_until));
                }
                Err(error) => {
                    tracing::warn!("accepting a connection to a published port failed: {error}");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(
    mut client: TcpStream,
    machine: Arc<dyn Machine>,
    container: SocketAddr,
    patient_until: Instant,
) {
    // Only speed depends on it.
    let _ = client.set_nodelay(true);
    let open = Open::Dial(Dial {
        address: container,
        namespace: None,
    });
    let mut inner = loop {
        match open_stream(&*machine, &open).await {
            Ok(inner) => break inner,
            Err(OpenError::Fault(fault))
                if fault.code == FaultCode::Unreachable && Instant::now() < patient_until =>
            {
                sleep(RETRY).await;
            }
            Err(error) => {
                tracing::debug!(%container, "a client of a published port is turned away: {error}");
                // A reset instead of an end, which a client could take for an empty answer.
                let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    };
    // A peer that resets its connection is everyday life.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut inner, BUFFER, BUFFER).await;
}
