//! Containers as the list shows them, read from the engine's `GET /containers/json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use ts_rs::TS;

/// Compose writes these labels on what it creates.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";

/// The label of containers that the window makes for a moment, to reach into volumes or beside others: what each is
/// for.
pub const HELPER_LABEL: &str = "dev.cove.helper";

/// What their names begin with.
pub const HELPER_NAME: &str = "cove-helper-";

/// Whether an element of the engine's list is such a container, which nobody else has to know of. A container inherits
/// the labels of its image, which may be anybody's; its name it has only from who makes it.
pub fn is_helper(summary: &Value) -> bool {
    let is_ours = |name: &Value| {
        let name = name.as_str().and_then(|name| name.strip_prefix('/'));
        // Those of links have another slash.
        name.is_some_and(|name| name.starts_with(HELPER_NAME) && !name.contains('/'))
    };
    let mut names = summary["Names"].as_array().into_iter().flatten();
    !summary["Labels"][HELPER_LABEL].is_null() && names.any(is_ours)
}

/// One line of the list of containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRow {
    /// Its full id.
    pub id: String,
    /// Its first name, without the engine's leading slash.
    pub name: String,
    /// What it was made from, as it was named then.
    pub image: String,
    /// The compose project that it belongs to.
    pub project: Option<String>,
    /// Its service in that project.
    pub service: Option<String>,
    /// What it is doing.
    pub state: ContainerState,
    /// What its health check says; absent without one.
    pub health: Option<Health>,
    /// The engine's own words, such as `Exited (1) 3 minutes ago`, without what they say of its health.
    pub status: String,
    /// When it was created.
    #[ts(type = "number")]
    pub created_ms: i64,
    /// Ports that it offers, published ones first, each once.
    pub ports: Vec<PortBinding>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Between two runs.
    Restarting,
    /// Being removed.
    Removing,
    /// Its process ended.
    Exited,
    /// The engine could not remove it.
    Dead,
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Too early to tell.
    Starting,
    /// The last check passed.
    Healthy,
    /// Several checks in a row failed.
    Unhealthy,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct PortBinding {
    /// In the container.
    pub container: u16,
    /// On this computer; absent where it is not published.
    pub host: Option<u16>,
    /// The address of this computer that it is published on; absent where that is every one.
    pub address: Option<IpAddr>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: Protocol,
}

/// A port's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl PortBinding {
    /// Where a browser finds what listens there, such as `localhost:8080`; nothing where it is not published. A browser
    /// speaks no other protocol than TCP.
    pub fn page(&self) -> Option<String> {
        let host = self.host.filter(|_| self.protocol == Protocol::Tcp)?;
        Some(page_at(self.address, host))
    }
}

/// What a browser calls a port of this computer at this address, or at every one.
pub fn page_at(address: Option<IpAddr>, port: u16) -> String {
    match address {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None => format!("localhost:{port}"),
    }
}

impl ContainerRow {
    /// Reads one element of the engine's list. A field that is missing or of another kind gets its neutral value, so
    /// that an engine of another version still shows its containers; without an id there is nothing to show, and what
    /// the window made for itself is not shown.
    pub fn read(summary: &Value) -> Option<Self> {
        let id = text(summary, "Id").filter(|id| !id.is_empty() && !is_helper(summary))?;
        let name = summary["Names"][0]
            .as_str()
            .map(|name| name.trim_start_matches('/').to_owned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| id.chars().take(12).collect());
        let said = text(summary, "Status").unwrap_or_default();
        let (status, health) = Health::divide(&said);
        let label = |key: &str| summary["Labels"][key].as_str().map(str::to_owned);
        Some(Self {
            name,
            image: text(summary, "Image").unwrap_or_default(),
            project: label(PROJECT),
            service: label(SERVICE),
            state: ContainerState::read(summary["State"].as_str().unwrap_or_default()),
            health,
            status: status.to_owned(),
            created_ms: summary["Created"].as_i64().unwrap_or(0).saturating_mul(1000),
            ports: ports(&summary["Ports"]),
            id,
        })
    }
}

impl Protocol {
    /// Its name, as the engine writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl ContainerState {
    fn read(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "removing" => Self::Removing,
            "exited" => Self::Exited,
            "dead" => Self::Dead,
            _ => Self::Created,
        }
    }
}

impl Health {
    /// How the engine's list says each.
    const WORDS: [(&str, Self); 3] = [
        (" (health: starting)", Self::Starting),
        (" (healthy)", Self::Healthy),
        (" (unhealthy)", Self::Unhealthy),
    ];

    /// The list carries health only at the end of `Status`: `Up 2 minutes (healthy)`. What stands before, and what it
    /// says.
    fn divide(status: &str) -> (&str, Option<Self>) {
        let mut said = Self::WORDS.into_iter();
        said.find_map(|(words, health)| Some((status.strip_suffix(words)?, Some(health))))
            .unwrap_or((status, None))
    }
}

/// The engine lists a published port once for IPv4 and once for IPv6; a person has one port.
fn ports(list: &Value) -> Vec<PortBinding> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let mut ports: Vec<PortBinding> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(PortBinding {
                container: port(&entry["PrivatePort"])?,
                host: port(&entry["PublicPort"]),
                address: address(&entry["IP"]),
                protocol: match entry["Type"].as_str() {
                    Some("udp") => Protocol::Udp,
                    Some("sctp") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect();
    ports.sort_by_key(|port| {
        (
            port.host.is_none(),
            port.container,
            port.host,
            port.protocol,
            port.address,
        )
    });
    ports.dedup();
    ports
}

/// The one address that is meant, if it is one.
fn address(value: &Value) -> Option<IpAddr> {
    let address: IpAddr = value.as_str()?.parse().ok()?;
    (!address.is_unspecified()).then_some(address)
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_compose_container_shows_project_service_health_and_each_port_once() {
        let row = ContainerRow::read(&json!({
            "Id": "4f6e", "Names": ["/shop-db-1"], "Image": "postgres:17", "State": "running",
            "Status": "Up 2 minutes (healthy)", "Created": 1_700_000_000,
            "Labels": {PROJECT: "shop", SERVICE: "db"},
            "Ports": [
                {"PrivatePort": 9187, "Type": "tcp"},
                {"IP": "0.0.0.0", "PrivatePort": 5432, "PublicPort": 15432, "Type": "tcp"},
                {"IP": "::", "PrivatePort": 5432, "PublicPort": 15432, "Type": "tcp"},
            ],
        }))
        .expect("it has an id");
        assert_eq!(row.name, "shop-db-1");
        assert_eq!(
            (row.project.as_deref(), row.service.as_deref()),
            (Some("shop"), Some("db"))
        );
        assert_eq!(
            (row.status.as_str(), row.health),
            ("Up 2 minutes", Some(Health::Healthy))
        );
        assert_eq!(row.created_ms, 1_700_000_000_000);
        let ports: Vec<_> = row.ports.iter().map(|port| (port.container, port.host)).collect();
        assert_eq!(ports, [(5432, Some(15432)), (9187, None)]);
    }

    #[test]
    fn a_page_is_where_its_port_is_published_and_on_every_address_it_is_on_localhost() {
        let pages = |ip: Value, protocol: &str| {
            let port = json!({"IP": ip, "PrivatePort": 80, "PublicPort": 8080, "Type": protocol});
            let row = ContainerRow::read(&json!({"Id": "4f6e", "Ports": [port]})).expect("it has an id");
            row.ports.iter().filter_map(PortBinding::page).collect::<Vec<_>>()
        };
        for (ip, page) in [
            ("0.0.0.0", "localhost:8080"),
            ("::", "localhost:8080"),
            ("", "localhost:8080"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("192.168.1.5", "192.168.1.5:8080"),
            ("::1", "[::1]:8080"),
        ] {
            assert_eq!(pages(json!(ip), "tcp"), [page]);
        }
        assert_eq!(pages(Value::Null, "tcp"), ["localhost:8080"]);
        assert!(pages(json!("0.0.0.0"), "udp").is_empty());
    }

    #[test]
    fn what_the_window_made_to_reach_into_a_volume_is_not_shown() {
        let helper = json!({
            "Id": "4f6e", "Names": [format!("/{HELPER_NAME}a1-0")], "Labels": {HELPER_LABEL: "volume"},
        });
        assert!(is_helper(&helper));
        assert_eq!(ContainerRow::read(&helper), None);
        assert!(!is_helper(&json!({"Id": "4f6e", "Labels": null})));
    }

    #[test]
    fn an_image_with_the_windows_label_hides_no_container() {
        for names in [
            json!(["/web"]),
            json!(["/web", "/cove-helper-a1/web"]),
            json!([]),
            Value::Null,
        ] {
            let container = json!({"Id": "4f6e", "Names": names, "Labels": {HELPER_LABEL: "x"}});
            assert!(!is_helper(&container), "{names}");
            assert!(ContainerRow::read(&container).is_some(), "{names}");
        }
        // And a name alone makes none.
        assert!(!is_helper(&json!({"Id": "4f6e", "Names": ["/cove-helper-mine"]})));
    }

    #[test]
    fn an_unhealthy_container_is_not_taken_for_a_healthy_one_and_health_stands_once() {
        for (said, status, health) in [
            ("Up 1 hour (unhealthy)", "Up 1 hour", Some(Health::Unhealthy)),
            (
                "Up 1 second (health: starting)",
                "Up 1 second",
                Some(Health::Starting),
            ),
            ("Up 1 hour", "Up 1 hour", None),
            ("Up 1 hour (Paused)", "Up 1 hour (Paused)", None),
            ("Exited (0) 2 days ago", "Exited (0) 2 days ago", None),
        ] {
            assert_eq!(Health::divide(said), (status, health));
        }
    }

    #[test]
    fn what_is_missing_or_out_of_range_gets_a_neutral_value() {
        let row = ContainerRow::read(&json!({
            "Id": "0123456789abcdef", "Names": [], "Created": i64::MAX, "State": 7,
            "Ports": [{"PrivatePort": 70_000}, "what", {"PrivatePort": 80, "PublicPort": -1}],
        }))
        .expect("it has an id");
        assert_eq!(row.name, "0123456789ab");
        assert_eq!(row.state, ContainerState::Created);
        assert_eq!(row.created_ms, i64::MAX);
        assert_eq!(row.ports.len(), 1);
        assert_eq!(row.ports[0].host, None);
        assert!(ContainerRow::read(&json!({"Names": ["/x"]})).is_none());
        assert!(ContainerRow::read(&json!([])).is_none());
    }
}
