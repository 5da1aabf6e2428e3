//! Handlers of `/v1/shares`.

use super::{
    Server,
    body::{self, Answer, invalid},
    machines::parameter,
};
use crate::{
    gateway::{HostPaths, way},
    machine::mounted::{self, Mounting},
    settings,
};
use cove_api::{ApiError, ErrorCode, Event, MachineState, MissingShare, NewShare, Share};
use hyper::{Request, body::Incoming};
use std::{
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{task::spawn_blocking, time::timeout};

/// How long it may take to look at a folder. One on a server that is away takes for ever.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn list(server: &Server) -> Answer {
    let shares = shares(server);
    let all: Vec<Share> = shares.iter().map(|share| report(server, share)).collect();
    body::json(&all)
}

pub(super) async fn add(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let NewShare { path, read_only } = body::read_json(request).await?;
    check_folder(&path, tokio::fs::metadata(&path), LOOK_TIMEOUT).await?;
    let share = settings::Share { path, read_only };
    // Shared in another way it is another folder to the guest, and whoever has this one mounted loses it.
    let is_changed = |other: &settings::Share| other.path == share.path && other.read_only != read_only;
    if shares(server).iter().any(is_changed) {
        refuse_in_use(server, &share.path.to_string_lossy(), Change::Access).await?;
    }
    server.context.settings.add_share(&share)?;
    applied(server).await;
    Ok(body::json(&report(server, &share)))
}

pub(super) async fn remove(server: &Server, request: &Request<Incoming>) -> Result<Answer, ApiError> {
    let path = parameter(request, "path").ok_or_else(|| invalid("it has to be said which `path`"))?;
    if parameter(request, "force").as_deref() != Some("true") {
        refuse_in_use(server, &path, Change::Removal).await?;
    }
    server.context.settings.remove_share(Path::new(&path))?;
    applied(server).await;
    Ok(body::nothing())
}

/// The folders that are to be shared; while that is not known, those that machines have.
fn shares(server: &Server) -> Vec<settings::Share> {
    server.context.settings.shares().unwrap_or_else(|| {
        let machines = server.machines.all();
        let mut present: Vec<_> = machines
            .iter()
            .flat_map(|handle| handle.snapshot().shares.clone())
            .collect();
        present.sort_by(|a, b| a.path.cmp(&b.path));
        present.dedup();
        present
    })
}

/// What becomes of a share, for those that have it mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It goes: what runs loses it, and what is stopped cannot be started again.
    Removal,
    /// It comes back as another one. What runs loses it; what is stopped mounts the new one when it starts.
    Access,
}

impl Change {
    /// What a person does who wants it all the same.
    fn instead(self) -> &'static str {
        match self {
            Self::Removal => "add --force",
            Self::Access => "begin with `cove share remove --force`",
        }
    }

    /// What to do about what uses the share.
    fn hint(self) -> &'static str {
        match self {
            Self::Removal => {
                "remove what uses it, or add --force: what runs loses access, and what is stopped cannot be started \
                 until the folder is shared again"
            }
            Self::Access => {
                "stop what uses it, or begin with `cove share remove --force`, and it loses access"
            }
        }
    }
}

/// Refuses when a container has something of the share mounted, or when that cannot be known.
async fn refuse_in_use(server: &Server, path: &str, change: Change) -> Result<(), ApiError> {
    let shares = shares(server);
    let mut users = Vec::new();
    for handle in server.machines.all() {
        let snapshot = handle.snapshot();
        let shared = snapshot.shares.iter().any(|share| share.path == Path::new(path));
        let Some(machine) = snapshot.machine.as_ref().filter(|_| shared) else {
            continue;
        };
        let name = handle.name();
        let refused = |message| {
            let hint = format!("{} to take it away all the same", change.instead());
            ApiError::new(ErrorCode::NotConfirmed, message, hint)
        };
        if snapshot.state == MachineState::Paused {
            return Err(refused(format!(
                "machine `{name}` is paused and cannot be asked whether its containers use `{path}`"
            )));
        }
        let containers = mounted::containers(&**machine).await.map_err(|error| {
            refused(format!(
                "it is not known whether containers of machine `{name}` use `{path}`: {error}"
            ))
        })?;
        let folders: Vec<PathBuf> = shares.iter().map(|share| share.path.clone()).collect();
        let looking = spawn_blocking(move || with_links(containers, &folders));
        let Ok(Ok(containers)) = timeout(LOOK_TIMEOUT, looking).await else {
            return Err(refused(format!(
                "it is not known whether containers of machine `{name}` use `{path}`: what they mount cannot be looked \
                 at within {} s",
                LOOK_TIMEOUT.as_secs()
            )));
        };
        let using = containers.into_iter().filter(|container| {
            let mut sources = container.sources.iter();
            if container.is_up {
                sources.any(|source| is_of(source, Path::new(path), &shares))
            } else {
                change == Change::Removal
                    && sources.any(|source| is_of_alone(source, Path::new(path), &shares))
            }
        });
        users.extend(using);
    }
    if users.is_empty() {
        return Ok(());
    }
    let message = in_use(path, &users);
    Err(ApiError::new(ErrorCode::NotConfirmed, message, change.hint()))
}

/// Adds to the sources of the containers' mounts the links in the shared `folders` by which they are reached, and where
/// these lead: all that has to be there for a container to start.
fn with_links(mut containers: Vec<Mounting>, folders: &[PathBuf]) -> Vec<Mounting> {
    if HostPaths::NATIVE == HostPaths::Unix {
        for container in &mut containers {
            let sources = container.sources.iter();
            let paths = sources.flat_map(|source| way(Path::new(source), folders));
            let paths: Vec<String> = paths.map(|path| path.to_string_lossy().into_owned()).collect();
            container.sources.extend(paths);
        }
    }
    containers
}

/// Who uses the share at `path`.
fn in_use(path: &str, users: &[Mounting]) -> String {
    let names = users.iter().map(|user| {
        let state = if user.is_up { "" } else { " (stopped)" };
        format!("`{}`{state}", user.name)
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let (noun, verb) = if users.len() == 1 {
        ("container", "has")
    } else {
        ("containers", "have")
    };
    format!(
        "{noun} {names} {verb} `{path}`, something in it or a folder around it mounted, or come by a link in it"
    )
}

/// Whether something of the share at `path` comes with `source`, a path in the guest: because it comes from there, or
/// because the share lies in it. A mount takes those within it with it.
fn is_of(source: &str, path: &Path, shares: &[settings::Share]) -> bool {
    let host = HostPaths::NATIVE;
    let Some(source) = host.in_guest(source) else {
        return false;
    };
    let inside = host.in_guest(&path.to_string_lossy());
    inside.is_some_and(|inside| host.remainder(&inside, &source).is_some())
        || share_of(&source, shares) == Some(path)
}

/// Whether `source`, a path in the guest, comes from the share at `path` and from no other one around it, which would
/// be there for it once that has gone.
fn is_of_alone(source: &str, path: &Path, shares: &[settings::Share]) -> bool {
    let others = || shares.iter().filter(|share| share.path != path);
    HostPaths::NATIVE.in_guest(source).is_some_and(|source| {
        share_of(&source, shares) == Some(path) && share_of(&source, others()).is_none()
    })
}

/// The share that a path in the guest comes from: the innermost one.
fn share_of<'a>(source: &str, shares: impl IntoIterator<Item = &'a settings::Share>) -> Option<&'a Path> {
    let host = HostPaths::NATIVE;
    shares
        .into_iter()
        .filter_map(|share| Some((host.in_guest(&share.path.to_string_lossy())?, &*share.path)))
        .filter(|(inside, _)| host.remainder(source, inside).is_some())
        .max_by_key(|(inside, _)| inside.len())
        .map(|(_, path)| path)
}

/// A folder that is not there now is more likely a mistake than a plan; `looking` tells, within `limit`.
async fn check_folder(
    path: &Path,
    looking: impl Future<Output = io::Result<Metadata>>,
    limit: Duration,
) -> Result<(), ApiError> {
    let shown = path.display();
    let refused = |code, what: String| ApiError::new(code, what, "only folders that are there can be shared");
    let Ok(found) = timeout(limit, looking).await else {
        return Err(ApiError::new(
            ErrorCode::Timeout,
            format!("`{shown}` could not be looked at within {} s", limit.as_secs()),
            "the server that it is on may be away; share it once it is back",
        ));
    };
    match found {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(refused(
            ErrorCode::InvalidRequest,
            format!("`{shown}` is no folder"),
        )),
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::NotFound => ErrorCode::NotFound,
                _ => ErrorCode::InvalidRequest,
            };
            Err(refused(code, format!("`{shown}` cannot be looked at: {error}")))
        }
    }
}

async fn applied(server: &Server) {
    server.machines.reconsider().await;
    server.context.emit(Event::Settings);
}

fn report(server: &Server, share: &settings::Share) -> Share {
    let (mut machines, mut missing) = (Vec::new(), Vec::new());
    for handle in server.machines.all() {
        let snapshot = handle.snapshot();
        if matches!(snapshot.state, MachineState::Running | MachineState::Paused) {
            let machine = handle.name().to_string();
            if snapshot.shares.contains(share) {
                machines.push(machine);
            } else {
                let failed = snapshot
                    .failed_shares
                    .iter()
                    .find(|failed| failed.path == share.path);
                let why = failed.map_or("it has not been told yet", |failed| &failed.why);
                missing.push(MissingShare {
                    machine,
                    why: why.to_owned(),
                });
            }
        }
    }
    Share {
        path: share.path.clone(),
        read_only: share.read_only,
        machines,
        missing,
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_not_found_and_a_file_is_no_folder() {
        let check = async |path: &Path| check_folder(path, tokio::fs::metadata(path), LOOK_TIMEOUT).await;
        let directory = tempfile::tempdir().unwrap();
        check(directory.path()).await.unwrap();
        let path = directory.path().join("x");
        assert_eq!(check(&path).await.unwrap_err().code, ErrorCode::NotFound);
        std::fs::write(&path, "").unwrap();
        assert_eq!(check(&path).await.unwrap_err().code, ErrorCode::InvalidRequest);
    }

    #[tokio::test]
    async fn a_folder_on_a_server_that_is_away_is_not_waited_for() {
        let away = std::future::pending();
        let checked = check_folder(Path::new("/mnt/away"), away, Duration::from_millis(1)).await;
        let error = checked.unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(error.message.contains("/mnt/away"), "{error:?}");
    }

    #[test]
    fn a_path_comes_from_the_innermost_share() {
        let share = |path: &str| settings::Share {
            path: path.into(),
            read_only: false,
        };
        let shares = [share("/a"), share("/a/b"), share("/ab")];
        for (source, expected) in [
            ("/a", Some("/a")),
            ("/a/c/d", Some("/a")),
            ("/a/b/c", Some("/a/b")),
            ("/abc", None),
            ("/var/run/docker.sock", None),
        ] {
            assert_eq!(share_of(source, &shares), expected.map(Path::new), "{source}");
        }
    }

    #[test]
    fn what_is_stopped_needs_a_share_where_no_other_one_is_around() {
        let share = |path: &str| settings::Share {
            path: path.into(),
            read_only: false,
        };
        let shares = [share("/a"), share("/a/b"), share("/c")];
        let needs = |source, path| is_of_alone(source, Path::new(path), &shares);
        assert!(needs("/c/x", "/c") && needs("/a/x", "/a"));
        assert!(!needs("/a/b/x", "/a/b") && !needs("/a", "/a/b"));
    }

    /// A stopped one was not named, and had an empty directory in the machine's memory when it was started again.
    #[test]
    fn a_stopped_container_is_named_as_such() {
        let user = |name: &str, is_up| Mounting {
            name: name.into(),
            is_up,
            sources: Vec::new(),
        };
        assert_eq!(
            in_use("/data", &[user("db", false)]),
            "container `db` (stopped) has `/data`, something in it or a folder around it mounted, or come by a link in it"
        );
        assert_eq!(
            in_use("/data", &[user("web", true), user("db", false)]),
            "containers `web`, `db` (stopped) have `/data`, something in it or a folder around it mounted, or come by a link in it"
        );
    }

    /// What is mounted by way of a link is of the share where it leads to; it was taken away without a word.
    #[test]
    fn a_share_is_in_use_by_what_comes_to_it_by_a_link() {
        let directory = tempfile::tempdir().unwrap();
        // Spelled without links, such as that of macOS from /tmp to /private/tmp.
        let directory = directory.path().canonicalize().unwrap();
        let folders = ["home", "middle", "data"].map(|name| directory.join(name));
        for folder in &folders {
            std::fs::create_dir(folder).unwrap();
        }
        let [home, middle, data] = &folders;
        // The second link is found in the share that the first one leads to.
        let links = [home.join("link"), middle.join("next")];
        std::os::unix::fs::symlink(middle.join("next/pg"), &links[0]).unwrap();
        std::os::unix::fs::symlink(data, &links[1]).unwrap();
        let container = Mounting {
            name: "db".into(),
            is_up: true,
            sources: vec![links[0].join("sub").to_str().unwrap().to_owned()],
        };
        let shares = folders.clone().map(|path| settings::Share {
            path,
            read_only: false,
        });
        let found = with_links(vec![container], &folders).remove(0);
        let [first, second] = links.map(|link| link.to_str().unwrap().to_owned());
        let end = data.join("pg/sub").to_str().unwrap().to_owned();
        assert_eq!(found.sources[1..], [first, second, end]);
        for share in &shares {
            let mut sources = found.sources.iter();
            assert!(
                sources.any(|source| is_of(source, &share.path, &shares)),
                "{}",
                share.path.display()
            );
        }
    }

    /// As Linux does it, and for the same reason.
    #[test]
    fn no_more_links_are_followed_than_linux_does() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let link = directory.join("loop");
        std::os::unix::fs::symlink("loop", &link).unwrap();
        assert_eq!(way(&link, &[directory]), vec![link; 41]);
    }

    /// A container that has the folder around an inner share mounted lost what is in that without a word.
    #[test]
    fn a_share_is_in_use_by_what_comes_from_it_and_by_what_it_lies_in() {
        let shares = ["/a", "/a/b", "/ab"].map(|path| settings::Share {
            path: path.into(),
            read_only: false,
        });
        for (source, used) in [
            ("/a", vec!["/a", "/a/b"]),
            ("/a/../a/b/", vec!["/a/b"]),
            ("/a/b/c", vec!["/a/b"]),
            ("/a/c", vec!["/a"]),
            ("/abc", vec![]),
            ("relative", vec![]),
        ] {
            let found = shares
                .iter()
                .filter(|share| is_of(source, &share.path, &shares))
                .map(|share| share.path.to_str().unwrap());
            assert_eq!(found.collect::<Vec<_>>(), used, "{source}");
        }
    }
}
