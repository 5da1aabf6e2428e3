//! Where the engine's archives of files are: in a container itself, or for a volume in a helper that mounts it.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    helper::Helper,
    task::Report,
    volume,
};
use cove_engine::{Engine, Place};
use cove_view::FilesOf;
use std::path::{Component, Path};

/// The engine's archives of whose files are meant. Of a volume they are there until this is closed or dropped.
#[derive(Debug)]
pub(crate) struct Archives {
    pub(crate) engine: Engine,
    container: Container,
}

#[derive(Debug)]
enum Container {
    Itself(String),
    Mounting(Helper),
}

impl Archives {
    /// To read files.
    pub(crate) async fn reading(cove: &Cove, of: FilesOf, report: &Report) -> Answer<Self> {
        let engine = cove.engine();
        let container = match of {
            FilesOf::Container { id } => Container::Itself(id),
            FilesOf::Volume { name } => {
                Container::Mounting(Helper::reading(cove, &engine, &name, report).await?)
            }
        };
        Ok(Self { engine, container })
    }

    /// To write them, too.
    pub(crate) async fn writing(cove: &Cove, of: FilesOf, report: &Report) -> Answer<Self> {
        let engine = cove.engine();
        let container = match of {
            FilesOf::Container { id } => Container::Itself(id),
            FilesOf::Volume { name } => {
                Container::Mounting(Helper::writing(cove, &engine, &name, None, report).await?)
            }
        };
        Ok(Self { engine, container })
    }

    /// The place of what the engine sends of a path, and puts into it.
    pub(crate) fn at(&self, path: &str) -> Answer<Place> {
        match &self.container {
            Container::Itself(id) => Ok(place(id, path)),
            Container::Mounting(helper) => Ok(place(helper.id(), &in_helper(path)?)),
        }
    }

    /// Whether there is something of that name in a folder. The engine is asked, which sees what is mounted also while
    /// the container does not run, as it does when it writes there.
    pub(crate) async fn has(&self, folder: &str, name: &str) -> Answer<bool> {
        let path = format!("{}/{name}", folder.trim_end_matches('/'));
        Ok(self.engine.has(&self.at(&path)?).await?)
    }

    /// Waits until a helper is gone, so that nobody finds its volume in use.
    pub(crate) async fn close(self) {
        if let Container::Mounting(helper) = self.container {
            // What was done is done; a helper that stays is removed by the next window.
            let _ = helper.remove().await;
        }
    }
}

fn place(id: &str, path: &str) -> Place {
    Place::of(&["containers", id, "archive"]).with("path", path)
}

/// A path from a volume's root, as its helper has it. The page has paths from the agent, whose links are resolved; one
/// that a program puts there meanwhile leads to the helper's own files at most, which go with it.
fn in_helper(path: &str) -> Answer<String> {
    let mut parts = Path::new(path).components();
    if parts.next() == Some(Component::RootDir) && parts.all(|part| matches!(part, Component::Normal(_))) {
        return Ok(format!("{}{path}", volume::AT));
    }
    Err(Refusal::new(format!("`{path}` is not a path in a volume"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_volume_stays_in_it() {
        let of = |path| in_helper(path).ok();
        assert_eq!(of("/"), Some("/volume/".into()));
        assert_eq!(of("/conf/site.conf"), Some("/volume/conf/site.conf".into()));
        assert_eq!(of("/conf/..data"), Some("/volume/conf/..data".into()));
        for path in ["", "conf", "..", "/..", "/conf/../../etc", "/conf/.."] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
