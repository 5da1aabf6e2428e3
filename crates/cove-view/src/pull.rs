//! How far a pull is, from the engine's lines of progress.

use serde_json::Value;
use std::collections::HashMap;

/// Layers that are followed at most; no image has so many.
const MOST: usize = 512;

/// The layers of an image on their way.
#[derive(Debug, Default)]
pub struct PullProgress {
    /// Bytes that have come and bytes in all, by layer.
    layers: HashMap<String, (u64, u64)>,
}

impl PullProgress {
    /// Takes one line and says how far the whole is, from 0 to 1, where the line changes that. The sizes of layers become
    /// known one after the other, so that the share may fall.
    pub fn take(&mut self, line: &Value) -> Option<f32> {
        let id = line["id"].as_str()?;
        let count = |key: &str| line["progressDetail"][key].as_u64();
        match line["status"].as_str()? {
            "Downloading" => {
                let (current, total) = (count("current")?, count("total")?);
                if self.layers.len() >= MOST && !self.layers.contains_key(id) {
                    return None;
                }
                self.layers.insert(id.to_owned(), (current.min(total), total));
            }
            "Download complete" | "Pull complete" => {
                let (current, total) = self.layers.get_mut(id)?;
                *current = *total;
            }
            _ => return None,
        }
        let sum = |each: fn(&(u64, u64)) -> u64| self.layers.values().map(each).fold(0, u64::saturating_add);
        #[expect(
            clippy::cast_precision_loss,
            reason = "bytes of an image, as a share that a person looks at"
        )]
        let share = |come: u64, all: u64| come as f32 / all.max(1) as f32;
        Some(share(sum(|layer| layer.0), sum(|layer| layer.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn layers_count_by_their_bytes() {
        let mut pull = PullProgress::default();
        assert_eq!(
            pull.take(&json!({"status": "Pulling from library/nginx", "id": "alpine"})),
            None
        );
        let part = |id: &str, current: u64| json!({"status": "Downloading", "id": id, "progressDetail": {"current": current, "total": 100}});
        assert_eq!(pull.take(&part("a", 100)), Some(1.0));
        assert_eq!(pull.take(&part("b", 0)), Some(0.5));
        assert_eq!(
            pull.take(&json!({"status": "Pull complete", "id": "b"})),
            Some(1.0)
        );
        assert_eq!(
            pull.take(&json!({"status": "Pull complete", "id": "unheard of"})),
            None
        );
    }
}
