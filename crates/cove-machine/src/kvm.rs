//! Whether this computer has hardware virtualisation that Cove can use. The monitor itself comes with another release.
//!
//! A device node is not enough: there are computers whose `/dev/kvm` opens and then interprets the guest's kernel
//! instruction by instruction, because the processor has no virtualisation extension. Such a KVM is slower than QEMU's
//! translation and fails on instructions that every kernel uses, so that it is passed over.

use crate::{Availability, Backend, BackendKind, Features, Machine, MachineError, MachineSpec};
use async_trait::async_trait;
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Cove's own monitor on KVM.
#[derive(Debug, Clone)]
pub struct Kvm {
    device: PathBuf,
    cpuinfo: PathBuf,
}

impl Default for Kvm {
    fn default() -> Self {
        Self {
            device: "/dev/kvm".into(),
            cpuinfo: "/proc/cpuinfo".into(),
        }
    }
}

/// What is the matter with this computer's KVM, apart from the monitor that is missing; nothing if it is fine.
fn obstacle(device: &Path, cpuinfo: &Path) -> Option<(String, String)> {
    let shown = device.display();
    match std::fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Some((
                format!("there is no {shown}"),
                "switch on virtualisation (VT-x, AMD-V) in the firmware's settings, and load the module kvm_intel or kvm_amd".into(),
            ));
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some((
                format!("this user may not open {shown}"),
                format!(
                    "add yourself to the group {}: sudo usermod -aG {0} \"$USER\", then log in again",
                    group(device)
                ),
            ));
        }
        Err(error) => {
            return Some((
                format!("{shown} cannot be opened: {error}"),
                "check that the module kvm_intel or kvm_amd is loaded".into(),
            ));
        }
    }
    let extended = std::fs::read_to_string(cpuinfo).is_ok_and(|text| has_extension(&text));
    (!extended).then(|| {
        (
            format!("{shown} is software-only: the processor shows neither vmx nor svm"),
            "inside a virtual machine, switch on nested virtualisation for it".into(),
        )
    })
}

/// Whether `/proc/cpuinfo` lists Intel's or AMD's virtualisation extension.
fn has_extension(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

/// Name of the group that owns `device`, or its number.
fn group(device: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(gid) = std::fs::metadata(device).map(|metadata| metadata.gid()) else {
        return "kvm".into();
    };
    std::fs::read_to_string("/etc/group")
        .ok()
        .and_then(|groups| group_name(&groups, gid))
        .unwrap_or_else(|| gid.to_string())
}

/// The name of group `gid` in the text of `/etc/group`.
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[async_trait]
impl Backend for Kvm {
    fn kind(&self) -> BackendKind {
        BackendKind::Kvm
    }

    fn probe(&self) -> Availability {
        let (why, hint) = obstacle(&self.device, &self.cpuinfo).unwrap_or_else(|| {
            (
                "hardware virtualisation is there, but the KVM monitor is not part of this release".into(),
                "nothing to do: machines are emulated until it is".into(),
            )
        });
        Availability::Unavailable { why, hint }
    }

    fn features(&self) -> Features {
        Features {
            hardware: true,
            ..Features::default()
        }
    }

    async fn start(&self, _: &MachineSpec) -> Result<Box<dyn Machine>, MachineError> {
        Err(MachineError::Unsupported {
            operation: "starting a machine",
            backend: BackendKind::Kvm,
        })
    }

    async fn adopt(&self, _: &MachineSpec) -> Result<Option<Box<dyn Machine>>, MachineError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(device: &str, cpuinfo: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cpuinfo");
        std::fs::write(&path, cpuinfo).unwrap();
        let kvm = Kvm {
            device: device.into(),
            cpuinfo: path,
        };
        match kvm.probe() {
            Availability::Unavailable { why, .. } => why,
            Availability::Available { evidence } => panic!("available: {evidence}"),
        }
    }

    #[test]
    fn a_missing_device_is_named() {
        assert_eq!(
            why("/nonexistent/kvm", "flags : svm"),
            "there is no /nonexistent/kvm"
        );
    }

    #[test]
    fn a_device_without_the_extension_is_software_only() {
        assert!(why("/dev/null", "flags : fpu sse svm_lock\nbugs : vmx").contains("software-only"));
    }

    #[test]
    fn hardware_without_a_monitor_says_that_the_monitor_is_missing() {
        assert!(why("/dev/null", "flags\t\t: fpu vmx sse\n").contains("not part of this release"));
    }

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\nbroken\nkvm:x:106:somebody\n";
        assert_eq!(group_name(groups, 106).as_deref(), Some("kvm"));
        assert_eq!(group_name(groups, 7), None);
    }
}
