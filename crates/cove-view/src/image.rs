//! What an image is made of, from `GET /images/ID/json` and `GET /images/ID/history`.

use crate::{label, time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ts_rs::TS;

/// Layers and other things of an image that are shown at most. No image has more layers.
const MAX_ITEMS: usize = 512;
/// Longest command of a layer that is shown, in characters.
const LONGEST: usize = 4000;

/// An image, at the side of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ImageDetails {
    /// Its digest, `sha256:…`.
    pub id: String,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// Names with the digests that registries know it by.
    pub digests: Vec<String>,
    /// `linux/amd64`.
    pub platform: String,
    /// Bytes of all its layers.
    #[ts(type = "number")]
    pub size: u64,
    /// When it was made.
    #[ts(type = "number")]
    pub created_ms: i64,
    /// Entry point and command, as words.
    pub command: Vec<String>,
    /// Ports that it says it offers, `80/tcp`.
    pub ports: Vec<String>,
    /// Paths that it wants volumes for.
    pub volumes: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Who runs in it; empty: root.
    pub user: String,
    /// Its labels.
    pub labels: Vec<Label>,
    /// Its layers and the steps between them, the newest first.
    pub layers: Vec<LayerRow>,
}

/// A label of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A step that made an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct LayerRow {
    /// What was done, as a line of a Dockerfile.
    pub command: String,
    /// Bytes that it added; none for a step that only says something.
    #[ts(type = "number")]
    pub size: u64,
    /// When it was done.
    #[ts(type = "number")]
    pub created_ms: i64,
}

impl ImageDetails {
    /// Reads what the engine knows of an image and of how it came about.
    pub fn read(image: &Value, history: &Value) -> Option<Self> {
        let config = &image["Config"];
        let mut platform = format!(
            "{}/{}",
            image["Os"].as_str().unwrap_or("linux"),
            image["Architecture"].as_str().unwrap_or("unknown")
        );
        if let Some(variant) = image["Variant"].as_str().filter(|variant| !variant.is_empty()) {
            platform = format!("{platform}/{variant}");
        }
        let mut command: Vec<String> = texts(&config["Entrypoint"]).collect();
        command.extend(texts(&config["Cmd"]));
        let steps = history.as_array().into_iter().flatten();
        Some(Self {
            id: image["Id"].as_str()?.to_owned(),
            tags: texts(&image["RepoTags"]).collect(),
            digests: texts(&image["RepoDigests"]).collect(),
            platform,
            size: image["Size"].as_u64().unwrap_or(0),
            created_ms: image["Created"].as_str().and_then(time::read_ms).unwrap_or(0),
            command,
            ports: keys(&config["ExposedPorts"]),
            volumes: keys(&config["Volumes"]),
            environment: texts(&config["Env"]).collect(),
            user: config["User"].as_str().unwrap_or_default().to_owned(),
            labels: label::read(&config["Labels"]),
            layers: steps.take(MAX_ITEMS).map(LayerRow::read).collect(),
        })
    }
}

impl LayerRow {
    fn read(step: &Value) -> Self {
        let command = step["CreatedBy"].as_str().unwrap_or_default();
        Self {
            command: as_dockerfile(command).chars().take(LONGEST).collect(),
            size: step["Size"].as_u64().unwrap_or(0),
            created_ms: step["Created"].as_i64().unwrap_or(0).saturating_mul(1000),
        }
    }
}

/// What a builder recorded, as it stood in the Dockerfile: the shell in front and the builder's mark behind go.
pub(crate) fn as_dockerfile(command: &str) -> String {
    let command = command.trim();
    let command = command.strip_suffix("# buildkit").unwrap_or(command).trim_end();
    if let Some(said) = command.strip_prefix("/bin/sh -c #(nop)") {
        return said.trim().to_owned();
    }
    let run = command
        .strip_prefix("RUN /bin/sh -c ")
        .or_else(|| command.strip_prefix("/bin/sh -c "));
    match run {
        Some(run) => format!("RUN {}", run.trim()),
        None => command.to_owned(),
    }
}

fn keys(set: &Value) -> Vec<String> {
    let all = set.as_object().into_iter().flatten();
    all.take(MAX_ITEMS).map(|(key, _)| key.clone()).collect()
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    let all = list.as_array().into_iter().flatten();
    all.take(MAX_ITEMS)
        .filter_map(|text| text.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_read_as_they_stood_in_the_dockerfile() {
        for (recorded, read) in [
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD [\"sh\"]"),
            ("/bin/sh -c apk add curl", "RUN apk add curl"),
            ("RUN /bin/sh -c apk add curl # buildkit", "RUN apk add curl"),
            ("COPY . /srv # buildkit", "COPY . /srv"),
            ("", ""),
        ] {
            assert_eq!(as_dockerfile(recorded), read);
        }
    }

    #[test]
    fn an_image_is_read_with_its_layers() {
        let image = json!({
            "Id": "sha256:aa", "RepoTags": ["site:1"], "Size": 7, "Os": "linux", "Architecture": "arm", "Variant": "v7",
            "Created": "1970-01-01T00:00:01Z",
            "Config": {"Entrypoint": ["nginx"], "Cmd": ["-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}},
                       "Labels": {"b": "2", "a": "1"}},
        });
        let history =
            json!([{"CreatedBy": "COPY . /srv # buildkit", "Size": 7, "Created": 1}, {"CreatedBy": null}]);
        let details = ImageDetails::read(&image, &history).expect("it has an id");
        assert_eq!(details.platform, "linux/arm/v7");
        assert_eq!(details.command, ["nginx", "-g", "daemon off;"]);
        assert_eq!(details.ports, ["80/tcp"]);
        assert_eq!(details.layers.len(), 2);
        let names: Vec<_> = details.labels.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(ImageDetails::read(&json!({}), &Value::Null), None);
    }
}
