//! The machine: watched, started, stopped, examined.

use crate::{cove::Cove, failure::Answer, stream::Streams};
use cove_api::{Progress, diagnostics};
use cove_view::{CheckView, MachineNews, MachineUsage, Reclaimed, Step};
use std::sync::Arc;
use tauri::{State, ipc::Channel};

/// Tells what the machine does, at once and whenever it changes.
#[tauri::command]
pub(crate) fn watch_machine(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    seen: Channel<MachineNews>,
) -> u32 {
    let mut news = cove.news.subscribe();
    news.mark_changed();
    streams.start(0, |_| async move {
        while news.changed().await.is_ok() {
            let now = news.borrow_and_update().clone();
            if now.is_some_and(|now| seen.send(now).is_err()) {
                return;
            }
        }
    })
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
    use serde_json::{Value, json};
    use std::sync::Mutex;
    use tauri::ipc::InvokeResponseBody;

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
