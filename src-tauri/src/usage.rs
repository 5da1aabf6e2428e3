//! What running containers use, gathered from one stream of the engine for each.

use crate::cove::Cove;
use cove_engine::{Engine, Place};
use cove_view::{ContainerRow, ContainerState, Usage};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tauri::ipc::Channel;
use tokio::{sync::mpsc, task::AbortHandle};

/// So many containers are measured at most, the newest first: each costs the engine work every second.
const MOST: usize = 48;
/// How often readings are sent.
const PACE: Duration = Duration::from_secs(1);

/// Aborts its task when it goes.
struct Measured(AbortHandle);

impl Drop for Measured {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends the latest readings by id until the page has gone.
pub(crate) async fn watch(cove: Arc<Cove>, channel: Channel<HashMap<String, Usage>>) {
    let mut rows = cove.rows.subscribe();
    let (sender, mut readings) = mpsc::channel(MOST * 2);
    let mut measured: HashMap<String, Measured> = HashMap::new();
    let mut latest = HashMap::new();
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            Some((id, usage)) = readings.recv() => drop(latest.insert(id, usage)),
            _ = tick.tick() => {
                if rows.has_changed().unwrap_or(false) || measured.values().any(|task| task.0.is_finished()) {
                    let running = running(rows.borrow_and_update().as_deref().unwrap_or_default());
                    measured.retain(|id, task| running.contains(id) && !task.0.is_finished());
                    for id in running {
                        measured.entry(id).or_insert_with_key(|id| {
                            let task = tokio::spawn(measure(cove.engine(), id.clone(), sender.clone()));
                            Measured(task.abort_handle())
                        });
                    }
                }
                latest.retain(|id, _| measured.contains_key(id));
                if !latest.is_empty() && channel.send(std::mem::take(&mut latest)).is_err() {
                    return;
                }
            }
        }
    }
}

fn running(rows: &[ContainerRow]) -> Vec<String> {
    let running = rows.iter().filter(|row| row.state == ContainerState::Running);
    running.take(MOST).map(|row| row.id.clone()).collect()
}

async fn measure(engine: Engine, id: String, sender: mpsc::Sender<(String, Usage)>) {
    let place = Place::of(&["containers", &id, "stats"]);
    let Ok(mut lines) = engine.lines(hyper::Method::GET, &place).await else {
        return;
    };
    // It ends with the container, or with the machine; the next tick finds out whether there is more to measure.
    while let Ok(Some(stats)) = lines.next().await {
        if let Some(usage) = Usage::read(&stats)
            && sender.send((id.clone(), usage)).await.is_err()
        {
            return;
        }
    }
}
