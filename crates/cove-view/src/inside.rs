//! What is in a container: its mounts and its processes.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ts_rs::TS;

/// Something that is mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MountRow {
    /// `bind`, `volume`, `tmpfs` …
    pub kind: String,
    /// The folder of this computer, or the volume's name.
    pub source: String,
    /// Where it appears in the container.
    pub target: String,
    /// Whether the container may not write.
    pub read_only: bool,
}

/// The processes of a container, as the guest's `ps` lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ProcessTable {
    /// What the columns are.
    pub titles: Vec<String>,
    /// A process each, with as many cells as there are titles.
    pub rows: Vec<Vec<String>>,
}

impl MountRow {
    /// Reads the mounts of the engine's `GET /containers/ID/json`, by their targets.
    pub fn read_all(inspected: &Value) -> Vec<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut mounts: Vec<Self> = inspected["Mounts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|mount| Self {
                kind: text(&mount["Type"]),
                source: match mount["Type"].as_str() {
                    Some("volume") => text(&mount["Name"]),
                    _ => text(&mount["Source"]),
                },
                target: text(&mount["Destination"]),
                read_only: mount["RW"] == false,
            })
            .collect();
        mounts.sort_by(|one, other| one.target.cmp(&other.target));
        mounts
    }
}

impl ProcessTable {
    /// Reads the engine's `GET /containers/ID/top`. A row with too few cells is filled up, one with too many is cut.
    pub fn read(top: &Value) -> Self {
        let words = |value: &Value| -> Vec<String> {
            let all = value.as_array().into_iter().flatten();
            all.map(|word| word.as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let titles = words(&top["Titles"]);
        let rows = top["Processes"].as_array().into_iter().flatten();
        let rows = rows
            .map(|row| {
                let mut row = words(row);
                row.resize(titles.len(), String::new());
                row
            })
            .collect();
        Self { titles, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_shows_its_name_and_a_folder_its_path() {
        let mounts = MountRow::read_all(&json!({"Mounts": [
            {"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data/_data", "Destination": "/srv", "RW": true},
            {"Type": "bind", "Source": "/home/u/shop", "Destination": "/app", "RW": false},
        ]}));
        assert_eq!(mounts[0].source, "/home/u/shop");
        assert!(mounts[0].read_only);
        assert_eq!(mounts[1].source, "data");
        assert!(MountRow::read_all(&json!({})).is_empty());
    }

    #[test]
    fn every_process_has_a_cell_for_each_title() {
        let table =
            ProcessTable::read(&json!({"Titles": ["PID", "CMD"], "Processes": [["1"], ["7", "sh", "-c"]]}));
        assert_eq!(table.rows, [["1", ""], ["7", "sh"]]);
    }
}
