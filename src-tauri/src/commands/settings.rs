//! Settings, shared folders and trusted certificates: the daemon's, and checked there. And the window's own: whether it
//! opens with the session.

use crate::{
    autostart::Autostart,
    cove::Cove,
    failure::{Answer, Refusal},
    local,
};
use cove_api::{NewCertificates, NewShare, SettingsChange};
use cove_view::{SettingsDiff, SettingsView, ShareRow, TrustRow};
use serde_json::Value;
use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path, sync::Arc};
use tauri::{AppHandle, State};

/// The largest file of certificates that is read, in bytes. A system's whole store is a fifth of it.
const LARGEST: u64 = 1 << 20;

/// The setting that says which folders of this computer containers may mount: not for the page to write.
const SHARES: &str = "shares";

/// Whether this program is started when a person logs in; nothing where the desktop has no such thing.
#[tauri::command]
pub(crate) async fn autostart() -> Answer<Option<bool>> {
    let Some(autostart) = Autostart::of_environment() else {
        return Ok(None);
    };
    local::blocking(move || autostart.is_on()).await?.map(Some)
}

/// Has this program started when a person logs in, or not any more.
#[tauri::command]
pub(crate) async fn set_autostart(on: bool) -> Answer<()> {
    let autostart = Autostart::of_environment().ok_or_else(|| {
        Refusal::new(
            "this desktop has no list of programs that it starts",
            "Have it start cove-desktop in its own way.",
        )
    })?;
    local::blocking(move || autostart.set(on)).await?
}

/// All settings.
#[tauri::command]
pub(crate) async fn settings(cove: State<'_, Arc<Cove>>) -> Answer<SettingsView> {
    Ok(cove.daemon().await?.settings().await?.into())
}

/// Changes settings if the file is still the one that a person was shown the change of, or, where they were shown none
/// yet, only says what that would come to. Nothing puts a key back to its default.
#[tauri::command]
pub(crate) async fn change_settings(
    cove: State<'_, Arc<Cove>>,
    values: BTreeMap<String, Option<String>>,
    shown: Option<String>,
) -> Answer<SettingsDiff> {
    if values.contains_key(SHARES) {
        return Err(Refusal::new(
            "folders are shared one by one",
            "Choose each of them, or use: cove share add",
        ));
    }
    let values = values.into_iter();
    let change = SettingsChange {
        values: values
            .map(|(key, value)| (key, value.map(Value::String)))
            .collect(),
        apply: shown.is_some(),
        instead_of: shown,
    };
    Ok(cove.daemon().await?.change_settings(&change).await?.into())
}

/// The folders that containers may mount.
#[tauri::command]
pub(crate) async fn shares(cove: State<'_, Arc<Cove>>) -> Answer<Vec<ShareRow>> {
    let shares = cove.daemon().await?.shares().await?;
    let machine = cove.machine();
    let row = |share| ShareRow::read(share, &machine);
    Ok(shares.into_iter().map(row).collect())
}

/// Asks for a folder and shares it; whether one was chosen.
#[tauri::command]
pub(crate) async fn share_chosen(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    read_only: bool,
) -> Answer<bool> {
    let Some(path) = local::folder(&app).await? else {
        return Ok(false);
    };
    cove.daemon()
        .await?
        .add_share(&NewShare { path, read_only })
        .await?;
    Ok(true)
}

/// Ceases to share a folder, unless containers use it.
#[tauri::command]
pub(crate) async fn unshare(cove: State<'_, Arc<Cove>>, path: String) -> Answer<()> {
    Ok(cove.daemon().await?.remove_share(&path, false).await?)
}

/// Certificates that are trusted besides those of the image.
#[tauri::command]
pub(crate) async fn trusted(cove: State<'_, Arc<Cove>>) -> Answer<Vec<TrustRow>> {
    Ok(TrustRow::read_all(cove.daemon().await?.trusted().await?))
}

/// Asks for a file of certificates and trusts them; whether one was chosen.
#[tauri::command]
pub(crate) async fn trust_chosen(app: AppHandle, cove: State<'_, Arc<Cove>>) -> Answer<bool> {
    let Some(path) = local::existing(&app).await? else {
        return Ok(false);
    };
    let pem = local::blocking(move || read(&path)).await??;
    cove.daemon().await?.trust(&NewCertificates { pem }).await?;
    Ok(true)
}

/// Ceases to trust a certificate.
#[tauri::command]
pub(crate) async fn distrust(cove: State<'_, Arc<Cove>>, fingerprint: String) -> Answer<()> {
    cove.daemon().await?.distrust(&fingerprint).await?;
    Ok(())
}

fn read(path: &Path) -> Answer<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
        .map_err(|error| {
            Refusal::new(
                format!("cannot read {}: {error}", path.display()),
                "Choose a file of certificates in PEM, which is text.",
            )
        })?;
    Ok(text)
}
