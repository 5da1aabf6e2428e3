//! Which paths may be bind-mounted, and where they are in the guest.
//!
//! A shared folder is in the guest at its own path, so on Linux and macOS there is nothing to translate; Windows drive
//! paths (`C:\Users\u`) are below `/mnt/c` there. What is not shared is refused, since the engine would otherwise make
//! an empty directory of that name in the guest and say nothing.
//!
//! This protects people from that surprise. It does not protect the host: a guest has no means to see a path that is
//! not shared, whatever it is asked to mount.

mod body;

pub(super) use body::{Members, Verdict, examine};

use cove_api::DEFAULT_MACHINE;
use std::path::{Path, PathBuf};

/// Paths that mean the guest's own, below which everything may be mounted although nothing of it is shared. They are
/// what images ask for that look at the engine or the kernel they run on, and what compose files mount by habit.
pub const GUEST_OWN: &[&str] = &[
    // The engine's socket: Portainer, Traefik, Testcontainers, CI runners.
    ENGINE_SOCKET,
    "/run/docker.sock",
    // The engine's data: log shippers, cAdvisor, a volume's mount point as `docker volume inspect` shows it.
    "/var/lib/docker",
    // The kernel that containers really run on.
    "/dev",
    "/proc",
    "/sys",
    "/lib/modules",
    // The time zone, which countless compose files mount read-only.
    "/etc/localtime",
    "/etc/timezone",
];

/// Where the engine listens in the guest.
const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// What may be bind-mounted into the containers of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPolicy {
    /// The machine's name, for the words of a refusal.
    pub machine: String,
    /// The shared folders, as paths of the host.
    pub shares: Vec<PathBuf>,
    /// The gateway's socket on the host. A client that mounts what `DOCKER_HOST` names gets the engine's own socket.
    pub socket: PathBuf,
    /// What the host's paths look like.
    pub host: HostPaths,
}

/// What the host's paths look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPaths {
    /// `/home/u`: the same in the guest.
    Unix,
    /// `C:\Users\u`: `/mnt/c/Users/u` in the guest. Upper and lower case of ASCII letters are the same.
    Windows,
}

impl HostPaths {
    /// As they are on this host.
    pub const NATIVE: Self = if cfg!(windows) { Self::Windows } else { Self::Unix };

    /// The cleaned path in the guest of an absolute path on the host.
    pub(crate) fn in_guest(self, source: &str) -> Option<String> {
        if source.starts_with('/') {
            return Some(clean(source));
        }
        if self == Self::Windows && is_drive_path(source) {
            let (drive, rest) = source.split_at(1);
            let rest = rest[1..].replace('\\', "/");
            return Some(clean(&format!(
                "/mnt/{}{}",
                drive.to_ascii_lowercase(),
                clean(&rest)
            )));
        }
        None
    }

    /// What is left of `path` below `base`: empty, or beginning with a slash. Both are clean.
    pub(crate) fn remainder<'a>(self, path: &'a str, base: &str) -> Option<&'a str> {
        let base = base.trim_end_matches('/');
        let (start, rest) = path.split_at_checked(base.len())?;
        let same = match self {
            Self::Unix => start == base,
            Self::Windows => start.eq_ignore_ascii_case(base),
        };
        (same && (rest.is_empty() || rest.starts_with('/'))).then_some(rest)
    }
}

/// What to do with the source of a mount.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Leave it as it is.
    AsGiven,
    /// It has another path in the guest.
    At(String),
    /// It is not in the guest.
    NotShared,
}

impl MountPolicy {
    fn place(&self, source: &str) -> Place {
        let Some(path) = self.host.in_guest(source) else {
            // No path at all, but a volume's name or a mistake that the engine words better.
            return if is_drive_path(source) {
                Place::NotShared
            } else {
                Place::AsGiven
            };
        };
        let found = if GUEST_OWN
            .iter()
            .any(|own| self.host.remainder(&path, own).is_some())
        {
            Some(path.clone())
        } else if self
            .share(&self.socket)
            .is_some_and(|socket| self.host.remainder(&path, &socket) == Some(""))
        {
            return Place::At(ENGINE_SOCKET.to_owned());
        } else {
            self.shares
                .iter()
                .filter_map(|share| self.share(share))
                .find_map(|share| {
                    // Spelled as the share is, should upper and lower case differ.
                    self.host
                        .remainder(&path, &share)
                        .map(|rest| share.trim_end_matches('/').to_owned() + rest)
                })
        };
        match found {
            None => Place::NotShared,
            Some(_) if !is_drive_path(source) && self.host == HostPaths::Unix => Place::AsGiven,
            Some(path) if path == source => Place::AsGiven,
            Some(path) => Place::At(path),
        }
    }

    /// The words of a refusal: what, why, and what to do.
    fn refusal(&self, source: &str) -> String {
        let machine = &self.machine;
        let option = if machine == DEFAULT_MACHINE {
            String::new()
        } else {
            format!("--machine {machine} ")
        };
        let argument = self.quoted(source);
        format!(
            "`{source}` is not shared with machine `{machine}`. Share it with: cove share add {option}{argument}"
        )
    }

    fn share(&self, path: &Path) -> Option<String> {
        self.host.in_guest(&path.to_string_lossy())
    }

    /// As an argument of a command line.
    fn quoted(&self, argument: &str) -> String {
        let plain = |c: char| c.is_alphanumeric() || "/\\:._-+@%,=".contains(c);
        match self.host {
            _ if argument.chars().all(plain)
                && (self.host == HostPaths::Windows || !argument.contains('\\')) =>
            {
                argument.to_owned()
            }
            HostPaths::Unix => format!("'{}'", argument.replace('\'', r"'\''")),
            HostPaths::Windows => format!("\"{argument}\""),
        }
    }
}

/// Whether a path begins like `C:\` or `C:/`.
fn is_drive_path(path: &str) -> bool {
    matches!(path.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic())
}

/// An absolute path without `.`, `..` and double slashes, as the engine itself cleans it.
fn clean(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(host: HostPaths, shares: &[&str]) -> MountPolicy {
        MountPolicy {
            machine: "default".to_owned(),
            shares: shares.iter().map(PathBuf::from).collect(),
            socket: PathBuf::from("/run/user/7/cove/default/docker.sock"),
            host,
        }
    }

    #[test]
    fn what_is_below_a_share_may_be_mounted_as_it_is() {
        let policy = policy(HostPaths::Unix, &["/home/u", "/data/"]);
        for source in [
            "/home/u",
            "/home/u/",
            "/home/u/a b/ü",
            "/home/x/../u/./y",
            "/data",
            "//data//z",
        ] {
            assert_eq!(policy.place(source), Place::AsGiven, "{source}");
        }
    }

    #[test]
    fn what_is_not_below_a_share_is_refused() {
        let policy = policy(HostPaths::Unix, &["/home/u"]);
        for source in [
            "/",
            "/home",
            "/home/ux",
            "/home/u/../x",
            "/etc/passwd",
            "/var/run",
            r"C:\x",
            "/HOME/u",
        ] {
            assert_eq!(policy.place(source), Place::NotShared, "{source}");
        }
    }

    #[test]
    fn a_shared_root_shares_everything() {
        let policy = policy(HostPaths::Unix, &["/"]);
        assert_eq!(policy.place("/any/thing"), Place::AsGiven);
        assert_eq!(policy.place("/"), Place::AsGiven);
    }

    #[test]
    fn the_guests_own_paths_need_no_share() {
        let policy = policy(HostPaths::Unix, &[]);
        for source in [
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/dev/fuse",
            "/sys/fs/cgroup",
            "/lib/modules",
        ] {
            assert_eq!(policy.place(source), Place::AsGiven, "{source}");
        }
    }

    #[test]
    fn the_hosts_socket_becomes_the_engines() {
        let policy = policy(HostPaths::Unix, &[]);
        assert_eq!(
            policy.place("/run/user/7/cove/default/docker.sock"),
            Place::At("/var/run/docker.sock".to_owned())
        );
        assert_eq!(policy.place("/run/user/7/cove/default"), Place::NotShared);
    }

    #[test]
    fn what_is_no_path_is_left_to_the_engine() {
        let policy = policy(HostPaths::Unix, &[]);
        for source in ["", "volume", "./relative", "~/x", "a:b", "c:"] {
            assert_eq!(policy.place(source), Place::AsGiven, "{source}");
        }
    }

    #[test]
    fn drive_paths_are_found_below_mnt() {
        let policy = policy(HostPaths::Windows, &[r"C:\Users\u", "D:\\"]);
        for (source, path) in [
            (r"C:\Users\u\x y", "/mnt/c/Users/u/x y"),
            (r"c:/users/U\x", "/mnt/c/Users/u/x"),
            (r"C:\Users\v\..\u\x", "/mnt/c/Users/u/x"),
            (r"D:\", "/mnt/d"),
            (r"D:\a\b\", "/mnt/d/a/b"),
            (r"D:\..\..\a", "/mnt/d/a"),
            ("//var/run/docker.sock", "/var/run/docker.sock"),
        ] {
            assert_eq!(policy.place(source), Place::At(path.to_owned()), "{source}");
        }
        assert_eq!(policy.place("/mnt/c/Users/u"), Place::AsGiven);
        for source in [r"C:\Users", r"C:\Users\uu", r"E:\", r"C:\..\d\x"] {
            assert_eq!(policy.place(source), Place::NotShared, "{source}");
        }
    }

    #[test]
    fn a_refusal_names_the_path_and_a_command_that_works_when_pasted() {
        let mut policy = policy(HostPaths::Unix, &[]);
        assert_eq!(
            policy.refusal("/home/u/x"),
            "`/home/u/x` is not shared with machine `default`. Share it with: cove share add /home/u/x"
        );
        policy.machine = "work".to_owned();
        let refusal = policy.refusal("/it's here");
        assert!(
            refusal.ends_with(r"cove share add --machine work '/it'\''s here'"),
            "{refusal}"
        );
        policy.host = HostPaths::Windows;
        let refusal = policy.refusal(r"C:\a b");
        assert!(
            refusal.ends_with(r#"cove share add --machine work "C:\a b""#),
            "{refusal}"
        );
    }

    proptest! {
        #[test]
        fn no_spelling_leaves_a_share(
            segments in prop::collection::vec(prop::sample::select(vec!["..", ".", "", "a", "home", "u"]), 0..12),
        ) {
            let source = format!("/{}", segments.join("/"));
            let allowed = policy(HostPaths::Unix, &["/home/u"]).place(&source) == Place::AsGiven;
            let resolved = clean(&source);
            prop_assert_eq!(allowed, resolved == "/home/u" || resolved.starts_with("/home/u/"));
        }

        #[test]
        fn arbitrary_sources_are_judged_on_every_host(source in "\\PC{0,40}", windows in any::<bool>()) {
            let host = if windows { HostPaths::Windows } else { HostPaths::Unix };
            let policy = policy(host, &[r"C:\Users", "/home/u"]);
            let _ = policy.place(&source);
            prop_assert!(policy.refusal(&source).contains(&source));
        }
    }
}
