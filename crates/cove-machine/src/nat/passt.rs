//! passt, the NAT on Linux.
//!
//! It confines itself: user, mount, IPC and UTS namespaces of its own, an empty root, no capability, no new privileges,
//! a seccomp filter. Its DHCP and router advertisements are off, since the guest knows its addresses, and so is the
//! forwarding of ports into the guest, which the daemon does.

use super::Nat;
use crate::{
    MachineError,
    system::{Distribution, is_program},
};
use cove_wire::network;
use std::{
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    process::Command,
};

const NAME: &str = "passt";

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

/// How to get it on this system.
pub(crate) fn install_hint() -> &'static str {
    match Distribution::here() {
        Distribution::Bookworm | Distribution::Debian => "sudo apt install passt",
        Distribution::Fedora => "sudo dnf install passt",
        Distribution::Arch => "sudo pacman -S passt",
        Distribution::Suse => "sudo zypper install passt",
        Distribution::Alpine => "sudo apk add passt",
        Distribution::Other => "install passt with your system's package manager",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
