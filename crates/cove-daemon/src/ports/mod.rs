//! Published ports: what containers offer, on this computer's own addresses.
//!
//! ```text
//!  the engine's proxy ── Publish ──▶ lease ── binds ──▶ listener ── client ──▶ stream to the container
//!                     ◀─ Published ──  │
//!                                      └─ the proxy's connection ends: listener and clients end
//! ```
//!
//! A lease is the connection on which the guest asked for a port. One task owns all leases of a machine, and each
//! lease's task owns its listener and the connections through it, so that ending one ends everything below it: with its
//! container, with an engine that crashes, with the machine. After a restart of this daemon the guest asks anew, and
//! waits for a port that another program has taken meanwhile.
//!
//! What swarm services publish nobody asks for; [`services`] finds that out.
//!
//! The guest is hostile: it can ask for any port that the user could bind, as many as [`MAX_LEASES`], and nothing
//! else. Containers see the address of their network's gateway as the client's.

mod bind;
mod datagrams;
mod endpoint;
mod ledger;
mod services;
mod streams;

pub(crate) use ledger::Ledger;

use crate::machine::chain;
use bind::Bound;
use cove_machine::{Connection, Machine};
use cove_wire::{Codec, Fault, FaultCode, Protocol, Publish, Published, WireError, port};
use futures_util::{SinkExt, StreamExt};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::codec::Framed;

/// Ports that a guest may hold at once, and further ones that it may be refused at once: who waits for an answer for
/// ever has an engine that says no more than that it waited.
const MAX_LEASES: usize = 4096;
const MAX_REFUSED: usize = 64;
/// Connections to all published ports at once. With the leases, each of which has a connection to the guest as well,
/// they leave a quarter of those that the machine can have to whoever else needs one: to Docker clients before all.
const MAX_CONNECTIONS: usize = 8192;
/// How long a guest may take to say which port it wants.
const ASKING: Duration = Duration::from_secs(10);
/// The pause after an accept that failed, as it does for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What all published ports of a machine have in common.
#[derive(Clone)]
struct Common {
    machine: Arc<dyn Machine>,
    ledger: Ledger,
    /// For the connections to them.
    places: Arc<Semaphore>,
}

impl Common {
    fn new(machine: Arc<dyn Machine>) -> Self {
        Self {
            machine,
            ledger: Ledger::default(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }
}

/// The published ports of a running machine. Dropping this releases them.
#[derive(Debug)]
pub(crate) struct Ports {
    task: JoinHandle<()>,
    ledger: Ledger,
}

impl Ports {
    /// Publishes what the machine's engine asks for.
    pub(crate) fn of(machine: Arc<dyn Machine>) -> Self {
        let common = Common::new(machine);
        Self {
            ledger: common.ledger.clone(),
            task: tokio::spawn(async move {
                tokio::join!(serve(common.clone()), services::follow(common));
            }),
        }
    }

    /// What is published, from now on.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(common: Common) {
    let listener = match common.machine.listen(port::HOST).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("ports cannot be published: {}", chain(&error));
            return;
        }
    };
    let mut leases = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if leases.len() < MAX_LEASES + MAX_REFUSED => match accepted {
                Ok(connection) => {
                    let free = leases.len() < MAX_LEASES;
                    leases.spawn(lease(connection, common.clone(), free));
                }
                Err(error) => {
                    tracing::warn!("accepting the guest's connection failed: {error}");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = leases.join_next() => {}
        }
    }
}

/// Serves one connection, on which a port is asked for. `free` says whether the guest may have another one.
async fn lease(connection: Connection, common: Common, free: bool) {
    let mut wire: Framed<_, Codec<Publish, Published>> = Framed::new(connection, Codec::default());
    let publish = match timeout(ASKING, wire.next()).await {
        Ok(Some(Ok(publish))) => publish,
        Ok(Some(Err(error))) => return broken(&error),
        // It went away, or has nothing to ask.
        Ok(None) | Err(_) => return,
    };
    let binding = async {
        if !free {
            return Err(one_too_many(&publish));
        }
        if publish.patient {
            return Ok(bind::wait_for(&publish, &common.ledger).await);
        }
        bind::bind(publish.protocol, publish.host).await
    };
    let (bound, result) = tokio::select! {
        bound = binding => match bound {
            Ok(bound) => (Some(bound), Ok(())),
            Err(fault) => (None, Err(fault)),
        },
        // Its container has gone meanwhile: nothing is to come before the answer.
        _ = wire.next() => return,
    };
    let listens = bound.as_ref().is_some_and(Bound::listens);
    let _entry = listens.then(|| common.ledger.enter(publish));
    match &result {
        Ok(()) if !listens => {
            tracing::info!(port = %publish.host, "granted without a listener: this computer has no IPv6");
        }
        Ok(()) => tracing::info!(protocol = %publish.protocol, port = %publish.host, "published"),
        Err(fault) => tracing::info!("not published: {fault}"),
    }
    if let Err(error) = wire.send(Published { result }).await {
        return broken(&error);
    }
    let serving = async {
        match bound {
            Some(Bound::Streams(listener)) => {
                streams::serve(&listener, &common, publish.container).await;
            }
            Some(Bound::Datagrams(endpoint)) => {
                datagrams::serve(endpoint, common.machine, publish.container).await;
            }
            // The lease lasts as long as any.
            Some(Bound::Nothing) => std::future::pending().await,
            None => {}
        }
    };
    tokio::select! {
        () = serving => {}
        // Nothing is to come but the end.
        _ = wire.next() => {}
    }
    tracing::info!(protocol = %publish.protocol, port = %publish.host, "released");
}

fn one_too_many(publish: &Publish) -> Fault {
    let network = network(publish.protocol, &publish.host);
    let why = format!("the machine has published {MAX_LEASES} ports already, which is the most");
    Fault::new(
        FaultCode::Failed,
        format!("listen {network} {}: {why}", publish.host),
    )
}

fn broken(error: &WireError) {
    tracing::warn!("the guest's proxy broke off: {}", chain(error));
}

/// The engine's word for a protocol over an address family, such as `tcp4`.
fn network(protocol: Protocol, address: &std::net::SocketAddr) -> String {
    format!("{protocol}{}", if address.is_ipv4() { 4 } else { 6 })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::machine::fake::{Fixture, Script};
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn one_port_too_many_is_refused_with_the_reason_and_not_kept_waiting() {
        let fixture = Fixture::new(Script::default());
        let (machine, _handle) = fixture.running().await;
        for (free, reason) in [(false, "published 4096 ports already"), (true, "port 0 cannot")] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let common = Common::new(Arc::clone(&machine));
            let leasing = tokio::spawn(lease(theirs.into(), common, free));
            let mut proxy: Framed<_, Codec<Published, Publish>> = Framed::new(ours, Codec::default());
            let publish = Publish {
                protocol: Protocol::Tcp,
                host: ([127, 0, 0, 1], 0).into(),
                container: ([172, 17, 0, 2], 80).into(),
                patient: false,
            };
            proxy.send(publish).await.unwrap();
            let answer = timeout(ASKING, proxy.next()).await.unwrap().unwrap().unwrap();
            let fault = answer.result.unwrap_err();
            assert!(fault.message.contains(reason), "{}", fault.message);
            leasing.await.unwrap();
        }
    }
}
