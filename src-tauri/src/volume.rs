//! A volume's content, through the engine's archives of a container that only mounts it.
//!
//! ```text
//!  create ──▶ helper container with the volume at /volume ──archive──▶ file, or another helper
//! ```
//!
//! Such a helper ([`crate::helper`]) never runs, but to empty a volume: the engine mounts volumes for archives of
//! stopped containers, too.

use crate::{
    commands::images,
    cove::Cove,
    failure::{Answer, Refusal},
    helper::{Held, Helper, IMAGE},
    task::Report,
};
use cove_engine::{
    Bytes, Engine, EngineError, Place,
    archive::{self, Head},
};
use cove_view::LogReader;
use serde_json::json;
use std::io::Cursor;
use tokio::io::AsyncRead;

/// Where the volume is in the helper.
pub(crate) const AT: &str = "/volume";
/// Its name there.
const NAME: &str = "volume";
/// What a helper for one says that it is for.
const PURPOSE: &str = "volume";

impl Helper {
    /// A helper of this engine's for `volume`, which has to be there, to read it.
    pub(crate) async fn reading(cove: &Cove, engine: &Engine, volume: &str, report: &Report) -> Answer<Self> {
        Self::of(cove, engine, volume, false, None, report).await
    }

    /// One that may write, too.
    pub(crate) async fn writing(
        cove: &Cove,
        engine: &Engine,
        volume: &str,
        held: Held,
        report: &Report,
    ) -> Answer<Self> {
        Self::of(cove, engine, volume, true, held, report).await
    }

    async fn of(
        cove: &Cove,
        engine: &Engine,
        volume: &str,
        writes: bool,
        held: Held,
        report: &Report,
    ) -> Answer<Self> {
        // To mount one that is not there would make it.
        engine.get(&Place::of(&["volumes", volume])).await?;
        let body = json!({
            // Whatever somebody may have given that name.
            "Entrypoint": ["find"],
            "Cmd": [AT, "-mindepth", "1", "-delete"],
            "User": "0:0",
            "NetworkDisabled": true,
            "HostConfig": {"Mounts": [{
                "Type": "volume", "Source": volume, "Target": AT, "ReadOnly": !writes,
                "VolumeOptions": {"NoCopy": true},
            }]},
        });
        if let Some(helper) = Self::create(cove, engine, PURPOSE, body.clone(), held.clone()).await? {
            return Ok(helper);
        }
        images::pull(engine, IMAGE, report).await?;
        Self::create(cove, engine, PURPOSE, body, held)
            .await?
            .ok_or_else(|| {
                Refusal::new(
                    format!("the engine has no image {IMAGE} although it has just pulled it"),
                    "Try again.",
                )
            })
    }

    /// The volume's content as a tar archive.
    pub(crate) async fn read(&self) -> Result<Bytes, EngineError> {
        let content = format!("{AT}/.");
        let place = Place::of(&["containers", self.id(), "archive"]).with("path", &content);
        self.engine.bytes(&place).await
    }

    /// Adds the content of a tar archive to the volume.
    pub(crate) async fn write(&self, archive: impl AsyncRead + Send + 'static) -> Result<(), EngineError> {
        let place = Place::of(&["containers", self.id(), "archive"]).with("path", AT);
        self.engine.put_archive(&place, archive).await
    }

    /// The volume itself as a tar archive, for [`Self::write_whole`]: what it is, and what is in it.
    pub(crate) async fn read_whole(&self) -> Result<Bytes, EngineError> {
        let place = Place::of(&["containers", self.id(), "archive"]).with("path", AT);
        self.engine.bytes(&place).await
    }

    /// Makes the volume what [`Self::read_whole`] told of another: its own owner and mode, too.
    pub(crate) async fn write_whole(
        &self,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<(), EngineError> {
        let place = Place::of(&["containers", self.id(), "archive"]).with("path", "/");
        self.engine.put_archive(&place, archive).await
    }

    /// Gives the volume itself this owner and mode, and keeps what is in it.
    pub(crate) async fn write_root(&self, head: &Head) -> Answer<()> {
        let archive = archive::of_folder(NAME, head)?;
        Ok(self.write_whole(Cursor::new(archive)).await?)
    }

    /// Deletes everything in the volume.
    pub(crate) async fn empty(&self) -> Answer<()> {
        let place = |what: &str| Place::of(&["containers", self.id(), what]);
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
}
