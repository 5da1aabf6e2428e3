//! Images, volumes and networks as their lists show them.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// One line of the list of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ImageRow {
    /// Its digest, `sha256:…`.
    pub id: String,
    /// Its names with tags; empty for one that nothing names any more.
    pub tags: Vec<String>,
    /// Bytes of all its layers.
    #[ts(type = "number")]
    pub size: u64,
    /// When it was made.
    #[ts(type = "number")]
    pub created_ms: i64,
    /// How many containers were made from it.
    pub containers: u32,
}

/// One line of the list of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRow {
    /// Its name.
    pub name: String,
    /// What keeps it; nearly always `local`.
    pub driver: String,
    /// Bytes; absent until the engine has counted them.
    #[ts(type = "number | null")]
    pub size: Option<u64>,
    /// Names of the containers that mount it.
    pub users: Vec<String>,
    /// When it was made.
    #[ts(type = "number")]
    pub created_ms: i64,
}

/// One line of the list of networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRow {
    /// Its full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `host`, `none`, `macvlan` …
    pub driver: String,
    /// Its address ranges.
    pub subnets: Vec<String>,
    /// Names of the containers that are connected.
    pub containers: Vec<String>,
    /// Whether the engine made it, so that it cannot be removed.
    pub builtin: bool,
}
