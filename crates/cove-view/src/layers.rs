//! What each layer of an image adds, changes and removes, from what their archives hold.

use crate::{FileChange, image::as_dockerfile};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
};
use ts_rs::TS;

/// Files that are remembered of the layers below; in an image with more, some show as added that are changed.
const MAX_BELOW: usize = 500_000;
/// Rows that are shown at once.
const MAX_ROWS: usize = 1000;
/// Longest command of a layer that is shown, in characters.
const LONGEST: usize = 4000;
/// Words of a search that count.
const MAX_WORDS: usize = 16;

/// Something that a layer's archive holds. Paths are of the image's root, without a slash in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerEntry<'a> {
    /// A folder.
    Folder(&'a str),
    /// A file of so many bytes, or what else is no folder.
    File(&'a str, u64),
    /// What the layers below have there is gone.
    Gone(&'a str),
    /// What the layers below have in this folder is gone; the root is empty.
    Emptied(&'a str),
}

/// What the layers so far have put together.
#[derive(Debug, Default)]
pub struct Below(BTreeMap<String, Held>);

#[derive(Debug, Clone, Copy)]
struct Held {
    size: u64,
    folder: bool,
}

/// A layer, and what it does to those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFiles {
    /// The digest of its content.
    digest: String,
    /// What made it, as it stood in the Dockerfile.
    command: String,
    /// Whether its archive could be read.
    readable: bool,
    /// Entries that are not in it, although its archive has them.
    left_out: u64,
    /// By path.
    files: Vec<LayerFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LayerFile {
    path: String,
    folder: bool,
    /// Bytes that it has, or had where it is gone.
    size: u64,
    change: FileChange,
}

/// A layer in the list of an image's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct LayerView {
    /// The digest of its content, `sha256:…`.
    pub digest: String,
    /// What made it, as a line of a Dockerfile; empty where that is not known.
    pub command: String,
    /// Bytes of what it adds and changes.
    #[ts(type = "number")]
    pub size: u64,
    /// Files and folders that it adds.
    #[ts(type = "number")]
    pub added: usize,
    /// Files that it writes anew.
    #[ts(type = "number")]
    pub changed: usize,
    /// What it removes of the layers below.
    #[ts(type = "number")]
    pub deleted: usize,
    /// Whether its files are known: not where it is packed in a way that is not read here.
    pub readable: bool,
    /// Files that are not shown: more than are kept, or with names that no file has.
    #[ts(type = "number")]
    pub left_out: u64,
}

/// Some of a layer's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LayerRows {
    /// The largest first.
    pub rows: Vec<LayerFileRow>,
    /// Whether there are more than these.
    pub cut: bool,
}

/// A file of a layer, or a folder with what the layer does in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LayerFileRow {
    /// Its path, with a slash in front.
    pub path: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// Bytes that the layer adds and changes there; of what it removes, the bytes that it hides.
    #[ts(type = "number")]
    pub size: u64,
    /// What the layer does to it; nothing for a folder that it only does something in.
    pub change: Option<FileChange>,
}

impl LayerFiles {
    /// What a layer does to those below it, which then are below the next one. Nothing for `entries` where they could
    /// not be read.
    pub fn over<'a>(
        below: &mut Below,
        digest: &str,
        command: &str,
        entries: Option<impl Iterator<Item = LayerEntry<'a>>>,
        left_out: u64,
    ) -> Self {
        Self {
            digest: digest.to_owned(),
            command: as_dockerfile(command).chars().take(LONGEST).collect(),
            readable: entries.is_some(),
            left_out,
            files: entries.map(|entries| below.take(entries)).unwrap_or_default(),
        }
    }

    /// It in the list of layers.
    pub fn view(&self) -> LayerView {
        let count = |change| self.files.iter().filter(|file| file.change == change).count();
        let there = self
            .files
            .iter()
            .filter(|file| file.change != FileChange::Deleted);
        LayerView {
            digest: self.digest.clone(),
            command: self.command.clone(),
            size: there.fold(0, |sum, file| sum.saturating_add(file.size)),
            added: count(FileChange::Added),
            changed: count(FileChange::Changed),
            deleted: count(FileChange::Deleted),
            readable: self.readable,
            left_out: self.left_out,
        }
    }

    /// Its largest files whose paths hold every word of `search`.
    pub fn largest(&self, search: &str) -> LayerRows {
        let mut found: Vec<&LayerFile> = self.matching(search).collect();
        found.sort_by(|one, other| {
            let size = other.size.cmp(&one.size);
            size.then_with(|| one.path.cmp(&other.path))
        });
        LayerRows {
            cut: found.len() > MAX_ROWS,
            rows: found.into_iter().take(MAX_ROWS).map(LayerFile::row).collect(),
        }
    }

    /// What is in a folder, of what holds every word of `search`; the root is `/`.
    pub fn folder(&self, folder: &str, search: &str) -> LayerRows {
        let at = folder.trim_matches('/');
        let mut rows: HashMap<&str, LayerFileRow> = HashMap::new();
        for file in self.matching(search) {
            let Some(inner) = within(&file.path, at) else {
                continue;
            };
            let name = inner.split('/').next().unwrap_or(inner);
            let path = &file.path[..file.path.len() - inner.len() + name.len()];
            let row = rows.entry(name).or_insert_with(|| LayerFileRow {
                path: format!("/{path}"),
                folder: true,
                size: 0,
                change: None,
            });
            if inner == name {
                row.change = Some(file.change);
                row.folder = file.folder;
            }
            // What is hidden takes no space; alone it says how much that is.
            if inner == name || file.change != FileChange::Deleted {
                row.size = row.size.saturating_add(file.size);
            }
        }
        let mut rows: Vec<LayerFileRow> = rows.into_values().collect();
        rows.sort_by(|one, other| {
            let size = other.size.cmp(&one.size);
            size.then_with(|| one.path.cmp(&other.path))
        });
        let cut = rows.len() > MAX_ROWS;
        rows.truncate(MAX_ROWS);
        LayerRows { rows, cut }
    }

    fn matching(&self, search: &str) -> impl Iterator<Item = &LayerFile> {
        let words: Vec<String> = search
            .split_whitespace()
            .take(MAX_WORDS)
            .map(str::to_lowercase)
            .collect();
        self.files.iter().filter(move |file| {
            let path = (!words.is_empty()).then(|| file.path.to_lowercase());
            path.is_none_or(|path| words.iter().all(|word| path.contains(word)))
        })
    }
}

impl LayerFile {
    fn of(path: String, held: Held, change: FileChange) -> Self {
        Self {
            path,
            folder: held.folder,
            size: held.size,
            change,
        }
    }

    fn row(&self) -> LayerFileRow {
        LayerFileRow {
            path: format!("/{}", self.path),
            folder: self.folder,
            size: self.size,
            change: Some(self.change),
        }
    }
}

impl Below {
    /// Puts a layer on top; what it does, by path.
    fn take<'a>(&mut self, entries: impl Iterator<Item = LayerEntry<'a>>) -> Vec<LayerFile> {
        let mut files = BTreeMap::new();
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                LayerEntry::Folder(path) => put.push((path, true, 0)),
                LayerEntry::File(path, size) => put.push((path, false, size)),
                LayerEntry::Gone(path) => gone.push((path, false)),
                LayerEntry::Emptied(path) => gone.push((path, true)),
            }
        }
        // It takes away only what is below it, wherever in its archive that stands.
        let mut hidden = HashSet::new();
        for (path, inside) in gone {
            let removed = if inside {
                self.children(path)
            } else {
                vec![path.to_owned()]
            };
            for path in removed {
                if let Some(held) = self.remove(&path, &mut hidden) {
                    let change = FileChange::Deleted;
                    files.insert(path.clone(), LayerFile::of(path, held, change));
                }
            }
        }
        for (path, folder, size) in put {
            let held = Held { size, folder };
            let before = self.0.get(path).map(|before| before.folder);
            // A folder stands in a layer wherever something in it changes.
            if folder && before == Some(true) {
                continue;
            }
            if !folder && before == Some(true) {
                self.remove(path, &mut hidden);
            }
            let change = match files.get(path) {
                // Once more in the same archive, where the last one counts.
                Some(LayerFile {
                    change: FileChange::Added,
                    ..
                }) => FileChange::Added,
                Some(_) => FileChange::Changed,
                None if before.is_some() || hidden.contains(path) => FileChange::Changed,
                None => FileChange::Added,
            };
            files.insert(path.to_owned(), LayerFile::of(path.to_owned(), held, change));
            if before.is_some() || self.0.len() < MAX_BELOW {
                self.0.insert(path.to_owned(), held);
            }
        }
        files.into_values().collect()
    }

    /// Removes what is at a path and in it, and remembers their paths: what that was, with the bytes of all of it.
    fn remove(&mut self, path: &str, hidden: &mut HashSet<String>) -> Option<Held> {
        let inner: Vec<String> = self.inside(path).map(|(path, _)| path.clone()).collect();
        let found = self.0.remove(path);
        if found.is_none() && inner.is_empty() {
            return None;
        }
        let folder = found.is_none_or(|found| found.folder);
        let mut size = found.map_or(0, |found| found.size);
        if found.is_some() {
            hidden.insert(path.to_owned());
        }
        for path in inner {
            let held = self.0.remove(&path);
            size = size.saturating_add(held.map_or(0, |held| held.size));
            hidden.insert(path);
        }
        Some(Held { size, folder })
    }

    /// The paths right below a folder.
    fn children(&self, folder: &str) -> Vec<String> {
        let mut children: Vec<String> = Vec::new();
        for (path, _) in self.inside(folder) {
            let Some(inner) = within(path, folder) else {
                continue;
            };
            let name = inner.split('/').next().unwrap_or(inner);
            let child = &path[..path.len() - inner.len() + name.len()];
            if children.last().is_none_or(|last| last != child) {
                children.push(child.to_owned());
            }
        }
        children.sort_unstable();
        children.dedup();
        children
    }

    /// What is in a folder, however deep.
    fn inside(&self, folder: &str) -> impl Iterator<Item = (&String, &Held)> {
        let prefix = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let from = self.0.range::<str, _>(from);
        from.take_while(move |(path, _)| path.starts_with(&prefix))
    }
}

/// The path from a folder; nothing for what is not in it.
fn within<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let inner = if folder.is_empty() {
        path
    } else {
        path.strip_prefix(folder)?.strip_prefix('/')?
    };
    (!inner.is_empty()).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::{
        FileChange::{Added, Changed, Deleted},
        LayerEntry::{Emptied, File, Folder, Gone},
        *,
    };
    use proptest::prelude::*;

    fn over(below: &mut Below, entries: &[LayerEntry<'_>]) -> LayerFiles {
        LayerFiles::over(
            below,
            "sha256:d",
            "RUN /bin/sh -c apk add x # buildkit",
            Some(entries.iter().copied()),
            0,
        )
    }

    fn seen(rows: &LayerRows) -> Vec<(&str, u64, Option<FileChange>)> {
        rows.rows
            .iter()
            .map(|row| (row.path.as_str(), row.size, row.change))
            .collect()
    }

    /// A base of five files.
    fn base() -> Below {
        let mut below = Below::default();
        over(
            &mut below,
            &[
                Folder("etc"),
                File("etc/motd", 5),
                File("etc/issue", 7),
                Folder("var"),
                Folder("var/cache"),
                File("var/cache/a", 100),
                File("var/cache/b/c", 50),
                File("var/lib", 3),
            ],
        );
        below
    }

    #[test]
    fn the_lowest_layer_only_adds() {
        let layer = over(&mut Below::default(), &[Folder("etc"), File("etc/motd", 5)]);
        assert_eq!(
            seen(&layer.largest("")),
            [("/etc/motd", 5, Some(Added)), ("/etc", 0, Some(Added))]
        );
        let view = layer.view();
        assert_eq!((view.added, view.changed, view.deleted, view.size), (2, 0, 0, 5));
        assert_eq!(view.command, "RUN apk add x");
    }

    #[test]
    fn what_is_there_below_is_changed_and_folders_on_the_way_are_not() {
        let layer = over(
            &mut base(),
            &[Folder("etc"), File("etc/motd", 9), File("etc/new", 1)],
        );
        assert_eq!(
            seen(&layer.largest("")),
            [("/etc/motd", 9, Some(Changed)), ("/etc/new", 1, Some(Added))]
        );
    }

    #[test]
    fn what_is_taken_away_says_how_much_it_hides_and_comes_back_as_added() {
        let mut below = base();
        let layer = over(
            &mut below,
            &[Gone("var/cache"), Gone("etc/motd"), Gone("nowhere")],
        );
        assert_eq!(
            seen(&layer.largest("")),
            [
                ("/var/cache", 150, Some(Deleted)),
                ("/etc/motd", 5, Some(Deleted))
            ]
        );
        // It takes no space in the layer.
        assert_eq!(layer.view().size, 0);
        let layer = over(&mut below, &[File("etc/motd", 1)]);
        assert_eq!(seen(&layer.largest("")), [("/etc/motd", 1, Some(Added))]);
    }

    #[test]
    fn an_emptied_folder_loses_what_was_below_and_keeps_what_its_own_layer_has() {
        // The mark may stand behind what the layer itself puts there.
        let layer = over(
            &mut base(),
            &[
                File("var/cache/a", 1),
                Emptied("var/cache"),
                File("var/cache/new", 2),
            ],
        );
        assert_eq!(
            seen(&layer.largest("")),
            [
                ("/var/cache/b", 50, Some(Deleted)),
                ("/var/cache/new", 2, Some(Added)),
                ("/var/cache/a", 1, Some(Changed)),
            ]
        );
        let all = over(&mut base(), &[Emptied("")]);
        assert_eq!(
            seen(&all.largest("")),
            [("/var", 153, Some(Deleted)), ("/etc", 12, Some(Deleted))]
        );
    }

    #[test]
    fn a_file_in_place_of_a_folder_hides_what_was_in_it() {
        let mut below = base();
        over(&mut below, &[File("var", 4)]);
        let layer = over(&mut below, &[File("var/lib", 3)]);
        assert_eq!(seen(&layer.largest("")), [("/var/lib", 3, Some(Added))]);
    }

    #[test]
    fn a_folder_sums_up_what_is_in_it_and_a_search_counts_what_it_finds() {
        let layer = over(
            &mut base(),
            &[
                File("usr/lib/a.so", 30),
                File("usr/lib/B.so", 20),
                File("usr/readme", 1),
                Gone("var/cache/a"),
            ],
        );
        assert_eq!(
            seen(&layer.folder("/", "")),
            [("/usr", 51, None), ("/var", 0, None)]
        );
        assert_eq!(
            seen(&layer.folder("/usr", "")),
            [("/usr/lib", 50, None), ("/usr/readme", 1, Some(Added))]
        );
        assert_eq!(
            seen(&layer.folder("/var/cache/", "")),
            [("/var/cache/a", 100, Some(Deleted))]
        );
        assert_eq!(seen(&layer.folder("/", "b.SO lib")), [("/usr", 20, None)]);
        assert_eq!(
            seen(&layer.largest(".so")),
            [
                ("/usr/lib/a.so", 30, Some(Added)),
                ("/usr/lib/B.so", 20, Some(Added))
            ]
        );
        assert!(layer.folder("/us", "").rows.is_empty());
    }

    #[test]
    fn more_rows_than_a_page_takes_are_cut_to_the_largest() {
        let paths: Vec<String> = (0..=MAX_ROWS).map(|at| format!("f{at}")).collect();
        let sizes = (1..).zip(&paths);
        let entries: Vec<_> = sizes.map(|(size, path)| File(path, size)).collect();
        let layer = over(&mut Below::default(), &entries);
        for found in [layer.largest(""), layer.folder("/", "")] {
            assert!(found.cut);
            assert_eq!(found.rows.len(), MAX_ROWS);
            assert_eq!(found.rows[0].path, format!("/f{MAX_ROWS}"));
        }
    }

    #[test]
    fn a_layer_that_could_not_be_read_says_so_and_changes_nothing() {
        let mut below = base();
        let none = None::<std::iter::Empty<LayerEntry<'_>>>;
        let layer = LayerFiles::over(&mut below, "sha256:d", "", none, 0);
        assert!(!layer.view().readable);
        assert_eq!(below.0.len(), 8);
    }

    fn entry() -> impl Strategy<Value = (u8, String, u64)> {
        (0_u8..4, "[ab](/[ab]){0,3}", 0_u64..9)
    }

    proptest! {
        #[test]
        fn whatever_layers_hold_each_path_is_told_once_and_what_is_gone_was_there(
            layers in proptest::collection::vec(proptest::collection::vec(entry(), 0..12), 0..4),
        ) {
            let mut below = Below::default();
            for layer in &layers {
                let entries: Vec<_> = layer
                    .iter()
                    .map(|(kind, path, size)| match kind {
                        0 => Folder(path),
                        1 => File(path, *size),
                        2 => Gone(path),
                        _ => Emptied(path),
                    })
                    .collect();
                let had: Vec<String> = below.0.keys().cloned().collect();
                let files = over(&mut below, &entries).files;
                prop_assert!(files.is_sorted_by(|one, other| one.path < other.path));
                for file in files.iter().filter(|file| file.change == Deleted) {
                    let inner = format!("{}/", file.path);
                    prop_assert!(had.iter().any(|path| *path == file.path || path.starts_with(&inner)));
                }
                for file in files.iter().filter(|file| file.change == Added && !file.folder) {
                    prop_assert!(!had.contains(&file.path));
                }
            }
        }
    }
}
