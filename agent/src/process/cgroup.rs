//! Control groups (version 2). Processes live only in leaves, so that limits set above them bind.
//!
//! ```text
//!  /                     all controllers enabled for the groups below
//!  ├─ agent         the agent
//!  ├─ dockerd       and what dockerd starts itself
//!  ├─ containerd    and the shims
//!  ├─ shell         what the host runs in the guest
//!  └─ docker/…      containers, made by the engine
//! ```
//!
//! dockerd takes the controllers of its own group for those that containers will have, so that its group stands where
//! all of them are enabled.

use rustix::{
    fs::{Mode, OFlags, open},
    process::Pid,
};
use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Where the hierarchy is mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// dockerd's group.
pub(crate) const DOCKERD: &str = "dockerd";
/// containerd's.
pub(crate) const CONTAINERD: &str = "containerd";
/// That of what the host runs.
pub(crate) const SHELL: &str = "shell";

/// Groups that are not containers.
const OWN: [&str; 4] = ["agent", DOCKERD, CONTAINERD, SHELL];

/// A control group.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the group `name` unless it is there, with every controller that the kernel has.
    pub(crate) fn make(name: &str) -> io::Result<Self> {
        let path = Path::new(ROOT).join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Moves the calling process into the group.
    pub(crate) fn join(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0")
    }

    /// A file that a child writes `0` to in order to join.
    pub(crate) fn entrance(&self) -> io::Result<OwnedFd> {
        let path = self.0.join("cgroup.procs");
        Ok(open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The processes in the group and in those below. A group that goes away meanwhile has none, and those of a
    /// threaded one belong to a group above it.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        let mut groups = vec![self.0.clone()];
        while let Some(group) = groups.pop() {
            let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let pids = listed.lines().filter_map(|line| line.parse().ok());
            found.extend(pids.filter_map(Pid::from_raw));
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            groups.extend(
                below
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        found
    }

    /// Kills every process in the group and in those below.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1")
    }
}

/// Enables every controller for the groups directly below the root, and moves the agent out of the root.
pub(crate) fn prepare() -> io::Result<()> {
    Cgroup::make("agent")?.join()?;
    let root = Path::new(ROOT);
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    let control = root.join("cgroup.subtree_control");
    // Each write waits for the kernel to settle, so that all in one are seven times as quick.
    let all: Vec<String> = controllers
        .split_whitespace()
        .map(|name| format!("+{name}"))
        .collect();
    if fs::write(&control, all.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in controllers.split_whitespace() {
        // One by one, because a controller that cannot be enabled must not keep the others from it.
        if let Err(error) = fs::write(&control, format!("+{controller}")) {
            tracing::warn!(controller, "enabling a cgroup controller failed: {error}");
        }
    }
    Ok(())
}

/// The groups at the top that hold containers, wherever the engine or a user has put them.
pub(crate) fn containers() -> io::Result<Vec<Cgroup>> {
    let mut groups = Vec::new();
    for entry in fs::read_dir(ROOT)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !OWN.iter().any(|own| entry.file_name() == *own) {
            groups.push(Cgroup(entry.path()));
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_in_a_group_and_in_those_below() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("container/init.scope");
        fs::create_dir_all(&below).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        fs::write(root.path().join("container/cgroup.procs"), "7\n12\n").unwrap();
        fs::write(below.join("cgroup.procs"), "9\n").unwrap();
        let mut found: Vec<_> = Cgroup(root.path().into())
            .processes()
            .into_iter()
            .map(Pid::as_raw_pid)
            .collect();
        found.sort_unstable();
        assert_eq!(found, [7, 9, 12]);
        assert!(Cgroup(root.path().join("gone")).processes().is_empty());
    }
}
