//! Following the daemon and the engine, for as long as the program runs.
//!
//! ```text
//!            daemon answers                    its events end
//!  Away ───────────────────────▶ Seen ───────────────────────────▶ Away
//!   ▲ │ every second, and when asked to look                         │
//!   │ └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! The first look starts the daemon, as any command would. Later ones do not: a daemon that was stopped stays so until
//! a person wants something of it.

use crate::{
    cove::{self, Cove},
    failure::Refusal,
    helper,
};
use cove_api::{Client, ClientError, Event, MachineStatus};
use cove_engine::{Engine, EngineError, Place};
use cove_view::{ContainerRow, MachineNews, ThingKind};
use serde_json::Value;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long between two looks for a daemon that is not there, and for an engine that broke off.
const AGAIN: Duration = Duration::from_secs(1);
/// How often what changes without an event is read anew: memory and disk of the machine, `Up 3 minutes` of a container.
const REFRESH: Duration = Duration::from_secs(10);
/// How long the engine may take over an answer before the page is told that there is none. One in an emulated machine
/// may take twelve seconds over its list of containers, and is not to be called lost each time that it is asked.
const PATIENCE: Duration = Duration::from_secs(30);
/// The list is not read again within this time of a reading, so that changes which come together are answered together.
const GATHER: Duration = Duration::from_millis(15);
/// When the list has what the engine tells of before: it writes a container's state to its disk in between.
const SETTLE: Duration = Duration::from_millis(300);

/// Keeps [`Cove::news`] true.
pub(crate) async fn machine(cove: Arc<Cove>) {
    let mut choices = cove.choices();
    let mut client = cove.daemon().await;
    loop {
        let end = match client {
            Ok(client) => tokio::select! {
                end = follow_daemon(&cove, &client) => end.map_err(Refusal::from),
                _ = choices.changed() => Ok(Followed::Left),
            },
            Err(refusal) => Err(refusal),
        };
        if let Ok(Followed::Left) = end {
            client = Ok(cove.client());
            continue;
        }
        let refusal = end.err().unwrap_or_else(|| {
            Refusal::new(
                "the Cove daemon has ended",
                "Start the machine to start it again.",
            )
        });
        cove.news
            .send_replace(Some(MachineNews::Away { failure: refusal.0 }));
        // Whichever comes first; neither tells anything else.
        let _ = timeout(AGAIN, cove.look.notified()).await;
        client = Ok(cove.client());
    }
}

/// Why a daemon is not followed any more.
enum Followed {
    /// Its events have ended.
    ToItsEnd,
    /// The window shows another machine.
    Left,
}

async fn follow_daemon(cove: &Cove, client: &Client) -> Result<Followed, ClientError> {
    let machine = cove.machine();
    let mut events = client.events().await?;
    loop {
        match timeout(REFRESH, events.next()).await {
            Ok(Ok(Some(Event::Machine { status }))) if status.name == machine => see(cove, *status),
            // What is not an event of this machine, or none for a while: it is asked.
            Ok(Ok(Some(Event::Missed))) | Err(_) => see(cove, client.machine(&machine).await?),
            // So is one that was deleted: the refusal says it best.
            Ok(Ok(Some(Event::Deleted { name }))) if name == machine => {
                see(cove, client.machine(&machine).await?);
            }
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Ok(Followed::ToItsEnd),
            Ok(Err(error)) => return Err(error),
        }
    }
}

fn see(cove: &Cove, status: MachineStatus) {
    // What was under way when another machine was chosen tells nothing of that.
    if status.name == cove.machine() {
        let machine = Box::new(status.into());
        cove.news.send_replace(Some(MachineNews::Seen { machine }));
    }
}

/// Everything that has a list.
pub(crate) const THINGS: [ThingKind; 4] = [
    ThingKind::Container,
    ThingKind::Image,
    ThingKind::Volume,
    ThingKind::Network,
];

/// Keeps [`Cove::rows`] and [`Cove::lost`] true, and tells [`Cove::changes`].
pub(crate) async fn containers(cove: Arc<Cove>) {
    let mut news = cove.news.subscribe();
    loop {
        let machine = if let Ok(machine) = timeout(Duration::ZERO, cove.running()).await {
            machine
        } else {
            // What was last known is not of a machine that is still to start.
            forget(&cove);
            cove.running().await
        };
        let engine = cove.engine_of(&machine);
        // Another machine may run by the time that this one is not shown any more.
        let stopped = news.wait_for(|news| cove::runs(news.as_ref()) != Some(machine.as_str()));
        tokio::select! {
            // Ends with an error at the latest when the engine does; it is there again or not a moment later.
            end = follow_engine(&cove, &engine) => {
                let ended = |()| Refusal::new("the engine's events have ended", "");
                lose(&cove, end.map_or_else(Refusal::from, ended));
            }
            _ = stopped => {}
        }
        if cove::runs(cove.news.borrow().as_ref()) != Some(machine.as_str()) {
            forget(&cove);
        }
        sleep(AGAIN / 4).await;
    }
}

/// Nothing is known of an engine, nor missed of it, whose machine does not run.
fn forget(cove: &Cove) {
    cove.rows.send_replace(None);
    cove.lost.send_replace(None);
}

/// Tells why nothing more is heard of the engine, if that is news.
fn lose(cove: &Cove, Refusal(why): Refusal) {
    cove.lost.send_if_modified(|lost| {
        let news = lost.as_ref() != Some(&why);
        *lost = Some(why);
        news
    });
}

/// Waits for the engine, and tells the page where that takes long.
async fn patiently<T>(cove: &Cove, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    if let Ok(answer) = timeout(PATIENCE, answer.as_mut()).await {
        return answer;
    }
    let silent = format!("the engine has not answered for {} s", PATIENCE.as_secs());
    lose(cove, Refusal::new(silent, "Its log is on the machine's screen."));
    answer.await
}

async fn follow_engine(cove: &Arc<Cove>, engine: &Engine) -> Result<(), EngineError> {
    let place =
        Place::of(&["events"]).with("filters", r#"{"type":["container","image","volume","network"]}"#);
    let mut events = patiently(cove, engine.lines(hyper::Method::GET, &place)).await?;
    // What changed while nobody listened is not known. Nobody may be interested either, which is no mistake.
    for kind in THINGS {
        let _ = cove.changes.send(kind);
    }
    clear_left_overs(cove, engine);
    // When the list has the last of those changes that were told of before.
    let mut settled = None;
    loop {
        let begun = Instant::now();
        let rows = patiently(cove, list(engine)).await?;
        show(cove, rows);
        cove.lost.send_if_modified(|lost| lost.take().is_some());
        let read = Instant::now();
        let mut due = settled
            .take()
            .filter(|settled| *settled > begun)
            .unwrap_or(read + REFRESH);
        while let Ok(event) = timeout_at(due, events.next()).await {
            let Some(event) = event? else { return Ok(()) };
            if !changes_the_list(&event) {
                continue;
            }
            let kind = ThingKind::of_event(&event);
            if kind == Some(ThingKind::Container) {
                let now = Instant::now();
                due = due.min(if is_in_the_list(&event) {
                    now.max(read + GATHER)
                } else {
                    settled = Some(now + SETTLE);
                    now + GATHER
                });
            }
            if let Some(kind) = kind {
                let _ = cove.changes.send(kind);
            }
        }
    }
}

/// Wakes the page for what is new to it only.
fn show(cove: &Cove, rows: Vec<ContainerRow>) {
    cove.rows.send_if_modified(|shown| {
        let news = shown.as_ref() != Some(&rows);
        *shown = Some(rows);
        news
    });
}

/// Beside the list, which is not to wait for it.
fn clear_left_overs(cove: &Arc<Cove>, engine: &Engine) {
    let (cove, engine) = (Arc::clone(cove), engine.clone());
    tauri::async_runtime::spawn(async move {
        if let Err(refusal) = helper::clear_left_overs(&cove, &engine).await {
            eprintln!(
                "cannot clear away what earlier windows left: {}",
                refusal.0.message
            );
        }
    });
}

/// Terminals and health checks come as events as well, several a second; the list is the same after them. So it is after a
/// signal: what that ends is told by an event of its own, which is not to wait for a reading.
fn changes_the_list(event: &Value) -> bool {
    let action = event["Action"].as_str().unwrap_or_default();
    !action.starts_with("exec_") && !matches!(action, "top" | "attach" | "resize" | "archive-path" | "kill")
}

/// Whether the engine tells of it once its list has it. Of a pause, for one, it tells before.
fn is_in_the_list(event: &Value) -> bool {
    matches!(event["Action"].as_str(), Some("start" | "die" | "destroy"))
}

/// All containers, the newest first.
pub(crate) async fn list(engine: &Engine) -> Result<Vec<ContainerRow>, EngineError> {
    let list = engine
        .get(&Place::of(&["containers", "json"]).with("all", "true"))
        .await?;
    let rows = list.as_array().into_iter().flatten();
    Ok(rows.filter_map(ContainerRow::read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_terminal_in_a_container_does_not_make_the_list_be_read() {
        for (action, changes) in [
            ("start", true),
            ("die", true),
            ("health_status: healthy", true),
            ("exec_create: sh", false),
            ("top", false),
            ("kill", false),
        ] {
            assert_eq!(changes_the_list(&json!({"Action": action})), changes, "{action}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_slow_is_not_lost_and_one_that_hangs_is() {
        let directory = tempfile::tempdir().unwrap();
        let cove = Cove::of(cove_api::Dirs::below(directory.path()), "default".to_owned());
        let lost = cove.lost.subscribe();
        let answer_after = |seconds| sleep(Duration::from_secs(seconds));
        patiently(&cove, answer_after(12)).await;
        assert!(!lost.has_changed().unwrap(), "it was told to be lost");
        patiently(&cove, answer_after(120)).await;
        let why = lost.borrow().clone().unwrap();
        assert_eq!(why.message, "the engine has not answered for 30 s");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn an_engine_that_is_lost_while_its_machine_runs_is_told_of_until_it_answers_and_its_rows_stay() {
        use crate::cove::tests::running;
        use cove_api::Dirs;
        use tokio::{
            io::{AsyncReadExt as _, AsyncWriteExt as _},
            net::UnixListener,
            task::JoinSet,
        };

        /// Answers each request, and leaves events open, until it is dropped.
        async fn serve(listener: UnixListener) {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut request = vec![0; 8192];
                    let count = stream.read(&mut request).await.unwrap();
                    let events = request[..count].starts_with(b"GET /events");
                    let answer = if events {
                        "HTTP/1.1 200 OK\r\n\r\n"
                    } else {
                        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if events {
                        std::future::pending::<()>().await;
                    }
                });
            }
        }

        let soon = Duration::from_secs(20);
        let directory = tempfile::tempdir().unwrap();
        let cove = Arc::new(Cove::of(Dirs::below(directory.path()), "default".to_owned()));
        let socket = cove.dirs.docker_socket("default");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let mut lost = cove.lost.subscribe();
        cove.news.send_replace(Some(running("default")));
        let following = tokio::spawn(containers(Arc::clone(&cove)));
        let why = timeout(soon, lost.wait_for(Option::is_some))
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert!(why.unwrap().message.contains("cannot reach the engine"));
        assert!(cove.rows.borrow().is_none());

        let engine = tokio::spawn(serve(UnixListener::bind(&socket).unwrap()));
        timeout(soon, lost.wait_for(Option::is_none))
            .await
            .unwrap()
            .unwrap();
        assert!(cove.rows.borrow().is_some());

        engine.abort();
        timeout(soon, lost.wait_for(Option::is_some))
            .await
            .unwrap()
            .unwrap();
        assert!(cove.rows.borrow().is_some(), "what was last known is gone");
        cove.news.send_replace(None);
        timeout(soon, lost.wait_for(Option::is_none))
            .await
            .unwrap()
            .unwrap();
        following.abort();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn each_change_is_answered_by_one_reading_and_a_signal_by_none() {
        use crate::cove::tests::running;
        use cove_api::Dirs;
        use std::sync::atomic::{AtomicUsize, Ordering};
        use tokio::{
            io::{AsyncReadExt as _, AsyncWriteExt as _},
            net::UnixListener,
            sync::{Mutex, mpsc},
        };

        let directory = tempfile::tempdir().unwrap();
        let cove = Arc::new(Cove::of(Dirs::below(directory.path()), "default".to_owned()));
        let socket = cove.dirs.docker_socket("default");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let (tell, told) = mpsc::unbounded_channel::<&str>();
        let (told, lists) = (Arc::new(Mutex::new(told)), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&lists);
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (told, count) = (Arc::clone(&told), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut request = vec![0; 8192];
                    let length = stream.read(&mut request).await.unwrap();
                    let asks = |what: &[u8]| request[..length].starts_with(what);
                    if asks(b"GET /events") {
                        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                        while let Some(action) = told.lock().await.recv().await {
                            let event = format!("{}\n", json!({"Type": "container", "Action": action}));
                            stream.write_all(event.as_bytes()).await.unwrap();
                        }
                        return;
                    }
                    if asks(b"GET /containers/json?all=true HTTP") {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
                    stream.write_all(answer).await.unwrap();
                });
            }
        });
        let read = async |wanted: usize, after: &str| {
            let all = async {
                while lists.load(Ordering::Relaxed) < wanted {
                    sleep(GATHER).await;
                }
            };
            timeout(2 * AGAIN, all).await.expect(after);
            sleep(4 * GATHER).await;
            assert_eq!(lists.load(Ordering::Relaxed), wanted, "{after}");
        };
        cove.news.send_replace(Some(running("default")));
        let following = tokio::spawn(containers(Arc::clone(&cove)));
        read(1, "at first").await;
        for (action, wanted) in [
            ("kill", 1),
            ("die", 2),
            ("exec_create: sh", 2),
            ("start", 3),
            ("pause", 4),
        ] {
            tell.send(action).unwrap();
            read(wanted, action).await;
        }
        following.abort();
        serving.abort();
    }
}
