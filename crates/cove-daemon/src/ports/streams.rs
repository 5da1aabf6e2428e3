//! Connections to a published TCP port, each carried to its container by a stream of its own.

use super::PAUSE;
use crate::{dialled::dial, machine::agent::OpenError};
use cove_machine::Machine;
use cove_wire::FaultCode;
use socket2::{SockRef, TcpKeepalive};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

/// Connections to one port at once; further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// How long after it was published a port's server may still be starting: clients wait for it instead of being
/// turned away, because `docker run` returns before a program in the container can listen.
const STARTING: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(100);
/// How long a client may be silent before it is asked for a sign of life, and how often it is asked then: one that
/// vanished, as a telephone out of reach does, frees its place after some minutes.
const SILENCE: Duration = Duration::from_mins(1);
const ASK_EVERY: Duration = Duration::from_secs(15);

/// Serves the port, for ever.
pub(super) async fn serve(listener: &TcpListener, machine: &Arc<dyn Machine>, container: SocketAddr) {
    let patient_until = Instant::now() + STARTING;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((client, _)) => {
                    connections.spawn(serve_one(client, Arc::clone(machine), container, patient_until));
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

async fn serve_one(
    client: TcpStream,
    machine: Arc<dyn Machine>,
    container: SocketAddr,
    patient_until: Instant,
) {
    settle(&client);
    let dialling = async {
        loop {
            match dial(&*machine, container, None).await {
                Err(OpenError::Fault(fault))
                    if fault.code == FaultCode::Unreachable && Instant::now() < patient_until =>
                {
                    sleep(RETRY).await;
                }
                dialled => return dialled,
            }
        }
    };
    if let Err(error) = cove_api::carry_tcp(client, dialling).await {
        tracing::debug!(%container, "a client of a published port is turned away: {error}");
    }
}

/// Sets what a connection of a client's needs. None of it is worth turning the client away for.
fn settle(client: &TcpStream) {
    let _ = client.set_nodelay(true);
    let alive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_EVERY);
    let _ = SockRef::from(client).set_tcp_keepalive(&alive);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_vanishes_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        settle(&accepted);
        assert!(SockRef::from(&accepted).keepalive().unwrap());
    }
}
