//! Which QEMU there is, and what has to be known of its version.

use crate::{
    Caveat, MachineError,
    system::{Distribution, is_program},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// The oldest version that has every option of the command line, and that was tried.
const OLDEST: Version = Version::new(7, 2, 0);

/// The oldest version that connects again to a network that hung up, and the oldest that counts the pause in
/// milliseconds.
const OLDEST_TO_RECONNECT: Version = Version::new(8, 0, 0);
const OLDEST_TO_RECONNECT_SOON: Version = Version::new(9, 2, 0);

/// The oldest version on which several emulated vCPUs are safe: before it, about a quarter of the guests die while
/// their kernel patches its own code.
const OLDEST_FOR_SEVERAL_CPUS: Version = Version::new(10, 0, 0);

/// The oldest version that is sure to know `fzrm`, `fsrs` and `fsrc` by name. 7.2 does not, nor does it have them.
const OLDEST_TO_NAME_FAST_STRINGS: Version = Version::new(8, 1, 0);

/// Names of the program, in the order of preference. The second is that of Fedora's and its relatives' package.
const NAMES: [&str; 2] = ["qemu-system-x86_64", "qemu-kvm"];

/// A QEMU on this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Qemu {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its version.
    pub(crate) version: Version,
}

/// QEMU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
    micro: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32, micro: u32) -> Self {
        Self { major, minor, micro }
    }

    /// Reads what `qemu --version` prints.
    fn parse(output: &str) -> Option<Self> {
        let (_, rest) = output.lines().next()?.split_once("version ")?;
        let number = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = number.split('.').map(str::parse);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        let micro = parts.next().and_then(Result::ok).unwrap_or(0);
        Some(Self { major, minor, micro })
    }

    /// What whoever looks before a machine is started should know of it.
    pub(crate) fn caveat(self) -> Option<Caveat> {
        if self >= OLDEST_FOR_SEVERAL_CPUS {
            return None;
        }
        let one_cpu = "machines get one vCPU, because it crashes guests with several";
        let what = if self.reconnect().is_ok() {
            one_cpu.to_owned()
        } else {
            format!("{one_cpu}; should passt end, they have no way out until `cove restart`")
        };
        Some(Caveat {
            what,
            hint: format!("install QEMU 10 or newer ({})", install_hint()),
            // The system's own package may well be the one that is there.
            command: None,
        })
    }

    /// How many of `wanted` vCPUs are safe, and what to tell the user when these are fewer.
    pub(crate) fn vcpus(self, wanted: u32) -> (u32, Option<String>) {
        if wanted <= 1 || self >= OLDEST_FOR_SEVERAL_CPUS {
            return (wanted, None);
        }
        let notice = format!(
            "the machine has one vCPU instead of {wanted}, because QEMU {self} crashes guests with several; install QEMU \
             10 or newer ({})",
            install_hint()
        );
        (1, Some(notice))
    }
}

impl Version {
    /// The processor that it emulates: all that it can, but for the promise that string instructions are fast. It
    /// executes `rep movsb` and `rep stosb` byte by byte, so that Linux and C libraries, believing it, copy at a
    /// quarter of the rate of their ordinary loops, and clear at an eighth.
    pub(crate) fn processor(self) -> &'static str {
        if self >= OLDEST_TO_NAME_FAST_STRINGS {
            "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc"
        } else {
            "max,-erms,-fsrm"
        }
    }

    /// What makes its network connect again after it was hung up on, or what to tell the user where nothing does.
    pub(crate) fn reconnect(self) -> Result<&'static str, String> {
        if self >= OLDEST_TO_RECONNECT_SOON {
            Ok(",reconnect-ms=250")
        } else if self >= OLDEST_TO_RECONNECT {
            Ok(",reconnect=1")
        } else {
            Err(format!(
                "should the program that connects the machine to the network end, the machine has to be restarted, \
                 because QEMU {self} does not connect again; install QEMU 10 or newer ({})",
                install_hint()
            ))
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl Qemu {
    /// Finds QEMU in `directories`.
    pub(crate) fn find(directories: &[PathBuf]) -> Result<Self, MachineError> {
        let missing = |what| MachineError::Missing {
            what,
            hint: install_hint(),
        };
        let path = candidates(directories)
            .find(|path| is_program(path))
            .ok_or_else(|| missing("QEMU (qemu-system-x86_64)".to_owned()))?;
        let version = version_of(&path)?;
        if version < OLDEST {
            let what = format!("QEMU {OLDEST} or newer ({} is {version})", path.display());
            return Err(missing(what));
        }
        Ok(Self { path, version })
    }
}

fn candidates(directories: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    NAMES
        .iter()
        .flat_map(move |name| directories.iter().map(move |directory| directory.join(name)))
        .filter(|path| path.is_absolute())
}

/// Asks the program for its version, once for every change of its file.
fn version_of(path: &Path) -> Result<Version, MachineError> {
    static KNOWN: Mutex<Option<HashMap<(PathBuf, SystemTime), Version>>> = Mutex::new(None);
    let failed = |source| MachineError::Io {
        operation: "ask for its version",
        path: path.to_owned(),
        source,
    };
    let changed = std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(failed)?;
    let key = (path.to_owned(), changed);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(version) = known.get(&key) {
        return Ok(*version);
    }
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = Version::parse(&text).ok_or_else(|| {
        let first = text.lines().next().unwrap_or("nothing");
        failed(std::io::Error::other(format!("it answered `{first}`")))
    })?;
    known.insert(key, version);
    Ok(version)
}

/// What alone installs QEMU on this system, where that is known.
pub(crate) fn install_command() -> Option<&'static str> {
    Some(match Distribution::here() {
        Distribution::Debian => "sudo apt install qemu-system-x86",
        Distribution::Fedora => "sudo dnf install qemu-system-x86-core",
        Distribution::Arch => "sudo pacman -S qemu-system-x86",
        Distribution::Suse => "sudo zypper install qemu-x86",
        Distribution::Alpine => "sudo apk add qemu-system-x86_64",
        Distribution::Bookworm | Distribution::Other => return None,
    })
}

/// How to get it on this system.
fn install_hint() -> String {
    let known = install_command();
    let hint = known.unwrap_or_else(|| match Distribution::here() {
        Distribution::Bookworm => {
            "with bookworm-backports among the sources: sudo apt install -t bookworm-backports qemu-system-x86"
        }
        _ => "install qemu-system-x86_64 with your system's package manager (on macOS: brew install qemu)",
    });
    hint.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_script;
    use proptest::prelude::*;

    #[test]
    fn versions_are_read_from_what_distributions_print() {
        for (output, version) in [
            (
                "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright\n",
                Version::new(10, 0, 2),
            ),
            ("QEMU emulator version 9.2.0\n", Version::new(9, 2, 0)),
            (
                "QEMU emulator version 7.2 (qemu-7.2-1.fc38)",
                Version::new(7, 2, 0),
            ),
            ("QEMU emulator version 10.1.50-dirty", Version::new(10, 1, 50)),
        ] {
            assert_eq!(Version::parse(output), Some(version), "{output}");
        }
        assert_eq!(Version::parse("bash: not found"), None);
        assert_eq!(Version::parse("QEMU emulator version ten"), None);
        assert_eq!(
            Version::parse("QEMU emulator version 99999999999.0"),
            None,
            "a number out of range"
        );
    }

    #[test]
    fn versions_that_crash_guests_with_several_vcpus_get_one_and_say_so() {
        let caveat = Version::new(7, 2, 19).caveat().unwrap();
        assert!(caveat.what.contains("one vCPU") && caveat.hint.contains("QEMU 10"));
        assert!(caveat.what.contains("should passt end"), "{}", caveat.what);
        let newer = Version::new(8, 2, 0).caveat().unwrap();
        assert!(
            newer.what.contains("one vCPU") && !newer.what.contains("passt"),
            "{}",
            newer.what
        );
        assert_eq!(Version::new(10, 0, 0).caveat(), None);
        let (vcpus, notice) = Version::new(7, 2, 19).vcpus(4);
        assert_eq!(vcpus, 1);
        assert!(notice.unwrap().contains("one vCPU instead of 4"));
        assert_eq!(Version::new(7, 2, 19).vcpus(1), (1, None));
        assert_eq!(Version::new(10, 0, 0).vcpus(4), (4, None));
    }

    fn fake(directory: &Path, prints: &str) -> PathBuf {
        let path = directory.join("qemu-system-x86_64");
        test_script::install(&path, &format!("#!/bin/sh\necho '{prints}'\n"));
        path
    }

    #[test]
    fn a_missing_qemu_is_an_error_that_says_how_to_get_it() {
        let empty = tempfile::tempdir().unwrap();
        let error = Qemu::find(&[empty.path().to_owned(), "relative".into()]).unwrap_err();
        let MachineError::Missing { hint, .. } = error else {
            panic!("{error}");
        };
        assert!(hint.contains("install") || hint.contains("add"), "{hint}");
    }

    #[test]
    fn a_qemu_that_is_too_old_is_missing_in_its_new_version() {
        let directory = tempfile::tempdir().unwrap();
        fake(directory.path(), "QEMU emulator version 6.2.0");
        let error = Qemu::find(&[directory.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains("QEMU 7.2.0 or newer"), "{error}");
    }

    #[test]
    fn something_else_of_that_name_is_not_qemu() {
        let directory = tempfile::tempdir().unwrap();
        let path = fake(directory.path(), "hello");
        let error = Qemu::find(&[directory.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }

    proptest! {
        #[test]
        fn no_output_makes_the_parser_panic(output in ".*") {
            let _ = Version::parse(&output);
        }
    }
}
