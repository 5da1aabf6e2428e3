//! Connections to a published TCP port, each carried to its container by a stream of its own.

use super::{Common, PAUSE};
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

/// Serves the port, for ever. A client waits for a place, and with it those behind it.
pub(super) async fn serve(listener: &TcpListener, common: &Common, container: SocketAddr) {
    let patient_until = Instant::now() + STARTING;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((client, _)) => {
                    let Ok(place) = Arc::clone(&common.places).acquire_owned().await else {
                        return;
                    };
                    let serving = serve_one(client, Arc::clone(&common.machine), container, patient_until);
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
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
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::machine::fake::{Fixture, Script};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::{sync::Semaphore, time::timeout};

    #[tokio::test]
    async fn a_client_waits_for_a_place_among_those_of_all_ports() {
        let fixture = Fixture::new(Script::default());
        let (machine, _handle) = fixture.running().await;
        let common = Common {
            places: Arc::new(Semaphore::new(1)),
            ..Common::new(machine)
        };
        let mut clients = Vec::new();
        let mut servers = JoinSet::new();
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let common = common.clone();
            let container = ([172, 17, 0, 2], 80).into();
            servers.spawn(async move { serve(&listener, &common, container).await });
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"echo").await.unwrap();
            clients.push(client);
            if clients.len() == 1 {
                clients[0].read_exact(&mut [0; 4]).await.unwrap();
            }
        }
        let mut echo = [0; 4];
        let second = timeout(RETRY, clients[1].read_exact(&mut echo)).await;
        assert!(second.is_err(), "there was no place for it");
        drop(clients.remove(0));
        let second = timeout(STARTING, clients[0].read_exact(&mut echo)).await;
        second.unwrap().unwrap();
        assert_eq!(&echo, b"echo");
    }

    #[tokio::test]
    async fn a_client_that_vanishes_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        settle(&accepted);
        assert!(SockRef::from(&accepted).keepalive().unwrap());
    }
}
