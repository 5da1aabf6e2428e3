//! passt, the NAT on Linux.
//!
//! It confines itself: user, mount, IPC and UTS namespaces of its own, an empty root, no capability, no new privileges,
//! a seccomp filter. Its DHCP and router advertisements are off, since the guest knows its addresses, and so is the
//! forwarding of ports into the guest, which the daemon does.

use super::Nat;
use crate::{
    Caveat, MachineError,
    system::{Distribution, is_program},
};
use cove_wire::network;
use std::{
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const NAME: &str = "passt";

/// An option that tells a newer passt from an old one, since Debian's do not know their own version. It came in August
/// 2024. The passt of May 2025 (Debian 13) was seen to be sound, that of March 2023 (Debian 12) was seen not to be.
const SIGN_OF_YOUTH: &str = "--map-host-loopback";

/// A passt on this computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passt {
    path: PathBuf,
}

impl Passt {
    /// Finds it in `directories`.
    pub(crate) fn find(directories: &[PathBuf]) -> Result<Self, MachineError> {
        directories
            .iter()
            .map(|directory| directory.join(NAME))
            .find(|path| path.is_absolute() && is_program(path))
            .map(|path| Self { path })
            .ok_or_else(|| MachineError::Missing {
                what: NAME.into(),
                hint: install_hint().into(),
            })
    }

    /// What a person should know about it; nothing if it is as good as can be told. Blocks while it is asked.
    pub(crate) fn caveat(&self) -> Option<Caveat> {
        let help = Command::new(&self.path)
            .arg("--help")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let young = [help.stdout, help.stderr]
            .iter()
            .any(|text| String::from_utf8_lossy(text).contains(SIGN_OF_YOUTH));
        (!young).then(|| Caveat {
            what: "this passt is old: once a program in a container has ended its own direction of a connection, as \
                   `nc` does, it may get the rest of the answer several times"
                .to_owned(),
            hint: "install a newer passt; Debian 13 and other current systems have one".to_owned(),
            command: None,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Nat for Passt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn command(&self, connection: BorrowedFd<'_>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["--foreground", "--quiet", "--fd"]);
        command.arg(connection.as_raw_fd().to_string());
        // The gateway's address is mapped to the host's loopback, by every version without being asked.
        command.args(["--address", &network::GUEST_V4.to_string()]);
        command.args(["--netmask", &network::PREFIX_V4.to_string()]);
        command.args(["--gateway", &network::GATEWAY_V4.to_string()]);
        command.args(["--address", &network::GUEST_V6.to_string()]);
        command.args(["--gateway", &network::GATEWAY_V6.to_string()]);
        command.args(["--mtu", &network::MTU.to_string()]);
        command.args(["--no-dhcp", "--no-dhcpv6", "--no-ra"]);
        command.args(["--tcp-ports", "none", "--udp-ports", "none"]);
        command
    }
}

/// What installs it on this system, where that is known.
pub(crate) fn install_command() -> Option<&'static str> {
    Some(match Distribution::here() {
        Distribution::Bookworm | Distribution::Debian => "sudo apt install passt",
        Distribution::Fedora => "sudo dnf install passt",
        Distribution::Arch => "sudo pacman -S passt",
        Distribution::Suse => "sudo zypper install passt",
        Distribution::Alpine => "sudo apk add passt",
        Distribution::Other => return None,
    })
}

/// How to get it on this system.
pub(crate) fn install_hint() -> &'static str {
    install_command().unwrap_or("install passt with your system's package manager")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_script;

    #[test]
    fn a_missing_passt_is_an_error_that_says_how_to_get_it() {
        let empty = tempfile::tempdir().unwrap();
        let error = Passt::find(&[empty.path().to_owned(), "relative".into()]).unwrap_err();
        let MachineError::Missing { what, hint } = error else {
            panic!("{error}");
        };
        assert_eq!(what, "passt");
        assert!(hint.contains("passt"), "{hint}");
    }

    #[test]
    fn an_old_passt_is_told_from_a_newer_one_by_its_options() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let caveat = |script: &str| {
            test_script::install(&path, &format!("#!/bin/sh\n{script}\n"));
            Passt::find(&[directory.path().to_owned()]).unwrap().caveat()
        };
        assert!(caveat("echo '  --no-map-gw  ...' >&2; exit 1").is_some());
        assert_eq!(caveat("echo '  --map-host-loopback ADDR'"), None);
    }
}
