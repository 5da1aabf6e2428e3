//! Whether this computer has hardware virtualisation that Cove can use. It takes a few system calls.
//!
//! A device node is not enough: there are computers whose `/dev/kvm` opens and then interprets the guest's kernel
//! instruction by instruction, because the processor has no virtualisation extension. Such a KVM is slower than QEMU's
//! translation and fails on instructions that every kernel uses, so that it is passed over.

use crate::Availability;
use std::{io::ErrorKind, path::Path};

/// Looks at KVM's `device` and at what `/proc/cpuinfo` says of the processor.
pub(super) fn probe(device: &Path, cpuinfo: &Path) -> Availability {
    match examine(device, cpuinfo) {
        Ok(evidence) => Availability::available(evidence),
        Err(unavailable) => unavailable,
    }
}

/// What KVM runs on, or what is the matter with it and what can be done.
fn examine(device: &Path, cpuinfo: &Path) -> Result<String, Availability> {
    let shown = device.display();
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(device);
    if let Err(error) = &opened
        && error.kind() == ErrorKind::NotFound
    {
        return Err(Availability::unavailable(
            format!("there is no {shown}"),
            "switch on virtualisation (VT-x, AMD-V) in the firmware's settings, and load the module kvm_intel or kvm_amd",
        ));
    }
    // Before permissions: nobody should join a group for a device that then will not do.
    let cpuinfo = std::fs::read_to_string(cpuinfo).unwrap_or_default();
    let Some(extension) = extension(&cpuinfo) else {
        return Err(Availability::unavailable(
            format!("{shown} is software-only: the processor shows neither vmx nor svm"),
            "inside a virtual machine, switch on nested virtualisation for it",
        ));
    };
    match opened {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let (hint, command) = permission(device);
            return Err(Availability::Unavailable {
                why: format!("this user may not open {shown}"),
                hint,
                command: Some(command),
            });
        }
        Err(error) => {
            return Err(Availability::unavailable(
                format!("{shown} cannot be opened: {error}"),
                "check that the module kvm_intel or kvm_amd is loaded",
            ));
        }
    }
    monitor(device)?;
    Ok(format!("KVM with {extension}"))
}

/// Whether the monitor can work with this KVM.
#[cfg(target_arch = "x86_64")]
fn monitor(device: &Path) -> Result<(), Availability> {
    cove_vmm::host::examine(device).map_err(|unfit| {
        Availability::unavailable(
            format!("this computer's KVM will not do: {unfit}"),
            "run a kernel of 5.10 or newer",
        )
    })
}

/// Whether the monitor can work with this KVM.
#[cfg(not(target_arch = "x86_64"))]
fn monitor(_: &Path) -> Result<(), Availability> {
    Err(Availability::unavailable(
        "the monitor for KVM is for x86-64 only",
        "nothing to do: machines are emulated",
    ))
}

/// The name of Intel's or AMD's virtualisation extension, if `/proc/cpuinfo` lists one.
fn extension(cpuinfo: &str) -> Option<&'static str> {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .find_map(|flag| match flag {
            "vmx" => Some("VT-x"),
            "svm" => Some("AMD-V"),
            _ => None,
        })
}

/// What lets this user open `device`, in words and as a command.
fn permission(device: &Path) -> (String, String) {
    use std::os::unix::fs::MetadataExt;
    let join = |group: &str| {
        let command = format!("sudo usermod -aG {group} \"$USER\"");
        let hint = format!("add yourself to the group {group}: {command}, then log in again");
        (hint, command)
    };
    let Ok(metadata) = std::fs::metadata(device) else {
        return join("kvm");
    };
    // The group may not open it either, or may do anything: neither is one to join.
    if metadata.mode() & 0o060 != 0o060 || metadata.gid() == 0 {
        let shown = device.display();
        let give = format!("sudo chgrp kvm {shown} && sudo chmod 660 {shown}");
        let (hint, command) = join("kvm");
        return (
            format!("give it to the group kvm: {give}; and {hint}"),
            format!("{give} && {command}"),
        );
    }
    let gid = metadata.gid();
    let named = std::fs::read_to_string("/etc/group")
        .ok()
        .and_then(|groups| group_name(&groups, gid));
    join(&named.unwrap_or_else(|| gid.to_string()))
}

/// The name of group `gid` in the text of `/etc/group`.
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why a device will not do on a computer with this `/proc/cpuinfo`, and what to do about it.
    fn why(device: &Path, cpuinfo: &str) -> (String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cpuinfo");
        std::fs::write(&path, cpuinfo).unwrap();
        match probe(device, &path) {
            Availability::Unavailable { why, hint, .. } => (why, hint),
            Availability::Available { evidence, .. } => panic!("available: {evidence}"),
        }
    }

    #[test]
    fn a_missing_device_is_named() {
        let (why, _) = why("/nonexistent/kvm".as_ref(), "flags : svm");
        assert_eq!(why, "there is no /nonexistent/kvm");
    }

    #[test]
    fn a_device_that_may_not_be_opened_names_the_group_that_may() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let file = tempfile::NamedTempFile::new().unwrap();
        let locked = std::fs::Permissions::from_mode(0o060);
        std::fs::set_permissions(file.path(), locked).unwrap();
        // Root may open anything; what it is told then is that this is no KVM.
        let (why, hint) = why(file.path(), "flags : svm");
        if rustix::process::geteuid().is_root() {
            assert!(why.contains("does not answer"), "{why}");
        } else {
            assert!(why.contains("may not open"), "{why}");
            let gid = std::fs::metadata(file.path()).unwrap().gid();
            let groups = std::fs::read_to_string("/etc/group").unwrap();
            let name = group_name(&groups, gid).unwrap_or_else(|| gid.to_string());
            assert!(hint.contains(&format!("group {name}:")), "{hint}");
        }
    }

    #[test]
    fn a_group_that_may_not_open_the_device_either_is_not_one_to_join() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let (hint, command) = permission(file.path());
        let give = format!("sudo chgrp kvm {0} && sudo chmod 660 {0}", file.path().display());
        assert!(hint.contains(&give) && hint.contains("group kvm:"), "{hint}");
        assert!(!hint.contains("group root"), "{hint}");
        assert_eq!(command, format!("{give} && sudo usermod -aG kvm \"$USER\""));
    }

    #[test]
    fn a_device_without_the_extension_is_said_to_be_so_even_if_it_may_not_be_opened() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o000)).unwrap();
        let (why, _) = why(file.path(), "flags : fpu");
        assert!(why.contains("software-only"), "{why}");
    }

    #[test]
    fn a_device_without_the_extension_is_software_only() {
        let (why, _) = why("/dev/null".as_ref(), "flags : fpu sse svm_lock\nbugs : vmx");
        assert!(why.contains("software-only"));
    }

    #[test]
    fn a_device_that_is_not_kvm_is_found_out() {
        let (why, _) = why("/dev/null".as_ref(), "flags\t\t: fpu vmx sse\n");
        assert!(why.contains("will not do"), "{why}");
    }

    #[test]
    fn the_extension_is_known_by_either_name() {
        assert_eq!(extension("flags\t: fpu vmx"), Some("VT-x"));
        assert_eq!(extension("flags\t: fpu svm"), Some("AMD-V"));
        assert_eq!(extension("model name : vmx"), None);
    }

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\nbroken\nkvm:x:106:somebody\n";
        assert_eq!(group_name(groups, 106).as_deref(), Some("kvm"));
        assert_eq!(group_name(groups, 7), None);
    }
}
