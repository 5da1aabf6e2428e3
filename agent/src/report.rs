//! What the agent tells the host about itself: boot stages, the engine's state, warnings.
//!
//! [`Report`] owns this state. Everybody else writes through it, and what is written reaches the subscribers in the
//! order in which it was written, because both happen under one lock.

use crate::clock::uptime_us;
use cove_wire::{EngineState, Event, Fault, Stage};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// Stages kept. A boot has about fifteen; the rest is room for what later ones add.
const MAX_STAGES: usize = 128;

/// Events that a slow subscriber may fall behind by before it loses some.
const EVENTS_BEHIND: usize = 256;

/// The agent's state as the host may see it; clones share it.
#[derive(Clone)]
pub(crate) struct Report(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    engine: watch::Sender<EngineState>,
}

#[derive(Default)]
struct State {
    stages: Vec<Stage>,
    problem: Option<Fault>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_BEHIND),
            engine: watch::Sender::new(EngineState::Stopped),
        }))
    }

    /// Begins a stage, which ends when the returned value is dropped.
    #[must_use = "the stage ends when this is dropped"]
    pub(crate) fn stage(&self, name: &'static str) -> Running {
        self.stage_since(name, uptime_us())
    }

    /// Begins a stage that in truth began at `start_us`.
    #[must_use = "the stage ends when this is dropped"]
    pub(crate) fn stage_since(&self, name: &'static str, start_us: u64) -> Running {
        Running {
            report: self.clone(),
            name,
            start_us,
        }
    }

    /// Says `message` in the agent's log and to every subscriber.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        let message = message.into();
        tracing::warn!("{message}");
        let _state = self.state();
        self.publish(Event::Warning { message });
    }

    /// Records why the guest cannot run the engine. The first problem stays: later ones follow from it.
    pub(crate) fn set_problem(&self, fault: Fault) {
        self.warn(fault.message.clone());
        self.state().problem.get_or_insert(fault);
    }

    /// Why the guest cannot run the engine, if so.
    pub(crate) fn problem(&self) -> Option<Fault> {
        self.state().problem.clone()
    }

    /// Changes the engine's state; says nothing when it is what it was.
    pub(crate) fn set_engine(&self, engine: EngineState) {
        let _state = self.state();
        let changed = self.0.engine.send_if_modified(|now| {
            let changed = *now != engine;
            now.clone_from(&engine);
            changed
        });
        if changed {
            tracing::info!(state = name(&engine), "engine");
            self.publish(Event::Engine(engine));
        }
    }

    /// The engine's state, to look at and to wait for.
    pub(crate) fn engine(&self) -> watch::Receiver<EngineState> {
        self.0.engine.subscribe()
    }

    /// The stages that have ended.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.state().stages.clone()
    }

    /// What has happened so far, and a receiver of everything after that.
    pub(crate) fn subscribe(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let state = self.state();
        let mut past: Vec<Event> = state.stages.iter().cloned().map(Event::Stage).collect();
        past.extend(state.problem.iter().map(|fault| Event::Warning {
            message: fault.message.clone(),
        }));
        past.push(Event::Engine(self.0.engine.borrow().clone()));
        (past, self.0.events.subscribe())
    }

    fn end(&self, stage: Stage) {
        tracing::info!(
            stage = stage.name,
            start_us = stage.start_us,
            took_us = stage.end_us - stage.start_us,
            "stage"
        );
        let mut state = self.state();
        if state.stages.len() < MAX_STAGES {
            state.stages.push(stage.clone());
            self.publish(Event::Stage(stage));
        }
    }

    fn publish(&self, event: Event) {
        // An error only says that nobody has subscribed.
        let _ = self.0.events.send(event);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its name only: why it failed is in the log already.
fn name(engine: &EngineState) -> &'static str {
    match engine {
        EngineState::Stopped => "stopped",
        EngineState::Starting => "starting",
        EngineState::Ready => "ready",
        EngineState::Restarting { .. } => "restarting",
    }
}

/// A stage that has begun.
pub(crate) struct Running {
    report: Report,
    name: &'static str,
    start_us: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.report.end(Stage {
            name: self.name.to_owned(),
            start_us: self.start_us,
            end_us: uptime_us().max(self.start_us),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::FaultCode;

    fn names(events: &[Event]) -> Vec<&str> {
        fn name(event: &Event) -> &str {
            match event {
                Event::Stage(stage) => stage.name.as_str(),
                Event::Engine(_) => "engine",
                Event::Warning { .. } => "warning",
            }
        }
        events.iter().map(name).collect()
    }

    #[test]
    fn stages_are_kept_in_the_order_in_which_they_ended() {
        let report = Report::new();
        let outer = report.stage("outer");
        drop(report.stage("inner"));
        drop(outer);
        let stages = report.stages();
        assert_eq!(stages[0].name, "inner");
        assert_eq!(stages[1].name, "outer");
        assert!(stages[1].start_us <= stages[0].start_us && stages[0].end_us <= stages[1].end_us);
    }

    #[test]
    fn a_late_subscriber_gets_the_past_first_and_nothing_twice() {
        let report = Report::new();
        drop(report.stage("early"));
        let (past, mut events) = report.subscribe();
        assert_eq!(names(&past), ["early", "engine"]);
        report.set_engine(EngineState::Starting);
        report.set_engine(EngineState::Starting);
        assert_eq!(events.try_recv().unwrap(), Event::Engine(EngineState::Starting));
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn the_first_problem_stays_and_is_told_to_late_subscribers() {
        let report = Report::new();
        report.set_problem(Fault::new(FaultCode::Failed, "first"));
        report.set_problem(Fault::new(FaultCode::Failed, "second"));
        assert_eq!(report.problem().unwrap().message, "first");
        assert_eq!(names(&report.subscribe().0), ["warning", "engine"]);
    }

    #[test]
    fn the_number_of_stages_is_bounded() {
        let report = Report::new();
        for _ in 0..2 * MAX_STAGES {
            drop(report.stage("again"));
        }
        assert_eq!(report.stages().len(), MAX_STAGES);
    }
}
