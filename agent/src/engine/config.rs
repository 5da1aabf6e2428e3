//! The configuration files of dockerd and containerd: what the daemon asks for, and what the guest's layout dictates.

use cove_wire::{EngineConfig, Fault, FaultCode, network};
use serde_json::{Map, Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// dockerd's socket. The agent listens on it and hands it to every dockerd that it starts.
pub(crate) const ENGINE_SOCKET: &str = "/run/docker.sock";

/// containerd's socket.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

const DIRECTORY: &str = "/run/cove";
const ENGINE_FILE: &str = "daemon.json";
const CONTAINERD_FILE: &str = "containerd.toml";

/// containerd's plugins that neither dockerd nor buildkit calls. Each costs start-up time, some much: `cri` alone
/// starts a streaming server and looks for network plugins.
const NEEDLESS: [&str; 13] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.monitor.v1.cgroups",
];

/// The runtime of containers that ask for none: it starts them sooner than runc, and joins them much sooner. runc is there
/// as well, under its own name.
const RUNTIME: &str = "crun";

/// The agent by another name, which becomes crun; see `crate::runtime`.
const RUNTIME_PATH: &str = "/usr/bin/cove-runtime";

/// Where the configuration files are.
pub(crate) struct Files {
    pub(crate) engine: PathBuf,
    pub(crate) containerd: PathBuf,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `daemon.json`, complete.
    engine: Map<String, Value>,
    /// Additional environment of both programs.
    pub(crate) environment: Vec<(String, String)>,
}

impl Config {
    /// Checks what the daemon asks for and adds what the guest dictates.
    pub(crate) fn new(config: &EngineConfig) -> Result<Self, Fault> {
        let Value::Object(mut engine) = config.daemon_json.clone() else {
            return Err(invalid("the engine's configuration is not a JSON object"));
        };
        for (key, value) in dictated() {
            if let Some(asked) = engine.insert(key.clone(), value) {
                tracing::warn!(key, %asked, "the guest's layout dictates this engine setting");
            }
        }
        for (key, value) in offered() {
            engine.entry(key).or_insert(value);
        }
        // What is no object dockerd refuses by itself, with better words.
        if let Value::Object(runtimes) = engine.entry("runtimes").or_insert_with(|| json!({})) {
            runtimes
                .entry(RUNTIME)
                .or_insert_with(|| json!({"path": RUNTIME_PATH}));
        }
        let [iptables, experimental, ip6tables] =
            ["iptables", "experimental", "ip6tables"].map(|key| engine.get(key).and_then(Value::as_bool));
        // Without it networks with IPv6 have no way out, and internal ones are closed for IPv4 alone. This engine takes
        // it for an experiment, and does not start with the one and without the other.
        if ip6tables.unwrap_or(iptables != Some(false) && experimental != Some(false)) {
            for key in ["ip6tables", "experimental"] {
                engine.entry(key).or_insert(json!(true));
            }
        }
        // The containerd image store names its driver differently; without it, looking for a driver is a waste.
        if !uses_containerd_images(&engine) {
            engine
                .entry("storage-driver")
                .or_insert_with(|| json!("overlay2"));
        }
        let mut environment = Vec::new();
        for (name, value) in &config.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(invalid(format!(
                    "{name:?} is not an environment variable with a valid name and value"
                )));
            }
            environment.push((name.clone(), value.clone()));
        }
        Ok(Self { engine, environment })
    }

    /// Whether containers outlive dockerd.
    pub(crate) fn keeps_containers(&self) -> bool {
        self.engine.get("live-restore") == Some(&Value::Bool(true))
    }

    /// The same, but so that containers outlive dockerd.
    pub(crate) fn with_containers_kept(&self) -> Self {
        let mut config = self.clone();
        config.engine.insert("live-restore".into(), json!(true));
        config
    }

    /// The same, but so that dockerd stops the containers when it ends, and gives them `grace_s` seconds.
    pub(crate) fn for_shutdown(&self, grace_s: u64) -> Self {
        let mut config = self.clone();
        config.engine.insert("live-restore".into(), json!(false));
        config.engine.insert("shutdown-timeout".into(), json!(grace_s));
        config
    }

    /// Writes the configuration files.
    pub(crate) fn write(&self) -> io::Result<Files> {
        let directory = Path::new(DIRECTORY);
        let files = Files {
            engine: directory.join(ENGINE_FILE),
            containerd: directory.join(CONTAINERD_FILE),
        };
        fs::write(&files.engine, Value::Object(self.engine.clone()).to_string())?;
        fs::write(&files.containerd, containerd_toml())?;
        Ok(files)
    }
}

/// Settings that follow from how the guest is laid out, whatever the daemon asks for.
fn dictated() -> [(String, Value); 7] {
    [
        ("data-root".into(), json!("/var/lib/docker")),
        ("exec-root".into(), json!("/run/docker")),
        ("pidfile".into(), json!("/run/docker.pid")),
        ("containerd".into(), json!(CONTAINERD_SOCKET)),
        // The socket that the agent passes on; see `engine::programs`.
        ("hosts".into(), json!(["fd://"])),
        // The agent by another name, which publishes ports on the host; see `crate::proxy`.
        ("userland-proxy".into(), json!(true)),
        ("userland-proxy-path".into(), json!("/usr/bin/docker-proxy")),
    ]
}

/// Settings that somebody may want otherwise.
fn offered() -> [(String, Value); 4] {
    [
        ("default-runtime".into(), json!(RUNTIME)),
        // Said although it is the default: a reload takes back nothing that it does not say otherwise, and a renewal
        // of the engine says yes for a moment.
        ("live-restore".into(), json!(false)),
        // The agent's own resolver, which asks the host; see `crate::names`.
        ("dns".into(), json!([network::RESOLVER])),
        // What `--add-host NAME:host-gateway` means.
        ("host-gateway-ip".into(), json!(network::GATEWAY_V4)),
    ]
}

fn uses_containerd_images(engine: &Map<String, Value>) -> bool {
    engine
        .get("features")
        .and_then(|features| features.get("containerd-snapshotter"))
        == Some(&Value::Bool(true))
}

fn containerd_toml() -> String {
    let needless: Vec<String> = NEEDLESS
        .iter()
        .map(|plugin| format!("  \"{plugin}\",\n"))
        .collect();
    format!(
        "version = 2\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\ndisabled_plugins = [\n{}]\n\
         [grpc]\naddress = \"{CONTAINERD_SOCKET}\"\n[ttrpc]\naddress = \"{CONTAINERD_SOCKET}.ttrpc\"\n",
        needless.concat()
    )
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(FaultCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn config(daemon_json: Value) -> Result<Config, Fault> {
        Config::new(&EngineConfig {
            daemon_json,
            environment: BTreeMap::new(),
        })
    }

    #[test]
    fn what_the_daemon_asks_for_is_kept_and_the_layout_wins() {
        let config =
            config(json!({"debug": true, "hosts": ["tcp://0.0.0.0:2375"], "data-root": "/tmp"})).unwrap();
        assert_eq!(config.engine["debug"], json!(true));
        assert_eq!(config.engine["hosts"], json!(["fd://"]));
        assert_eq!(config.engine["data-root"], json!("/var/lib/docker"));
    }

    #[test]
    fn ports_are_published_by_the_agent_whatever_is_asked_for() {
        let config = config(json!({"userland-proxy": false})).unwrap();
        assert_eq!(config.engine["userland-proxy"], json!(true));
    }

    #[test]
    fn containers_ask_the_agent_for_names_unless_told_otherwise() {
        assert_eq!(
            config(json!({})).unwrap().engine["dns"],
            json!(["192.168.127.53"])
        );
        let other = config(json!({"dns": ["192.0.2.1"]})).unwrap();
        assert_eq!(other.engine["dns"], json!(["192.0.2.1"]));
    }

    #[test]
    fn containers_are_started_by_crun_unless_told_otherwise() {
        let crun = json!({"path": "/usr/bin/cove-runtime"});
        let usual = config(json!({})).unwrap().engine;
        assert_eq!(usual["default-runtime"], json!("crun"));
        assert_eq!(usual["runtimes"], json!({"crun": crun}));
        let mine = json!({"path": "/mine"});
        let other = json!({"default-runtime": "mine", "runtimes": {"mine": mine}});
        let other = config(other).unwrap().engine;
        assert_eq!(other["default-runtime"], json!("mine"));
        assert_eq!(other["runtimes"], json!({"crun": crun, "mine": mine}));
    }

    #[test]
    fn ipv6_has_a_firewall_unless_somebody_wants_none() {
        let said = |asked: Value| {
            let engine = config(asked).unwrap().engine;
            ["ip6tables", "experimental"].map(|key| engine.get(key).and_then(Value::as_bool))
        };
        assert_eq!(said(json!({})), [Some(true), Some(true)]);
        assert_eq!(said(json!({"ip6tables": true})), [Some(true), Some(true)]);
        // The engine would not start with what is added to these.
        assert_eq!(said(json!({"experimental": false})), [None, Some(false)]);
        assert_eq!(said(json!({"ip6tables": false})), [Some(false), None]);
        assert_eq!(said(json!({"iptables": false})), [None, None]);
    }

    #[test]
    fn the_storage_driver_is_named_only_where_it_applies() {
        assert_eq!(
            config(json!({})).unwrap().engine["storage-driver"],
            json!("overlay2")
        );
        assert_eq!(
            config(json!({"storage-driver": "vfs"})).unwrap().engine["storage-driver"],
            json!("vfs")
        );
        let snapshotter = config(json!({"features": {"containerd-snapshotter": true}})).unwrap();
        assert!(!snapshotter.engine.contains_key("storage-driver"));
    }

    #[test]
    fn a_configuration_that_is_no_object_is_refused() {
        for value in [json!(null), json!([]), json!("x")] {
            assert_eq!(config(value).unwrap_err().code, FaultCode::Invalid);
        }
    }

    #[test]
    fn variables_that_the_kernel_would_misread_are_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            let asked = EngineConfig {
                daemon_json: json!({}),
                environment: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            };
            assert_eq!(
                Config::new(&asked).unwrap_err().code,
                FaultCode::Invalid,
                "{name:?}={value:?}"
            );
        }
    }

    #[test]
    fn a_shutdown_stops_containers_even_where_they_outlive_the_engine() {
        let config = config(json!({"live-restore": true})).unwrap();
        assert!(config.keeps_containers());
        let kept = config.for_shutdown(7).with_containers_kept();
        assert!(kept.keeps_containers());
        let last = config.for_shutdown(7);
        assert!(!last.keeps_containers());
        assert_eq!(last.engine["shutdown-timeout"], json!(7));
    }
}
