//! Terminals in containers: an `exec` with a terminal, its bytes carried to the page and back.
//!
//! A terminal ends when its shell does, or when the page closes it. The shell of a terminal
//! that was closed goes on in its container, as it does for any Docker client: the engine has no call that ends an `exec`.

use crate::{failure::Answer, stream::Allowance};
use cove_engine::{Engine, Place, Terminal};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tauri::ipc::{Channel, InvokeResponseBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

/// What may be under way to the page, in bytes.
pub(crate) const ALLOWANCE: usize = 1 << 20;
/// One message to the page.
const CHUNK: usize = 64 * 1024;
/// Typing that the container has not taken yet, in messages.
const TYPED_AHEAD: usize = 256;
/// The best shell that there is. `sh` is asked for it, because what an image has only the image knows.
const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi";

/// Open terminals, by the number of their stream.
#[derive(Debug, Default)]
pub(crate) struct Terminals(Mutex<HashMap<u32, Keyboard>>);

/// The page's way into a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Keyboard {
    pub(crate) exec: String,
    pub(crate) typed: mpsc::Sender<Vec<u8>>,
}

impl Terminals {
    pub(crate) fn add(&self, number: u32, keyboard: Keyboard) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, keyboard| !keyboard.typed.is_closed());
        open.insert(number, keyboard);
    }

    pub(crate) fn get(&self, number: u32) -> Option<Keyboard> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned()
    }

    pub(crate) fn remove(&self, number: u32) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
    }
}

/// Starts a shell in a container.
pub(crate) async fn start(
    engine: &Engine,
    container: &str,
    columns: u16,
    rows: u16,
) -> Answer<(Terminal, Keyboard, mpsc::Receiver<Vec<u8>>)> {
    let create = json!({
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": true,
        "Cmd": ["sh", "-c", SHELL],
        "Env": ["TERM=xterm-256color"],
    });
    let created = engine
        .post(&Place::of(&["containers", container, "exec"]), Some(&create))
        .await?;
    let exec = created["Id"].as_str().unwrap_or_default().to_owned();
    let start = json!({"Detach": false, "Tty": true, "ConsoleSize": [rows, columns]});
    let terminal = engine
        .terminal(&Place::of(&["exec", &exec, "start"]), &start)
        .await?;
    let (typed, keys) = mpsc::channel(TYPED_AHEAD);
    Ok((terminal, Keyboard { exec, typed }, keys))
}

/// Carries bytes both ways until either end has gone. An empty message tells the page of the end.
pub(crate) async fn carry(
    terminal: Terminal,
    mut keys: mpsc::Receiver<Vec<u8>>,
    channel: Channel<InvokeResponseBody>,
    allowance: Allowance,
) {
    let (mut screen, mut keyboard) = tokio::io::split(terminal);
    let show = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = screen.read(&mut buffer).await {
            allowance.spend(u32::try_from(count).unwrap_or(u32::MAX)).await;
            if channel
                .send(InvokeResponseBody::Raw(buffer[..count].to_vec()))
                .is_err()
            {
                return;
            }
        }
        // The page that is not there any more need not be told.
        let _ = channel.send(InvokeResponseBody::Raw(Vec::new()));
    };
    let press = async {
        while let Some(bytes) = keys.recv().await {
            if keyboard.write_all(&bytes).await.is_err() || keyboard.flush().await.is_err() {
                break;
            }
        }
        // Output goes on although nothing is typed any more.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = show => {}
        () = press => {}
    }
}
