//! Terminals in containers: an `exec` with a terminal, or a container of its own beside one whose image has no shell;
//! its bytes carried to the page and back.
//!
//! A terminal ends when its shell does, or when the page closes it. The shell of a terminal that was closed goes on in
//! its container, as it does for any Docker client: the engine has no call that ends an `exec`. A container that was
//! made for a shell is removed.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    helper::{Helper, IMAGE},
    stream::Allowance,
};
use cove_engine::{Engine, Place, Terminal};
use serde_json::{Value, json};
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

/// What a helper says that it is for, which is a debug shell.
const PURPOSE: &str = "debug";

/// Open terminals, by the number of their stream.
#[derive(Debug, Default)]
pub(crate) struct Terminals(Mutex<HashMap<u32, Keyboard>>);

/// The page's way into a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Keyboard {
    /// Where the engine is told how large the terminal is.
    pub(crate) size: Place,
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

/// A shell that has been started, without its [`Keyboard`].
pub(crate) struct Opened {
    terminal: Terminal,
    keys: mpsc::Receiver<Vec<u8>>,
    shell: Shell,
}

/// Where a shell runs.
enum Shell {
    /// In the container that it is for.
    Inside { engine: Engine, exec: String },
    /// In one beside it, which goes when the terminal does.
    Beside { _helper: Helper },
}

/// Starts a shell in a container.
pub(crate) async fn start(
    engine: &Engine,
    container: &str,
    columns: u16,
    rows: u16,
) -> Answer<(Opened, Keyboard)> {
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
        .terminal(&Place::of(&["exec", &exec, "start"]), Some(&start))
        .await?;
    let size = Place::of(&["exec", &exec, "resize"]);
    let engine = engine.clone();
    Ok(Opened::of(terminal, size, Shell::Inside { engine, exec }))
}

/// Starts a shell in a container of its own beside `container`, whose processes and network it sees: for one whose
/// image has no shell. `ui/src/lib/command-line.ts` shows the command for it.
pub(crate) async fn start_beside(
    cove: &Cove,
    container: &str,
    columns: u16,
    rows: u16,
) -> Answer<(Opened, Keyboard)> {
    let engine = cove.engine();
    // What is in the way would be told only when the other one starts, and of that one.
    let target = engine.get(&Place::of(&["containers", container, "json"])).await?;
    if target["State"]["Running"] != true {
        return Err(Refusal::new(
            "the container does not run",
            "Start it: a debug shell shares its processes and its network.",
        ));
    }
    let body = beside(target["Id"].as_str().unwrap_or(container), columns, rows);
    let Some(helper) = Helper::create(cove, PURPOSE, body, None).await? else {
        return Err(Refusal::new(
            format!("there is no image {IMAGE}, which a debug shell is made of"),
            format!("Pull it again, under Images or by `docker pull {IMAGE}`."),
        ));
    };
    let of_it = |what: &str| Place::of(&["containers", helper.id(), what]);
    let mut attach = of_it("attach");
    for key in ["stream", "stdin", "stdout", "stderr"] {
        attach = attach.with(key, "true");
    }
    // Before it starts, so that nothing that it writes is missed.
    let terminal = engine.terminal(&attach, None).await?;
    engine.post(&of_it("start"), None).await?;
    let size = of_it("resize");
    Ok(Opened::of(terminal, size, Shell::Beside { _helper: helper }))
}

/// The engine's request for a container beside the one of this id. By the capability its root reaches the other's
/// files, below `/proc/1/root`.
fn beside(id: &str, columns: u16, rows: u16) -> Value {
    let shared = format!("container:{id}");
    json!({
        "Cmd": ["sh"],
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": true,
        "OpenStdin": true, "StdinOnce": true,
        "HostConfig": {
            "AutoRemove": true,
            "PidMode": shared,
            "NetworkMode": shared,
            "CapAdd": ["SYS_PTRACE"],
            "ConsoleSize": [rows, columns],
        },
    })
}

impl Opened {
    fn of(terminal: Terminal, size: Place, shell: Shell) -> (Self, Keyboard) {
        let (typed, keys) = mpsc::channel(TYPED_AHEAD);
        let opened = Self {
            terminal,
            keys,
            shell,
        };
        (opened, Keyboard { size, typed })
    }

    /// Carries bytes both ways until either end has gone. The last message to the page is no bytes: whether there was a
    /// shell at all.
    pub(crate) async fn carry(self, channel: Channel<InvokeResponseBody>, allowance: Allowance) {
        let Self {
            terminal,
            mut keys,
            shell,
        } = self;
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
            let began = shell.began().await;
            // The page that is not there any more need not be told.
            let _ = channel.send(InvokeResponseBody::Json(json!({"began": began}).to_string()));
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
}

impl Shell {
    /// Whether there was a shell at all. One that could not be started has written why, as if that were its output.
    async fn began(&self) -> bool {
        match self {
            Self::Inside { engine, exec } => match engine.get(&Place::of(&["exec", exec, "json"])).await {
                Ok(exec) => began(&exec),
                // Nobody knows, as when its container is gone. It is taken for what is usual.
                Err(_) => true,
            },
            // Without one its container had not been started.
            Self::Beside { .. } => true,
        }
    }
}

/// Whether the engine ever had a process for an `exec` that has ended.
fn began(exec: &Value) -> bool {
    exec["Pid"].as_u64() != Some(0)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use cove_api::Dirs;
    use std::fs;
    use tokio::net::UnixListener;

    #[test]
    fn a_shell_that_could_not_be_started_is_told_from_one_that_ended() {
        assert!(!began(&json!({"Running": false, "ExitCode": 127, "Pid": 0})));
        // Its last command was not found.
        assert!(began(&json!({"Running": false, "ExitCode": 127, "Pid": 4711})));
        assert!(began(&json!({"Running": false})));
    }

    #[test]
    fn a_debug_shell_shares_processes_and_network_and_is_removed_when_it_ends() {
        let body = beside("4f6e", 120, 40);
        let host = &body["HostConfig"];
        assert_eq!(host["PidMode"], "container:4f6e");
        assert_eq!(host["NetworkMode"], "container:4f6e");
        assert_eq!(host["CapAdd"], json!(["SYS_PTRACE"]));
        assert_eq!(host["AutoRemove"], true);
        assert_eq!(host["ConsoleSize"], json!([40, 120]));
    }

    /// What comes of a debug shell where the engine gives these answers, one after the other.
    async fn refused(answers: &'static [(&'static str, &'static str)]) -> Refusal {
        let directory = tempfile::tempdir().unwrap();
        let cove = Cove::of(Dirs::below(directory.path()), "default".to_owned());
        let socket = cove.dirs.docker_socket(&cove.machine);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            for (status, answer) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 8192];
                let _ = stream.read(&mut request).await.unwrap();
                let length = answer.len();
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{answer}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let started = start_beside(&cove, "web", 80, 24).await;
        started.err().unwrap()
    }

    #[tokio::test]
    async fn a_debug_shell_without_its_image_says_what_to_do() {
        let refusal = refused(&[
            ("200 OK", r#"{"Id":"4f6e","State":{"Running":true}}"#),
            ("404 Not Found", r#"{"message":"No such image: alpine:latest"}"#),
        ])
        .await;
        assert!(
            refusal.0.message.contains("no image alpine:latest"),
            "{refusal:?}"
        );
        assert!(
            refusal.0.hint.contains("docker pull alpine:latest"),
            "{refusal:?}"
        );
    }

    #[tokio::test]
    async fn a_container_that_does_not_run_has_no_debug_shell() {
        let refusal = refused(&[("200 OK", r#"{"Id":"4f6e","State":{"Running":false}}"#)]).await;
        assert_eq!(refusal.0.message, "the container does not run");
    }
}
