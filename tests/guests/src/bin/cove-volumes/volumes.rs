//! The volumes: a directory each, and how many containers have it mounted.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// All volumes; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    root: PathBuf,
    mounts: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Volumes {
    pub(crate) fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            mounts: Arc::default(),
        }
    }

    /// Answers a call of the engine's by its name.
    pub(crate) fn answer(&self, call: &str, request: &Value) -> Value {
        let answer = match call {
            "Plugin.Activate" => Ok(json!({ "Implements": ["VolumeDriver"] })),
            "VolumeDriver.Capabilities" => Ok(json!({ "Capabilities": { "Scope": "local" } })),
            "VolumeDriver.List" => self.list(),
            "VolumeDriver.Create" => self.create(request),
            "VolumeDriver.Remove" => self.remove(request),
            "VolumeDriver.Get" => self.get(request),
            "VolumeDriver.Path" => self.place(request),
            "VolumeDriver.Mount" => self.count(request, 1),
            "VolumeDriver.Unmount" => self.count(request, -1),
            _ => Err(io::Error::other(format!("there is no call {call}"))),
        };
        answer.unwrap_or_else(|error| json!({ "Err": error.to_string() }))
    }

    fn create(&self, request: &Value) -> io::Result<Value> {
        let directory = self.directory(request)?;
        fs::create_dir_all(&directory)?;
        if let Some(seed) = request["Opts"]["seed"].as_str() {
            fs::write(directory.join("seed"), seed)?;
        }
        Ok(json!({}))
    }

    fn remove(&self, request: &Value) -> io::Result<Value> {
        fs::remove_dir_all(self.existing(request)?)?;
        Ok(json!({}))
    }

    fn get(&self, request: &Value) -> io::Result<Value> {
        let directory = self.existing(request)?;
        Ok(json!({ "Volume": self.described(&directory) }))
    }

    fn list(&self) -> io::Result<Value> {
        let volumes: Vec<Value> = fs::read_dir(&self.root)?
            .filter_map(Result::ok)
            .map(|entry| self.described(&entry.path()))
            .collect();
        Ok(json!({ "Volumes": volumes }))
    }

    fn place(&self, request: &Value) -> io::Result<Value> {
        Ok(json!({ "Mountpoint": self.existing(request)? }))
    }

    fn count(&self, request: &Value, change: i32) -> io::Result<Value> {
        let directory = self.existing(request)?;
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = mounts.entry(name(&directory)).or_default();
        *count = count.saturating_add_signed(change);
        Ok(json!({ "Mountpoint": directory }))
    }

    fn described(&self, directory: &Path) -> Value {
        let name = name(directory);
        let mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = mounts.get(&name).copied().unwrap_or_default();
        json!({ "Name": name, "Mountpoint": directory, "Status": { "mounts": count } })
    }

    fn existing(&self, request: &Value) -> io::Result<PathBuf> {
        let directory = self.directory(request)?;
        if directory.is_dir() {
            return Ok(directory);
        }
        Err(io::Error::other(format!(
            "there is no volume {}",
            name(&directory)
        )))
    }

    /// The engine lets only plain names pass; so does this.
    fn directory(&self, request: &Value) -> io::Result<PathBuf> {
        let name = request["Name"].as_str().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(io::Error::other(format!("{name:?} is no name for a volume")));
        }
        Ok(self.root.join(name))
    }
}

fn name(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
