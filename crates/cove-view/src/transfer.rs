//! How far an image is on its way, from the engine's lines of progress: a pull, a push, a load.

use crate::TaskStep;
use serde_json::Value;
use std::collections::HashMap;

/// Layers that are followed at most; no image has so many.
const MAX_LAYERS: usize = 512;
/// Longest word of the engine that is shown, in characters.
const LONGEST: usize = 200;

/// The layers of an image on their way.
///
/// ```text
///  pull   Pulling fs layer ─▶ Downloading ─▶ Download complete ─▶ Extracting ─▶ Pull complete
///  push   Preparing ─▶ Waiting ─▶ Pushing ─▶ Pushed
///  load   Loading layer
/// ```
#[derive(Debug, Default)]
pub struct Transfer {
    layers: HashMap<String, Layer>,
}

/// Each half of a layer's way counts as many bytes as it has: a pull is not done when everything has come, since
/// extracting it takes as long.
#[derive(Debug, Default)]
struct Layer {
    bytes: u64,
    carried: u64,
    extracted: u64,
    /// Pushes and loads extract nothing.
    extracts: bool,
}

impl Transfer {
    /// Takes one line, and says what it tells: of a layer, of the whole, or a line of text.
    pub fn take(&mut self, line: &Value) -> Vec<TaskStep> {
        if let Some(text) = line["stream"].as_str() {
            return TaskStep::lines(text.trim_end()).collect();
        }
        let Some(status) = line["status"].as_str() else {
            return Vec::new();
        };
        let status: String = status.chars().take(LONGEST).collect();
        let id = match line["id"].as_str() {
            // That line names the tag where others name a layer.
            Some(id) if !status.starts_with("Pulling from") => id,
            _ => return vec![TaskStep::Line { text: status }],
        };
        let count = |key: &str| line["progressDetail"][key].as_u64();
        let fraction = match (count("current"), count("total")) {
            (Some(current), Some(total)) if total > 0 => Some(TaskStep::fraction(current, total)),
            _ => arrived(&status).then_some(1.0),
        };
        let id: String = id.chars().take(LONGEST).collect();
        if self.layers.len() >= MAX_LAYERS && !self.layers.contains_key(&id) {
            return Vec::new();
        }
        let layer = self.layers.entry(id.clone()).or_default();
        layer.take(&status, count("current"), count("total"));
        vec![
            TaskStep::Part {
                label: id.clone(),
                id,
                note: status,
                fraction,
            },
            TaskStep::Whole {
                message: String::new(),
                fraction: self.fraction(),
            },
        ]
    }

    /// How far the whole is, as far as its layers' sizes are known. These become known one after the other, so that
    /// the share may fall.
    fn fraction(&self) -> Option<f32> {
        let sum = |each: fn(&Layer) -> u64| self.layers.values().map(each).fold(0, u64::saturating_add);
        let all = sum(|layer| layer.bytes.saturating_mul(1 + u64::from(layer.extracts)));
        let come = sum(|layer| layer.carried.saturating_add(layer.extracted));
        (all > 0).then(|| TaskStep::fraction(come, all))
    }
}

impl Layer {
    fn take(&mut self, status: &str, current: Option<u64>, total: Option<u64>) {
        let (current, total) = (current.unwrap_or(0), total.unwrap_or(0));
        match status {
            "Downloading" | "Pushing" | "Loading layer" => {
                self.bytes = self.bytes.max(total);
                self.extracts = status == "Downloading";
                self.carried = current.min(self.bytes);
            }
            "Extracting" => {
                // The two halves are measured alike, whatever the layer grows to.
                self.carried = self.bytes;
                self.extracted = if total == 0 { 0 } else { current.min(self.bytes) };
            }
            "Download complete" | "Verifying Checksum" => self.carried = self.bytes,
            "Pull complete" | "Pushed" => {
                self.carried = self.bytes;
                self.extracted = if self.extracts { self.bytes } else { 0 };
            }
            _ => {}
        }
    }
}

/// Whether a layer that is in this state needs nothing more.
fn arrived(status: &str) -> bool {
    matches!(
        status,
        "Pull complete" | "Already exists" | "Pushed" | "Layer already exists"
    ) || status.starts_with("Mounted from")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn whole(steps: &[TaskStep]) -> Option<f32> {
        steps.iter().find_map(|step| match step {
            TaskStep::Whole { fraction, .. } => *fraction,
            _ => None,
        })
    }

    fn part(status: &str, id: &str, current: u64) -> Value {
        json!({"status": status, "id": id, "progressDetail": {"current": current, "total": 100}})
    }

    #[test]
    fn a_pull_is_half_done_when_everything_has_come_and_done_when_it_is_extracted() {
        let mut pull = Transfer::default();
        let head = pull.take(&json!({"status": "Pulling from library/nginx", "id": "alpine"}));
        assert!(matches!(&head[..], [TaskStep::Line { text }] if text == "Pulling from library/nginx"));
        assert_eq!(whole(&pull.take(&part("Downloading", "a", 100))), Some(0.5));
        assert_eq!(whole(&pull.take(&part("Downloading", "b", 0))), Some(0.25));
        assert_eq!(
            whole(&pull.take(&json!({"status": "Pull complete", "id": "b"}))),
            Some(0.75)
        );
        assert_eq!(whole(&pull.take(&part("Extracting", "a", 50))), Some(0.875));
        assert_eq!(
            whole(&pull.take(&json!({"status": "Pull complete", "id": "a"}))),
            Some(1.0)
        );
    }

    #[test]
    fn a_layer_that_is_there_already_counts_nothing_and_shows_as_done() {
        let mut pull = Transfer::default();
        let steps = pull.take(&json!({"status": "Already exists", "id": "a"}));
        assert!(
            matches!(&steps[0], TaskStep::Part { id, fraction: Some(done), .. } if id == "a" && *done >= 1.0)
        );
        assert_eq!(whole(&steps), None);
    }

    #[test]
    fn a_push_and_a_load_extract_nothing() {
        for status in ["Pushing", "Loading layer"] {
            let mut transfer = Transfer::default();
            assert_eq!(
                whole(&transfer.take(&part(status, "a", 100))),
                Some(1.0),
                "{status}"
            );
        }
    }

    #[test]
    fn what_the_engine_writes_is_told_line_by_line() {
        let mut load = Transfer::default();
        let steps = load.take(&json!({"stream": "Loaded image: a:1\nLoaded image: b:1\n"}));
        assert_eq!(steps.len(), 2);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic_and_stay_between_nothing_and_all(
            lines in proptest::collection::vec((0..5_usize, "[a-c]", any::<u64>(), any::<u64>()), 0..40),
        ) {
            let mut transfer = Transfer::default();
            for (status, id, current, total) in lines {
                let status = ["Downloading", "Extracting", "Pushing", "Pull complete", "Waiting"][status];
                let line = json!({"status": status, "id": id, "progressDetail": {"current": current, "total": total}});
                if let Some(fraction) = whole(&transfer.take(&line)) {
                    prop_assert!((0.0..=1.0).contains(&fraction), "{fraction}");
                }
            }
        }
    }
}
