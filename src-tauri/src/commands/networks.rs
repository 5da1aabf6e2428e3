//! Networks: made, joined, left, removed.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
};
use cove_engine::Place;
use cove_view::{NetworkDetails, NewNetwork, Pruned};
use serde_json::json;
use std::sync::Arc;
use tauri::State;

/// Makes a network and returns its id.
#[tauri::command]
pub(crate) async fn create_network(cove: State<'_, Arc<Cove>>, network: NewNetwork) -> Answer<String> {
    let place = Place::of(&["networks", "create"]);
    let created = cove.engine().post(&place, Some(&network.to_engine())).await?;
    let id = created["Id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Refusal::new("the engine created a network and did not name it", ""))
}

/// What a network is, and who is connected to it.
#[tauri::command]
pub(crate) async fn network_details(cove: State<'_, Arc<Cove>>, id: String) -> Answer<NetworkDetails> {
    let engine = cove.engine();
    let (network, all) = (
        Place::of(&["networks", &id]),
        Place::of(&["containers", "json"]).with("all", "true"),
    );
    let (network, containers) = tokio::try_join!(engine.get(&network), engine.get(&all))?;
    let containers = containers.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut details = NetworkDetails::read(&network, containers)
        .ok_or_else(|| Refusal::new(format!("the engine says nothing of network {id}"), "Try again."))?;
    for member in &mut details.members {
        match engine.get(&Place::of(&["containers", &member.id, "json"])).await {
            Ok(container) => member.learn(&container, &details.name),
            // It was removed meanwhile, which the list tells next.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(details)
}

/// Connects a container to a network.
#[tauri::command]
pub(crate) async fn connect_network(cove: State<'_, Arc<Cove>>, id: String, container: String) -> Answer<()> {
    let place = Place::of(&["networks", &id, "connect"]);
    let body = json!({"Container": container});
    cove.engine().post(&place, Some(&body)).await?;
    Ok(())
}

/// Disconnects a container from a network.
#[tauri::command]
pub(crate) async fn disconnect_network(
    cove: State<'_, Arc<Cove>>,
    id: String,
    container: String,
) -> Answer<()> {
    let place = Place::of(&["networks", &id, "disconnect"]);
    let body = json!({"Container": container});
    cove.engine().post(&place, Some(&body)).await?;
    Ok(())
}

/// Removes a network.
#[tauri::command]
pub(crate) async fn remove_network(cove: State<'_, Arc<Cove>>, id: String) -> Answer<()> {
    cove.engine().delete(&Place::of(&["networks", &id])).await?;
    Ok(())
}

/// Removes all networks that no container is connected to.
#[tauri::command]
pub(crate) async fn prune_networks(cove: State<'_, Arc<Cove>>) -> Answer<Pruned> {
    let pruned = cove
        .engine()
        .post(&Place::of(&["networks", "prune"]), None)
        .await?;
    Ok(Pruned::read(&pruned))
}
