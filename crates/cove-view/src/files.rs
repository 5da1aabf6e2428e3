//! Files of containers and volumes: what a folder shows, and where the agent finds it.

use crate::{MountRow, Sharing};
use cove_api::Share;
use cove_wire::{FileEntry, FileKind, FilesRoot, InMount};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::HashMap, path::Path};
use ts_rs::TS;

/// Whose files are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FilesOf {
    /// A container's, with what is mounted in it.
    Container {
        /// Its id.
        id: String,
    },
    /// A volume's, by paths from its root.
    Volume {
        /// Its name.
        name: String,
    },
}

/// What is at a path of a container or a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum FilesView {
    /// A folder.
    Folder {
        /// Its path, links resolved.
        path: String,
        /// Folders first, each part by its names.
        rows: Vec<FileRow>,
        /// Whether there are more than these.
        cut: bool,
        /// Whether files can be renamed and removed: in a container only while it runs, and only then are mounts seen.
        running: bool,
        /// What it is where it is not the container's own.
        outside: Option<Outside>,
    },
    /// A file.
    File {
        /// Its path, links resolved.
        path: String,
        /// It, as its folder shows it.
        row: FileRow,
        /// What it is where it is not the container's own.
        outside: Option<Outside>,
    },
}

/// What a path in a container is where something is mounted: whoever changes it there changes this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Outside {
    /// What it is.
    pub kind: OutsideKind,
    /// Its path on this computer or in the machine; of a volume, the name.
    pub place: String,
}

/// Where something is that is mounted in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum OutsideKind {
    /// On this computer.
    Host,
    /// In a volume.
    Volume,
    /// Among the machine's own files.
    Machine,
}

/// What became of files that were to be copied into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Upload {
    /// They are there.
    Done {
        /// Sockets, pipes and devices, which were left out.
        #[ts(type = "number")]
        left_out: u64,
        /// The first of those.
        left_out_names: Vec<String>,
    },
    /// Nothing was copied: there are things of these names, and nobody said that they may be written over.
    Taken {
        /// Their names.
        names: Vec<String>,
    },
}

impl Outside {
    /// What something in a mount is. Folders that are bound without being shared are the machine's; where it is not
    /// known what is shared, they are taken for this computer's.
    pub fn of(within: &InMount, mounts: &[MountRow], shares: Option<&[Share]>) -> Option<Self> {
        let mount = mounts.iter().find(|mount| mount.target == within.mount)?;
        let source = Path::new(&mount.source);
        let kind = match mount.kind.as_str() {
            "volume" => OutsideKind::Volume,
            "bind" => match shares.map(|shares| Sharing::of(source, shares)) {
                Some(Sharing::No) => OutsideKind::Machine,
                Some(Sharing::ReadOnly | Sharing::ReadWrite) | None => OutsideKind::Host,
            },
            // Memory that goes with the container is its own.
            _ => return None,
        };
        let place = if kind == OutsideKind::Volume || within.inner.is_empty() {
            mount.source.clone()
        } else {
            source.join(&within.inner).display().to_string()
        };
        Some(Self { kind, place })
    }
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct FileRow {
    /// Its name.
    pub name: String,
    /// Whether its name is no text, so that it can be shown and not opened.
    pub garbled: bool,
    /// What it is.
    pub kind: FileRowKind,
    /// Permissions as `ls` writes them, without the kind: `rwxr-xr-x`.
    pub permissions: String,
    /// The numbers of owner and group: `0:0`.
    pub owner: String,
    /// Its size in bytes.
    #[ts(type = "number")]
    pub size: u64,
    /// When its content changed; nothing for one that is not there any more.
    #[ts(type = "number | null")]
    pub modified_ms: Option<i64>,
    /// Where a link leads, as it is written.
    pub target: Option<String>,
    /// What differs from the image.
    pub change: Option<FileChange>,
}

/// What a row is. A link is what it leads to, so that it opens as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum FileRowKind {
    /// A folder.
    Folder,
    /// An ordinary file.
    File,
    /// A device, pipe or socket, or a link that leads nowhere.
    Special,
}

/// What differs from the image that the container was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum FileChange {
    /// The image has it otherwise; for a folder, something in it changed.
    Changed,
    /// The image does not have it.
    Added,
    /// The image has it, the container does not any more.
    Deleted,
}

/// The text of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct FileText {
    /// Its text.
    pub text: String,
    /// Which state of the file this is; saving compares it.
    pub revision: String,
}

/// What became of a save.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Saved {
    /// The file has the text.
    Done {
        /// Its state now.
        revision: String,
    },
    /// Nothing was written: the file changed since it was read.
    Conflict,
}

/// How a container differs from its image, by paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(HashMap<String, FileChange>);

impl Changes {
    /// Reads the engine's `GET /containers/ID/changes`.
    pub fn read(list: &Value) -> Self {
        let all = list.as_array().into_iter().flatten();
        let changes = all.filter_map(|change| {
            let kind = match change["Kind"].as_u64()? {
                0 => FileChange::Changed,
                1 => FileChange::Added,
                2 => FileChange::Deleted,
                _ => return None,
            };
            Some((change["Path"].as_str()?.to_owned(), kind))
        });
        Self(changes.collect())
    }

    /// The names that a folder had in the image and has not any more.
    fn deleted_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |(path, change)| {
            let (parent, name) = path.rsplit_once('/')?;
            (*change == FileChange::Deleted && parent == folder.trim_end_matches('/')).then_some(name)
        })
    }
}

impl FilesView {
    /// A folder's rows, with what differs from the image.
    pub fn folder(
        path: String,
        entries: Vec<FileEntry>,
        cut: bool,
        running: bool,
        outside: Option<Outside>,
        changes: &Changes,
    ) -> Self {
        let here = path.trim_end_matches('/');
        let mut rows: Vec<FileRow> = entries
            .into_iter()
            .map(|entry| {
                let change = changes.0.get(&format!("{here}/{}", entry.name)).copied();
                // What a mount brought back is not gone.
                FileRow::new(entry, change.filter(|change| *change != FileChange::Deleted))
            })
            .collect();
        let gone: Vec<FileRow> = changes
            .deleted_in(here)
            .filter(|name| rows.iter().all(|row| row.name != **name))
            .map(FileRow::deleted)
            .collect();
        rows.extend(gone);
        rows.sort_by(|one, other| {
            let order = |row: &FileRow| row.kind != FileRowKind::Folder;
            order(one)
                .cmp(&order(other))
                .then_with(|| one.name.cmp(&other.name))
        });
        Self::Folder {
            path,
            rows,
            cut,
            running,
            outside,
        }
    }

    /// A file.
    pub fn file(path: String, entry: FileEntry, outside: Option<Outside>, changes: &Changes) -> Self {
        let change = changes.0.get(&path).copied();
        Self::File {
            row: FileRow::new(entry, change),
            path,
            outside,
        }
    }
}

impl FileRow {
    fn new(entry: FileEntry, change: Option<FileChange>) -> Self {
        let kind = match (&entry.link, entry.kind) {
            (Some(link), _) => link.kind,
            (None, kind) => Some(kind),
        };
        Self {
            kind: match kind {
                Some(FileKind::Folder) => FileRowKind::Folder,
                Some(FileKind::File) => FileRowKind::File,
                Some(FileKind::Link | FileKind::Special) | None => FileRowKind::Special,
            },
            name: entry.name,
            garbled: entry.garbled,
            permissions: permissions(entry.mode),
            owner: format!("{}:{}", entry.uid, entry.gid),
            size: entry.size,
            modified_ms: Some(entry.modified_ms),
            target: entry.link.map(|link| link.target),
            change,
        }
    }

    fn deleted(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            garbled: false,
            kind: FileRowKind::Special,
            permissions: String::new(),
            owner: String::new(),
            size: 0,
            modified_ms: None,
            target: None,
            change: Some(FileChange::Deleted),
        }
    }
}

/// Where the agent finds the files of a container, by the engine's `GET /containers/ID/json`; nothing if the engine
/// keeps them in a way that is not known here.
pub fn files_root(inspected: &Value) -> Option<FilesRoot> {
    let pid = inspected["State"]["Pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid @ 1..) = pid {
        return Some(FilesRoot::Running {
            pid,
            container: inspected["Id"].as_str()?.to_owned(),
        });
    }
    if inspected["GraphDriver"]["Name"] != "overlay2" {
        return None;
    }
    let data = &inspected["GraphDriver"]["Data"];
    let lower = data["LowerDir"].as_str()?.split(':');
    let layers = std::iter::once(data["UpperDir"].as_str()?).chain(lower);
    Some(FilesRoot::Layers(layers.map(str::to_owned).collect()))
}

/// Where the agent finds the files of a volume, by the engine's `GET /volumes/NAME`; nothing if they are not in the
/// engine's own folder, or are mounted there only while a container uses them.
pub fn volume_root(inspected: &Value) -> Option<FilesRoot> {
    let options = inspected["Options"].as_object();
    let elsewhere =
        options.is_some_and(|options| options.contains_key("type") || options.contains_key("device"));
    if inspected["Driver"] != "local" || elsewhere {
        return None;
    }
    Some(FilesRoot::Volume(inspected["Mountpoint"].as_str()?.to_owned()))
}

/// As `ls` writes them, with set-user-ID, set-group-ID and sticky bit in the places of `x`.
fn permissions(mode: u32) -> String {
    let place = |bit: u32, letter: char| if mode & bit == 0 { '-' } else { letter };
    let execute = |bit: u32, special: u32, letter: char| match (mode & bit != 0, mode & special != 0) {
        (true, true) => letter,
        (false, true) => letter.to_ascii_uppercase(),
        (true, false) => 'x',
        (false, false) => '-',
    };
    [
        place(0o400, 'r'),
        place(0o200, 'w'),
        execute(0o100, 0o4000, 's'),
        place(0o040, 'r'),
        place(0o020, 'w'),
        execute(0o010, 0o2000, 's'),
        place(0o004, 'r'),
        place(0o002, 'w'),
        execute(0o001, 0o1000, 't'),
    ]
    .iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::FileLink;
    use serde_json::json;

    fn entry(name: &str, kind: FileKind, link: Option<FileLink>) -> FileEntry {
        FileEntry {
            name: name.to_owned(),
            garbled: false,
            kind,
            mode: 0o644,
            size: 1,
            uid: 0,
            gid: 0,
            modified_ms: 0,
            link,
        }
    }

    #[test]
    fn a_folder_shows_what_differs_from_the_image_and_what_is_gone() {
        let changes = Changes::read(&json!([
            {"Path": "/etc", "Kind": 0}, {"Path": "/etc/new", "Kind": 1}, {"Path": "/etc/motd", "Kind": 2},
            {"Path": "/etc/covered", "Kind": 2}, {"Path": "/etc/sub/motd", "Kind": 2}, {"Kind": 1}, 7,
        ]));
        let entries = vec![
            entry("new", FileKind::File, None),
            entry("covered", FileKind::File, None),
            entry("sub", FileKind::Folder, None),
        ];
        let FilesView::Folder { rows, .. } =
            FilesView::folder("/etc".into(), entries, false, true, None, &changes)
        else {
            panic!("not a folder");
        };
        let seen: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.change)).collect();
        assert_eq!(
            seen,
            [
                ("sub", None),
                ("covered", None),
                ("motd", Some(FileChange::Deleted)),
                ("new", Some(FileChange::Added)),
            ]
        );
        let root = FilesView::folder(
            "/".into(),
            vec![entry("etc", FileKind::Folder, None)],
            false,
            true,
            None,
            &changes,
        );
        assert!(
            matches!(root, FilesView::Folder { rows, .. } if rows[0].change == Some(FileChange::Changed))
        );
    }

    #[test]
    fn a_link_opens_as_what_it_leads_to() {
        let link = |kind| {
            Some(FileLink {
                target: "there".into(),
                kind,
            })
        };
        let kind = |kind| FileRow::new(entry("l", FileKind::Link, link(kind)), None).kind;
        assert_eq!(kind(Some(FileKind::Folder)), FileRowKind::Folder);
        assert_eq!(kind(Some(FileKind::File)), FileRowKind::File);
        assert_eq!(kind(None), FileRowKind::Special);
    }

    #[test]
    fn what_is_in_a_mount_says_whose_it_is() {
        let mount = |kind: &str, source: &str, target: &str| MountRow {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            read_only: false,
        };
        let mounts = [
            mount("bind", "/home/u/shop", "/srv"),
            mount("volume", "shop_data", "/var/run/data"),
            mount("bind", "/var/lib/thing", "/thing"),
            mount("tmpfs", "", "/tmp"),
        ];
        let shares = [Share {
            path: "/home/u".into(),
            read_only: false,
            machines: Vec::new(),
            missing: Vec::new(),
        }];
        let of = |mount: &str, inner: &str| {
            let within = InMount {
                mount: mount.into(),
                inner: inner.into(),
            };
            Outside::of(&within, &mounts, Some(&shares)).map(|found| (found.kind, found.place))
        };
        assert_eq!(of("/srv", ""), Some((OutsideKind::Host, "/home/u/shop".into())));
        assert_eq!(
            of("/srv", "img/a"),
            Some((OutsideKind::Host, "/home/u/shop/img/a".into()))
        );
        assert_eq!(
            of("/var/run/data", "pg"),
            Some((OutsideKind::Volume, "shop_data".into()))
        );
        assert_eq!(
            of("/thing", "x"),
            Some((OutsideKind::Machine, "/var/lib/thing/x".into()))
        );
        assert_eq!(of("/tmp", "x"), None);
        assert_eq!(of("/nowhere", ""), None);
    }

    #[test]
    fn permissions_read_as_in_a_shell() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o4711), "rws--x--x");
        assert_eq!(permissions(0o1777), "rwxrwxrwt");
        assert_eq!(permissions(0o2644), "rw-r-Sr--");
    }

    #[test]
    fn a_volume_is_found_unless_its_content_is_elsewhere() {
        let at = "/var/lib/docker/volumes/data/_data";
        let plain = json!({"Driver": "local", "Mountpoint": at, "Options": null});
        assert_eq!(volume_root(&plain), Some(FilesRoot::Volume(at.into())));
        let bounded = json!({"Driver": "local", "Mountpoint": at, "Options": {"size": "10g"}});
        assert_eq!(volume_root(&bounded), Some(FilesRoot::Volume(at.into())));
        let nfs =
            json!({"Driver": "local", "Mountpoint": at, "Options": {"type": "nfs", "device": ":/export"}});
        assert_eq!(volume_root(&nfs), None);
        assert_eq!(
            volume_root(&json!({"Driver": "sshfs", "Mountpoint": "/mnt/state"})),
            None
        );
        assert_eq!(volume_root(&json!({"Driver": "local"})), None);
    }

    #[test]
    fn a_stopped_container_is_found_by_its_layers_from_the_top() {
        let running = json!({"Id": "4f6e", "State": {"Pid": 412}});
        assert!(matches!(
            files_root(&running),
            Some(FilesRoot::Running { pid: 412, .. })
        ));
        let stopped = json!({"Id": "4f6e", "State": {"Pid": 0}, "GraphDriver": {"Name": "overlay2",
            "Data": {"UpperDir": "/u", "LowerDir": "/l1:/l2"}}});
        assert_eq!(
            files_root(&stopped),
            Some(FilesRoot::Layers(vec!["/u".into(), "/l1".into(), "/l2".into()]))
        );
        assert_eq!(
            files_root(&json!({"State": {}, "GraphDriver": {"Name": "zfs"}})),
            None
        );
    }
}
