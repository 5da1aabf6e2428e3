//! The stages of a start, those of the host and those of the guest, on one clock that began with the request.

use super::agent::MAX_STAGES;
use cove_api::Stage;
use std::time::Duration;
use tokio::time::Instant;

/// The stages so far.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    began: Instant,
    stages: Vec<Stage>,
}

impl Timeline {
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            stages: Vec::new(),
        }
    }

    /// A stage on the host that began then and ends now.
    pub(super) fn host(&mut self, name: &str, start: Instant) {
        let (start, end) = (self.micros(start), self.micros(Instant::now()));
        self.push(name, start, end);
    }

    /// A stage of the guest, whose clock began with its kernel.
    pub(super) fn guest(&mut self, stage: &cove_wire::Stage, kernel_started: Instant) {
        let zero = self.micros(kernel_started);
        let (start, end) = (
            zero.saturating_add(stage.start_us),
            zero.saturating_add(stage.end_us),
        );
        self.push(&stage.name, start, end);
    }

    /// The stages in the order in which they began.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let mut stages = self.stages.clone();
        stages.sort_by_key(|stage| (stage.start_us, stage.end_us));
        stages
    }

    fn push(&mut self, name: &str, start_us: u64, end_us: u64) {
        // A guest that restarted, or a conversation that did, tells its stages again.
        self.stages.retain(|stage| stage.name != name);
        if self.stages.len() < 2 * MAX_STAGES {
            self.stages.push(Stage {
                name: name.to_owned(),
                start_us,
                end_us,
            });
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        let since: Duration = at.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn guest_stages_are_placed_on_the_hosts_clock() {
        let mut timeline = Timeline::begin();
        tokio::time::advance(Duration::from_millis(100)).await;
        let kernel = Instant::now();
        tokio::time::advance(Duration::from_millis(50)).await;
        timeline.host("greet", kernel);
        let stage = |name: &str, start_us, end_us| cove_wire::Stage {
            name: name.into(),
            start_us,
            end_us,
        };
        timeline.guest(&stage("root", 10_000, 20_000), kernel);
        timeline.guest(&stage("root", 10_000, 30_000), kernel);
        timeline.guest(&stage("far", u64::MAX, u64::MAX), kernel);
        let found: Vec<_> = timeline
            .stages()
            .into_iter()
            .map(|s| (s.name, s.start_us, s.end_us))
            .collect();
        assert_eq!(
            found,
            [
                ("greet".into(), 100_000, 150_000),
                ("root".into(), 110_000, 130_000),
                ("far".into(), u64::MAX, u64::MAX)
            ]
        );
    }
}
