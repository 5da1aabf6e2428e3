//! Images, volumes and networks as their lists show them. Who uses them the engine says in its list of containers.

use crate::{Label, label, time};
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
    /// Names of the containers that were made from it.
    pub users: Vec<String>,
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
    /// Its labels.
    pub labels: Vec<Label>,
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
    /// Whether it leads nowhere outside.
    pub internal: bool,
}

/// A kind of thing that the engine keeps, and whose list may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum ThingKind {
    /// Containers.
    Container,
    /// Images.
    Image,
    /// Volumes.
    Volume,
    /// Networks.
    Network,
}

/// What was cleared away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Pruned {
    /// Names or digests of what is gone.
    pub removed: Vec<String>,
    /// Bytes that became free; none for networks.
    #[ts(type = "number")]
    pub bytes: u64,
}

impl ThingKind {
    /// The kind that an event of the engine is about.
    pub fn of_event(event: &Value) -> Option<Self> {
        match event["Type"].as_str()? {
            "container" => Some(Self::Container),
            "image" => Some(Self::Image),
            "volume" => Some(Self::Volume),
            "network" => Some(Self::Network),
            _ => None,
        }
    }
}

impl Pruned {
    /// Reads the answer of `POST /images/prune`, `/volumes/prune` or `/networks/prune`.
    pub fn read(answer: &Value) -> Self {
        let images = answer["ImagesDeleted"].as_array().into_iter().flatten();
        // An image is told once by each name that it had and once by its digest; layers below have a digest, too.
        let images = images.filter_map(|image| image["Untagged"].as_str().or(image["Deleted"].as_str()));
        let others = ["VolumesDeleted", "NetworksDeleted"].map(|key| answer[key].as_array());
        let others = others.into_iter().flatten().flatten().filter_map(Value::as_str);
        Self {
            removed: images.chain(others).map(str::to_owned).collect(),
            bytes: answer["SpaceReclaimed"].as_u64().unwrap_or(0),
        }
    }
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
            users: users.filter_map(name_of).collect(),
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
            labels: label::read(&volume["Labels"]),
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
            internal: network["Internal"] == true,
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
        assert_eq!((image.users.len(), image.created_ms), (1, 3000));
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
        assert_eq!((image.size, image.users.len()), (0, 0));
    }

    #[test]
    fn what_was_cleared_away_is_named_whatever_it_was() {
        let images =
            json!({"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": "sha256:aa"}], "SpaceReclaimed": 9});
        let images = Pruned::read(&images);
        assert_eq!((images.removed.len(), images.bytes), (2, 9));
        let volumes = Pruned::read(&json!({"VolumesDeleted": ["data"], "SpaceReclaimed": 4}));
        assert_eq!((volumes.removed, volumes.bytes), (vec!["data".to_owned()], 4));
        assert_eq!(Pruned::read(&json!({"ImagesDeleted": null})).removed.len(), 0);
    }
}
