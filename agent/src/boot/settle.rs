//! The rest of the system: kernel settings, control groups, names.

use super::mounts;
use crate::process::cgroup;
use std::{fs, io, path::Path};

/// Kernel settings, and why.
const SYSCTLS: [(&str, &str); 13] = [
    // Containers reach the network through the guest.
    ("net/ipv4/ip_forward", "1"),
    // Any group may ping without a privilege, and containers may use low ports without one.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // File watchers in containers share these limits.
    ("fs/inotify/max_user_watches", "1048576"),
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_queued_events", "65536"),
    // Databases and search engines map many files and refuse to start below 262144.
    ("vm/max_map_count", "1048576"),
    ("kernel/pid_max", "4194304"),
    // A key ring for each container.
    ("kernel/keys/maxkeys", "20000"),
    ("kernel/keys/maxbytes", "2000000"),
    // Windows of half the last number: what may be under way to the guest stays below the 208 KiB that the stream from
    // passt holds, since a passt before 2024 loses what it does not take, and sends it again. passt ends each connection
    // on the host, so that no window here ever spans the way to a far server. Network namespaces that are made later
    // begin with these numbers.
    ("net/ipv4/tcp_rmem", "4096 131072 262144"),
    // The other way such a passt tells the guest to send again what this computer does not take at once, which a fast
    // guest meets all the time. Nor does what is under way here have far to go.
    ("net/ipv4/tcp_wmem", "4096 16384 98304"),
    // A guest whose kernel has failed must end instead of hanging.
    ("kernel/panic", "1"),
    ("kernel/panic_on_oops", "1"),
];

/// Has the kernel ask its processors whether they still read what is to be freed, and not wait until they happen to
/// have passed on. A rule of the firewall, a mount and a network namespace each wait for that, and the engine makes many
/// of them one after the other; with the few processors of a guest, asking is cheap.
const RCU_EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// Directories of the finished system that are not in the image.
const DIRECTORIES: [&str; 2] = ["/run/cove", "/run/lock"];

/// Sets up everything that needs neither the data disk nor the host. Gives back what failed.
pub(crate) fn settle() -> Vec<String> {
    let mut failed = mounts::system();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            failed.push(format!("{what} failed: {error}"));
        }
    };
    for directory in DIRECTORIES {
        note(&format!("making {directory}"), fs::create_dir_all(directory));
    }
    for (name, value) in SYSCTLS {
        note(
            &format!("setting {name}"),
            fs::write(Path::new("/proc/sys").join(name), value),
        );
    }
    note("expediting RCU", fs::write(RCU_EXPEDITED, "1"));
    note("preparing the control groups", cgroup::prepare());
    note("sharing the mounts", mounts::share_all());
    failed
}

/// Gives the guest its name. `name` was checked by [`is_host_name`].
pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes())?;
    fs::write("/etc/hostname", format!("{name}\n"))?;
    fs::write("/etc/hosts", hosts(name))
}

fn hosts(name: &str) -> String {
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
}

/// Whether `name` is a host name as RFC 1123 has them, within Linux's limit of 64 bytes.
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_follow_the_rule() {
        for name in ["cove", "my-machine", "a.b.c", "9lives"] {
            assert!(is_host_name(name), "{name}");
        }
        let long = "x".repeat(65);
        for name in ["", "-a", "a-", "a..b", "a b", "a\nb", "ä", "a_b", &long] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn the_hosts_file_names_the_guest_once() {
        assert_eq!(
            hosts("cove")
                .lines()
                .filter(|line| line.ends_with("\tcove"))
                .count(),
            1
        );
    }
}
