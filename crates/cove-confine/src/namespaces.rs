//! Namespaces of its own for the process that starts the cell.
//!
//! That process is the *porter*: it keeps the capabilities that the user namespace gives over the others, and with them
//! brings folders into the cell's view ([`crate::door`]). The next child that it starts is the first process of the new
//! process namespace: the cell.

use rustix::process::{Signal, getegid, geteuid, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};

use crate::error::{file, os};
use crate::{ConfineError, Layer, sys};

/// What the cell needs to make its own view, and gives up then.
const FOR_THE_CELL: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SETPCAP);

/// Moves this process, which must have one thread, into namespaces of its own, in which it may do as it likes; its later
/// children begin a process namespace. The host's files stay in view. The parent's death is still its own.
///
/// Fails where the host does not let a user make namespaces. The process is of no use then.
pub fn separate() -> Result<(), ConfineError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(
        libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP,
    )
    .map_err(os("make namespaces"))?;
    let write = |path: &str, text: String| std::fs::write(path, text).map_err(file("write", path.as_ref()));
    // Who may not choose groups may not leave them either, which is what the kernel asks before it believes in a map.
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    // Capabilities came, and with them the kernel has forgotten this.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(os("be bound to the parent"))
}

/// Lets the program that this process, a child of the porter, is about to become keep what it makes its view with. Between
/// fork and exec: it only makes system calls.
pub fn keep_for_the_cell() -> rustix::io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.inheritable |= FOR_THE_CELL;
    set_capabilities(None, sets)?;
    for capability in [CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP] {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// What the namespaces are worth, for a cell in them.
pub fn layers() -> Vec<Layer> {
    let uid = geteuid().as_raw();
    vec![
        Layer::whole("user namespace", format!("knows the user {uid} and nobody else")),
        Layer::whole("pid namespace", "no other process can be seen or signalled"),
        Layer::whole("network namespace", "no network, not even the host's loopback"),
        Layer::whole("ipc namespace", "no shared memory or queue of another process"),
        Layer::whole("uts namespace", "the host's name is not its to change"),
        Layer::whole("cgroup namespace", "no control group above its own can be named"),
    ]
}

/// The same where the host has none.
pub fn absent_layers(why: &str) -> Vec<Layer> {
    [
        "user namespace",
        "mount namespace",
        "pid namespace",
        "network namespace",
        "ipc namespace",
        "uts namespace",
        "cgroup namespace",
    ]
    .map(|name| Layer::absent(name, why))
    .into()
}
