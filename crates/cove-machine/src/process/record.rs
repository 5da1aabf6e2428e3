//! The files in a machine's directory that its processes leave for one another.

use super::identity::ProcessId;
use crate::{Exit, MachineError, MachineSpec, emulated::Qemu};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Larger files are not ours.
const MAX_SIZE: u64 = 1 << 20;

/// What a machine process is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The machine.
    pub(crate) spec: MachineSpec,
    /// What is to run it.
    pub(crate) hypervisor: Hypervisor,
}

/// What runs a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Hypervisor {
    /// Cove's own monitor, within the machine process.
    Kvm,
    /// QEMU without hardware virtualisation.
    Emulated {
        /// Which.
        qemu: Qemu,
    },
}

/// The processes of a running machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Processes {
    /// The machine process.
    pub(crate) process: ProcessId,
    /// The hypervisor, once it has been started.
    pub(crate) hypervisor: Option<ProcessId>,
}

/// The file that a kind of record is kept in.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Its name.
    const FILE: &str;
}

impl Record for Launch {
    const FILE: &str = "spec.json";
}

impl Record for Processes {
    const FILE: &str = "processes.json";
}

impl Record for Exit {
    const FILE: &str = "exit.json";
}

/// Reads the record in `directory`; nothing if there is none.
pub(crate) fn read<R: Record>(directory: &Path) -> Result<Option<R>, MachineError> {
    let path = directory.join(R::FILE);
    let mut text = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    }
    let record = serde_json::from_slice(&text);
    record
        .map(Some)
        .map_err(|error| failed("make sense of", path)(error.into()))
}

/// Replaces the record in `directory` in one step, so that a reader finds the old one or the new one.
pub(crate) fn write<R: Record>(directory: &Path, record: &R) -> Result<(), MachineError> {
    let path = directory.join(R::FILE);
    let new = directory.join(format!(".{}.new", R::FILE));
    let put = || -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        // Else the name may outlive a power cut and what it names not.
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    put().map_err(failed("write", path.clone()))
}

/// Removes the record from `directory`, if there is one.
pub(crate) fn remove<R: Record>(directory: &Path) -> Result<(), MachineError> {
    let path = directory.join(R::FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(operation: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitCause;

    #[test]
    fn what_runs_a_machine_is_part_of_its_record() {
        let json = serde_json::to_value(Hypervisor::Kvm).unwrap();
        assert_eq!(json, serde_json::json!({ "kind": "kvm" }));
        assert_eq!(
            serde_json::from_value::<Hypervisor>(json).unwrap(),
            Hypervisor::Kvm
        );
        let emulated =
            r#"{"kind":"emulated","qemu":{"path":"/q","version":{"major":10,"minor":0,"micro":2}}}"#;
        let read: Hypervisor = serde_json::from_str(emulated).unwrap();
        assert!(matches!(read, Hypervisor::Emulated { qemu } if qemu.path == Path::new("/q")));
        assert!(serde_json::from_str::<Hypervisor>(r#"{"kind":"emulated"}"#).is_err());
    }

    #[test]
    fn a_record_reads_back_as_it_was_written_and_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read::<Exit>(directory.path()).unwrap(), None);
        let exit = Exit {
            cause: ExitCause::HypervisorDied {
                status: "signal 9".into(),
                stderr: "out of memory".into(),
                crashed: false,
            },
            console_tail: vec!["line".into()],
        };
        write(directory.path(), &exit).unwrap();
        write(directory.path(), &exit).unwrap();
        assert_eq!(read(directory.path()).unwrap(), Some(exit));
        let file = directory.path().join("exit.json");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        remove::<Exit>(directory.path()).unwrap();
        remove::<Exit>(directory.path()).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_damaged_record_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("exit.json"), "{").unwrap();
        let error = read::<Exit>(directory.path()).unwrap_err();
        assert!(error.to_string().contains("exit.json"), "{error}");
    }
}
