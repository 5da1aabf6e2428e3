//! The settings as the daemon uses them: typed, checked, defaults filled in.

use super::proxy::Proxy;
use crate::name::MachineName;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What the settings file says, checked. What it leaves out is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Values {
    /// `[machine]`: every machine.
    pub(crate) machine: MachineValues,
    /// `[machines.NAME]`: one machine, over `[machine]`.
    pub(crate) machines: BTreeMap<MachineName, MachineValues>,
    /// `shares`; absent where the file does not say, which means the home folder.
    pub(crate) shares: Option<Vec<Share>>,
    /// `[engine]`, merged into `daemon.json`.
    pub(crate) engine: Map<String, Value>,
    /// `[proxy]`.
    pub(crate) proxy: Proxy,
    /// `web.port`.
    pub(crate) web_port: Option<u16>,
}

/// What can be set of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MachineValues {
    pub(crate) backend: Option<Backend>,
    pub(crate) cpus: Option<u32>,
    /// Bytes, whole MiB.
    pub(crate) memory: Option<u64>,
    /// Bytes, whole MiB.
    pub(crate) disk: Option<u64>,
    pub(crate) stop_grace: Option<Duration>,
    pub(crate) foreign_processors: Option<bool>,
}

/// Which backend is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Backend {
    #[default]
    Auto,
    Kvm,
    Emulated,
}

impl Backend {
    pub(crate) const NAMES: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("kvm", Self::Kvm),
        ("emulated", Self::Emulated),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Emulated => "emulated",
        }
    }
}

/// A host folder that containers may mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

/// Shares as the settings' API shows them.
pub(crate) fn shares_as_json(shares: &[Share]) -> Value {
    let shares = shares.iter();
    shares
        .map(|share| json!({ "path": share.path, "read-only": share.read_only }))
        .collect()
}

/// The settings of one machine, with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineSettings {
    pub(crate) backend: Backend,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    /// Bytes.
    pub(crate) disk: u64,
    pub(crate) stop_grace: Duration,
    pub(crate) foreign_processors: bool,
}

/// What the defaults depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostSize {
    /// Logical processors.
    pub(crate) cpus: u32,
    /// Physical memory in bytes; absent where the platform does not tell.
    pub(crate) memory: Option<u64>,
}

impl HostSize {
    /// Physical memory in MiB, where it is known.
    pub(crate) fn memory_mib(self) -> Option<u32> {
        self.memory.map(mib)
    }
}

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

impl MachineSettings {
    /// What holds where nothing is set: up to 4 processors, a quarter of the memory between 1 and 8 GiB, a sparse
    /// disk of 64 GiB, 10 seconds for containers to stop, programs for this processor only.
    pub(crate) fn default_on(host: HostSize) -> Self {
        let memory = (host.memory.unwrap_or(8 * GIB) / 4).clamp(GIB, 8 * GIB);
        Self {
            backend: Backend::Auto,
            cpus: host.cpus.clamp(1, 4),
            memory_mib: mib(memory),
            disk: 64 * GIB,
            stop_grace: Duration::from_secs(10),
            foreign_processors: false,
        }
    }

    /// Takes back what this computer does not have.
    pub(crate) fn fit(&mut self, host: HostSize) {
        self.cpus = self.cpus.min(host.cpus);
        self.memory_mib = self.memory_mib.min(host.memory_mib().unwrap_or(u32::MAX));
    }

    fn overlaid(mut self, values: &MachineValues) -> Self {
        self.backend = values.backend.unwrap_or(self.backend);
        self.cpus = values.cpus.unwrap_or(self.cpus);
        self.memory_mib = values.memory.map_or(self.memory_mib, mib);
        self.disk = values.disk.unwrap_or(self.disk);
        self.stop_grace = values.stop_grace.unwrap_or(self.stop_grace);
        self.foreign_processors = values.foreign_processors.unwrap_or(self.foreign_processors);
        self
    }
}

impl Values {
    /// The settings of one machine: its own, else those of every machine, else the defaults.
    pub(crate) fn machine(&self, name: &MachineName, host: HostSize) -> MachineSettings {
        self.machine_over(name, MachineSettings::default_on(host))
    }

    /// The settings of one machine over `defaults`.
    pub(crate) fn machine_over(&self, name: &MachineName, defaults: MachineSettings) -> MachineSettings {
        let settings = defaults.overlaid(&self.machine);
        match self.machines.get(name) {
            Some(own) => settings.overlaid(own),
            None => settings,
        }
    }

    /// `daemon.json`: Cove's defaults, then what the user says.
    pub(crate) fn daemon_json(&self) -> Value {
        // Without a bound, the logs of chatty containers fill the data disk; a person can still set other values.
        let mut json = serde_json::json!({
            "log-driver": "json-file",
            "log-opts": { "max-size": "20m", "max-file": "5" },
            "builder": { "gc": { "enabled": true, "defaultKeepStorage": "20GB" } },
        });
        if let Value::Object(map) = &mut json {
            if self.engine.contains_key("log-driver") {
                // Another driver does not know these options.
                map.remove("log-opts");
            }
            map.extend(self.engine.clone());
        }
        json
    }

    /// The port on which containers are reached by name; 0 for none, since nothing listens that nobody asked for.
    pub(crate) fn web_port(&self) -> u16 {
        self.web_port.unwrap_or_default()
    }

    /// The proxies in force: what the settings say, and `environment` where they say nothing.
    pub(crate) fn proxies(&self, environment: &Proxy) -> Proxy {
        self.proxy.over(environment)
    }

    /// The variables that containers get, where that is wanted. Builds get those of the proxies in any case: what they
    /// fetch comes from the world, as what the engine pulls does.
    pub(crate) fn container_variables(&self, environment: &Proxy) -> BTreeMap<String, String> {
        let proxies = self.proxies(environment);
        if proxies.containers == Some(true) {
            proxies.variables()
        } else {
            BTreeMap::new()
        }
    }
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes / MIB).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostSize = HostSize {
        cpus: 16,
        memory: Some(16 * GIB),
    };

    #[test]
    fn a_machines_own_value_beats_the_general_one_which_beats_the_default() {
        let dev: MachineName = "dev".parse().unwrap();
        let mut values = Values::default();
        assert_eq!(values.machine(&dev, HOST).cpus, 4);
        values.machine.cpus = Some(2);
        assert_eq!(values.machine(&dev, HOST).cpus, 2);
        values.machines.entry(dev.clone()).or_default().cpus = Some(8);
        assert_eq!(values.machine(&dev, HOST).cpus, 8);
        assert_eq!(values.machine(&MachineName::default(), HOST).cpus, 2);
    }

    #[test]
    fn default_memory_is_a_quarter_of_the_host_within_bounds() {
        let of = |memory| MachineSettings::default_on(HostSize { cpus: 1, memory }).memory_mib;
        assert_eq!(of(Some(16 * GIB)), 4096);
        assert_eq!(of(Some(GIB)), 1024);
        assert_eq!(of(Some(256 * GIB)), 8192);
        assert_eq!(of(None), 2048);
    }

    #[test]
    fn engine_options_are_merged_over_coves_defaults() {
        let mut values = Values::default();
        values.engine.insert("debug".into(), true.into());
        assert_eq!(values.daemon_json()["debug"], true);
        assert_eq!(values.daemon_json()["log-opts"]["max-file"], "5");
        values.engine.insert("log-driver".into(), "local".into());
        assert_eq!(values.daemon_json().get("log-opts"), None);
    }

    #[test]
    fn containers_are_told_of_proxies_only_where_that_is_wanted() {
        let mut values = Values::default();
        values.proxy.https = Some("http://p:3128".into());
        let nothing = Proxy::default();
        assert!(values.container_variables(&nothing).is_empty());
        assert_eq!(
            values.proxies(&nothing).variables()["https_proxy"],
            "http://p:3128"
        );
        values.proxy.containers = Some(true);
        assert_eq!(
            values.container_variables(&nothing)["HTTPS_PROXY"],
            "http://p:3128"
        );
    }
}
