//! Long actions of the page: told of while they go on, cancelled by their number.
//!
//! ```text
//!   a command with a number of the page's own
//!  ──────────────────────────────────────────▶ running ──▶ done or failed: what the command answers
//!                                                 │
//!                        cancel_task, another page└──▶ dropped, and with it the request, which the engine then ends
//! ```
//!
//! The work itself is the command's future; [`Tasks`] owns only the way to end it. What it tells is gathered and sent
//! a few times a second, so that a build that writes without pause does not fill the page.

use crate::failure::{Answer, Refusal};
use cove_view::TaskStep;
use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tauri::ipc::Channel;
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

/// How often the page is told.
const EVERY: Duration = Duration::from_millis(80);
/// Lines that are sent at once; of more, the last. No one reads more than twelve thousand lines a second.
const LINES: usize = 1000;
/// Parts that are told at once.
const PARTS: usize = 1024;

/// The tasks that are under way, by the page's numbers.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<HashMap<u32, oneshot::Sender<()>>>);

/// Where a task's work tells what it does. Telling never waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report(Arc<Mutex<Untold>>);

#[derive(Debug, Default)]
struct Untold {
    whole: Option<TaskStep>,
    /// The last word on each part, in the order in which they came.
    parts: Vec<(String, TaskStep)>,
    /// The last word on each step of a build.
    builds: Vec<TaskStep>,
    lines: VecDeque<TaskStep>,
    skipped: usize,
}

impl Tasks {
    /// Does `work` until it is done or the page cancels it. The first message says that it can be cancelled now.
    pub(crate) async fn run<T, F>(
        &self,
        number: u32,
        steps: Channel<Vec<TaskStep>>,
        work: impl FnOnce(Report) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Answer<T>>,
    {
        self.tell(number, |told| steps.send(told).is_ok(), work).await
    }

    async fn tell<T, F>(
        &self,
        number: u32,
        send: impl Fn(Vec<TaskStep>) -> bool,
        work: impl FnOnce(Report) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Answer<T>>,
    {
        let (cancel, mut cancelled) = oneshot::channel();
        {
            let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if under_way.contains_key(&number) {
                return Err(Refusal::new(
                    format!("there is a task {number} already"),
                    "This is a mistake of the window's; open it again.",
                ));
            }
            under_way.insert(number, cancel);
        }
        let report = Report::default();
        // A page that went away needs no steps; the work is ended by `clear`, not by this.
        send(Vec::new());
        let answer = {
            let mut work = pin!(work(report.clone()));
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    _ = &mut cancelled => break Err(Refusal::new("cancelled", "")),
                    answer = &mut work => break answer,
                    _ = ticks.tick() => {
                        let told = report.take();
                        if !told.is_empty() {
                            send(told);
                        }
                    }
                }
            }
        };
        self.cancel(number);
        send(report.take());
        answer
    }

    /// Ends a task; one that has ended is no mistake.
    pub(crate) fn cancel(&self, number: u32) {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping the sender is what its task waits for.
        under_way.remove(&number);
    }

    /// Ends all of them: another page was loaded, which knows none.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Report {
    /// Tells one thing.
    pub(crate) fn tell(&self, step: TaskStep) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &step {
            TaskStep::Whole { .. } => untold.whole = Some(step),
            TaskStep::Part { id, .. } => {
                if let Some((_, before)) = untold.parts.iter_mut().find(|(known, _)| known == id) {
                    *before = step;
                } else if untold.parts.len() < PARTS {
                    let id = id.clone();
                    untold.parts.push((id, step));
                }
            }
            TaskStep::Build { step: told } => {
                let number = told.number;
                let is_it = |known: &&mut TaskStep| matches!(known, TaskStep::Build { step } if step.number == number);
                if let Some(before) = untold.builds.iter_mut().find(is_it) {
                    *before = step;
                } else {
                    // A build has no more of them than its reader lets it have.
                    untold.builds.push(step);
                }
            }
            TaskStep::Line { .. } => {
                if untold.lines.len() == LINES {
                    untold.lines.pop_front();
                    untold.skipped += 1;
                }
                untold.lines.push_back(step);
            }
        }
    }

    /// Tells several things.
    pub(crate) fn tell_all(&self, steps: impl IntoIterator<Item = TaskStep>) {
        for step in steps {
            self.tell(step);
        }
    }

    pub(crate) fn take(&self) -> Vec<TaskStep> {
        let untold = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let skipped = (untold.skipped > 0).then(|| TaskStep::Line {
            text: format!("… {} lines …", untold.skipped),
        });
        let parts = untold.parts.into_iter().map(|(_, part)| part);
        parts
            .chain(untold.builds)
            .chain(skipped)
            .chain(untold.lines)
            .chain(untold.whole)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn line(text: &impl ToString) -> TaskStep {
        TaskStep::Line {
            text: text.to_string(),
        }
    }

    #[tokio::test]
    async fn a_cancelled_task_drops_its_work_and_keeps_what_it_told() {
        struct Request(mpsc::UnboundedSender<()>);
        impl Drop for Request {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let tasks = Tasks::default();
        let (request, mut dropped) = mpsc::unbounded_channel();
        let (sent, mut seen) = mpsc::unbounded_channel();
        let task = tasks.tell(
            7,
            |told| sent.send(told).is_ok(),
            |report| async move {
                let _request = Request(request);
                report.tell(line(&"one"));
                std::future::pending::<Answer<()>>().await
            },
        );
        let page = async {
            assert_eq!(seen.recv().await, Some(Vec::new()));
            assert_eq!(seen.recv().await, Some(vec![line(&"one")]));
            tasks.cancel(7);
        };
        let (answer, ()) = tokio::join!(task, page);
        assert_eq!(
            answer.map_err(|refusal| refusal.0.message),
            Err("cancelled".into())
        );
        assert_eq!(dropped.recv().await, Some(()));
        assert!(tasks.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_number_is_one_tasks_at_a_time() {
        let tasks = Tasks::default();
        let first = tasks.tell(
            1,
            |_| true,
            |_| async {
                let second = tasks.tell(1, |_| true, |_| async { Ok(2) }).await;
                Ok(second.is_err())
            },
        );
        assert!(first.await.unwrap_or(false));
        assert_eq!(tasks.tell(1, |_| true, |_| async { Ok(3) }).await.ok(), Some(3));
    }

    #[test]
    fn what_is_told_faster_than_it_is_sent_is_the_last_word_on_each_part_and_the_last_lines() {
        let report = Report::default();
        for count in 0..LINES + 5 {
            report.tell(line(&count));
        }
        for fraction in [0.1, 0.9] {
            report.tell(TaskStep::Part {
                id: "a".into(),
                label: "a".into(),
                note: String::new(),
                fraction: Some(fraction),
            });
        }
        let told = report.take();
        assert!(matches!(&told[0], TaskStep::Part { fraction: Some(last), .. } if *last > 0.8));
        assert_eq!(told[1], line(&"… 5 lines …"));
        assert_eq!(told.len(), 2 + LINES);
        assert!(report.take().is_empty());
    }
}
