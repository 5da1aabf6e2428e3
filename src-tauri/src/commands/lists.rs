//! Images, volumes and networks, each with who uses it.

use crate::{cove::Cove, failure::Answer};
use cove_engine::{Engine, EngineError, Place};
use cove_view::{ImageRow, NetworkRow, VolumeRow, is_helper};
use serde_json::Value;
use std::sync::Arc;
use tauri::State;

/// All images but those that only are layers of others.
#[tauri::command]
pub(crate) async fn images(cove: State<'_, Arc<Cove>>) -> Answer<Vec<ImageRow>> {
    let (images, containers) = with_containers(&cove.engine(), &["images", "json"]).await?;
    Ok(rows(&images, &containers, ImageRow::read))
}

/// All volumes.
#[tauri::command]
pub(crate) async fn volumes(cove: State<'_, Arc<Cove>>) -> Answer<Vec<VolumeRow>> {
    let (volumes, containers) = with_containers(&cove.engine(), &["volumes"]).await?;
    Ok(rows(&volumes["Volumes"], &containers, VolumeRow::read))
}

/// All networks.
#[tauri::command]
pub(crate) async fn networks(cove: State<'_, Arc<Cove>>) -> Answer<Vec<NetworkRow>> {
    let (networks, containers) = with_containers(&cove.engine(), &["networks"]).await?;
    Ok(rows(&networks, &containers, NetworkRow::read))
}

async fn with_containers(engine: &Engine, list: &[&str]) -> Result<(Value, Vec<Value>), EngineError> {
    let all = Place::of(&["containers", "json"]).with("all", "true");
    let list = Place::of(list);
    let (list, containers) = tokio::try_join!(engine.get(&list), engine.get(&all))?;
    let containers = match containers {
        Value::Array(mut containers) => {
            containers.retain(|container| !is_helper(container));
            containers
        }
        _ => Vec::new(),
    };
    Ok((list, containers))
}

fn rows<T>(list: &Value, containers: &[Value], read: fn(&Value, &[Value]) -> Option<T>) -> Vec<T> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|one| read(one, containers)).collect()
}
