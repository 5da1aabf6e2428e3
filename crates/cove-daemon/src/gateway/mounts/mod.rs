//! Which paths may be bind-mounted, and where they are in the guest.
//!
//! A shared folder is in the guest at its own path, so on Linux and macOS there is nothing to translate; Windows drive
//! paths (`C:\Users\u`) are below `/mnt/c` there. What is not shared is refused, since the engine would otherwise make
//! an empty directory of that name in the guest and say nothing. The same goes for a path in a shared folder from which
//! a link leads out of it: the engine follows the link in the guest, where it ends at what the guest has there.
//!
//! This protects people from that surprise. It does not protect the host: a guest has no means to see a path that is
//! not shared, whatever it is asked to mount.

mod body;

pub(super) use body::{Members, Verdict, examine, has_mounts, obstacle};

use crate::settings::check_share;
use std::{
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Most links that Linux follows on the way to a file.
const MAX_LINKS: usize = 40;

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
    /// The clients are on the host, and may be told what is there. Those in the guest must not find out what is in
    /// folders that are not shared.
    pub on_host: bool,
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
    /// It is in a shared folder, but a link leads from it to a path that is not in the guest.
    LeadsTo(String),
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
        let found = if self.is_guests_own(&path) {
            path
        } else if self.is_socket(&path) {
            return Place::At(ENGINE_SOCKET.to_owned());
        } else if let Some(path) = self.in_share(&path) {
            if self.host == HostPaths::Unix {
                let end = followed(Path::new(&path), &self.shares);
                let end = end.to_string_lossy();
                if self.is_socket(&end) {
                    return Place::At(ENGINE_SOCKET.to_owned());
                }
                if !self.is_guests_own(&end) && self.in_share(&end).is_none() {
                    return Place::LeadsTo(end.into_owned());
                }
            }
            path
        } else {
            return Place::NotShared;
        };
        if found == source || (self.host == HostPaths::Unix && !is_drive_path(source)) {
            Place::AsGiven
        } else {
            Place::At(found)
        }
    }

    fn is_guests_own(&self, path: &str) -> bool {
        GUEST_OWN
            .iter()
            .any(|own| self.host.remainder(path, own).is_some())
    }

    fn is_socket(&self, path: &str) -> bool {
        self.share(&self.socket)
            .is_some_and(|socket| self.host.remainder(path, &socket) == Some(""))
    }

    /// The path, if it is in a share; spelled as the share is, should upper and lower case differ.
    fn in_share(&self, path: &str) -> Option<String> {
        self.shares
            .iter()
            .filter_map(|share| self.share(share))
            .find_map(|share| {
                self.host
                    .remainder(path, &share)
                    .map(|rest| share.trim_end_matches('/').to_owned() + rest)
            })
    }

    /// The words of a refusal: what, why, and what to do. `end` is where links lead from `source`, if they are why.
    fn refusal(&self, source: &str, end: Option<&str>) -> String {
        let machine = &self.machine;
        let what = match end {
            Some(end) => format!("`{source}` leads by a link to `{end}`, which"),
            None => format!("`{source}`"),
        };
        let advice = self.advice(end.unwrap_or(source));
        format!("{what} is not shared with machine `{machine}`{advice}")
    }

    /// What to do about a path that is not shared, as the end of the sentence that says so.
    fn advice(&self, path: &str) -> String {
        // It names no machine: a folder is shared with all of them.
        let add = |folder: &Path| format!("cove share add {}", self.quoted(&folder.to_string_lossy()));
        let here = Path::new(path);
        if self.host != HostPaths::NATIVE {
            return format!(". Share it with: {}", add(here));
        }
        let path = match self.host {
            HostPaths::Unix => PathBuf::from(clean(path)),
            HostPaths::Windows => here.to_owned(),
        };
        let parent = path.parent().unwrap_or(&path);
        // A client in the guest is told the same of what is missing, of a file and of a folder.
        let looked = self.on_host.then(|| fs::metadata(&path));
        let is_missing = matches!(&looked, Some(Err(error)) if error.kind() == io::ErrorKind::NotFound);
        if let Some(Ok(found)) = &looked
            && let Some(advice) = advice_on_end(found)
        {
            return advice.to_owned();
        }
        let is_file = matches!(&looked, Some(Ok(found)) if !found.is_dir());
        let folder = if is_file { parent } else { path.as_path() };
        if let Err(why) = check_share(folder, &folder.to_string_lossy()) {
            return format!(". {why}. Copy what the container needs to a folder that is shared");
        }
        if is_file {
            return format!(". Share the folder that it is in with: {}", add(folder));
        }
        if !is_missing {
            return format!(". Share it with: {}", add(folder));
        }
        let advice = format!(
            ", and there is nothing of that name on this computer. Make the folder and share it with: {}",
            add(folder)
        );
        if check_share(parent, &parent.to_string_lossy()).is_err() {
            return advice;
        }
        format!(
            "{advice}; for a file, share the folder that it is in: {}",
            parent.display()
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

/// Where the engine ends up that follows the links on `path` in the guest. What is in one of `shares` is the same there
/// as here; outside of them the guest has files of its own, and the links of this computer say nothing.
fn followed(path: &Path, shares: &[PathBuf]) -> PathBuf {
    let mut way = way(path, shares);
    // The end is always there.
    way.pop().unwrap_or_default()
}

/// What the engine comes by that follows the links on `path`: the links, in their order, and where they end.
pub(crate) fn way(path: &Path, shares: &[PathBuf]) -> Vec<PathBuf> {
    let mut way = Vec::new();
    let mut end = PathBuf::from("/");
    let mut left: Vec<OsString> = names(path);
    left.reverse();
    while let Some(name) = left.pop() {
        if name == ".." {
            end.pop();
            continue;
        }
        end.push(name);
        // The share itself is where it is mounted.
        let is_inside = |share: &PathBuf| end != *share && end.starts_with(share);
        if !shares.iter().any(is_inside) {
            continue;
        }
        let Ok(target) = fs::read_link(&end) else { continue };
        if way.len() == MAX_LINKS {
            // The engine meets the same end, and has words for it.
            break;
        }
        way.push(end.clone());
        end.pop();
        if target.is_absolute() {
            end = PathBuf::from("/");
        }
        left.extend(names(&target).into_iter().rev());
    }
    way.push(end);
    way
}

/// What to do about one end of a conversation between programs, in which a share is of no help: at the other end is a
/// program on this computer's kernel.
#[cfg(unix)]
fn advice_on_end(found: &fs::Metadata) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = found.file_type();
    if kind.is_socket() {
        return Some(
            ", and sharing it would not help: a socket leads to programs on the same kernel only, and containers have \
             the machine's. Keys of an SSH agent reach builds with: docker build --ssh default",
        );
    }
    kind.is_fifo().then_some(
        ", and sharing it would not help: a pipe leads to programs on the same kernel only, and containers have the \
         machine's",
    )
}

#[cfg(not(unix))]
fn advice_on_end(_found: &fs::Metadata) -> Option<&'static str> {
    None
}

/// What a path goes through, `..` included.
fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// Whether a path begins like `C:\` or `C:/`.
fn is_drive_path(path: &str) -> bool {
    matches!(path.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic())
}

/// An absolute path without `.`, `..` and double slashes, as the engine itself cleans it.
fn clean(path: &str) -> String {
    format!("/{}", super::route::cleaned(path).join("/"))
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
            on_host: true,
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

    /// Folders of this computer, one of them shared.
    #[cfg(unix)]
    struct Home {
        folder: tempfile::TempDir,
        policy: MountPolicy,
    }

    #[cfg(unix)]
    impl Home {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            // Spelled without links, such as that of macOS from /tmp to /private/tmp.
            let shared = folder.path().canonicalize().unwrap().join("home");
            fs::create_dir_all(shared.join("project")).unwrap();
            let policy = policy(HostPaths::Unix, &[shared.to_str().unwrap()]);
            Self { folder, policy }
        }

        fn path(&self, below: &str) -> String {
            let path = self.folder.path().canonicalize().unwrap().join(below);
            path.to_str().unwrap().to_owned()
        }

        fn link(&self, target: &str, below: &str) {
            std::os::unix::fs::symlink(target, self.path(below)).unwrap();
        }

        fn refusal(&self, source: &str) -> String {
            match self.policy.place(source) {
                Place::NotShared => self.policy.refusal(source, None),
                Place::LeadsTo(end) => self.policy.refusal(source, Some(&end)),
                other => panic!("{source} is not refused but {other:?}"),
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_out_of_the_shares_is_refused_with_where_it_leads() {
        let home = Home::new();
        let outside = home.path("outside");
        fs::create_dir(&outside).unwrap();
        home.link(&outside, "home/absolute");
        home.link("../../outside", "home/project/relative");
        home.link("project/relative", "home/twice");
        for source in ["home/absolute", "home/project/relative", "home/twice"] {
            for below in ["", "/sub", "/sub/../other"] {
                let source = home.path(source) + below;
                let end = clean(&format!("{outside}{below}"));
                assert_eq!(home.policy.place(&source), Place::LeadsTo(end), "{source}");
            }
        }
        let source = home.path("home/absolute");
        assert_eq!(
            home.refusal(&source),
            format!(
                "`{source}` leads by a link to `{outside}`, which is not shared with machine `default`. Share it \
                 with: cove share add {outside}"
            )
        );
        home.link("/etc/ssl", "home/ssl");
        let refusal = home.refusal(&home.path("home/ssl/certs"));
        assert!(
            refusal.contains("leads by a link to `/etc/ssl/certs`"),
            "{refusal}"
        );
        assert!(refusal.contains("the guest has its own /etc"), "{refusal}");
        assert!(!refusal.contains("cove share add"), "{refusal}");
        // Nor is what was made in the machine started so, where `/etc/ssl` itself may be mounted.
        let made = serde_json::json!({"HostConfig": {"Binds": [home.path("home/ssl") + ":/x"]}});
        let obstacle = body::obstacle(&made.to_string(), &home.policy);
        assert_eq!(obstacle, Some(home.refusal(&home.path("home/ssl"))));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_within_the_shares_or_to_what_the_guest_has_is_left_to_the_engine() {
        let home = Home::new();
        home.link("project", "home/inside");
        home.link(&home.path("home/project"), "home/absolute");
        home.link("loop", "home/loop");
        home.link("nowhere", "home/dangling");
        home.link("/var/run/docker.sock", "home/engine.sock");
        home.link("/dev/null", "home/null");
        for source in [
            "inside",
            "absolute/new/sub",
            "loop",
            "dangling",
            "engine.sock",
            "null",
            "new",
        ] {
            let source = home.path("home/") + source;
            assert_eq!(home.policy.place(&source), Place::AsGiven, "{source}");
        }
        home.link("/run/user/7/cove/default/docker.sock", "home/cove.sock");
        assert_eq!(
            home.policy.place(&home.path("home/cove.sock")),
            Place::At(ENGINE_SOCKET.to_owned())
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_refusal_says_what_can_be_done() {
        let home = Home::new();
        let folder = home.path("other");
        fs::create_dir(&folder).unwrap();
        let file = home.path("other/app.conf");
        fs::write(&file, "").unwrap();
        let missing = home.path("other/missing");
        assert_eq!(
            home.refusal(&folder),
            format!(
                "`{folder}` is not shared with machine `default`. Share it with: cove share add {folder}"
            )
        );
        assert_eq!(
            home.refusal(&file),
            format!(
                "`{file}` is not shared with machine `default`. Share the folder that it is in with: cove share add \
                 {folder}"
            )
        );
        assert_eq!(
            home.refusal(&missing),
            format!(
                "`{missing}` is not shared with machine `default`, and there is nothing of that name on this \
                 computer. Make the folder and share it with: cove share add {missing}; for a file, share the \
                 folder that it is in: {folder}"
            )
        );
        for source in [
            "/",
            "/etc",
            "/etc/passwd",
            "/usr/share",
            "/var",
            "/run",
            "/bin",
            "/etc/none/at/all",
        ] {
            let refusal = home.refusal(source);
            assert!(refusal.contains("cannot be shared"), "{refusal}");
            assert!(refusal.ends_with("a folder that is shared"), "{refusal}");
            assert!(!refusal.contains("cove share add"), "{refusal}");
        }
    }

    /// `-v $SSH_AUTH_SOCK:/agent` was told to share the folder, and then refused by the kernel.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_or_a_pipe_is_said_to_be_of_no_use_in_a_container() {
        let mut home = Home::new();
        fs::create_dir(home.path("other")).unwrap();
        let (socket, pipe) = (home.path("other/agent"), home.path("other/pipe"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &*pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let refusal = home.refusal(&socket);
        assert!(
            refusal.contains("a socket leads to programs on the same kernel"),
            "{refusal}"
        );
        assert!(refusal.ends_with("docker build --ssh default"), "{refusal}");
        let refusal = home.refusal(&pipe);
        assert!(
            refusal.contains("a pipe leads to programs on the same kernel"),
            "{refusal}"
        );
        home.policy.on_host = false;
        for source in [&socket, &pipe] {
            let refusal = home.refusal(source);
            assert!(!refusal.contains("kernel"), "{refusal}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_client_in_the_guest_is_not_told_what_is_on_the_host() {
        let mut home = Home::new();
        home.policy.on_host = false;
        let outside = home.path("other");
        fs::create_dir(&outside).unwrap();
        fs::write(home.path("other/app.conf"), "").unwrap();
        for below in ["other", "other/app.conf", "other/missing"] {
            let source = home.path(below);
            assert_eq!(
                home.refusal(&source),
                format!(
                    "`{source}` is not shared with machine `default`. Share it with: cove share add {source}"
                )
            );
        }
        let refusal = home.refusal("/etc/passwd");
        assert!(refusal.contains("the guest has its own /etc"), "{refusal}");
    }

    #[test]
    fn a_command_works_when_pasted() {
        let mut policy = policy(HostPaths::NATIVE, &[]);
        policy.machine = "work".to_owned();
        policy.host = HostPaths::Unix;
        let refusal = policy.refusal("/it's here", None);
        assert!(refusal.ends_with(r"cove share add '/it'\''s here'"), "{refusal}");
        policy.host = HostPaths::Windows;
        let refusal = policy.refusal(r"C:\a b", None);
        assert!(refusal.ends_with(r#"cove share add "C:\a b""#), "{refusal}");
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
            prop_assert!(policy.refusal(&source, None).contains(&source));
        }
    }
}
