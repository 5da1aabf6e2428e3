//! Whether a machine can be as its specification says, whatever runs it.

use crate::{MachineError, MachineSpec};

/// The least memory that the guest starts in, in MiB.
const LEAST_MEMORY_MIB: u32 = 256;

/// Checks what would otherwise only fail within the hypervisor or the guest.
pub(crate) fn check(spec: &MachineSpec) -> Result<(), MachineError> {
    let invalid = |why: String| Err(MachineError::InvalidSpec(why));
    if !is_name(&spec.name) {
        return invalid(format!("`{}` is not a machine's name", spec.name.escape_debug()));
    }
    if spec.cpus == 0 {
        return invalid("it needs at least one vCPU".into());
    }
    if spec.memory_mib < LEAST_MEMORY_MIB {
        return invalid(format!(
            "{} MiB of memory are too few, it needs at least {LEAST_MEMORY_MIB}",
            spec.memory_mib
        ));
    }
    for path in [
        &spec.directory,
        &spec.runtime,
        &spec.kernel,
        &spec.initramfs,
        &spec.rootfs,
        &spec.data_disk,
    ] {
        if !path.is_absolute() || path.to_str().is_none() {
            return invalid(format!("the path {} is not absolute UTF-8", path.display()));
        }
    }
    if let Some(argument) = spec
        .kernel_arguments
        .iter()
        .find(|text| text.contains(char::is_control))
    {
        return invalid(format!(
            "the kernel argument {argument:?} holds a control character"
        ));
    }
    Ok(())
}

/// `[a-z0-9][a-z0-9-]*`, at most 32 bytes.
fn is_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_cannot_be_is_refused_with_the_reason() {
        let refused = |change: fn(&mut MachineSpec)| {
            let mut spec = MachineSpec::example();
            change(&mut spec);
            check(&spec).unwrap_err().to_string()
        };
        assert!(check(&MachineSpec::example()).is_ok());
        assert!(refused(|spec| spec.name = "a,process=b".into()).contains("name"));
        assert!(refused(|spec| spec.cpus = 0).contains("vCPU"));
        assert!(refused(|spec| spec.memory_mib = 64).contains("64 MiB"));
        assert!(refused(|spec| spec.kernel = "kernel".into()).contains("absolute"));
        assert!(refused(|spec| spec.kernel_arguments = vec!["a\nb".into()]).contains("control character"));
    }
}
