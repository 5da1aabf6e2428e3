//! The machine: watched, started, stopped, examined.

use crate::{cove::Cove, failure::Answer, stream::Streams};
use cove_api::{Progress, diagnostics};
use cove_view::{CheckView, MachineNews, MachinePhase, MachineUsage, Reclaimed, Step};
use std::sync::{Arc, atomic::Ordering};
use tauri::{State, ipc::Channel};

/// Tells what the machine does, at once and whenever it changes.
#[tauri::command]
pub(crate) fn watch_machine(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    seen: Channel<MachineNews>,
) -> u32 {
    let cove = Arc::clone(&cove);
    let mut news = cove.news.subscribe();
    news.mark_changed();
    streams.start(0, |_| async move {
        let mut before = None;
        while news.changed().await.is_ok() {
            let Some(now) = news.borrow_and_update().clone() else {
                continue;
            };
            if seen.send(now.clone()).is_err() {
                return;
            }
            if begins(before.as_ref(), &now) {
                cove.tasks.fetch_add(1, Ordering::Relaxed);
            }
            before = Some(now);
        }
    })
}

/// Whether the page makes a task of what it hears, by the rule of `ui/src/lib/state/machine.svelte.ts`: that a machine of
/// which it has heard before has come to start or to stop.
fn begins(before: Option<&MachineNews>, now: &MachineNews) -> bool {
    match (before, now) {
        (Some(MachineNews::Seen { machine: before }), MachineNews::Seen { machine: now }) => {
            matches!(now.phase, MachinePhase::Starting | MachinePhase::Stopping)
                && now.phase != before.phase
                && now.name == before.name
        }
        _ => false,
    }
}

/// Starts the machine, and the daemon where that is missing too. The start goes on when the page goes.
#[tauri::command]
pub(crate) async fn start_machine(cove: State<'_, Arc<Cove>>, steps: Channel<Step>) -> Answer<()> {
    let client = cove.daemon().await?;
    let progress = client.start(&cove.machine()).await?;
    progress.finish(teller(steps)).await?;
    Ok(())
}

/// Stops the machine in order. The stop goes on when the page goes.
#[tauri::command]
pub(crate) async fn stop_machine(cove: State<'_, Arc<Cove>>, steps: Channel<Step>) -> Answer<()> {
    let progress = cove.client().stop(&cove.machine()).await?;
    progress.finish(teller(steps)).await?;
    Ok(())
}

/// Stops the machine and starts it again, which is one thing to the daemon: both go on when the page goes.
#[tauri::command]
pub(crate) async fn restart_machine(cove: State<'_, Arc<Cove>>, steps: Channel<Step>) -> Answer<()> {
    let progress = cove.client().restart(&cove.machine()).await?;
    progress.finish(teller(steps)).await?;
    Ok(())
}

/// Tells the page each stage, and what is to be known besides, which leaves it as far as it was.
fn teller(steps: Channel<Step>) -> impl FnMut(&Progress) {
    let mut reached = None;
    move |progress| {
        let message = match progress {
            Progress::Stage { message, fraction } => {
                reached = Some(*fraction);
                message.clone()
            }
            Progress::Notice { message } => message.clone(),
            Progress::Done { .. } | Progress::Failed { .. } => return,
        };
        let fraction = reached;
        // A page that went away needs no steps.
        let _ = steps.send(Step { message, fraction });
    }
}

/// What the machine uses of its disk and memory, while it runs.
#[tauri::command]
pub(crate) async fn machine_usage(cove: State<'_, Arc<Cove>>) -> Answer<MachineUsage> {
    Ok(cove.client().usage(&cove.machine()).await?.into())
}

/// Has the machine give this computer back what it does not use of its disk. That goes on when the page goes.
#[tauri::command]
pub(crate) async fn reclaim_disk(cove: State<'_, Arc<Cove>>) -> Answer<Reclaimed> {
    Ok(cove.client().reclaim(&cove.machine()).await?.into())
}

/// Everything that the doctor looks at.
#[tauri::command]
pub(crate) async fn checks(cove: State<'_, Arc<Cove>>) -> Answer<Vec<CheckView>> {
    let checks = cove.daemon().await?.doctor().await?;
    Ok(checks.into_iter().map(CheckView::from).collect())
}

/// All that helps to find out what is wrong, as text with secrets masked. The daemon is started for it, if that works.
#[tauri::command]
pub(crate) async fn diagnostics(cove: State<'_, Arc<Cove>>) -> Answer<String> {
    let daemon = cove.daemon().await;
    let daemon = daemon.as_ref().map_err(|refusal| refusal.0.message.clone());
    Ok(diagnostics::gather(&cove.dirs, daemon).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cove::tests::running, failure::Refusal};
    use serde_json::{Value, json};
    use std::sync::Mutex;
    use tauri::ipc::InvokeResponseBody;

    #[test]
    fn a_page_makes_a_task_of_a_start_that_it_sees_begin_and_of_no_other() {
        let seen = |name: &str, phase| {
            let mut news = running(name);
            if let MachineNews::Seen { machine } = &mut news {
                machine.phase = phase;
            }
            news
        };
        let (stopped, starting) = (MachinePhase::Stopped, MachinePhase::Starting);
        let begun = seen("default", starting);
        let away = MachineNews::Away {
            failure: Refusal::new("it was stopped", "").0,
        };
        assert!(begins(Some(&seen("default", stopped)), &begun));
        assert!(begins(
            Some(&running("default")),
            &seen("default", MachinePhase::Stopping)
        ));
        for before in [None, Some(&begun), Some(&away), Some(&seen("build", stopped))] {
            assert!(!begins(before, &begun), "{before:?}");
        }
        // It was over before the page heard of it.
        let failed = seen("default", MachinePhase::Failed);
        assert!(!begins(Some(&seen("default", stopped)), &failed));
    }

    #[test]
    fn a_notice_is_told_and_leaves_a_start_as_far_as_it_was() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let page = Arc::clone(&told);
        let steps = Channel::new(move |body| {
            if let InvokeResponseBody::Json(step) = body {
                page.lock()
                    .unwrap()
                    .push(serde_json::from_str::<Value>(&step).unwrap());
            }
            Ok(())
        });
        let notice = |message: &str| Progress::Notice {
            message: message.to_owned(),
        };
        let mut tell = teller(steps);
        tell(&notice("waiting"));
        tell(&Progress::Stage {
            message: "Starting".to_owned(),
            fraction: 0.5,
        });
        tell(&notice("slow"));
        assert_eq!(
            *told.lock().unwrap(),
            [
                json!({"message": "waiting", "fraction": null}),
                json!({"message": "Starting", "fraction": 0.5}),
                json!({"message": "slow", "fraction": 0.5}),
            ]
        );
    }
}
