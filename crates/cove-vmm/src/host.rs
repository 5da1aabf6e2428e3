//! Whether this computer's KVM can do what a machine needs.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kvm_ioctls::{Cap, Kvm};

/// The version of KVM's interface, the only one since Linux 2.6.22.
const VERSION: i32 = 12;

/// What every machine uses, and what KVM calls it.
const NEEDED: [(Cap, &str); 8] = [
    (Cap::Irqchip, "interrupt controllers in the kernel"),
    (Cap::Irqfd, "interrupts by eventfd"),
    (Cap::Ioeventfd, "notifications by eventfd"),
    (Cap::UserMemory, "guest memory"),
    (Cap::SetTssAddr, "a place for real mode"),
    (Cap::ExtCpuid, "CPUID"),
    (Cap::VcpuEvents, "a vCPU's pending events"),
    (Cap::MpState, "the state of a vCPU"),
];

/// Why KVM will not do.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The device does not answer as KVM does.
    #[error("{device} does not answer as KVM does: {source}")]
    Silent {
        /// The device.
        device: String,
        /// What the system said.
        source: kvm_ioctls::Error,
    },
    /// It is of a version that nobody has seen.
    #[error("KVM's interface has version {0} instead of {VERSION}")]
    Version(i32),
    /// It lacks something that machines need.
    #[error("KVM lacks {0}")]
    Lacks(&'static str),
}

/// Asks the KVM behind `device` whether it has everything that a machine needs. Creates no machine.
pub fn examine(device: &Path) -> Result<(), Unfit> {
    let silent = |source| Unfit::Silent {
        device: device.display().to_string(),
        source,
    };
    let path =
        CString::new(device.as_os_str().as_bytes()).map_err(|_| silent(kvm_ioctls::Error::new(EINVAL)))?;
    let kvm = Kvm::new_with_path(&path).map_err(silent)?;
    match kvm.get_api_version() {
        VERSION => {}
        // The crate passes the system call's own failure on.
        -1 => return Err(silent(kvm_ioctls::Error::last())),
        version => return Err(Unfit::Version(version)),
    }
    match NEEDED.into_iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, what)) => Err(Unfit::Lacks(what)),
        None => Ok(()),
    }
}

const EINVAL: i32 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_kvm_is_told_from_one_that_is() {
        let why = examine(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(why.contains("/dev/null does not answer"), "{why}");
        assert!(examine(Path::new("/nonexistent/kvm")).is_err());
    }
}
