//! A local directory in place of pip and apt: for machines without a network, and for tests.
//!
//! It holds the wheel, the `.deb` files and a `SHA256SUMS` as `sha256sum` writes it. The wheel must have the
//! hash that the recipe pins. The packages are as trustworthy as whoever filled the directory: the list of
//! sums finds damage, not malice, and the manifest says so in the packages' origin.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Artifact, Fetch, Source, pip};
use crate::debian::Deb;
use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};
use crate::recipe::{Debian, Wheel};

const SUMS: &str = "SHA256SUMS";

/// The wheel of a directory.
pub(crate) struct WheelDirectory<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) wheel: &'a Wheel,
}

impl Source for WheelDirectory<'_> {
    fn fetch(&self, _: &mut Fetch<'_>) -> Result<Vec<Artifact>, ImageError> {
        let name = self.wheel.name.replace('-', "_");
        let start = format!("{name}-{}-", self.wheel.version);
        let path = files(self.dir, "whl")?
            .into_iter()
            .find(|path| file_name(path).starts_with(&start))
            .ok_or_else(|| not_offered(self.dir, format!("{start}*.whl")))?;
        let (actual, _) = Digest::of_file(&path)?;
        if actual != self.wheel.sha256 {
            let (what, origin) = (file_name(&path), self.dir.display().to_string());
            return Err(ImageError::NotAuthentic {
                what,
                origin,
                expected: self.wheel.sha256,
                actual,
            });
        }
        Ok(vec![pip::artifact(
            self.wheel,
            "local directory, pinned hash",
            path,
        )])
    }
}

/// The Debian packages of a directory.
pub(crate) struct DebDirectory<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) debian: &'a Debian,
}

impl Source for DebDirectory<'_> {
    fn fetch(&self, fetch: &mut Fetch<'_>) -> Result<Vec<Artifact>, ImageError> {
        let list = self.dir.join(SUMS);
        let sums = parse_sums(&fs::read_to_string(&list).at("read", &list)?);
        let mut found = BTreeMap::new();
        let paths = files(self.dir, "deb")?;
        for (done, path) in paths.iter().enumerate() {
            let artifact = self.read(path, &sums)?;
            if self
                .debian
                .package
                .iter()
                .any(|wanted| wanted.name == artifact.name)
                && let Some(other) = found.insert(artifact.name.clone(), artifact)
            {
                let reason = format!("{} is there in two versions", other.name);
                return Err(ImageError::Archive {
                    archive: self.dir.display().to_string(),
                    reason,
                });
            }
            (fetch.step)(done as u64 + 1, paths.len() as u64);
        }
        let names = self.debian.package.iter().map(|package| &package.name);
        let missing: Vec<&str> = names
            .clone()
            .filter(|name| !found.contains_key(*name))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return Err(not_offered(self.dir, missing.join(", ")));
        }
        Ok(names.filter_map(|name| found.remove(name)).collect())
    }
}

impl DebDirectory<'_> {
    fn read(&self, path: &Path, sums: &BTreeMap<String, Digest>) -> Result<Artifact, ImageError> {
        let name = file_name(path);
        let Some(&expected) = sums.get(&name) else {
            return Err(not_offered(self.dir, format!("a sum for {name} in {SUMS}")));
        };
        let (actual, _) = Digest::of_file(path)?;
        if actual != expected {
            return Err(ImageError::NotAuthentic {
                what: name,
                origin: self.dir.display().to_string(),
                expected,
                actual,
            });
        }
        let mut control = Deb::open(path)?.control()?;
        let mut field = |field: &str| {
            let reason = || format!("its control file has no {field}");
            control.remove(field).ok_or_else(|| ImageError::Archive {
                archive: name.clone(),
                reason: reason(),
            })
        };
        Ok(Artifact {
            name: field("Package")?,
            version: field("Version")?,
            arch: field("Architecture")?,
            origin: "debian, local directory".into(),
            sha256: actual,
            path: path.to_owned(),
        })
    }
}

/// Lines of a digest, two spaces (or a space and a star) and a name; others are passed over.
fn parse_sums(text: &str) -> BTreeMap<String, Digest> {
    let line = |line: &str| {
        let (digest, name) = line.split_once(' ')?;
        let name = name.trim_start_matches([' ', '*']).trim_start_matches("./");
        Some((name.to_owned(), digest.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// The files of `dir` with this extension, sorted.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, ImageError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).at("read", dir)? {
        let path = entry.at("read", dir)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn not_offered(dir: &Path, missing: String) -> ImageError {
    ImageError::NotOffered {
        missing,
        origin: dir.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::tests::deb;
    use crate::recipe::Recipe;
    use crate::source::Cache;

    fn fetch(dir: &Path, debian: &Debian) -> Result<Vec<Artifact>, ImageError> {
        let cache = Cache::open(&dir.join("cache")).unwrap();
        let mut fetch = Fetch {
            cache: &cache,
            offline: true,
            refresh: false,
            step: &mut |_, _| {},
            notes: &mut Vec::new(),
        };
        DebDirectory { dir, debian }.fetch(&mut fetch)
    }

    fn debian(names: &[&str]) -> Debian {
        let mut debian = Recipe::load(None).unwrap().debian;
        debian.package.truncate(names.len());
        for (package, name) in debian.package.iter_mut().zip(names) {
            (*name).clone_into(&mut package.name);
        }
        debian
    }

    fn write(dir: &Path, file: &str, control: &str) {
        let bytes = deb(control, &[]);
        let line = format!("{}  {file}\n", Digest::of(&bytes));
        let sums = fs::read_to_string(dir.join(SUMS)).unwrap_or_default();
        fs::write(dir.join(file), bytes).unwrap();
        fs::write(dir.join(SUMS), sums + &line).unwrap();
    }

    #[test]
    fn packages_are_found_by_what_they_say_they_are() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            "any-name.deb",
            "Package: b\nVersion: 2-1\nArchitecture: amd64\n",
        );
        write(dir.path(), "a.deb", "Package: a\nVersion: 1\nArchitecture: all\n");
        write(
            dir.path(),
            "unused.deb",
            "Package: c\nVersion: 1\nArchitecture: all\n",
        );
        let artifacts = fetch(dir.path(), &debian(&["b", "a"])).unwrap();
        let names: Vec<_> = artifacts
            .iter()
            .map(|a| (a.name.as_str(), a.version.as_str()))
            .collect();
        assert_eq!(names, [("b", "2-1"), ("a", "1")]);
    }

    #[test]
    fn a_missing_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.deb", "Package: a\nVersion: 1\nArchitecture: all\n");
        let error = fetch(dir.path(), &debian(&["a", "runc"])).unwrap_err();
        assert!(
            matches!(&error, ImageError::NotOffered { missing, .. } if missing == "runc"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_or_unlisted_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.deb", "Package: a\nVersion: 1\nArchitecture: all\n");
        let mut bytes = fs::read(dir.path().join("a.deb")).unwrap();
        bytes[100] ^= 1;
        fs::write(dir.path().join("a.deb"), bytes).unwrap();
        assert!(matches!(
            fetch(dir.path(), &debian(&["a"])),
            Err(ImageError::NotAuthentic { .. })
        ));
        fs::write(dir.path().join(SUMS), "").unwrap();
        assert!(matches!(
            fetch(dir.path(), &debian(&["a"])),
            Err(ImageError::NotOffered { .. })
        ));
    }

    #[test]
    fn a_wheel_with_another_hash_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = &Recipe::load(None).unwrap().alpine.wheel;
        let name = format!(
            "{}-{}-py3-none-any.whl",
            wheel.name.replace('-', "_"),
            wheel.version
        );
        fs::write(dir.path().join(name), b"not the wheel").unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let mut fetch = Fetch {
            cache: &cache,
            offline: true,
            refresh: false,
            step: &mut |_, _| {},
            notes: &mut Vec::new(),
        };
        let error = WheelDirectory {
            dir: dir.path(),
            wheel,
        }
        .fetch(&mut fetch)
        .unwrap_err();
        assert!(matches!(error, ImageError::NotAuthentic { .. }), "{error}");
    }
}
