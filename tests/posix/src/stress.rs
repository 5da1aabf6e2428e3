//! Several writers in one directory at once, each of which reads what all of them write: nobody may see content that
//! was never written as a whole, or go back to what was before.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Fewer versions of a file are no stress.
const LEAST: u32 = 20;
/// More faults would say nothing new.
const ENOUGH: usize = 10;

/// Replaces a file of its own in `dir` over and over for as long as `time`, appends to another, makes and removes
/// directories, and reads what all `writers` replace, of which this is number `writer`, from 0. Rests for `pause` after
/// each version. Returns what it saw and should not have.
///
/// # Panics
///
/// When it cannot write.
pub fn write_and_read(dir: &Path, writer: u32, writers: u32, time: Duration, pause: Duration) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen = BTreeMap::new();
    let end = Instant::now() + time;
    let mut log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("log-{writer}")))
        .unwrap();
    let mut version = 0;
    while Instant::now() < end && faults.len() < ENOUGH {
        version += 1;
        let new = dir.join(format!(".new-{writer}"));
        std::fs::write(&new, content(writer, version)).unwrap();
        std::fs::rename(&new, dir.join(format!("file-{writer}"))).unwrap();
        writeln!(log, "{version}").unwrap();
        let made = dir.join(format!("dir-{writer}"));
        if version % 8 == 0 {
            std::fs::create_dir(&made).unwrap();
            std::fs::write(made.join("f"), content(writer, version)).unwrap();
        } else if version % 8 == 4 && version > 8 {
            std::fs::remove_dir_all(&made).unwrap();
        }
        for other in 0..writers {
            let found = match std::fs::read(dir.join(format!("file-{other}"))) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound && !seen.contains_key(&other) => continue,
                // Replaced between the lookup and the open, and again at the kernel's second try.
                Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => continue,
                Err(error) => {
                    faults.push(format!("{writer} cannot read the file of {other}: {error}"));
                    continue;
                }
            };
            let Some(found) = version_of(other, &found) else {
                faults.push(format!(
                    "{writer} read {} bytes of {other} that it never wrote",
                    found.len()
                ));
                continue;
            };
            let before = seen.insert(other, found).unwrap_or(0);
            if found < before {
                faults.push(format!("{writer} read {found} of {other} after {before}"));
            }
            if other == writer && found != version {
                faults.push(format!("{writer} wrote {version} and read {found}"));
            }
        }
        std::thread::sleep(pause);
    }
    if seen.len() < writers as usize || version < LEAST {
        faults.push(format!(
            "{writer} wrote {version} versions and saw {seen:?}: that is no stress"
        ));
    }
    faults
}

/// What a writer writes: its number and the version, then bytes that follow from both, across page boundaries.
fn content(writer: u32, version: u32) -> Vec<u8> {
    let mut state = u64::from(writer) << 32 | u64::from(version);
    let mut content = format!("{writer} {version}\n").into_bytes();
    content.resize_with(100 + version as usize * 7919 % 40_000, || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    content
}

/// The version, if this is all of it and nothing else.
fn version_of(writer: u32, found: &[u8]) -> Option<u32> {
    let line = found.split(|byte| *byte == b'\n').next()?;
    let (who, version) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let version = version.parse().ok()?;
    (who.parse() == Ok(writer) && found == content(writer, version)).then_some(version)
}

/// Everything below a folder by its path in it, with the content of files; what cannot be read is not there.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(folder.join(&dir))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = dir.join(entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(path.clone());
                found.insert(path, None);
            } else if let Ok(content) = std::fs::read(entry.path()) {
                found.insert(path, Some(content));
            }
        }
    }
    found
}

/// A line for everything in a [`tree`], by which two can be compared: the same program says the same of the same.
pub fn summary(folder: &Path) -> String {
    let lines = tree(folder).into_iter().map(|(path, content)| match content {
        Some(content) => {
            let mut hasher = DefaultHasher::new();
            content.hash(&mut hasher);
            format!("{} {} {:016x}\n", path.display(), content.len(), hasher.finish())
        }
        None => format!("{}/\n", path.display()),
    });
    lines.collect()
}
