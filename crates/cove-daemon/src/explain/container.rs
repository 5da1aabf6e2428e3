//! What the engine says of a container, as far as ways to and from it depend on that.

use crate::machine::{MOST_LENDERS, ask_engine, clean, lender};
use cove_machine::Machine;
use serde_json::Value;
use std::net::IpAddr;

/// A container, or one whose network it has.
#[derive(Debug, Clone, Default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) running: bool,
    pub(super) paused: bool,
    /// Its network namespace, while it runs.
    pub(super) namespace: Option<String>,
    pub(super) hosts: String,
    pub(super) resolvers: String,
    /// The names of its networks, and its addresses there.
    pub(super) networks: Vec<(String, Vec<IpAddr>)>,
    /// The TCP ports that it says it has.
    pub(super) exposed: Vec<u16>,
}

impl Container {
    /// The container with this name or id, if there is one.
    pub(super) async fn find(machine: &dyn Machine, name: &str) -> Option<Self> {
        let mut value = inspect(machine, name).await?;
        let mut found = Self::read(&value)?;
        // Of those that have another's network, the other alone knows where that is.
        for _ in 0..MOST_LENDERS {
            let Some(lender) = lender(&value) else { break };
            value = inspect(machine, lender).await?;
            let other = Self::read(&value)?;
            found.namespace = other.namespace;
            found.networks = other.networks;
        }
        Some(found)
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let networks = value["NetworkSettings"]["Networks"].as_object();
        let networks = networks.into_iter().flatten().map(|(name, network)| {
            let addresses = ["IPAddress", "GlobalIPv6Address"]
                .into_iter()
                .filter_map(|key| network[key].as_str()?.parse().ok());
            (clean(name), addresses.collect())
        });
        let exposed = value["Config"]["ExposedPorts"].as_object();
        let exposed = exposed
            .into_iter()
            .flatten()
            .filter_map(|(port, _)| port.strip_suffix("/tcp")?.parse().ok());
        let running = value["State"]["Running"].as_bool().unwrap_or_default();
        Some(Self {
            name: clean(value["Name"].as_str()?.trim_start_matches('/')),
            running,
            paused: value["State"]["Paused"].as_bool().unwrap_or_default(),
            namespace: Some(text(&value["NetworkSettings"]["SandboxKey"]))
                .filter(|key| running && !key.is_empty()),
            hosts: text(&value["HostsPath"]),
            resolvers: text(&value["ResolvConfPath"]),
            networks: networks.collect(),
            exposed: exposed.collect(),
        })
    }

    /// Its addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.networks
            .iter()
            .flat_map(|(_, addresses)| addresses.iter().copied())
    }

    /// Its networks, for people.
    pub(super) fn whereabouts(&self) -> String {
        let each = self.networks.iter().map(|(name, addresses)| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            match addresses.as_slice() {
                [] => format!("network `{name}`"),
                addresses => format!("network `{name}` as {}", addresses.join(" and ")),
            }
        });
        let each: Vec<String> = each.collect();
        match each.as_slice() {
            [] => "no network".to_owned(),
            each => each.join(", "),
        }
    }

    /// Whether it is on a network with the other.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.networks
            .iter()
            .any(|(name, _)| other.networks.iter().any(|(theirs, _)| name == theirs))
    }
}

/// What the engine says of the container with this name or id, an error included, if it answers.
async fn inspect(machine: &dyn Machine, name: &str) -> Option<Value> {
    let path = format!("/containers/{}/json", cove_api::query::encode(name));
    ask_engine(machine, &path).await
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::machine::fake::{Fixture, Script};
    use serde_json::json;

    #[cfg(unix)]
    #[tokio::test]
    async fn one_that_has_the_network_of_one_that_has_anothers_is_where_that_is() {
        let fixture = Fixture::new(Script::default());
        let (machine, _handle) = fixture.running().await;
        let guest = fixture.host.guest();
        let own = "/var/run/docker/netns/own";
        for (name, mode, key) in [
            ("own", "bridge", own),
            ("lodger", "container:own", ""),
            ("lodgers-lodger", "container:lodger", ""),
            ("circle", "container:circle", ""),
        ] {
            let inspected = json!({"Name": format!("/{name}"), "State": {"Running": true},
                "HostConfig": {"NetworkMode": mode}, "NetworkSettings": {"SandboxKey": key}});
            guest.engine_says(&format!("/containers/{name}/json"), &inspected);
        }
        for (name, namespace) in [
            ("lodger", Some(own)),
            ("lodgers-lodger", Some(own)),
            ("circle", None),
        ] {
            let found = Container::find(&*machine, name).await.unwrap();
            assert_eq!((&*found.name, found.namespace.as_deref()), (name, namespace));
        }
    }

    #[test]
    fn an_inspected_container_is_read_with_patience() {
        let value = json!({
            "Name": "/web", "State": {"Running": true, "Paused": false},
            "HostsPath": "/h", "ResolvConfPath": "/r",
            "Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
            "NetworkSettings": {"SandboxKey": "/var/run/docker/netns/1", "Networks": {
                "own": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": ""}}},
        });
        let web = Container::read(&value).unwrap();
        assert_eq!(web.exposed, [80]);
        assert_eq!(web.whereabouts(), "network `own` as 172.18.0.2");
        assert_eq!(web.namespace.as_deref(), Some("/var/run/docker/netns/1"));
        assert!(web.meets(&web));
        let odd = Container::read(&json!({"Name": "x"})).unwrap();
        assert!(!odd.running && odd.namespace.is_none() && !odd.meets(&web));
        assert!(Container::read(&json!({"message": "no such container"})).is_none());
    }
}
