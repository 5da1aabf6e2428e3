//! The Linux system that Cove runs on: where its programs are, and how a person adds one.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Where programs may be apart from `PATH`, which services often get cut down.
const FURTHER_DIRECTORIES: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/libexec", "/usr/sbin"];

/// The directories of `PATH`, and where programs may be besides.
pub(crate) fn program_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(FURTHER_DIRECTORIES.map(PathBuf::from))
        .collect()
}

/// Whether there is a file at `path` that somebody may execute.
pub(crate) fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The families of distributions whose package managers and package names are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Debian 12, whose QEMU is too old for several vCPUs.
    Bookworm,
    Debian,
    Fedora,
    Arch,
    Suse,
    Alpine,
    Other,
}

impl Distribution {
    /// The one that this process runs on.
    pub(crate) fn here() -> Self {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::of(&release)
    }

    /// The one that the text of `/etc/os-release` describes.
    fn of(release: &str) -> Self {
        let value = |key: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map_or("", |value| value.trim_matches('"'))
        };
        let is =
            |name: &str| value("ID") == name || value("ID_LIKE").split_whitespace().any(|like| like == name);
        if value("VERSION_CODENAME") == "bookworm" {
            Self::Bookworm
        } else if is("debian") {
            Self::Debian
        } else if is("fedora") || is("rhel") {
            Self::Fedora
        } else if is("arch") {
            Self::Arch
        } else if is("suse") || is("opensuse") {
            Self::Suse
        } else if is("alpine") {
            Self::Alpine
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_distribution_is_known_by_its_own_name_or_its_relatives() {
        for (release, distribution) in [
            ("ID=debian\nVERSION_CODENAME=bookworm\n", Distribution::Bookworm),
            ("ID=ubuntu\nID_LIKE=debian\n", Distribution::Debian),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                Distribution::Fedora,
            ),
            ("", Distribution::Other),
        ] {
            assert_eq!(Distribution::of(release), distribution, "{release}");
        }
    }

    proptest! {
        #[test]
        fn no_release_file_makes_the_parser_panic(release in ".*") {
            let _ = Distribution::of(&release);
        }
    }
}
