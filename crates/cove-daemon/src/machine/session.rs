//! What is known of a machine that runs, and what the jobs that bring one up tell their owner.

use super::{
    agent::{AgentLink, Happening},
    disk::Record,
    failure::Failure,
    owner::Errand,
    shares::FailedShare,
};
use crate::{names::Names, ports::Ports, settings::Share};
use cove_machine::Machine;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What is known of a machine that runs.
pub(super) struct Session {
    pub(super) machine: Arc<dyn Machine>,
    pub(super) link: AgentLink,
    pub(super) happenings: mpsc::Receiver<Happening>,
    pub(super) record: Record,
    /// What its containers publish on this computer.
    pub(super) ports: Ports,
    /// Answers its questions for names.
    #[expect(dead_code, reason = "held so that it lives as long as the session")]
    pub(super) names: Names,
    /// Whether the agent has ever answered, or has answered an earlier daemon: only then can the guest be asked to
    /// stop.
    pub(super) greeted: bool,
    /// The folders that were last asked for, as far as it is known what came of it; and those that the guest has.
    pub(super) wanted: Option<Vec<Share>>,
    pub(super) shares: Vec<Share>,
    /// What went wrong with others.
    pub(super) failed_shares: Vec<FailedShare>,
    /// The certificates that the guest was last given, as far as that is known.
    pub(super) trusted: Option<Vec<String>>,
    /// Why its engine does not trust them.
    pub(super) failed_trust: Option<String>,
    /// What is being brought to it.
    pub(super) errand: Option<Errand>,
}

/// What a job tells its owner meanwhile.
pub(super) enum Update {
    /// A step began.
    Stage { message: String, fraction: f32 },
    /// Something that a person should know.
    Notice { topic: Topic, message: String },
    /// The machine that the job is about.
    Machine {
        machine: Arc<dyn Machine>,
        record: Box<Record>,
    },
    /// That machine has ended, and another takes its place.
    Crashed,
    /// The stages so far.
    Timings(Vec<cove_api::Stage>),
}

/// What a notice is about; a later one on the same topic takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Settings,
    Backend,
    SecondTry,
    Space,
    Paused,
    Agent,
    Engine,
    Guest,
    Shares,
    Trust,
    Starter,
    Context,
    Past,
}

/// How a job ended.
pub(super) enum Outcome {
    /// The engine answers.
    Up(Box<Session>),
    /// It did not come to that.
    Down(Setback),
    /// There was nothing to adopt.
    Nothing {
        /// What became of the machine that was there, if that is worth telling.
        past: Option<String>,
    },
}

/// Why it did not come to that, and what is left.
pub(super) struct Setback {
    pub(super) failure: Failure,
    /// Last lines of the console, where they help.
    pub(super) console_tail: Vec<String>,
    /// The machine, where it still runs.
    pub(super) session: Option<Box<Session>>,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            console_tail: Vec::new(),
            session: None,
        }
    }
}
