//! What a long action tells while it goes on: a pull, a build, a backup.

use crate::BuildStep;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// One thing that a task tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum TaskStep {
    /// Where the whole of it stands.
    Whole {
        /// What is being done, in words; empty where the title says it all.
        message: String,
        /// From 0 to 1; absent where nobody knows.
        fraction: Option<f32>,
    },
    /// Where a part of it stands: a layer, a stage, a service. Replaces what was told of the same part before.
    Part {
        /// Which part, of this task.
        id: String,
        /// Its name for a person.
        label: String,
        /// What happens to it.
        note: String,
        /// From 0 to 1; absent where nobody knows.
        fraction: Option<f32>,
    },
    /// Where a step of a build stands. Replaces what was told of the same step before.
    Build {
        /// The step.
        step: BuildStep,
    },
    /// A line of what it writes.
    Line {
        /// Without the line's end; may hold ANSI colours.
        text: String,
    },
}

impl TaskStep {
    /// A line, or several of them.
    pub fn lines(text: &str) -> impl Iterator<Item = Self> {
        text.lines().map(|line| Self::Line {
            text: line.to_owned(),
        })
    }

    /// The share that `come` is of `all`.
    pub fn fraction(come: u64, all: u64) -> f32 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "bytes, as a share that a person looks at"
        )]
        let share = come.min(all) as f32 / all.max(1) as f32;
        share
    }
}
