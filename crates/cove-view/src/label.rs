//! Labels, which images, volumes and networks have alike.

use crate::Label;
use serde_json::Value;

/// Labels that are shown at most.
const MAX_LABELS: usize = 512;

/// Reads the engine's object of labels, by name.
pub(crate) fn read(labels: &Value) -> Vec<Label> {
    let all = labels.as_object().into_iter().flatten();
    let mut labels: Vec<_> = all
        .take(MAX_LABELS)
        .map(|(name, value)| Label {
            name: name.clone(),
            value: value.as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    labels.sort_by(|one, other| one.name.cmp(&other.name));
    labels
}
