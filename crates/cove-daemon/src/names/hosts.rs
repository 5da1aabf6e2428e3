//! The hosts file: names that this computer's administrator gave addresses, and what these addresses are called.

use cove_wire::etc;
use std::{collections::HashMap, net::IpAddr, path::PathBuf, time::SystemTime};

/// Names another file to be read instead of the system's.
const VARIABLE: &str = "COVE_HOSTS";
/// Bytes that are read of the file. Lists of advertisers' names can be long.
const MAX_FILE: u64 = 16 << 20;
/// Names that mean whoever asks. Every system has them in a file of its own, and so has the guest.
const OWN: [&str; 3] = ["localhost", "ip6-localhost", "ip6-loopback"];

/// The file's content, read again when the file has changed.
#[derive(Debug)]
pub(super) struct Hosts {
    file: PathBuf,
    /// When the file was changed, and its length, as it was read.
    read: Option<(SystemTime, u64)>,
    content: Content,
}

/// What a hosts file says.
#[derive(Debug, Default)]
struct Content {
    addresses: HashMap<String, Vec<IpAddr>>,
    /// The first name of each address, which is its canonical one (hosts(5)).
    names: HashMap<IpAddr, String>,
}

impl Hosts {
    /// The system's file, or the one that the environment names.
    pub(super) fn of_this_computer() -> Self {
        let file = std::env::var_os(VARIABLE).map_or_else(system_file, PathBuf::from);
        Self::new(file)
    }

    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            read: None,
            content: Content::default(),
        }
    }

    /// The addresses of a name in lower case; none if the file does not have it.
    pub(super) fn find(&mut self, name: &str) -> Vec<IpAddr> {
        self.refresh();
        self.content.addresses.get(name).cloned().unwrap_or_default()
    }

    /// What an address is called, if the file says so.
    pub(super) fn name_of(&mut self, address: IpAddr) -> Option<String> {
        self.refresh();
        self.content.names.get(&address).cloned()
    }

    fn refresh(&mut self) {
        let now = std::fs::metadata(&self.file)
            .and_then(|metadata| Ok((metadata.modified()?, metadata.len())))
            .ok();
        if now == self.read {
            return;
        }
        self.read = now;
        self.content = match read(&self.file) {
            Ok(text) => parse(&text),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(file = %self.file.display(), "reading the hosts file failed: {error}");
                }
                Content::default()
            }
        };
    }
}

fn read(file: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(not(windows))]
fn system_file() -> PathBuf {
    "/etc/hosts".into()
}

#[cfg(windows)]
fn system_file() -> PathBuf {
    let root = std::env::var_os("SystemRoot").map_or_else(|| PathBuf::from(r"C:\Windows"), PathBuf::from);
    root.join(r"System32\drivers\etc\hosts")
}

fn parse(text: &str) -> Content {
    let mut content = Content::default();
    for (address, names) in etc::hosts(text) {
        for name in names {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if name.is_empty() || OWN.contains(&&*name) {
                continue;
            }
            content.names.entry(address).or_insert_with(|| name.clone());
            let known = content.addresses.entry(name).or_default();
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_the_addresses_of_all_their_lines_but_ones_own_are_nobodys() {
        let Content { addresses, names } = parse(
            "127.0.0.1 localhost app.test # one's own\n192.0.2.7\tDB.example. db\n2001:db8::7 db\nfe80::1%eth0 near\nnonsense\n",
        );
        assert_eq!(addresses["db"].len(), 2);
        assert_eq!(addresses["db.example"], ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(addresses.contains_key("app.test") && addresses.contains_key("near"));
        assert!(!addresses.contains_key("localhost") && !addresses.contains_key("one's"));
        let called = |address: &str| names.get(&address.parse::<IpAddr>().unwrap()).map(String::as_str);
        assert_eq!(called("192.0.2.7"), Some("db.example"), "the first name counts");
        assert_eq!(called("2001:db8::7"), Some("db"));
        assert_eq!(called("127.0.0.1"), Some("app.test"));
        assert_eq!(called("192.0.2.8"), None);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hosts");
        let mut hosts = Hosts::new(file.clone());
        assert!(hosts.find("db").is_empty());
        std::fs::write(&file, "192.0.2.7 db\n").unwrap();
        assert_eq!(hosts.find("db").len(), 1);
        std::fs::write(&file, "192.0.2.7 db\n192.0.2.8 db\n").unwrap();
        assert_eq!(hosts.find("db").len(), 2);
        std::fs::remove_file(&file).unwrap();
        assert!(hosts.find("db").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = parse(&text);
        }
    }
}
