//! An unmodified Docker client: the one of this computer, or Debian's, unpacked below the target directory.

use super::apt::PrivateApt;
use crate::{
    layout::Layout,
    process::{self, find, step},
};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The Debian release whose Docker packages are used; they run on older releases as they are.
pub(super) const SUITE: &str = "trixie";

/// A Docker client and the directory of its plugins.
#[derive(Debug, Clone)]
pub(crate) struct DockerClient {
    /// The program.
    pub(crate) program: PathBuf,
    /// A directory with `docker-compose` and `docker-buildx`, if they were asked for.
    pub(crate) plugins: Option<PathBuf>,
}

impl DockerClient {
    /// Finds or fetches the client alone.
    pub(crate) fn plain(layout: &Layout) -> Result<Self> {
        let program = match find("docker") {
            Some(program) => program,
            None => fetched(layout, "docker-cli", "usr/bin/docker")?,
        };
        Ok(Self {
            program,
            plugins: None,
        })
    }

    /// Finds or fetches the client with compose and buildx.
    pub(crate) fn with_plugins(layout: &Layout) -> Result<Self> {
        let mut client = Self::plain(layout)?;
        let plugins = layout.tools().join("cli-plugins");
        fs::create_dir_all(&plugins).with_context(|| format!("cannot create {}", plugins.display()))?;
        for name in ["compose", "buildx"] {
            let plugin = match installed_plugin(name) {
                Some(plugin) => plugin,
                None => fetched(
                    layout,
                    &format!("docker-{name}"),
                    &format!("usr/libexec/docker/cli-plugins/docker-{name}"),
                )?,
            };
            link(&plugin, &plugins.join(format!("docker-{name}")))?;
        }
        client.plugins = Some(plugins);
        Ok(client)
    }
}

/// Where Docker's documentation has its client look for plugins.
const PLUGIN_DIRECTORIES: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// A plugin that is installed on this computer for everybody.
fn installed_plugin(name: &str) -> Option<PathBuf> {
    PLUGIN_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(format!("docker-{name}")))
        .find(|plugin| plugin.is_file())
}

/// Docker's registry, which the suites push to.
pub(crate) fn registry(layout: &Layout) -> Result<PathBuf> {
    match find("docker-registry") {
        Some(program) => Ok(program),
        None => fetched(layout, "docker-registry", "usr/bin/docker-registry"),
    }
}

/// Docker's credential helper for `pass`.
pub(crate) fn credential_helper(layout: &Layout) -> Result<PathBuf> {
    const NAME: &str = "docker-credential-pass";
    match find(NAME) {
        Some(program) => Ok(program),
        None => fetched(
            layout,
            "golang-docker-credential-helpers",
            &format!("usr/bin/{NAME}"),
        ),
    }
}

/// The suites whose busybox will do, in the order in which they are tried. A mirror may hold some processor's list of one
/// suite only in part for days, and it does not matter which release the program is of.
const BUSYBOX_SUITES: [&str; 3] = [SUITE, "bookworm", "forky"];

/// A directory with busybox for other processors: `arm64/busybox` and `arm/busybox`, by the names of Docker's platforms.
pub(crate) fn foreign_programs(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("foreign");
    for (name, architecture) in [("arm64", "arm64"), ("arm", "armhf")] {
        let directory = place.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        if directory.join("busybox").exists() {
            continue;
        }
        link(&busybox(layout, architecture)?, &directory.join("busybox"))?;
    }
    Ok(place)
}

/// busybox for a processor by Debian's name of it, of the first suite that has one.
fn busybox(layout: &Layout, architecture: &'static str) -> Result<PathBuf> {
    let package = format!("busybox-static-{architecture}");
    let mut failures = Vec::new();
    for suite in BUSYBOX_SUITES {
        let apt = || PrivateApt::of_processor(layout, suite, architecture);
        match unpacked(layout, suite, "busybox-static", &package, "usr/bin/busybox", apt) {
            Ok(program) => return Ok(program),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    anyhow::bail!(
        "there is no busybox-static for {architecture} to be had:\n{}",
        failures.join("\n")
    )
}

/// A directory with dropbear, an ssh server, and every library that it needs, as they lie in a root directory.
pub(crate) fn ssh_server(layout: &Layout) -> Result<PathBuf> {
    const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
    let directory = "dropbear";
    for (package, file) in [
        ("dropbear-bin", "usr/sbin/dropbear".to_owned()),
        ("libc6", format!("{LIBRARIES}/libc.so.6")),
        ("libcrypt1", format!("{LIBRARIES}/libcrypt.so.1.1.0")),
        ("zlib1g", format!("{LIBRARIES}/libz.so.1")),
        ("libtomcrypt1", format!("{LIBRARIES}/libtomcrypt.so.1")),
        ("libtommath1", format!("{LIBRARIES}/libtommath.so.1")),
        ("libgmp10", format!("{LIBRARIES}/libgmp.so.10")),
    ] {
        unpacked(layout, SUITE, package, directory, &file, || {
            PrivateApt::of_suite(layout, SUITE)
        })?;
    }
    Ok(layout.tools().join(directory))
}

/// A file of a Debian package, unpacked below the tools directory.
fn fetched(layout: &Layout, package: &str, file: &str) -> Result<PathBuf> {
    unpacked(layout, SUITE, package, package, file, || {
        PrivateApt::of_suite(layout, SUITE)
    })
}

/// The same of a package of `suite` that `apt` knows, in a directory `name`.
fn unpacked(
    layout: &Layout,
    suite: &str,
    package: &str,
    name: &str,
    file: &str,
    apt: impl FnOnce() -> Result<PrivateApt>,
) -> Result<PathBuf> {
    let unpacked = layout.tools().join(name);
    let program = unpacked.join(file);
    if program.is_file() {
        return Ok(program);
    }
    step(&format!(
        "Fetching {package} of Debian {suite} into {}",
        unpacked.display()
    ));
    let apt = apt()?;
    apt.update()?;
    let archive = apt.download(package, &layout.tools().join("deb").join(name))?;
    process::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    anyhow::ensure!(program.is_file(), "{package} of Debian {suite} holds no {file}");
    Ok(program)
}

fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|existing| existing == target) {
        return Ok(());
    }
    // Replaced rather than kept: it may lead to a file that is gone.
    let _ = fs::remove_file(link);
    #[cfg(unix)]
    std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot create {}", link.display()))?;
    #[cfg(not(unix))]
    fs::copy(target, link)
        .map(drop)
        .with_context(|| format!("cannot create {}", link.display()))?;
    Ok(())
}
