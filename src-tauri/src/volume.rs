//! A volume's content, through the engine's archives of a container that only mounts it.
//!
//! ```text
//!  create ──▶ helper container with the volume at /volume ──archive──▶ file, or another helper
//!                 │
//!                 └── removed when it is let go of, whether that is well or by a cancelled task
//! ```
//!
//! A helper never runs, but to empty a volume: the engine mounts volumes for archives of stopped containers, too.

use crate::{
    commands::images,
    failure::{Answer, Refusal},
    task::Report,
};
use cove_engine::{Bytes, Engine, EngineError, Place};
use cove_view::LogReader;
use serde_json::json;
use tokio::io::AsyncRead;

/// An image that every machine has.
const IMAGE: &str = "alpine:latest";
/// Where the volume is in the helper.
const AT: &str = "/volume";

/// A container that mounts a volume. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Helper {
    engine: Engine,
    id: String,
}

impl Helper {
    /// A helper for `volume`, which has to be there; it may only read unless `writes`.
    pub(crate) async fn of(engine: &Engine, volume: &str, writes: bool, report: &Report) -> Answer<Self> {
        // To mount one that is not there would make it.
        engine.get(&Place::of(&["volumes", volume])).await?;
        let body = json!({
            "Image": IMAGE,
            // Whatever somebody may have given that name.
            "Entrypoint": ["find"],
            "Cmd": [AT, "-mindepth", "1", "-delete"],
            "User": "0:0",
            "NetworkDisabled": true,
            "Labels": {"dev.cove.helper": "volume"},
            "HostConfig": {"Mounts": [{
                "Type": "volume", "Source": volume, "Target": AT, "ReadOnly": !writes,
                "VolumeOptions": {"NoCopy": true},
            }]},
        });
        let place = Place::of(&["containers", "create"]);
        let created = match engine.post(&place, Some(&body)).await {
            Err(error) if error.is_not_found() => {
                images::pull(engine, IMAGE, report).await?;
                engine.post(&place, Some(&body)).await?
            }
            created => created?,
        };
        match created["Id"].as_str() {
            Some(id) => Ok(Self {
                engine: engine.clone(),
                id: id.to_owned(),
            }),
            None => Err(Refusal::new(
                "the engine created a container and did not name it",
                "",
            )),
        }
    }

    /// The volume's content as a tar archive.
    pub(crate) async fn read(&self) -> Result<Bytes, EngineError> {
        let content = format!("{AT}/.");
        let place = Place::of(&["containers", &self.id, "archive"]).with("path", &content);
        self.engine.bytes(&place).await
    }

    /// Adds the content of a tar archive to the volume.
    pub(crate) async fn write(&self, archive: impl AsyncRead + Send + 'static) -> Result<(), EngineError> {
        let place = Place::of(&["containers", &self.id, "archive"]).with("path", AT);
        self.engine.put_archive(&place, archive).await
    }

    /// The volume itself as a tar archive, for [`Self::write_whole`]: what it is, and what is in it.
    pub(crate) async fn read_whole(&self) -> Result<Bytes, EngineError> {
        let place = Place::of(&["containers", &self.id, "archive"]).with("path", AT);
        self.engine.bytes(&place).await
    }

    /// Makes the volume what [`Self::read_whole`] told of another: its own owner and mode, too.
    pub(crate) async fn write_whole(
        &self,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<(), EngineError> {
        let place = Place::of(&["containers", &self.id, "archive"]).with("path", "/");
        self.engine.put_archive(&place, archive).await
    }

    /// Deletes everything in the volume.
    pub(crate) async fn empty(&self) -> Answer<()> {
        let place = |what: &str| Place::of(&["containers", &self.id, what]);
        self.engine.post(&place("start"), None).await?;
        let ended = self.engine.post(&place("wait"), None).await?;
        if ended["StatusCode"] == 0 {
            return Ok(());
        }
        let mut said = Vec::new();
        let mut reader = LogReader::new(true);
        let mut bytes = self
            .engine
            .bytes(&place("logs").with("stderr", "true").with("tail", "3"))
            .await?;
        while let Some(data) = bytes.next().await? {
            reader.take(&data, &mut said);
        }
        reader.finish(&mut said);
        let why: Vec<_> = said.into_iter().map(|line| line.text).collect();
        Err(Refusal::new(
            format!("not everything could be deleted: {}", why.join(" ")),
            "Stop the containers that use the volume, and try again.",
        ))
    }

    /// Removes the helper, and waits for that.
    pub(crate) async fn remove(self) -> Result<(), EngineError> {
        remove(&self.engine, &self.id).await
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
        // An engine that has just ended keeps it; it does nothing there.
        tauri::async_runtime::spawn(async move { remove(&engine, &id).await });
    }
}

async fn remove(engine: &Engine, id: &str) -> Result<(), EngineError> {
    let place = Place::of(&["containers", id])
        .with("force", "true")
        .with("v", "true");
    match engine.delete(&place).await {
        // It was removed and waited for before.
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
