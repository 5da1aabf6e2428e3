//! What the package says of itself.

use super::emptied;
use crate::process::capture;
use anyhow::{Context as _, Result};
use std::{fmt, fs, path::Path, process::Command};

/// Nothing of these is linked with, and the rest works without; apt installs them unless it is told not to.
const RECOMMENDS: &str = "qemu-system-x86, passt, libayatana-appindicator3-1, xdg-utils";
const SUGGESTS: &str = "docker-cli | docker.io";

/// The fields that are not always the same.
pub(super) struct Control {
    pub(super) version: &'static str,
    pub(super) architecture: &'static str,
    /// The packages of the libraries that the programs are linked with.
    pub(super) depends: String,
    pub(super) installed_kib: u64,
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            architecture,
            depends,
            installed_kib,
        } = self;
        writeln!(
            f,
            "Package: cove\nVersion: {version}\nArchitecture: {architecture}"
        )?;
        // dpkg wants the field and not an address in it, and the project has none to give.
        writeln!(f, "Maintainer: Cove developers")?;
        writeln!(
            f,
            "Installed-Size: {installed_kib}\nSection: admin\nPriority: optional"
        )?;
        writeln!(
            f,
            "Depends: {depends}\nRecommends: {RECOMMENDS}\nSuggests: {SUGGESTS}"
        )?;
        writeln!(f, "Description: Docker Engine in a lightweight virtual machine")?;
        writeln!(
            f,
            " Runs Docker Engine in an Alpine Linux microVM and forwards its API to a socket,"
        )?;
        writeln!(
            f,
            " where any Docker client finds it. Nothing needs root at run time."
        )?;
        writeln!(f, " .")?;
        writeln!(
            f,
            " Holds the command, the desktop application and the machine's image."
        )
    }
}

/// The packages that bring what `programs` are linked with, with the versions that they need, by `dpkg-shlibdeps`.
pub(super) fn libraries(scratch: &Path, programs: &[impl AsRef<Path>]) -> Result<String> {
    // It wants to be in a source package, and looks no further than for its name.
    emptied(&scratch.join("debian"))?;
    let source = scratch.join("debian/control");
    fs::write(&source, "Source: cove\n\nPackage: cove\nArchitecture: any\n")
        .with_context(|| format!("cannot write {}", source.display()))?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.current_dir(scratch).arg("-O");
    for program in programs {
        command.arg("-e").arg(program.as_ref());
    }
    let said = capture(&mut command)?;
    let depends = said.strip_prefix("shlibs:Depends=");
    Ok(depends
        .with_context(|| format!("dpkg-shlibdeps says something else: {said}"))?
        .to_owned())
}
