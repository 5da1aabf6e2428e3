//! What is told of a layer.

use serde::{Deserialize, Serialize};

/// One layer of confinement, as the process within reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name, such as `Landlock`.
    pub name: String,
    /// How far it holds.
    pub hold: Hold,
    /// What was seen, or why it does not hold; for a person.
    pub evidence: String,
}

/// How far a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// As far as it is meant to.
    Whole,
    /// It is in force, with less than it is meant to cover.
    Partial,
    /// It is not in force.
    Absent,
}

impl Layer {
    /// A layer that holds as far as it is meant to.
    pub fn whole(name: &str, evidence: impl Into<String>) -> Self {
        Self::new(name, Hold::Whole, evidence)
    }

    /// A layer that covers less than it is meant to.
    pub fn partial(name: &str, evidence: impl Into<String>) -> Self {
        Self::new(name, Hold::Partial, evidence)
    }

    /// A layer that is not in force.
    pub fn absent(name: &str, evidence: impl Into<String>) -> Self {
        Self::new(name, Hold::Absent, evidence)
    }

    fn new(name: &str, hold: Hold, evidence: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            hold,
            evidence: evidence.into(),
        }
    }
}
