//! A machine's files on the host: its directories, the data disk, and what is remembered of a running machine.
//!
//! The data disk is a raw sparse file. It is made once, grows when the settings say so, and never shrinks: an
//! interrupted start leaves either no disk, or an empty one, or the one that was there.

use super::failure::Failure;
use crate::{file, host, name::MachineName, settings::MachineSettings};
use cove_api::{Dirs, Stage, make_private};
use cove_machine::{BackendKind, MachineSpec};
use cove_wire::{BootConfig, EngineConfig};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Free bytes on the host below which a machine does not start: a guest whose disk cannot grow fails in worse ways.
pub(super) const LEAST_FREE: u64 = 256 << 20;

/// Free bytes on the host below which a running machine warns.
pub(super) const LOW_FREE: u64 = 2 << 30;

/// Where a machine's files are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: PathBuf,
    runtime: PathBuf,
}

/// What a running machine was started with; outlives the daemon, so that the next one knows what it adopts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What runs it.
    pub(super) kind: BackendKind,
    /// Why that.
    pub(super) reason: String,
    /// What it is made of.
    pub(super) spec: MachineSpec,
    /// The engine that it runs.
    pub(super) engine_version: String,
    /// How its engine was asked to be. The time in it is that of the start.
    pub(super) boot: BootConfig,
    /// When the engine answered, in seconds since the Unix epoch; absent until it has.
    pub(super) ready_unix_s: Option<u64>,
    /// Stages of the start.
    pub(super) timings: Vec<Stage>,
}

impl Record {
    /// Whether a start with these settings would give the same machine.
    pub(super) fn matches(&self, settings: &MachineSettings, engine: &EngineConfig) -> bool {
        self.spec.cpus == settings.cpus
            && self.spec.memory_mib == settings.memory_mib
            && self.boot.foreign_processors == settings.foreign_processors
            && self.boot.engine == *engine
            && fs::metadata(&self.spec.data_disk).is_ok_and(|disk| disk.len() >= settings.disk)
    }
}

impl Place {
    pub(crate) fn new(dirs: &Dirs, name: &MachineName) -> Self {
        Self {
            directory: dirs.machine(name.as_str()),
            runtime: dirs.machine_runtime(name.as_str()),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn runtime(&self) -> &Path {
        &self.runtime
    }

    pub(super) fn data_disk(&self) -> PathBuf {
        self.directory.join("data.img")
    }

    /// Is there once a starter image was loaded onto this data disk.
    fn starter_mark(&self) -> PathBuf {
        self.directory.join("starter")
    }

    pub(super) fn record_file(&self) -> PathBuf {
        self.directory.join("started.json")
    }

    /// The guest's console when nothing runs that could say so itself.
    pub(crate) fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// What the machine process has to say.
    pub(crate) fn process_log(&self) -> PathBuf {
        self.directory.join("process.log")
    }

    /// Makes the directories, where they are missing.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        for directory in [&self.directory, &self.runtime] {
            make_private(directory).map_err(Failure::file("create the directory", directory))?;
        }
        Ok(())
    }

    /// Makes the data disk if there is none, and grows it if it is smaller than `size`. Answers its size.
    pub(super) fn prepare_disk(&self, size: u64) -> Result<u64, Failure> {
        let path = self.data_disk();
        if let Some(free) = host::free_space(&self.directory)
            && free < LEAST_FREE
        {
            return Err(Failure::NoSpace { path, free });
        }
        let existing = match fs::metadata(&path) {
            Ok(metadata) => Some(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::file("look at the data disk", &path)(error)),
        };
        match existing {
            Some(length) if length >= size => return Ok(length),
            Some(_) => {
                let file = File::options().write(true).open(&path);
                file.and_then(|file| file.set_len(size).and_then(|()| file.sync_all()))
                    .map_err(Failure::file("grow the data disk", &path))?;
            }
            None => {
                // The mark speaks of a disk that is gone.
                let _ = fs::remove_file(self.starter_mark());
                let mut options = File::options();
                options.write(true).create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let made = options
                    .open(&path)
                    .and_then(|file| file.set_len(size).and_then(|()| file.sync_all()));
                if let Err(error) = made {
                    // Nothing was ever written to it.
                    let _ = fs::remove_file(&path);
                    return Err(Failure::file("create the data disk", &path)(error));
                }
            }
        }
        Ok(size)
    }

    /// Whether a starter image was loaded onto this data disk, whichever: a newer one is not loaded over it.
    pub(super) fn has_starter(&self) -> bool {
        self.starter_mark().exists()
    }

    pub(super) fn remember_starter(&self) -> Result<(), Failure> {
        let path = self.starter_mark();
        file::replace(&path, b"", 0o600).map_err(Failure::file("write", &path))
    }

    pub(super) fn record(&self) -> Option<Record> {
        let text = fs::read(self.record_file()).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(%error, "the record of a running machine cannot be read"))
            .ok()
    }

    pub(super) fn remember(&self, record: &Record) -> Result<(), Failure> {
        let path = self.record_file();
        let json = serde_json::to_vec(record).map_err(io::Error::from);
        json.and_then(|json| file::replace(&path, &json, 0o600))
            .map_err(Failure::file("write", &path))
    }

    /// The machine does not run any more.
    pub(super) fn forget(&self) {
        // A record that stays costs the next daemon a look.
        let _ = fs::remove_file(self.record_file());
    }

    /// Whether a machine runs here, this daemon's or a stranger's.
    pub(super) fn is_locked(&self) -> bool {
        let lock = File::open(self.directory.join("lock"));
        lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Removes everything, the data included, unless a machine process still has it.
    pub(super) fn delete(&self) -> Result<(), Failure> {
        if self.is_locked() {
            let directory = self.directory.clone();
            return Err(cove_machine::MachineError::Locked { directory }.into());
        }
        for directory in [&self.directory, &self.runtime] {
            match fs::remove_dir_all(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::file("remove", directory)(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(&Dirs::below(home.path()), &MachineName::default());
        place.prepare().unwrap();
        (home, place)
    }

    #[test]
    fn the_data_disk_is_sparse_grows_and_never_shrinks() {
        let (_home, place) = place();
        assert_eq!(place.prepare_disk(1 << 30).unwrap(), 1 << 30);
        assert!(host::allocated(&place.data_disk()) < 1 << 20);
        fs::write(place.data_disk().with_extension("probe"), "x").unwrap();
        assert_eq!(place.prepare_disk(2 << 30).unwrap(), 2 << 30);
        assert_eq!(place.prepare_disk(1 << 30).unwrap(), 2 << 30);
        assert_eq!(fs::metadata(place.data_disk()).unwrap().len(), 2 << 30);
    }

    #[test]
    fn a_new_disk_has_no_starter_image_whatever_was_remembered_of_the_old_one() {
        let (_home, place) = place();
        place.prepare_disk(1 << 20).unwrap();
        place.remember_starter().unwrap();
        place.prepare_disk(1 << 20).unwrap();
        assert!(place.has_starter());
        fs::remove_file(place.data_disk()).unwrap();
        place.prepare_disk(1 << 20).unwrap();
        assert!(!place.has_starter());
    }

    #[test]
    fn a_disk_that_a_machine_process_still_has_is_not_deleted() {
        let (_home, place) = place();
        place.prepare_disk(1 << 20).unwrap();
        let lock = File::create(place.directory().join("lock")).unwrap();
        lock.lock().unwrap();
        assert!(matches!(place.delete(), Err(Failure::Backend(_))));
        assert!(place.data_disk().exists());
        drop(lock);
        place.delete().unwrap();
        assert!(!place.directory().exists());
        place.delete().unwrap();
    }

    #[test]
    fn a_damaged_record_is_as_good_as_none() {
        let (_home, place) = place();
        fs::write(place.record_file(), "{").unwrap();
        assert_eq!(place.record(), None);
    }
}
