//! Terminals: bytes of a shell, carried to the page and back.
//!
//! ```text
//!  in a container:     an `exec` of the engine's; the bytes are the connection's, a new size is a request of its own
//!  beside a container: the same with a container of its own, for one whose image has no shell
//!  in the machine:     the control API's exec; bytes and sizes are packets of the one connection
//! ```
//!
//! A terminal ends when its shell does, or when the page closes it, and then the shell ends as well. A container that
//! was made for a shell is removed, and on a shell in the machine the machine hangs up. The engine has no call that
//! ends an `exec`, and lets the shell go on: so the agent holds it ([`cove_wire::HANGUP_ARGUMENT`]) and hangs up on it
//! when this window lets go of the agent's program, if only by its own end.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    guest::{self, Program, Said},
    helper::{Helper, IMAGE},
    stream::Allowance,
};
use bytes::Bytes;
use cove_api::{Client, Upgraded};
use cove_engine::{Engine, Place, Terminal};
use cove_wire::{AGENT_PROGRAM, Exec, ExecCodec, ExecPacket, HANGUP_ARGUMENT, HELD, MAX_EXEC_DATA};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tauri::ipc::{Channel, InvokeResponseBody};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tokio_util::codec::{FramedRead, FramedWrite};

/// What may be under way to the page, in bytes.
pub(crate) const ALLOWANCE: usize = 1 << 20;
/// One message to the page.
const CHUNK: usize = 64 * 1024;
/// Typing that the shell has not taken yet, in messages.
const TYPED_AHEAD: usize = 256;
/// What the page's terminal understands.
const KIND: &str = "xterm-256color";
/// The best shell that there is. `sh` is asked for it, because what an image has only the image knows.
const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi";

/// How often the engine is asked, at most, for the process of a shell that is being started: it opens the terminal
/// before there is one, and has no event for it.
const LOOKS: u32 = 150;
/// How long between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What a helper says that it is for, which is a debug shell.
const PURPOSE: &str = "debug";

/// Open terminals, by the number of their stream.
#[derive(Debug, Default)]
pub(crate) struct Terminals(Mutex<HashMap<u32, Keyboard>>);

/// The page's way into a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Keyboard {
    pub(crate) typed: mpsc::Sender<Vec<u8>>,
    pub(crate) resizer: Resizer,
}

/// Who is told that a terminal has another size.
#[derive(Debug, Clone)]
pub(crate) enum Resizer {
    /// The engine, here.
    Engine(Place),
    /// Whoever carries the terminal's bytes.
    Carrier(watch::Sender<Size>),
}

/// Columns and rows of a terminal.
pub(crate) type Size = (u16, u16);

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

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn remove(&self, number: u32) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
    }
}

/// A shell that has been started, without its [`Keyboard`].
pub(crate) struct Opened {
    keys: mpsc::Receiver<Vec<u8>>,
    shell: Shell,
}

/// Where a shell runs.
enum Shell {
    /// In the container that it is for.
    Inside {
        terminal: Terminal,
        engine: Engine,
        exec: String,
        _hold: Hold,
    },
    /// In one beside it, which goes when the terminal does.
    Beside { terminal: Terminal, _helper: Helper },
    /// In the machine itself.
    Machine {
        packets: Upgraded,
        sizes: watch::Receiver<Size>,
    },
}

/// A shell in a container, which ends when this is dropped.
type Hold = oneshot::Sender<()>;

/// The page's end of a terminal.
struct Page {
    channel: Channel<InvokeResponseBody>,
    allowance: Allowance,
}

/// Starts a shell in a container.
pub(crate) async fn start(
    cove: &Cove,
    container: &str,
    columns: u16,
    rows: u16,
) -> Answer<(Opened, Keyboard)> {
    let machine = cove.machine();
    let engine = cove.engine_of(&machine);
    let create = json!({
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": true,
        "Cmd": ["sh", "-c", SHELL],
        "Env": [format!("TERM={KIND}")],
    });
    let created = engine
        .post(&Place::of(&["containers", container, "exec"]), Some(&create))
        .await?;
    let exec = created["Id"].as_str().unwrap_or_default().to_owned();
    let start = json!({"Detach": false, "Tty": true, "ConsoleSize": [rows, columns]});
    let terminal = engine
        .terminal(&Place::of(&["exec", &exec, "start"]), Some(&start))
        .await?;
    let (hold, let_go) = oneshot::channel();
    tauri::async_runtime::spawn(keep(engine.clone(), cove.client(), machine, exec.clone(), let_go));
    let resizer = Resizer::Engine(Place::of(&["exec", &exec, "resize"]));
    let shell = Shell::Inside {
        terminal,
        engine,
        exec,
        _hold: hold,
    };
    Ok(Opened::of(shell, resizer))
}

/// Has the agent hold the shell of an `exec` until it has ended or is let go of. Where it is let go of while it starts,
/// it is held first, and ends then.
async fn keep(engine: Engine, client: Client, machine: String, exec: String, let_go: oneshot::Receiver<()>) {
    let Some((process, container)) = process_of(&engine, &exec).await else {
        return;
    };
    let process = process.to_string();
    let words = [
        AGENT_PROGRAM,
        HANGUP_ARGUMENT,
        process.as_str(),
        container.as_str(),
    ];
    // The terminal is as good without: its shell goes on for longer, as in a machine of an earlier release.
    let Ok(mut program) = Program::open(&client, &machine, &guest::program(&words)).await else {
        return;
    };
    if !matches!(program.next().await, Ok(Said::Out(said)) if said == HELD) {
        return;
    }
    tokio::select! {
        _ = let_go => {}
        _ = program.next() => {}
    }
}

/// The process of an `exec` and the id of its container, once it runs; nothing if it has ended, or cannot be started.
async fn process_of(engine: &Engine, exec: &str) -> Option<(u64, String)> {
    let place = Place::of(&["exec", exec, "json"]);
    for _ in 0..LOOKS {
        let found = engine.get(&place).await.ok()?;
        if let (Some(true), Some(process @ 1..)) = (found["Running"].as_bool(), found["Pid"].as_u64()) {
            return Some((process, found["ContainerID"].as_str()?.to_owned()));
        }
        if !found["ExitCode"].is_null() {
            return None;
        }
        sleep(LOOK).await;
    }
    None
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
    let Some(helper) = Helper::create(cove, &engine, PURPOSE, body, None).await? else {
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
    let resizer = Resizer::Engine(of_it("resize"));
    let shell = Shell::Beside {
        terminal,
        _helper: helper,
    };
    Ok(Opened::of(shell, resizer))
}

/// Starts a login shell in the machine.
pub(crate) async fn start_in_machine(cove: &Cove, columns: u16, rows: u16) -> Answer<(Opened, Keyboard)> {
    let wanted = Exec {
        command: Vec::new(),
        environment: BTreeMap::new(),
        directory: None,
        terminal: Some(cove_wire::Terminal {
            kind: KIND.to_owned(),
            columns,
            rows,
        }),
    };
    let packets = cove.client().exec(&cove.machine(), &wanted).await?;
    let (sized, sizes) = watch::channel((columns, rows));
    let shell = Shell::Machine { packets, sizes };
    Ok(Opened::of(shell, Resizer::Carrier(sized)))
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
    fn of(shell: Shell, resizer: Resizer) -> (Self, Keyboard) {
        let (typed, keys) = mpsc::channel(TYPED_AHEAD);
        (Self { keys, shell }, Keyboard { typed, resizer })
    }

    /// Carries bytes both ways until either end has gone. The last message to the page is no bytes: whether there was a
    /// shell at all.
    pub(crate) async fn carry(self, channel: Channel<InvokeResponseBody>, allowance: Allowance) {
        let page = Page { channel, allowance };
        let began = match self.shell {
            Shell::Inside {
                terminal,
                engine,
                exec,
                _hold,
            } => {
                carry_bytes(terminal, self.keys, &page).await;
                match engine.get(&Place::of(&["exec", &exec, "json"])).await {
                    // One that could not be started has written why, as if that were its output.
                    Ok(exec) => began(&exec),
                    // Nobody knows, as when its container is gone. It is taken for what is usual.
                    Err(_) => true,
                }
            }
            // Without a shell its container had not been started.
            Shell::Beside { terminal, _helper } => {
                carry_bytes(terminal, self.keys, &page).await;
                true
            }
            // The machine's image has a login shell.
            Shell::Machine { packets, sizes } => {
                carry_packets(packets, self.keys, sizes, &page).await;
                true
            }
        };
        page.end(began);
    }
}

impl Page {
    /// Shows output, once the page has taken enough of what came before; whether there still is a page.
    async fn show(&self, output: Vec<u8>) -> bool {
        let size = u32::try_from(output.len()).unwrap_or(u32::MAX);
        self.allowance.spend(size).await;
        self.channel.send(InvokeResponseBody::Raw(output)).is_ok()
    }

    fn end(&self, began: bool) {
        // The page that is not there any more need not be told.
        let _ = self
            .channel
            .send(InvokeResponseBody::Json(json!({"began": began}).to_string()));
    }
}

/// Carries what a connection has both ways.
async fn carry_bytes(terminal: Terminal, mut keys: mpsc::Receiver<Vec<u8>>, page: &Page) {
    let (mut screen, mut keyboard) = tokio::io::split(terminal);
    let show = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = screen.read(&mut buffer).await {
            if !page.show(buffer[..count].to_vec()).await {
                return;
            }
        }
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

/// The same where bytes and sizes are packets.
async fn carry_packets(
    packets: impl AsyncRead + AsyncWrite + Send,
    mut keys: mpsc::Receiver<Vec<u8>>,
    mut sizes: watch::Receiver<Size>,
    page: &Page,
) {
    let (screen, keyboard) = tokio::io::split(packets);
    let mut screen = FramedRead::new(screen, ExecCodec);
    let mut keyboard = FramedWrite::new(keyboard, ExecCodec);
    let show = async {
        // What makes no sense ends the terminal as a broken connection does.
        while let Some(Ok(packet)) = screen.next().await {
            match packet {
                ExecPacket::Stdout(data) | ExecPacket::Stderr(data) if !data.is_empty() => {
                    if !page.show(data.to_vec()).await {
                        return;
                    }
                }
                ExecPacket::Exit(_) => return,
                // Nothing to show, or only ever sent by our side.
                ExecPacket::Stdout(_)
                | ExecPacket::Stderr(_)
                | ExecPacket::Stdin(_)
                | ExecPacket::StdinEnd
                | ExecPacket::Resize { .. }
                | ExecPacket::Signal(_) => {}
            }
        }
    };
    let press = async {
        while let Some(done) = next_done(&mut keys, &mut sizes).await {
            for packet in done {
                if keyboard.send(packet).await.is_err() {
                    // Output goes on although nothing is typed any more.
                    return std::future::pending().await;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = show => {}
        () = press => {}
    }
}

/// What is done next at a terminal in the machine, bytes typed or a new size; nothing once its keyboard is gone.
async fn next_done(
    keys: &mut mpsc::Receiver<Vec<u8>>,
    sizes: &mut watch::Receiver<Size>,
) -> Option<Vec<ExecPacket>> {
    tokio::select! {
        changed = sizes.changed() => {
            changed.ok()?;
            let (columns, rows) = *sizes.borrow_and_update();
            Some(vec![ExecPacket::Resize { columns, rows }])
        }
        typed = keys.recv() => {
            // A long text is typed in pieces that a packet may hold.
            let typed = Bytes::from(typed?);
            let pieces = typed.chunks(MAX_EXEC_DATA).map(|piece| typed.slice_ref(piece));
            Some(pieces.map(ExecPacket::Stdin).collect())
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
    use crate::stream::Streams;
    use cove_api::Dirs;
    use std::{fs, path::Path, sync::Arc};
    use tokio::{net::UnixListener, time::timeout};

    const SOON: Duration = Duration::from_secs(20);

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

    /// A socket in a directory of its own.
    fn listen(socket: &Path) -> UnixListener {
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        UnixListener::bind(socket).unwrap()
    }

    /// An engine at this socket that gives these answers, one after the other.
    fn answer(socket: &Path, answers: &'static [(&'static str, &'static str)]) {
        let listener = listen(socket);
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
    }

    /// What comes of a debug shell where the engine gives these answers, one after the other.
    async fn refused(answers: &'static [(&'static str, &'static str)]) -> Refusal {
        let directory = tempfile::tempdir().unwrap();
        let cove = Cove::of(Dirs::below(directory.path()), "default".to_owned());
        answer(&cove.dirs.docker_socket(&cove.machine()), answers);
        let started = start_beside(&cove, "web", 80, 24).await;
        started.err().unwrap()
    }

    #[tokio::test]
    async fn the_agent_holds_a_shell_until_its_terminal_is_let_go_of() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        let socket = dirs.docker_socket("default");
        answer(
            &socket,
            &[
                ("200 OK", r#"{"Running":false,"ExitCode":null,"Pid":0}"#),
                ("200 OK", r#"{"Running":true,"ExitCode":null,"Pid":0}"#),
                (
                    "200 OK",
                    r#"{"Running":true,"ExitCode":null,"Pid":4711,"ContainerID":"4f6e"}"#,
                ),
            ],
        );
        let daemon = listen(&dirs.daemon_socket());
        let (hold, let_go) = oneshot::channel();
        let (engine, client) = (Engine::at(socket), Client::of(&dirs));
        let keeping = tokio::spawn(keep(
            engine,
            client,
            "default".to_owned(),
            "e1".to_owned(),
            let_go,
        ));
        let (mut stream, _) = timeout(SOON, daemon.accept()).await.unwrap().unwrap();
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).contains(r#""hangup","4711","4f6e""#) {
            let more = timeout(SOON, stream.read_buf(&mut request))
                .await
                .unwrap()
                .unwrap();
            assert!(more > 0, "{}", String::from_utf8_lossy(&request));
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: cove-exec\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let held = ExecPacket::Stdout(Bytes::from_static(HELD.as_bytes()));
        FramedWrite::new(&mut stream, ExecCodec).send(held).await.unwrap();
        let early = timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(early.is_err(), "it was let go of before: {early:?}");
        drop(hold);
        let end = timeout(SOON, stream.read_u8()).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        keeping.await.unwrap();
    }

    #[tokio::test]
    async fn a_shell_that_never_ran_has_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        answer(
            &socket,
            &[("200 OK", r#"{"Running":false,"ExitCode":127,"Pid":0}"#)],
        );
        assert_eq!(process_of(&Engine::at(socket), "e1").await, None);
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

    #[test]
    fn a_shell_of_the_machine_hears_keys_and_sizes_and_its_end_is_told() {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (told, mut tell) = mpsc::unbounded_channel();
        let seen = Arc::clone(&shown);
        let channel = Channel::new(move |body| {
            match body {
                InvokeResponseBody::Raw(bytes) => seen.lock().unwrap().extend(bytes),
                InvokeResponseBody::Json(end) => told.send(end).unwrap(),
            }
            Ok(())
        });
        let streams = Streams::default();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (typed, keys) = mpsc::channel(TYPED_AHEAD);
        let (sized, sizes) = watch::channel((80, 24));
        streams.start(ALLOWANCE, |allowance| async move {
            let page = Page { channel, allowance };
            carry_packets(ours, keys, sizes, &page).await;
            page.end(true);
        });
        tauri::async_runtime::block_on(async {
            let (from_page, to_page) = tokio::io::split(theirs);
            let mut from_page = FramedRead::new(from_page, ExecCodec);
            let mut to_page = FramedWrite::new(to_page, ExecCodec);
            let long = vec![b'x'; MAX_EXEC_DATA + 1];
            typed.send(long).await.unwrap();
            for length in [MAX_EXEC_DATA, 1] {
                let packet = timeout(SOON, from_page.next()).await.unwrap().unwrap().unwrap();
                let ExecPacket::Stdin(data) = packet else {
                    panic!("{packet:?} was not typed");
                };
                assert_eq!(data.len(), length);
            }
            sized.send_replace((132, 43));
            let packet = timeout(SOON, from_page.next()).await.unwrap().unwrap().unwrap();
            let (columns, rows) = (132, 43);
            assert_eq!(packet, ExecPacket::Resize { columns, rows });
            for text in ["", "one ", "two"] {
                to_page
                    .send(ExecPacket::Stdout(Bytes::from_static(text.as_bytes())))
                    .await
                    .unwrap();
            }
            to_page.send(ExecPacket::Exit(0)).await.unwrap();
            let end = timeout(SOON, tell.recv()).await.unwrap().unwrap();
            assert_eq!(end, r#"{"began":true}"#);
        });
        assert_eq!(*shown.lock().unwrap(), b"one two");
    }
}
