//! What the API says of settings.

use crate::ApiError;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Every setting, in force now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The file that a person may edit.
    pub file: PathBuf,
    /// All keys, set or not, in the order of the file's template.
    pub values: Vec<Setting>,
    /// What is wrong with the file; then the values are the last good ones, or the defaults.
    #[serde(default)]
    pub problem: Option<ApiError>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Its key, such as `machine.cpus`.
    pub key: String,
    /// The value in force.
    pub value: serde_json::Value,
    /// The value when nothing is set.
    pub default: serde_json::Value,
    /// Whether the file sets it.
    pub set: bool,
    /// What it is for, in a sentence.
    pub description: String,
    /// What it accepts, in words.
    pub accepts: String,
    /// The values that there are, where these are few and have names; none where it takes others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Applied {
    /// Running machines that only heed the change after a restart.
    pub restart_needed: Vec<String>,
}

/// Several settings to be changed together: all of them, or none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SettingsChange {
    /// The new value of each key; nothing puts it back to its default. Text is read as for one setting.
    pub values: BTreeMap<String, Option<serde_json::Value>>,
    /// Whether the file is written. Otherwise the change is only checked, and what it would come to is told.
    #[serde(default)]
    pub apply: bool,
    /// The [mark](SettingsOutcome::mark) of the file that a person was shown the change of: if it is another by now, an
    /// [`ErrorCode::WrongState`](crate::ErrorCode::WrongState) says so, and nothing is written.
    #[serde(default)]
    pub instead_of: Option<String>,
}

/// What a change comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SettingsOutcome {
    /// The file's text without the change.
    pub before: String,
    /// What tells that text from every other: 64 hexadecimal digits, those of the settings file's `ETag`.
    #[serde(default)]
    pub mark: String,
    /// The file's text with it.
    pub after: String,
    /// Running machines that only heed the change after a restart.
    pub restart_needed: Vec<String>,
}
