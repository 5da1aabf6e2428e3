//! The starter image: `alpine`, made of the guest's own Alpine base, as an archive for `docker load`.
//!
//! It is put together as Alpine's own image is, from the same packages, package by package from the checked base,
//! with the part of apk's database that speaks of them. One layer, one time, owners and modes from the
//! database: the bytes depend on the base and the recipe alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

use crate::alpine::{Base, Kind};
use crate::apkdb::Ownership;
use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};
use crate::recipe::Recipe;
use crate::rootfs::busybox_links;
use crate::tree::TreePath;

const DATABASE: &str = "lib/apk/db/installed";
const ROOT: Ownership = Ownership {
    uid: 0,
    gid: 0,
    mode: 0o755,
};
const PLAIN: Ownership = Ownership {
    uid: 0,
    gid: 0,
    mode: 0o644,
};

enum Entry {
    Directory,
    File(Vec<u8>),
    Symlink(String),
}

type Entries = BTreeMap<TreePath, (Ownership, Entry)>;

/// Writes the archive to `output`.
pub(crate) fn write(recipe: &Recipe, base: &Base, output: &Path) -> Result<(), ImageError> {
    let entries = collect(recipe, base)?;
    let time = u64::from(recipe.epoch);
    let layer = layer(&entries, time).at("pack", output)?;
    let diff_id = Digest::of(&layer);
    let starter = &recipe.starter;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": timestamp(recipe.epoch),
        "config": {
            "Env": [format!("PATH={}", starter.path)],
            "Cmd": starter.command,
            "Labels": { "dev.cove.starter": "made of the guest's own Alpine base" },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created": timestamp(recipe.epoch), "created_by": "cove image build" }],
    });
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", Digest::of(&config));
    let layer_name = format!("{diff_id}/layer.tar");
    let manifest = json!([{ "Config": config_name, "RepoTags": starter.tags, "Layers": [layer_name] }]);

    let write = || -> io::Result<()> {
        let mut archive = tar::Builder::new(BufWriter::new(File::create(output)?));
        for (name, bytes) in [
            (format!("{diff_id}/"), None),
            (layer_name.clone(), Some(layer.as_slice())),
            (config_name.clone(), Some(config.as_slice())),
            ("manifest.json".into(), Some(manifest.to_string().as_bytes())),
        ] {
            match bytes {
                Some(bytes) => append(&mut archive, &name, PLAIN, tar::EntryType::Regular, time, bytes)?,
                None => append(&mut archive, &name, ROOT, tar::EntryType::Directory, time, &[])?,
            }
        }
        archive.into_inner()?.flush()
    };
    write().at("write", output)
}

fn collect(recipe: &Recipe, base: &Base) -> Result<Entries, ImageError> {
    let mut entries = Entries::new();
    let mut declared = BTreeMap::new();
    let mut database = String::new();
    for name in &recipe.starter.alpine {
        let package = base.package(name)?;
        database.extend([package.record.as_str(), "\n"]);
        for directory in &package.directories {
            // The same directory belongs to many packages; the one that says something unusual about it wins.
            let known = entries
                .get(&directory.path)
                .is_some_and(|(known, _)| *known != ROOT);
            if !known {
                entries.insert(directory.path.clone(), (directory.ownership, Entry::Directory));
            }
        }
        declared.extend(package.files.iter().map(|file| (&file.path, file.ownership)));
        for (path, file) in base.files(package) {
            let entry = match &file.kind {
                Kind::File(bytes) => Entry::File(bytes.clone()),
                Kind::Symlink(target) => Entry::Symlink(target.clone()),
            };
            entries.insert(path.clone(), (file.ownership, entry));
        }
    }
    let plain_path = |path: &str| {
        TreePath::parse(path).ok_or_else(|| ImageError::Placement {
            path: path.into(),
            reason: "not plain".into(),
        })
    };
    entries.insert(plain_path(DATABASE)?, (PLAIN, Entry::File(database.into_bytes())));
    for path in &recipe.starter.unowned {
        entries.insert(path.0.clone(), (PLAIN, Entry::File(base.unowned(&path.0)?)));
    }
    for file in &recipe.starter.file {
        // Ours takes the place of a package's file, whose owner it keeps.
        let ownership = declared.get(&file.path.0).copied().unwrap_or(PLAIN);
        let ownership = Ownership {
            mode: file.mode,
            ..ownership
        };
        entries.insert(
            file.path.0.clone(),
            (ownership, Entry::File(file.text.clone().into_bytes())),
        );
    }
    for path in busybox_links(base.bytes(&recipe.rootfs.busybox_paths.0)?)? {
        entries
            .entry(path)
            .or_insert_with(|| (PLAIN, Entry::Symlink("/bin/busybox".into())));
    }
    // An archive names a directory before what is in it, so missing parents are added.
    let parents: Vec<TreePath> = entries
        .keys()
        .flat_map(|path| std::iter::successors(path.parent(), TreePath::parent))
        .collect();
    for parent in parents {
        entries.entry(parent).or_insert((ROOT, Entry::Directory));
    }
    Ok(entries)
}

fn layer(entries: &Entries, time: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, (ownership, entry)) in entries {
        match entry {
            Entry::Directory => {
                append(
                    &mut archive,
                    &format!("{path}/"),
                    *ownership,
                    tar::EntryType::Directory,
                    time,
                    &[],
                )?;
            }
            Entry::File(bytes) => {
                append(
                    &mut archive,
                    path.as_str(),
                    *ownership,
                    tar::EntryType::Regular,
                    time,
                    bytes,
                )?;
            }
            Entry::Symlink(target) => {
                let mut header = header(
                    Ownership {
                        mode: 0o777,
                        ..*ownership
                    },
                    tar::EntryType::Symlink,
                    time,
                    0,
                );
                archive.append_link(&mut header, path.as_str(), target)?;
            }
        }
    }
    archive.into_inner()
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    ownership: Ownership,
    kind: tar::EntryType,
    time: u64,
    bytes: &[u8],
) -> io::Result<()> {
    archive.append_data(
        &mut header(ownership, kind, time, bytes.len() as u64),
        name,
        bytes,
    )
}

fn header(ownership: Ownership, kind: tar::EntryType, time: u64, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(ownership.mode);
    header.set_uid(ownership.uid.into());
    header.set_gid(ownership.gid.into());
    header.set_mtime(time);
    header.set_size(size);
    header
}

/// Seconds since 1970 as RFC 3339, for which the engine asks.
fn timestamp(epoch: u32) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    // Days to a civil date, by counting from 1 March 0000, after which a leap day is the last of its year.
    let day = days + 719_468;
    let era = day / 146_097;
    let day_of_era = day % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_engine_reads_them() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_767_225_600), "2026-01-01T00:00:00Z");
        assert_eq!(timestamp(u32::MAX), "2106-02-07T06:28:15Z");
    }

    #[test]
    fn a_layer_has_owners_modes_and_links_and_is_the_same_every_time() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        let long = format!("etc/{}", "n".repeat(200));
        let entries = Entries::from([
            (path("etc"), (ROOT, Entry::Directory)),
            (
                path("etc/shadow"),
                (
                    Ownership {
                        uid: 0,
                        gid: 42,
                        mode: 0o640,
                    },
                    Entry::File(b"x".to_vec()),
                ),
            ),
            (path(&long), (PLAIN, Entry::File(b"y".to_vec()))),
            (path("bin"), (PLAIN, Entry::Symlink("usr/bin".into()))),
        ]);
        let bytes = layer(&entries, 7).unwrap();
        assert_eq!(bytes, layer(&entries, 7).unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(header.mtime().unwrap(), 7);
            let link = entry
                .link_name()
                .unwrap()
                .map(|target| target.display().to_string());
            let name = entry.path().unwrap().display().to_string();
            seen.insert(name, (header.gid().unwrap(), header.mode().unwrap(), link));
        }
        assert_eq!(seen["etc/shadow"], (42, 0o640, None));
        assert_eq!(seen["bin"].2.as_deref(), Some("usr/bin"));
        assert!(seen.contains_key(&long));
        assert!(seen.contains_key("etc/"));
    }
}
