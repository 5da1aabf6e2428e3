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
    progress.finish(|progress| tell(&steps, progress)).await?;
    Ok(())
}

/// Stops the machine in order. The stop goes on when the page goes.
#[tauri::command]
pub(crate) async fn stop_machine(cove: State<'_, Arc<Cove>>, steps: Channel<Step>) -> Answer<()> {
    let progress = cove.client().stop(&cove.machine()).await?;
    progress.finish(|progress| tell(&steps, progress)).await?;
    Ok(())
}

fn tell(steps: &Channel<Step>, progress: &Progress) {
    if let Progress::Stage { message, fraction } = progress {
        // A page that went away needs no steps.
        let _ = steps.send(Step {
            message: message.clone(),
            fraction: Some(*fraction),
        });
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
