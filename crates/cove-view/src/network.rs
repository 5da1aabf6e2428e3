//! Networks: what a person asks for, and who is connected to one.

use crate::{Label, label};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ts_rs::TS;

/// A network to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan` …
    pub driver: String,
    /// Its address range, `172.30.0.0/16`; empty: the engine chooses one.
    pub subnet: String,
    /// Whether it leads nowhere outside.
    pub internal: bool,
}

/// A network, at the side of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct NetworkDetails {
    /// Its full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `host`, `none`, `macvlan` …
    pub driver: String,
    /// Whether it leads nowhere outside.
    pub internal: bool,
    /// Its address ranges.
    pub subnets: Vec<Subnet>,
    /// Its labels.
    pub labels: Vec<Label>,
    /// Who is connected, by name.
    pub members: Vec<Member>,
}

/// An address range of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Subnet {
    /// `172.18.0.0/16`.
    pub range: String,
    /// The address that leads outside; empty where there is none.
    pub gateway: String,
}

/// A container in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The container's full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its addresses in this network; none while it does not run.
    pub addresses: Vec<String>,
    /// Other names that it answers to in this network.
    pub aliases: Vec<String>,
    /// Addresses in this network that were asked for, which the engine would not choose again.
    pub fixed_addresses: Vec<String>,
}

impl NewNetwork {
    /// The body of the engine's `POST /networks/create`.
    pub fn to_engine(&self) -> Value {
        let mut body = json!({"Name": self.name, "Driver": self.driver, "Internal": self.internal});
        if !self.subnet.is_empty() {
            body["IPAM"] = json!({"Config": [{"Subnet": self.subnet}]});
        }
        body
    }
}

impl NetworkDetails {
    /// Reads `GET /networks/ID`; `containers` is the engine's list of all containers, since the network itself knows
    /// only those that run. Neither tells the members' aliases, which [`Member::learn`] adds.
    pub fn read(network: &Value, containers: &[Value]) -> Option<Self> {
        let name = network["Name"].as_str()?;
        let ranges = network["IPAM"]["Config"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut members: Vec<_> = containers
            .iter()
            .filter_map(|container| Member::read(container, name))
            .collect();
        members.sort_by(|one, other| one.name.cmp(&other.name));
        Some(Self {
            id: network["Id"].as_str()?.to_owned(),
            name: name.to_owned(),
            driver: text(&network["Driver"]),
            internal: network["Internal"] == true,
            subnets: ranges
                .map(|range| Subnet {
                    range: text(&range["Subnet"]),
                    gateway: text(&range["Gateway"]),
                })
                .collect(),
            labels: label::read(&network["Labels"]),
            members,
        })
    }
}

impl Member {
    fn read(container: &Value, network: &str) -> Option<Self> {
        let end = container["NetworkSettings"]["Networks"]
            .get(network)
            .filter(|end| !end.is_null())?;
        Some(Self {
            id: container["Id"].as_str()?.to_owned(),
            name: container["Names"][0].as_str()?.trim_start_matches('/').to_owned(),
            addresses: addresses(end, ["IPAddress", "GlobalIPv6Address"]),
            aliases: Vec::new(),
            fixed_addresses: addresses(&end["IPAMConfig"], ["IPv4Address", "IPv6Address"]),
        })
    }

    /// Takes from `GET /containers/ID/json` what the list of containers leaves out: the aliases in this network.
    pub fn learn(&mut self, container: &Value, network: &str) {
        let aliases = container["NetworkSettings"]["Networks"][network]["Aliases"].as_array();
        self.aliases = aliases
            .into_iter()
            .flatten()
            .filter_map(|alias| alias.as_str().map(str::to_owned))
            .collect();
    }
}

/// The addresses at these keys; one that there is none of is empty, or missing.
fn addresses(of: &Value, keys: [&str; 2]) -> Vec<String> {
    let addresses = keys.iter().filter_map(|key| of[*key].as_str());
    addresses
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_container_is_connected_without_an_address() {
        let containers = [
            json!({"Id": "b", "Names": ["/web"],
                "NetworkSettings": {"Networks": {"shop": {"IPAddress": "172.18.0.2"}}}}),
            json!({"Id": "a", "Names": ["/db"], "NetworkSettings": {"Networks": {"shop": {"IPAddress": ""}}}}),
            json!({"Id": "c", "Names": ["/other"], "NetworkSettings": {"Networks": {"bridge": {}}}}),
        ];
        let network = json!({"Id": "n", "Name": "shop", "Driver": "bridge", "Internal": true,
            "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}});
        let details = NetworkDetails::read(&network, &containers).expect("it has a name");
        let members: Vec<_> = details
            .members
            .iter()
            .map(|member| (member.name.as_str(), member.addresses.len()))
            .collect();
        assert_eq!(members, [("db", 0), ("web", 1)]);
        assert!(details.internal);
        assert_eq!(details.subnets[0].gateway, "172.18.0.1");
    }

    #[test]
    fn what_connecting_again_does_not_bring_back_is_known() {
        // As the engine lists containers, which is without aliases, and as it tells of one.
        let ends = |aliases: Value| {
            json!({"shop": {"IPAddress": "172.18.0.9", "IPAMConfig": {"IPv4Address": "172.18.0.9"}, "Aliases": aliases},
                "bridge": {"IPAddress": "172.17.0.2", "IPAMConfig": null, "Aliases": ["other"]}})
        };
        let listed =
            json!({"Id": "b", "Names": ["/web"], "NetworkSettings": {"Networks": ends(Value::Null)}});
        let told = json!({"Id": "b", "Name": "/web", "NetworkSettings": {"Networks": ends(json!(["www"]))}});
        let mut member = Member::read(&listed, "shop").expect("it is connected");
        assert_eq!(member.fixed_addresses, ["172.18.0.9"]);
        assert!(member.aliases.is_empty());
        member.learn(&told, "shop");
        assert_eq!(member.aliases, ["www"]);
        let elsewhere = Member::read(&listed, "bridge").expect("it is connected");
        assert!(elsewhere.fixed_addresses.is_empty());
    }

    #[test]
    fn the_engine_chooses_the_range_where_none_is_asked_for() {
        let mut wanted = NewNetwork {
            name: "lab".into(),
            driver: "bridge".into(),
            subnet: String::new(),
            internal: true,
        };
        assert!(wanted.to_engine().get("IPAM").is_none());
        wanted.subnet = "10.9.0.0/24".into();
        assert_eq!(wanted.to_engine()["IPAM"]["Config"][0]["Subnet"], "10.9.0.0/24");
    }
}
