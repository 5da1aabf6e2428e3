//! The keys that there are, and what is said of each. The file's template, the API's list and the messages of
//! errors are made from this table.

use super::{
    time,
    values::{Backend, MachineSettings, MachineValues, Values, shares_as_json},
};
use crate::name::MachineName;
use cove_api::size;
use serde_json::Value;
use std::fmt;

/// A key, as in `machine.cpus` or `machines.dev.cpus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// `machine.FIELD`
    Machine(Field),
    /// `machines.NAME.FIELD`
    Override(MachineName, Field),
    /// `shares`
    Shares,
    /// `engine`
    Engine,
    /// `engine.OPTION`, deeper with more parts.
    EngineOption(Vec<String>),
    /// `proxy.WHICH`
    Proxy(Which),
    /// `proxy.containers`
    ProxyContainers,
    /// `web.port`
    WebPort,
}

/// What can be set of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Backend,
    Cpus,
    Memory,
    Disk,
    StopGrace,
    ForeignProcessors,
}

/// Which of the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Http,
    Https,
    No,
}

/// The most processors and other bounds that a file may ask for, whatever this computer has.
pub(super) const MAX_CPUS: u32 = 64;
pub(super) const MEMORY_BOUNDS: (u64, u64) = (256 << 20, 1 << 40);
pub(super) const DISK_BOUNDS: (u64, u64) = (1 << 30, 16 << 40);
pub(super) const MAX_GRACE_S: u64 = 600;

impl Field {
    pub(crate) const ALL: [Self; 6] = [
        Self::Backend,
        Self::Cpus,
        Self::Memory,
        Self::Disk,
        Self::StopGrace,
        Self::ForeignProcessors,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Cpus => "cpus",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::StopGrace => "stop-grace",
            Self::ForeignProcessors => "foreign-processors",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Backend => {
                "What runs the machine: hardware virtualisation where there is some, else emulation."
            }
            Self::Cpus => "Virtual CPUs. More than the computer has are cut down to what it has.",
            Self::Memory => "The machine's memory.",
            Self::Disk => {
                "Largest size of the data disk. It is sparse: only what is used takes space. It grows at once, also while \
                 the machine runs, and never shrinks."
            }
            Self::StopGrace => "How long containers may take to stop before they are killed.",
            Self::ForeignProcessors => {
                "Whether programs for other processors run, by emulation: images for linux/arm64 and linux/arm, to be had \
                 with `docker run --platform`."
            }
        }
    }

    /// The values that there are, where these are few and have names; none where it takes others.
    pub(crate) fn choices(self) -> Vec<&'static str> {
        match self {
            Self::Backend => Backend::NAMES.map(|(name, _)| name).to_vec(),
            Self::Cpus | Self::Memory | Self::Disk | Self::StopGrace | Self::ForeignProcessors => Vec::new(),
        }
    }

    pub(crate) fn accepts(self) -> String {
        match self {
            Self::Backend => one_of(&self.choices()),
            Self::Cpus => format!("a whole number from 1 to {MAX_CPUS}"),
            Self::Memory => size_range(MEMORY_BOUNDS),
            Self::Disk => size_range(DISK_BOUNDS),
            Self::StopGrace => format!("a time such as \"10 s\" or \"2 min\", at most {MAX_GRACE_S} s"),
            Self::ForeignProcessors => "true or false".into(),
        }
    }

    fn value_in(self, settings: &MachineSettings) -> Value {
        match self {
            Self::Backend => settings.backend.name().into(),
            Self::Cpus => settings.cpus.into(),
            Self::Memory => size::exact(u64::from(settings.memory_mib) << 20).into(),
            Self::Disk => size::exact(settings.disk).into(),
            Self::StopGrace => time::show(settings.stop_grace).into(),
            Self::ForeignProcessors => settings.foreign_processors.into(),
        }
    }

    fn set_in(self, values: &MachineValues) -> bool {
        match self {
            Self::Backend => values.backend.is_some(),
            Self::Cpus => values.cpus.is_some(),
            Self::Memory => values.memory.is_some(),
            Self::Disk => values.disk.is_some(),
            Self::StopGrace => values.stop_grace.is_some(),
            Self::ForeignProcessors => values.foreign_processors.is_some(),
        }
    }
}

/// The choices in words, such as `"auto", "kvm" or "emulated"`.
fn one_of(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

fn size_range((least, most): (u64, u64)) -> String {
    let (least, most) = (size::exact(least), size::exact(most));
    format!("a size such as \"4 GiB\", from {least} to {most}")
}

impl Which {
    pub(crate) const ALL: [Self; 3] = [Self::Http, Self::Https, Self::No];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::No => "no",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|which| which.name() == name)
    }
}

impl Key {
    /// The keys that every file has, in the template's order.
    pub(crate) fn fixed() -> Vec<Self> {
        let machine = Field::ALL.into_iter().map(Self::Machine);
        let proxy = Which::ALL.into_iter().map(Self::Proxy);
        machine
            .chain([Self::Shares, Self::Engine])
            .chain(proxy)
            .chain([Self::ProxyContainers, Self::WebPort])
            .collect()
    }

    /// The key that is written `name`; nothing when there is none.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["machine", field] => Field::named(field).map(Self::Machine),
            ["machines", machine, field] => Some(Self::Override(machine.parse().ok()?, Field::named(field)?)),
            ["shares"] => Some(Self::Shares),
            ["engine"] => Some(Self::Engine),
            ["engine", option @ ..] if option.iter().all(|part| !part.is_empty()) => Some(
                Self::EngineOption(option.iter().map(|part| (*part).to_owned()).collect()),
            ),
            ["proxy", "containers"] => Some(Self::ProxyContainers),
            ["proxy", which] => Which::named(which).map(Self::Proxy),
            ["web", "port"] => Some(Self::WebPort),
            _ => None,
        }
    }

    /// Its parts, from the file's top.
    pub(crate) fn path(&self) -> Vec<&str> {
        match self {
            Self::Machine(field) => vec!["machine", field.name()],
            Self::Override(name, field) => vec!["machines", name.as_str(), field.name()],
            Self::Shares => vec!["shares"],
            Self::Engine => vec!["engine"],
            Self::EngineOption(option) => ["engine"]
                .into_iter()
                .chain(option.iter().map(String::as_str))
                .collect(),
            Self::Proxy(which) => vec!["proxy", which.name()],
            Self::ProxyContainers => vec!["proxy", "containers"],
            Self::WebPort => vec!["web", "port"],
        }
    }

    /// What it is for.
    pub(crate) fn description(&self) -> &'static str {
        match self {
            Self::Machine(field) | Self::Override(_, field) => field.description(),
            Self::Shares => {
                "Host folders that containers may mount, each at its own path; your home folder unless you say otherwise."
            }
            Self::Engine | Self::EngineOption(_) => {
                "Options for the Docker engine, merged into its daemon.json."
            }
            Self::Proxy(Which::Http) => {
                "The proxy through which the engine reaches http registries, and builds http servers; unless it is said \
                 here, what the daemon's environment says in HTTP_PROXY."
            }
            Self::Proxy(Which::Https) => {
                "The proxy through which the engine reaches https registries, and builds https servers; else HTTPS_PROXY."
            }
            Self::Proxy(Which::No) => "Hosts that are reached without a proxy; else NO_PROXY.",
            Self::ProxyContainers => {
                "Whether containers are told of the proxies by the usual variables, too, as builds are."
            }
            Self::WebPort => {
                "The port on which containers are reached by name, as http://NAME.cove.localhost:PORT/, from this \
                 computer only."
            }
        }
    }

    /// What it accepts, in words.
    pub(crate) fn accepts(&self) -> String {
        match self {
            Self::Machine(field) | Self::Override(_, field) => field.accepts(),
            Self::Shares => "a list of { path = \"/absolute/path\", read-only = false }".into(),
            Self::Engine => "a table of daemon.json's options".into(),
            Self::EngineOption(_) => "what daemon.json accepts for this option".into(),
            Self::Proxy(Which::No) => "host names and addresses, with commas between them".into(),
            Self::WebPort => "a port, such as 2683, or 0 for none".into(),
            Self::ProxyContainers => "true or false".into(),
            Self::Proxy(_) => {
                "a URL such as \"http://proxy.example:3128\"; http, https and socks5 work".into()
            }
        }
    }

    /// The values that there are, where these are few and have names; none where it takes others.
    pub(crate) fn choices(&self) -> Vec<&'static str> {
        match self {
            Self::Machine(field) | Self::Override(_, field) => field.choices(),
            _ => Vec::new(),
        }
    }

    /// The value in force, the default where nothing is set; nothing when an option of the engine is not set.
    pub(crate) fn value(&self, values: &Values, defaults: MachineSettings) -> Option<Value> {
        Some(match self {
            Self::Machine(field) => {
                let mut general = values.clone();
                general.machines.clear();
                field.value_in(&general.machine_over(&MachineName::default(), defaults))
            }
            Self::Override(name, field) => field.value_in(&values.machine_over(name, defaults)),
            Self::Shares => shares_as_json(values.shares.as_deref().unwrap_or_default()),
            Self::Engine => Value::Object(values.engine.clone()),
            Self::EngineOption(option) => {
                let (first, rest) = option.split_first()?;
                rest.iter()
                    .try_fold(values.engine.get(first)?, |value, part| value.get(part))?
                    .clone()
            }
            Self::WebPort => values.web_port().into(),
            Self::ProxyContainers => values.proxy.containers.unwrap_or_default().into(),
            Self::Proxy(which) => {
                let value = match which {
                    Which::Http => &values.proxy.http,
                    Which::Https => &values.proxy.https,
                    Which::No => &values.proxy.no,
                };
                value.clone().unwrap_or_default().into()
            }
        })
    }

    /// Whether the file sets it.
    pub(crate) fn is_set(&self, values: &Values) -> bool {
        match self {
            Self::Machine(field) => field.set_in(&values.machine),
            Self::Override(name, field) => values.machines.get(name).is_some_and(|own| field.set_in(own)),
            Self::Shares => values.shares.is_some(),
            Self::Engine => !values.engine.is_empty(),
            Self::EngineOption(option) => option
                .first()
                .is_some_and(|first| values.engine.contains_key(first)),
            Self::Proxy(Which::Http) => values.proxy.http.is_some(),
            Self::Proxy(Which::Https) => values.proxy.https.is_some(),
            Self::Proxy(Which::No) => values.proxy.no.is_some(),
            Self::ProxyContainers => values.proxy.containers.is_some(),
            Self::WebPort => values.web_port.is_some(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path().join("."))
    }
}

/// Names of the backends, for [`super::read`].
pub(super) fn backend_named(name: &str) -> Option<Backend> {
    Backend::NAMES
        .into_iter()
        .find_map(|(known, backend)| (known == name).then_some(backend))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_by_its_name() {
        let mut keys = Key::fixed();
        keys.push(Key::Override("dev".parse().unwrap(), Field::Disk));
        keys.push(Key::EngineOption(vec!["log-opts".into(), "max-size".into()]));
        for key in keys {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
    }

    #[test]
    fn what_is_no_key_is_not_found() {
        for name in [
            "",
            "machine",
            "machine.cpu",
            "machines.Dev.cpus",
            "engine.",
            "engine..x",
            "proxy.ftp",
        ] {
            assert_eq!(Key::parse(name), None, "{name:?}");
        }
    }
}
