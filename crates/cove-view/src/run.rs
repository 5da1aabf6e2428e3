//! What a person asks for in the form that runs a container.

use crate::Protocol;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use ts_rs::TS;

/// A container to create and start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// What it is made from.
    pub image: String,
    /// Empty: the engine invents one.
    pub name: String,
    /// The command's words; empty: the image's own.
    pub command: Vec<String>,
    /// Environment.
    pub environment: Vec<Variable>,
    /// Ports to publish.
    pub ports: Vec<Publish>,
    /// Folders and volumes.
    pub mounts: Vec<Mount>,
    /// The network that it joins; empty: the engine's usual one.
    pub network: String,
    /// The most memory that it may use, in MiB.
    pub memory: Option<u32>,
    /// How much of the processors it may use, in thousandths of one.
    pub processors: Option<u32>,
    /// What happens when it ends.
    pub restart: Restart,
    /// Whether it is removed when it ends.
    pub remove: bool,
}

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A port to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Publish {
    /// The address of this computer that it is at, such as `127.0.0.1`; empty: all of them.
    pub address: String,
    /// On this computer; 0: a free one, which the engine chooses.
    pub host: u16,
    /// In the container.
    pub container: u16,
    /// Which protocol.
    pub protocol: Protocol,
}

/// What would keep a port of this computer from being published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PortObstacle {
    /// What it is.
    pub kind: PortObstacleKind,
    /// A port at the same address that could be published instead, if one was found.
    pub free: Option<u16>,
}

/// Why a port could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum PortObstacleKind {
    /// A program has it.
    Taken,
    /// A user may not bind it.
    Denied,
    /// This computer does not have the address.
    Elsewhere,
}

/// A folder of this computer (an absolute path) or a volume (a name) in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The folder's path or the volume's name.
    pub source: String,
    /// Where it appears in the container.
    pub target: String,
    /// Whether the container may not write.
    pub read_only: bool,
}

/// What the engine does when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Nothing.
    No,
    /// Starts it anew unless it ended well.
    OnFailure,
    /// Starts it anew until a person stops it.
    UnlessStopped,
    /// Starts it anew, even after the engine's own restart.
    Always,
}

impl RunSpec {
    /// The body of the engine's `POST /containers/create`.
    pub fn to_engine(&self) -> Value {
        let mut exposed = Map::new();
        let mut bindings = Map::new();
        for port in &self.ports {
            let key = format!("{}/{}", port.container, port.protocol.name());
            exposed.insert(key.clone(), json!({}));
            // An empty one is the engine's to choose.
            let host = if port.host == 0 {
                String::new()
            } else {
                port.host.to_string()
            };
            let binding = json!({"HostIp": port.address, "HostPort": host});
            match bindings.get_mut(&key).and_then(Value::as_array_mut) {
                Some(others) => others.push(binding),
                None => drop(bindings.insert(key, json!([binding]))),
            }
        }
        let mut body = json!({
            "Image": self.image,
            "Env": self.environment.iter().map(Variable::assignment).collect::<Vec<_>>(),
            "ExposedPorts": exposed,
            "HostConfig": {
                "PortBindings": bindings,
                "Mounts": self.mounts.iter().map(Mount::to_engine).collect::<Vec<_>>(),
                "RestartPolicy": {"Name": if self.remove { Restart::No } else { self.restart }},
                "AutoRemove": self.remove,
            },
        });
        let host = &mut body["HostConfig"];
        if !self.network.is_empty() {
            host["NetworkMode"] = json!(self.network);
        }
        if let Some(mebibytes) = self.memory {
            host["Memory"] = json!(u64::from(mebibytes) << 20);
        }
        if let Some(thousandths) = self.processors {
            host["NanoCpus"] = json!(u64::from(thousandths) * 1_000_000);
        }
        // An empty command would replace the image's own.
        if !self.command.is_empty() {
            body["Cmd"] = json!(self.command);
        }
        body
    }
}

impl Variable {
    fn assignment(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

impl Mount {
    /// A mount and not a bind in the old notation: a path may hold colons.
    fn to_engine(&self) -> Value {
        let kind = if self.source.starts_with('/') {
            "bind"
        } else {
            "volume"
        };
        json!({"Type": kind, "Source": self.source, "Target": self.target, "ReadOnly": self.read_only})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_what_the_engine_creates() {
        let spec = RunSpec {
            image: "nginx:alpine".into(),
            name: "site".into(),
            command: Vec::new(),
            environment: vec![Variable {
                name: "TZ".into(),
                value: "UTC".into(),
            }],
            ports: [("", 8080), ("", 8081), ("127.0.0.1", 0)]
                .map(|(address, host)| Publish {
                    address: address.into(),
                    host,
                    container: 80,
                    protocol: Protocol::Tcp,
                })
                .to_vec(),
            mounts: vec![Mount {
                source: "/home/u/a:b".into(),
                target: "/srv".into(),
                read_only: true,
            }],
            network: String::new(),
            memory: None,
            processors: None,
            restart: Restart::UnlessStopped,
            remove: false,
        };
        let body = spec.to_engine();
        assert_eq!(body["Env"], json!(["TZ=UTC"]));
        assert_eq!(body["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
        assert_eq!(
            body["HostConfig"]["PortBindings"]["80/tcp"],
            json!([
                {"HostIp": "", "HostPort": "8080"},
                {"HostIp": "", "HostPort": "8081"},
                {"HostIp": "127.0.0.1", "HostPort": ""},
            ])
        );
        assert_eq!(
            body["HostConfig"]["Mounts"][0],
            json!({"Type": "bind", "Source": "/home/u/a:b", "Target": "/srv", "ReadOnly": true})
        );
        assert!(body.get("Cmd").is_none(), "the image's own command was replaced");
        for unasked in ["NetworkMode", "Memory", "NanoCpus"] {
            assert!(body["HostConfig"].get(unasked).is_none(), "{unasked}");
        }
        let limited = RunSpec {
            network: "shop_default".into(),
            memory: Some(512),
            processors: Some(1500),
            ..spec.clone()
        };
        let limited = limited.to_engine();
        let host = &limited["HostConfig"];
        assert_eq!(host["NetworkMode"], "shop_default");
        assert_eq!(host["Memory"], 536_870_912);
        assert_eq!(host["NanoCpus"], 1_500_000_000);
        // Docker refuses the two together.
        let removed = RunSpec { remove: true, ..spec }.to_engine();
        assert_eq!(removed["HostConfig"]["RestartPolicy"]["Name"], "no");
    }
}
