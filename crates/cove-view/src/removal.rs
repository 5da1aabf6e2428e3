//! What is lost when a container is removed.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ts_rs::TS;

/// Digits of a name that the engine gives a volume which nobody named.
const ANONYMOUS: usize = 64;

/// What goes with a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it runs and would be killed.
    pub running: bool,
    /// Where volumes without a name are mounted in it, which go with it.
    pub volumes: Vec<String>,
}

impl Removal {
    /// Reads the engine's `GET /containers/ID/json`.
    pub fn read(inspected: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mounts = inspected["Mounts"].as_array().into_iter().flatten();
        let mut volumes: Vec<String> = mounts
            .filter(|mount| {
                mount["Type"] == "volume" && is_anonymous(mount["Name"].as_str().unwrap_or_default())
            })
            .map(|mount| text(&mount["Destination"]))
            .collect();
        volumes.sort();
        Some(Self {
            id: inspected["Id"].as_str()?.to_owned(),
            name: text(&inspected["Name"]).trim_start_matches('/').to_owned(),
            running: inspected["State"]["Running"] == true,
            volumes,
        })
    }
}

fn is_anonymous(name: &str) -> bool {
    name.len() == ANONYMOUS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_volumes_that_nobody_named_are_lost() {
        let removal = Removal::read(
            &json!({"Id": "4f6e", "Name": "/db", "State": {"Running": true}, "Mounts": [
                {"Type": "volume", "Name": "a1".repeat(32), "Destination": "/var/lib/data"},
                {"Type": "volume", "Name": "shop_data", "Destination": "/srv"},
                {"Type": "bind", "Source": "/home/u", "Destination": "/home"},
            ]}),
        )
        .expect("it has an id");
        assert_eq!((removal.name.as_str(), removal.running), ("db", true));
        assert_eq!(removal.volumes, ["/var/lib/data"]);
        assert_eq!(Removal::read(&json!({})), None);
    }
}
