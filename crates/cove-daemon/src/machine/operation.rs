//! Something that goes on for a while (a start, a stop, a restart), told to everybody who asked for it.

use cove_api::{ApiError, MachineStatus, Progress};
use tokio::sync::broadcast;

/// Steps that a slow listener may be behind. An operation has a few dozen.
const BACKLOG: usize = 256;

/// The telling side; owned by whoever carries the operation out.
#[derive(Debug)]
pub(super) struct Operation {
    progress: broadcast::Sender<Progress>,
    last: Option<Progress>,
}

/// The listening side: what was said last, then everything up to the outcome.
#[derive(Debug)]
pub(crate) struct Listening {
    first: Option<Progress>,
    rest: broadcast::Receiver<Progress>,
    over: bool,
}

impl Operation {
    pub(super) fn new() -> Self {
        Self {
            progress: broadcast::Sender::new(BACKLOG),
            last: None,
        }
    }

    /// Another one who wants to know.
    pub(super) fn listen(&self) -> Listening {
        Listening {
            first: self.last.clone(),
            rest: self.progress.subscribe(),
            over: false,
        }
    }

    pub(super) fn stage(&mut self, message: impl Into<String>, fraction: f32) {
        let stage = Progress::Stage {
            message: message.into(),
            fraction,
        };
        self.last = Some(stage.clone());
        self.tell(stage);
    }

    pub(super) fn notice(&self, message: impl Into<String>) {
        self.tell(Progress::Notice {
            message: message.into(),
        });
    }

    pub(super) fn done(self, status: MachineStatus) {
        self.tell(Progress::Done {
            status: Box::new(status),
        });
    }

    pub(super) fn failed(self, error: ApiError) {
        self.tell(Progress::Failed { error });
    }

    fn tell(&self, progress: Progress) {
        // An operation goes on although nobody listens any more.
        let _ = self.progress.send(progress);
    }
}

impl Listening {
    /// The next step; nothing after the outcome, or when the daemon ends first.
    pub(crate) async fn next(&mut self) -> Option<Progress> {
        if self.over {
            return None;
        }
        let progress = match self.first.take() {
            Some(progress) => progress,
            None => loop {
                match self.rest.recv().await {
                    Ok(progress) => break progress,
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            },
        };
        self.over = matches!(progress, Progress::Done { .. } | Progress::Failed { .. });
        Some(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_api::ErrorCode;

    #[tokio::test]
    async fn one_who_comes_late_hears_the_present_stage_and_the_outcome() {
        let mut operation = Operation::new();
        operation.stage("first", 0.1);
        operation.stage("second", 0.2);
        let mut late = operation.listen();
        operation.failed(ApiError::new(ErrorCode::Internal, "x", ""));
        assert!(matches!(late.next().await, Some(Progress::Stage { message, .. }) if message == "second"));
        assert!(matches!(late.next().await, Some(Progress::Failed { .. })));
        assert_eq!(late.next().await, None);
    }

    #[tokio::test]
    async fn an_operation_that_is_dropped_ends_its_listeners() {
        let operation = Operation::new();
        let mut listening = operation.listen();
        drop(operation);
        assert_eq!(listening.next().await, None);
    }
}
