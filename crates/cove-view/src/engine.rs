//! Images, volumes and networks as their lists show them. Who uses them the engine says in its list of containers.

use crate::time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ts_rs::TS;

/// One line of the list of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ImageRow {
    /// Its digest, `sha256:…`.
    pub id: String,
    /// Its names with tags; empty for one that nothing names any more.
    pub tags: Vec<String>,
    /// Bytes of all its layers.
    #[ts(type = "number")]
    pub size: u64,
    /// When it was made.
    #[ts(type = "number")]
    pub created_ms: i64,
    /// How many containers were made from it.
    pub containers: u32,
}

/// One line of the list of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRow {
    /// Its name.
    pub name: String,
    /// What keeps it; nearly always `local`.
    pub driver: String,
    /// Bytes; absent until the engine has counted them.
    #[ts(type = "number | null")]
    pub size: Option<u64>,
    /// Names of the containers that mount it.
    pub users: Vec<String>,
    /// When it was made.
    #[ts(type = "number")]
    pub created_ms: i64,
}

/// One line of the list of networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRow {
    /// Its full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `host`, `none`, `macvlan` …
    pub driver: String,
    /// Its address ranges.
    pub subnets: Vec<String>,
    /// Names of the containers that are connected.
    pub containers: Vec<String>,
    /// Whether the engine made it, so that it cannot be removed.
    pub builtin: bool,
}

impl ImageRow {
    /// Reads one element of `GET /images/json`; `containers` is the engine's list of all containers.
    pub fn read(image: &Value, containers: &[Value]) -> Option<Self> {
        let id = image["Id"].as_str()?;
        let users = containers.iter().filter(|container| container["ImageID"] == id);
        Some(Self {
            tags: texts(&image["RepoTags"])
                .filter(|tag| tag != "<none>:<none>")
                .collect(),
            size: image["Size"].as_u64().unwrap_or(0),
            created_ms: image["Created"].as_i64().unwrap_or(0).saturating_mul(1000),
            containers: u32::try_from(users.count()).unwrap_or(u32::MAX),
            id: id.to_owned(),
        })
    }
}

impl VolumeRow {
    /// Reads one element of `GET /volumes`; `containers` is the engine's list of all containers.
    pub fn read(volume: &Value, containers: &[Value]) -> Option<Self> {
        let name = volume["Name"].as_str()?;
        let mounts = |container: &&Value| {
            let all = container["Mounts"].as_array().into_iter().flatten();
            all.into_iter().any(|mount| mount["Name"] == name)
        };
        Some(Self {
            driver: volume["Driver"].as_str().unwrap_or_default().to_owned(),
            size: volume["UsageData"]["Size"].as_u64(),
            users: containers.iter().filter(mounts).filter_map(name_of).collect(),
            created_ms: volume["CreatedAt"].as_str().and_then(time::read_ms).unwrap_or(0),
            name: name.to_owned(),
        })
    }
}

impl NetworkRow {
    /// Reads one element of `GET /networks`; `containers` is the engine's list of all containers.
    pub fn read(network: &Value, containers: &[Value]) -> Option<Self> {
        let name = network["Name"].as_str()?;
        let ranges = network["IPAM"]["Config"].as_array().into_iter().flatten();
        let connected = |container: &&Value| !container["NetworkSettings"]["Networks"][name].is_null();
        Some(Self {
            id: network["Id"].as_str()?.to_owned(),
            driver: network["Driver"].as_str().unwrap_or_default().to_owned(),
            subnets: ranges
                .filter_map(|range| range["Subnet"].as_str().map(str::to_owned))
                .collect(),
            containers: containers.iter().filter(connected).filter_map(name_of).collect(),
            // These three the engine makes anew whenever they are not there.
            builtin: matches!(name, "bridge" | "host" | "none"),
            name: name.to_owned(),
        })
    }
}

fn name_of(container: &Value) -> Option<String> {
    Some(container["Names"][0].as_str()?.trim_start_matches('/').to_owned())
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|text| text.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn users_are_found_among_the_containers() {
        let containers = [json!({
            "Names": ["/shop-db-1"], "ImageID": "sha256:aa",
            "Mounts": [{"Type": "volume", "Name": "shop_data"}],
            "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "172.18.0.2"}}},
        })];
        let image = json!({"Id": "sha256:aa", "RepoTags": ["postgres:17"], "Size": 7, "Created": 3});
        let image = ImageRow::read(&image, &containers).expect("it has an id");
        assert_eq!((image.containers, image.created_ms), (1, 3000));
        let volume = json!({"Name": "shop_data", "Driver": "local", "CreatedAt": "1970-01-01T00:00:01Z"});
        let volume = VolumeRow::read(&volume, &containers).expect("it has a name");
        assert_eq!(
            (volume.users, volume.created_ms),
            (vec!["shop-db-1".to_owned()], 1000)
        );
        let network =
            json!({"Id": "n", "Name": "shop_default", "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}});
        let network = NetworkRow::read(&network, &containers).expect("it has an id");
        assert_eq!(network.containers, ["shop-db-1"]);
        assert!(!network.builtin);
    }

    #[test]
    fn an_image_that_nothing_names_has_no_tags() {
        let image = json!({"Id": "sha256:aa", "RepoTags": ["<none>:<none>"], "Size": -1});
        let image = ImageRow::read(&image, &[]).expect("it has an id");
        assert!(image.tags.is_empty());
        assert_eq!((image.size, image.containers), (0, 0));
    }
}
