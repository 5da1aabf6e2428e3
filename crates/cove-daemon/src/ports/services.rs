//! Ports that swarm services publish (`docker service create --publish 8080:80`). The engine has no proxy for these: it
//! spreads them over a service's tasks by rules in the guest's kernel, at the guest's own address. So nobody asks for
//! them as for a container's; instead the engine is asked which there are, whenever it says that a service changed.
//!
//! ```text
//!  engine ── an event ──▶ follow ── which ports? ──▶ engine
//!                           ├── a new one ──▶ listener ── client ──▶ stream to the guest's address, and on to a task
//!                           └── one that is gone: its listener and its clients end
//! ```
//!
//! One task owns all of them. A port that another program has is tried again until the service is gone: services start
//! and move long after anybody could be told.

use super::{Common, PAUSE, bind, bind::Bound, datagrams, streams};
use crate::machine::{ask_engine, engine_events};
use cove_machine::Machine;
use cove_wire::{Protocol, Publish, network};
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// Ports of services that are held at most.
const MAX_PORTS: usize = 1024;
/// The pause between attempts to hear from the engine, which may be starting.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a list with ports is believed without an event: leaving a swarm makes none.
const BELIEVED: Duration = Duration::from_secs(10);
/// Events that tell of a service's coming and going, and of the swarm's; not those of every container that joins a
/// network.
const EVENTS: &str =
    r#"/events?filters={"type":["service","node","network"],"event":["create","update","remove","destroy"]}"#;

/// A port as services publish them: on every address.
type Port = (Protocol, u16);

/// Publishes what services publish, for ever.
pub(super) async fn follow(common: Common) {
    let machine = &*common.machine;
    let mut held: HashMap<Port, JoinSet<()>> = HashMap::new();
    loop {
        if let Ok(mut events) = engine_events(machine, &encoded(EVENTS)).await {
            // The engine answers a moment before it listens for events, so that the first list is asked for once more.
            let mut settled = false;
            loop {
                let services = services(machine).await;
                if let Some(services) = &services {
                    hold(&mut held, &published(services), &common);
                }
                let patience = match services {
                    None => AGAIN,
                    Some(_) if !held.is_empty() => BELIEVED,
                    Some(_) if !settled => AGAIN,
                    // Whoever has no services is not disturbed.
                    Some(_) => Duration::MAX,
                };
                settled = services.is_some();
                match timeout(patience, events.next()).await {
                    Ok(false) => break,
                    // They come in bunches.
                    Ok(true) => sleep(PAUSE).await,
                    Err(_) => {}
                }
            }
        }
        sleep(AGAIN).await;
    }
}

/// The engine's list of services; nothing when it did not tell. One that manages no swarm is not asked for it, since it
/// would log an error.
async fn services(machine: &dyn Machine) -> Option<Value> {
    let info = ask_engine(machine, "/info").await?;
    if info["Swarm"]["ControlAvailable"].as_bool()? {
        ask_engine(machine, "/services").await.filter(Value::is_array)
    } else {
        Some(Value::Null)
    }
}

/// Lets go of the ports that are not wanted any more, and begins to serve new ones.
fn hold(held: &mut HashMap<Port, JoinSet<()>>, wanted: &BTreeSet<Port>, common: &Common) {
    held.retain(|port, _| wanted.contains(port));
    for port in wanted {
        held.entry(*port).or_insert_with(|| {
            let mut families = JoinSet::new();
            for host in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
                let publish = Publish {
                    protocol: port.0,
                    host: SocketAddr::new(host, port.1),
                    container: SocketAddr::new(network::GUEST_V4.into(), port.1),
                    patient: true,
                };
                families.spawn(serve(publish, common.clone()));
            }
            families
        });
    }
}

/// Serves one port of one family, for ever; not at all where this computer lacks the family.
async fn serve(publish: Publish, common: Common) {
    let bound = bind::wait_for(&publish, &common.ledger).await;
    if !bound.listens() {
        return;
    }
    let _entry = common.ledger.enter(publish);
    tracing::info!(protocol = %publish.protocol, port = %publish.host, "published for a service");
    match bound {
        Bound::Streams(listener) => streams::serve(&listener, &common, publish.container).await,
        Bound::Datagrams(endpoint) => datagrams::serve(endpoint, common.machine, publish.container).await,
        Bound::Nothing => {}
    }
}

/// The ports in the engine's list of services.
fn published(services: &Value) -> BTreeSet<Port> {
    let services = services.as_array().into_iter().flatten();
    let ports = services.flat_map(|service| service["Endpoint"]["Ports"].as_array().into_iter().flatten());
    let ports = ports.filter_map(|port| {
        let protocol = match port["Protocol"].as_str()? {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        // In the mode `host` a task's port is a container's, whose proxy asks for it.
        (port["PublishMode"] == "ingress").then_some(())?;
        let number = u16::try_from(port["PublishedPort"].as_u64()?).ok()?;
        (number != 0).then_some((protocol, number))
    });
    ports.take(MAX_PORTS).collect()
}

/// A path whose query has characters that a URL has not.
fn encoded(path: &str) -> String {
    match path.split_once('=') {
        Some((path, query)) => format!("{path}={}", cove_api::query::encode(query)),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_ports_of_services_are_those_that_the_swarm_spreads() {
        let port = |protocol: &str, number: u32, mode: &str| json!({"Protocol": protocol, "TargetPort": 80, "PublishedPort": number, "PublishMode": mode});
        let services = json!([
            {"Endpoint": {"Ports": [port("tcp", 8080, "ingress"), port("udp", 53, "ingress")]}},
            {"Endpoint": {"Ports": [port("tcp", 9000, "host"), port("sctp", 7, "ingress"), port("tcp", 70_000, "ingress")]}},
            {"Endpoint": {}},
        ]);
        let expected = BTreeSet::from([(Protocol::Tcp, 8080), (Protocol::Udp, 53)]);
        assert_eq!(published(&services), expected);
        assert!(published(&json!({"message": "This node is not a swarm manager."})).is_empty());
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic(number in any::<i64>(), protocol in ".{0,5}") {
            let _ = published(&json!([{"Endpoint": {"Ports": [{"Protocol": protocol, "PublishedPort": number, "PublishMode": "ingress"}, 7]}}, null]));
        }
    }
}
