//! The download cache: files under their digests, and what a source resolved names to.
//!
//! ```text
//!  CACHE/files/<sha256>         one fetched file
//!  CACHE/resolved/<sha256>.json the answer of a package index to one question
//!  CACHE/apt/                   apt's private state
//!  CACHE/lock                   held by the build that uses the cache
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};

/// An open cache. One build uses it at a time; others wait.
pub(crate) struct Cache {
    dir: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens the cache in `dir`, making it if it is not there, and waits until no other build uses it.
    pub(crate) fn open(dir: &Path) -> Result<Self, ImageError> {
        for sub in ["files", "resolved"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        let path = dir.join("lock");
        let lock = File::create(&path).at("create", &path)?;
        lock.lock().at("lock", &path)?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cached file with this digest. It is hashed; one that does not fit any more is removed.
    pub(crate) fn get(&self, digest: Digest) -> Result<Option<PathBuf>, ImageError> {
        let path = self.file(digest);
        if !path.exists() {
            return Ok(None);
        }
        if Digest::of_file(&path)?.0 == digest {
            return Ok(Some(path));
        }
        tracing::warn!(file = %path.display(), "a cached download was damaged; it is fetched again");
        fs::remove_file(&path).at("remove", &path)?;
        Ok(None)
    }

    /// Moves the file at `from`, on the same file system, into the cache, if its digest is `expected`.
    pub(crate) fn put(&self, from: &Path, expected: Digest, origin: &str) -> Result<PathBuf, ImageError> {
        let (actual, _) = Digest::of_file(from)?;
        if actual != expected {
            let what = from
                .file_name()
                .unwrap_or(from.as_os_str())
                .to_string_lossy()
                .into_owned();
            return Err(ImageError::NotAuthentic {
                what,
                origin: origin.into(),
                expected,
                actual,
            });
        }
        let path = self.file(expected);
        fs::rename(from, &path).at("place", &path)?;
        Ok(path)
    }

    /// What was answered to `question` the last time. An answer that is not readable is none.
    pub(crate) fn resolved<T: DeserializeOwned>(&self, question: Digest) -> Option<T> {
        serde_json::from_slice(&fs::read(self.answer(question)).ok()?).ok()
    }

    /// Remembers the answer to `question`.
    pub(crate) fn remember(&self, question: Digest, answer: &impl Serialize) -> Result<(), ImageError> {
        let path = self.answer(question);
        let mut file = self.temporary_file()?;
        serde_json::to_writer_pretty(&mut file, answer)
            .map_err(std::io::Error::from)
            .at("write", &path)?;
        file.persist(&path)
            .map_err(|error| error.error)
            .at("write", &path)?;
        Ok(())
    }

    /// A new directory on the cache's file system, removed when dropped.
    pub(crate) fn temporary_dir(&self) -> Result<tempfile::TempDir, ImageError> {
        tempfile::Builder::new()
            .prefix("fetch-")
            .tempdir_in(&self.dir)
            .at("create a directory in", &self.dir)
    }

    fn temporary_file(&self) -> Result<tempfile::NamedTempFile, ImageError> {
        tempfile::NamedTempFile::new_in(&self.dir).at("create a file in", &self.dir)
    }

    fn file(&self, digest: Digest) -> PathBuf {
        self.dir.join("files").join(digest.to_string())
    }

    fn answer(&self, question: Digest) -> PathBuf {
        self.dir.join("resolved").join(format!("{question}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    #[test]
    fn a_file_comes_back_under_its_digest() {
        let (dir, cache) = cache();
        let from = dir.path().join("x.deb");
        fs::write(&from, b"package").unwrap();
        let digest = Digest::of(b"package");
        assert_eq!(cache.get(digest).unwrap(), None);
        let path = cache.put(&from, digest, "test").unwrap();
        assert_eq!(cache.get(digest).unwrap(), Some(path));
    }

    #[test]
    fn a_file_with_another_digest_does_not_get_in() {
        let (dir, cache) = cache();
        let from = dir.path().join("x.deb");
        fs::write(&from, b"evil").unwrap();
        let error = cache.put(&from, Digest::of(b"package"), "a mirror").unwrap_err();
        assert!(
            matches!(&error, ImageError::NotAuthentic { what, .. } if what == "x.deb"),
            "{error}"
        );
        assert_eq!(cache.get(Digest::of(b"evil")).unwrap(), None);
    }

    #[test]
    fn a_cached_file_that_was_damaged_is_dropped() {
        let (dir, cache) = cache();
        let from = dir.path().join("x");
        fs::write(&from, b"package").unwrap();
        let digest = Digest::of(b"package");
        let path = cache.put(&from, digest, "test").unwrap();
        fs::write(&path, b"pakcage").unwrap();
        assert_eq!(cache.get(digest).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_answer_counts_as_none() {
        let (_dir, cache) = cache();
        let question = Digest::of(b"question");
        cache.remember(question, &vec!["a"]).unwrap();
        assert_eq!(cache.resolved::<Vec<String>>(question).unwrap(), ["a"]);
        fs::write(cache.answer(question), b"[").unwrap();
        assert!(cache.resolved::<Vec<String>>(question).is_none());
    }
}
