//! What goes on until the page ends it: lists, logs, terminals.

use crate::{
    cove::{Cove, Missed},
    failure::{Answer, Refusal},
    follow, local,
    logs::{self, After, BATCH, BATCHES, Log, Page, Reading, Source},
    stream::{For, Streams},
    terminal::{self, Keyboard, Opened, Resizer, Terminals},
    usage,
};
use cove_api::{LogQuery, LogSource};
use cove_engine::{Bytes, EngineError, Place};
use cove_view::{ContainerRow, ContainerState, Failure, LogLine, LogReader, ThingKind, Usage};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tauri::{
    AppHandle, State,
    ipc::{Channel, InvokeResponseBody},
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, timeout_at},
};

/// Changes of lists within this time of the first are told together.
const TOGETHER: Duration = Duration::from_millis(150);
/// So many of a log's last lines are read; the page keeps no more than twice as many.
const TAIL: &str = "100000";
/// So many of the last lines of a machine's log are read.
const MACHINE_TAIL: u32 = 20_000;
/// How long between two attempts to read one that nobody can tell yet.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells the containers, at once and whenever they change. Nothing comes while no engine answers.
#[tauri::command]
pub(crate) fn watch_containers(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    seen: Channel<Vec<ContainerRow>>,
) -> u32 {
    let mut rows = cove.rows.subscribe();
    rows.mark_changed();
    streams.start(0, |_| async move {
        while rows.changed().await.is_ok() {
            let now = rows.borrow_and_update().clone();
            if now.is_some_and(|now| seen.send(now).is_err()) {
                return;
            }
        }
    })
}

/// Tells, at once and whenever it changes, why the engine of the machine that runs does not answer; null while it does.
#[tauri::command]
pub(crate) fn watch_engine(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    seen: Channel<Option<Failure>>,
) -> u32 {
    let mut lost = cove.lost.subscribe();
    lost.mark_changed();
    streams.start(0, |_| async move {
        while lost.changed().await.is_ok() {
            let now = lost.borrow_and_update().clone();
            if seen.send(now).is_err() {
                return;
            }
        }
    })
}

/// Tells which lists have changed. Several changes that come together are told together.
#[tauri::command]
pub(crate) fn watch_changes(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    seen: Channel<Vec<ThingKind>>,
) -> u32 {
    let mut changes = cove.changes.subscribe();
    streams.start(0, |_| async move {
        while let Some(kinds) = gather(&mut changes).await {
            if seen.send(kinds).is_err() {
                return;
            }
        }
    })
}

/// The lists that changed within a moment of the next change, each once; nothing at the end. The moment is that of the
/// first change: an engine that never pauses would otherwise be told of never.
async fn gather(changes: &mut broadcast::Receiver<ThingKind>) -> Option<Vec<ThingKind>> {
    let mut kinds = Vec::new();
    let mut next = changes.recv().await;
    let due = Instant::now() + TOGETHER;
    loop {
        let told = match next {
            Ok(kind) => vec![kind],
            Err(RecvError::Lagged(_)) => follow::THINGS.to_vec(),
            // What was gathered is told first; the end comes again.
            Err(RecvError::Closed) => return Some(kinds).filter(|kinds| !kinds.is_empty()),
        };
        for kind in told {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        if kinds.len() == follow::THINGS.len() {
            return Some(kinds);
        }
        match timeout_at(due, changes.recv()).await {
            Ok(more) => next = more,
            Err(_) => return Some(kinds),
        }
    }
}

/// Tells what is chosen in the tray's menu and does not work. What came before is not told.
#[tauri::command]
pub(crate) fn watch_tray(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    seen: Channel<Missed>,
) -> u32 {
    let mut missed = cove.missed.subscribe();
    streams.start(0, |_| async move {
        loop {
            match missed.recv().await {
                Ok(one) => {
                    if seen.send(one).is_err() {
                        return;
                    }
                }
                // That some were lost keeps no other from being told.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    })
}

/// Tells what running containers use: the newest of them, or `of` one alone.
#[tauri::command]
pub(crate) fn watch_usage(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    of: Option<String>,
    seen: Channel<HashMap<String, Usage>>,
) -> u32 {
    let cove = Arc::clone(&cove);
    streams.start(0, |_| usage::watch(cove, of, seen))
}

/// Tells a container's log in batches; the page takes them one by one (`taken`). Goes on when the container starts
/// again, and ends when it is gone.
#[tauri::command]
pub(crate) fn follow_log(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    id: String,
    seen: Channel<Vec<LogLine>>,
) -> u32 {
    let cove = Arc::clone(&cove);
    streams.start(BATCHES, |allowance| {
        logs::follow(cove, ContainerLog { id }, Page::new(seen, allowance))
    })
}

/// The log of the container with this id.
struct ContainerLog {
    id: String,
}

impl Log for ContainerLog {
    const AT_LAST: Duration = Duration::from_secs(5);

    async fn read(&self, cove: &Cove, page: &mut Page) -> Reading {
        // A break is followed by another try once the container runs; what it wrote in between is kept for us.
        match self.open(cove, page.since()).await {
            Ok(mut source) => page.tell_all(&mut source).await,
            // No log is kept of it, and the engine says why.
            Err(EngineError::Refused { status: 501, message }) => Reading::Failed(message),
            Err(_) => Reading::Ended,
        }
    }

    fn after(&self, rows: &[ContainerRow]) -> After {
        match rows.iter().find(|row| row.id == self.id) {
            Some(row) if row.state == ContainerState::Running => After::Reading,
            Some(_) => After::Waiting,
            None => After::Nothing,
        }
    }
}

impl ContainerLog {
    async fn open(&self, cove: &Cove, since: Option<String>) -> Result<ContainerBytes, EngineError> {
        let engine = cove.engine_answers().await;
        let inspected = engine.get(&Place::of(&["containers", &self.id, "json"])).await?;
        let mut place = Place::of(&["containers", &self.id, "logs"]);
        for key in ["stdout", "stderr", "follow", "timestamps"] {
            place = place.with(key, "true");
        }
        place = match since {
            Some(since) => place.with("since", &since),
            None => place.with("tail", TAIL),
        };
        Ok(ContainerBytes {
            bytes: engine.bytes(&place).await?,
            reader: LogReader::new(inspected["Config"]["Tty"] != true),
        })
    }
}

/// A container's log as it comes from the engine.
struct ContainerBytes {
    bytes: Bytes,
    reader: LogReader,
}

impl Source for ContainerBytes {
    async fn next(&mut self, lines: &mut Vec<LogLine>) -> bool {
        match self.bytes.next().await {
            Ok(Some(data)) => {
                self.reader.take(&data, lines);
                true
            }
            Ok(None) => {
                self.reader.finish(lines);
                false
            }
            // The line that is broken off comes again as a whole.
            Err(_) => false,
        }
    }
}

/// Tells a log of the machine or of the daemon in batches, and what is added to it, until it ends: from when somebody can
/// tell it.
#[tauri::command]
pub(crate) fn follow_machine_log(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    source: LogSource,
    seen: Channel<Vec<LogLine>>,
) -> u32 {
    let cove = Arc::clone(&cove);
    streams.start(BATCHES, |allowance| async move {
        let wanted = LogQuery {
            source,
            follow: true,
            tail: Some(MACHINE_TAIL),
        };
        let mut bytes = loop {
            match cove.client().logs(&cove.machine(), wanted).await {
                Ok(bytes) => break bytes,
                // The machine does not run that tells it, or has never written it, or no daemon answers.
                Err(_) => sleep(AGAIN).await,
            }
        };
        let mut reader = LogReader::new(false);
        let mut lines = Vec::new();
        while let Ok(Some(data)) = bytes.next().await {
            reader.take(&data, &mut lines);
            while !lines.is_empty() {
                let batch: Vec<LogLine> = lines.drain(..lines.len().min(BATCH)).collect();
                allowance.spend(1).await;
                if seen.send(batch).is_err() {
                    return;
                }
            }
        }
    })
}

/// Opens a terminal in a container. Its bytes come as they are; what is no bytes is its end, and says whether a shell
/// `began` at all.
#[tauri::command]
pub(crate) async fn open_terminal(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    terminals: State<'_, Terminals>,
    id: String,
    columns: u16,
    rows: u16,
    seen: Channel<InvokeResponseBody>,
) -> Answer<u32> {
    let page = streams.page();
    let opened = terminal::start(&cove, &id, columns, rows).await?;
    carry(&streams, page, &terminals, opened, seen)
}

/// The same with a shell in a container of its own beside that one, which is removed with the terminal.
#[tauri::command]
pub(crate) async fn open_debug_shell(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    terminals: State<'_, Terminals>,
    id: String,
    columns: u16,
    rows: u16,
    seen: Channel<InvokeResponseBody>,
) -> Answer<u32> {
    let page = streams.page();
    let opened = terminal::start_beside(&cove, &id, columns, rows).await?;
    carry(&streams, page, &terminals, opened, seen)
}

/// The same with a login shell in the machine itself.
#[tauri::command]
pub(crate) async fn open_machine_shell(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    terminals: State<'_, Terminals>,
    columns: u16,
    rows: u16,
    seen: Channel<InvokeResponseBody>,
) -> Answer<u32> {
    let page = streams.page();
    let opened = terminal::start_in_machine(&cove, columns, rows).await?;
    carry(&streams, page, &terminals, opened, seen)
}

/// Makes a stream of a terminal. Where its page has gone while it was opened, its shell ends.
fn carry(
    streams: &Streams,
    page: For,
    terminals: &Terminals,
    (opened, keyboard): (Opened, Keyboard),
    seen: Channel<InvokeResponseBody>,
) -> Answer<u32> {
    let carried = streams.start_for(page, terminal::ALLOWANCE, |allowance| {
        opened.carry(seen, allowance)
    });
    let number = carried.ok_or_else(|| Refusal::new("the page that opened this terminal is gone", ""))?;
    terminals.add(number, keyboard);
    Ok(number)
}

/// Types into a terminal.
#[tauri::command]
pub(crate) async fn type_in_terminal(
    terminals: State<'_, Terminals>,
    number: u32,
    text: String,
) -> Answer<()> {
    if let Some(keyboard) = terminals.get(number) {
        // A terminal that has just ended takes nothing more, which the page learns by itself.
        let _ = keyboard.typed.send(text.into_bytes()).await;
    }
    Ok(())
}

/// Writes a text that the page shows, such as a log, to a file where a person says; where that is, or nothing if they
/// said nothing.
#[tauri::command]
pub(crate) async fn save_text(app: AppHandle, name: String, text: String) -> Answer<Option<String>> {
    let Some(to) = local::place_for(&app, &name).await? else {
        return Ok(None);
    };
    let place = to.display().to_string();
    local::blocking(move || local::write_text(&to, &text)).await??;
    Ok(Some(place))
}

/// Tells a terminal its new size.
#[tauri::command]
pub(crate) async fn resize_terminal(
    cove: State<'_, Arc<Cove>>,
    terminals: State<'_, Terminals>,
    number: u32,
    columns: u16,
    rows: u16,
) -> Answer<()> {
    let Some(keyboard) = terminals.get(number) else {
        return Ok(());
    };
    match keyboard.resizer {
        Resizer::Engine(place) => {
            let place = place.with("w", &columns.to_string()).with("h", &rows.to_string());
            cove.engine().post(&place, None).await?;
        }
        Resizer::Carrier(sized) => {
            sized.send_replace((columns, rows));
        }
    }
    Ok(())
}

/// Closes a terminal.
#[tauri::command]
pub(crate) fn close_terminal(streams: State<'_, Streams>, terminals: State<'_, Terminals>, number: u32) {
    terminals.remove(number);
    streams.end(number);
}

/// Ends a stream.
#[tauri::command]
pub(crate) fn unwatch(streams: State<'_, Streams>, number: u32) {
    streams.end(number);
}

/// The page has taken so much of a stream: batches of a log, bytes of a terminal.
#[tauri::command]
pub(crate) fn taken(streams: State<'_, Streams>, number: u32, amount: u32) {
    streams.taken(number, amount);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn changes_without_a_pause_are_told_all_the_same() {
        let (sender, mut changes) = broadcast::channel(16);
        let steady = async {
            loop {
                let _ = sender.send(ThingKind::Container);
                sleep(TOGETHER / 10).await;
            }
        };
        tokio::select! {
            () = steady => {}
            told = timeout(TOGETHER * 20, gather(&mut changes)) => {
                assert_eq!(told.ok().flatten(), Some(vec![ThingKind::Container]));
            }
        }
    }

    #[tokio::test]
    async fn each_list_is_told_once_and_after_missed_changes_all_are() {
        let (sender, mut changes) = broadcast::channel(2);
        for kind in [ThingKind::Volume, ThingKind::Volume] {
            sender.send(kind).unwrap();
        }
        assert_eq!(gather(&mut changes).await, Some(vec![ThingKind::Volume]));
        for _ in 0..5 {
            sender.send(ThingKind::Image).unwrap();
        }
        let all = gather(&mut changes).await.unwrap();
        assert_eq!(all.len(), follow::THINGS.len());
        drop(sender);
        while gather(&mut changes).await.is_some() {}
    }
}
