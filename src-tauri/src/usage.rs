//! What running containers use, gathered from one stream of the engine for each.

use crate::cove::Cove;
use cove_engine::{Engine, Place};
use cove_view::{ContainerRow, ContainerState, Usage};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tauri::ipc::Channel;
use tokio::{sync::mpsc, task::AbortHandle};

/// So many containers are measured together at most, the newest first: each costs the engine work every second.
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

/// Sends the latest readings by id until the page has gone: of the newest containers, or `of` one alone, however old it
/// is. Nothing more is measured while the engine is lost.
pub(crate) async fn watch(cove: Arc<Cove>, of: Option<String>, channel: Channel<HashMap<String, Usage>>) {
    let mut rows = cove.rows.subscribe();
    // What runs already is measured at once.
    rows.mark_changed();
    let (sender, mut readings) = mpsc::channel(MOST * 2);
    let mut measured: HashMap<String, Measured> = HashMap::new();
    let mut latest = HashMap::new();
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            Some((id, usage)) = readings.recv() => drop(latest.insert(id, usage)),
            _ = tick.tick() => {
                // A lost engine would refuse them all, every second anew.
                let lost = cove.lost.borrow().is_some();
                let ended = measured.values().any(|task| task.0.is_finished());
                if !lost && (ended || rows.has_changed().unwrap_or(false)) {
                    let running = {
                        let rows = rows.borrow_and_update();
                        running(rows.as_deref().unwrap_or_default(), of.as_deref())
                    };
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

fn running(rows: &[ContainerRow], of: Option<&str>) -> Vec<String> {
    let running = rows.iter().filter(|row| row.state == ContainerState::Running);
    let wanted = running.filter(|row| of.is_none_or(|id| row.id == id));
    wanted.take(MOST).map(|row| row.id.clone()).collect()
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use cove_api::Dirs;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::{
        net::UnixListener,
        time::{sleep, timeout},
    };

    #[test]
    fn the_newest_are_measured_and_one_that_is_looked_at_however_old_it_is() {
        let row =
            |index| ContainerRow::read(&json!({"Id": format!("id{index}"), "Names": [], "State": "running"}));
        let rows: Vec<ContainerRow> = (0..MOST + 2).filter_map(row).collect();
        let newest = running(&rows, None);
        assert_eq!((newest.len(), newest[0].as_str()), (MOST, "id0"));
        let oldest = format!("id{}", MOST + 1);
        assert_eq!(running(&rows, Some(&oldest)), [oldest]);
        assert!(running(&rows, Some("gone")).is_empty());
    }

    #[tokio::test]
    async fn a_lost_engine_is_not_asked_to_measure_until_it_answers_again() {
        let directory = tempfile::tempdir().unwrap();
        let cove = Arc::new(Cove::of(Dirs::below(directory.path()), "default".to_owned()));
        let socket = cove.dirs.docker_socket("default");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // Each connection is closed at once, as a gateway does whose engine broke off.
        let serving = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let row = ContainerRow::read(&json!({"Id": "4f6e", "Names": ["/web"], "State": "running"}));
        cove.rows.send_replace(Some(row.into_iter().collect()));
        let why = crate::failure::Refusal::new("the engine's events have ended", "");
        cove.lost.send_replace(Some(why.0));
        let watching = tokio::spawn(watch(Arc::clone(&cove), None, Channel::new(|_| Ok(()))));
        sleep(PACE + PACE / 2).await;
        assert_eq!(asked.load(Ordering::Relaxed), 0, "a lost engine was asked");

        cove.lost.send_replace(None);
        let again = async {
            // More than once, since each connection ends.
            while asked.load(Ordering::Relaxed) < 2 {
                sleep(PACE / 20).await;
            }
        };
        timeout(20 * PACE, again).await.unwrap();
        watching.abort();
        serving.abort();
    }
}
