//! What the kernel's command line says to the agent.

use std::path::PathBuf;

/// Where the machine put its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disks {
    /// `cove.root=`: the read-only root file system.
    pub(crate) root: PathBuf,
    /// `cove.data=`: the disk that persists.
    pub(crate) data: PathBuf,
}

impl Disks {
    /// Reads the kernel's command line. The last of several settings counts, as the kernel does it.
    pub(crate) fn from_cmdline(cmdline: &str) -> Self {
        let setting = |name: &str, default: &str| {
            let value = cmdline
                .split_ascii_whitespace()
                .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .rfind(|value| value.starts_with("/dev/"));
            PathBuf::from(value.unwrap_or(default))
        };
        Self {
            root: setting("cove.root", "/dev/vda"),
            data: setting("cove.data", "/dev/vdb"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_defaults() {
        let disks = Disks::from_cmdline("console=ttyS0 quiet\n");
        assert_eq!(
            (disks.root.to_str(), disks.data.to_str()),
            (Some("/dev/vda"), Some("/dev/vdb"))
        );
    }

    #[test]
    fn the_last_setting_counts_and_similar_names_do_not() {
        let disks = Disks::from_cmdline(
            "cove.root=/dev/vdc xcove.data=/dev/a cove.root=/dev/vdd cove.database=/dev/b",
        );
        assert_eq!(
            (disks.root.to_str(), disks.data.to_str()),
            (Some("/dev/vdd"), Some("/dev/vdb"))
        );
    }

    #[test]
    fn what_is_not_a_device_is_ignored() {
        assert_eq!(
            Disks::from_cmdline("cove.data=../etc").data.to_str(),
            Some("/dev/vdb")
        );
    }
}
