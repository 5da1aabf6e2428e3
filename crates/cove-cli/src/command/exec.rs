//! exec and shell: a process in the guest with our standard streams, or with a terminal like ours.
//!
//! ```text
//!  stdin ──▶ Stdin … StdinEnd ──▶ ┐           ┌──▶ Stdout ──▶ stdout
//!  window changes ──▶ Resize ───▶ ├─ process ─┼──▶ Stderr ──▶ stderr
//!  SIGINT, SIGTERM … ──▶ Signal ▶ ┘           └──▶ Exit ────▶ our exit code
//! ```
//!
//! The process ends when its connection does, so that a command that is killed leaves nothing behind in the guest.

use super::Session;
use crate::{exit::Exit, failure::Failure, terminal};
use anyhow::Context as _;
use bytes::Bytes;
use cove_api::{Client, Upgraded};
use cove_wire::{Exec, ExecCodec, ExecPacket, MAX_EXEC_DATA};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{collections::BTreeMap, io, process::ExitCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::codec::{FramedRead, FramedWrite};

type Guest = FramedWrite<tokio::io::WriteHalf<Upgraded>, ExecCodec>;

pub(super) async fn shell(session: &Session) -> anyhow::Result<ExitCode> {
    let wanted = Exec {
        command: Vec::new(),
        environment: BTreeMap::new(),
        directory: None,
        terminal: terminal::is_interactive().then(terminal::like_ours),
    };
    run(&session.daemon().await?, &session.machine, &wanted).await
}

pub(super) async fn exec(
    session: &Session,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    directory: Option<String>,
    with_terminal: Option<bool>,
) -> anyhow::Result<ExitCode> {
    let wanted = Exec {
        command,
        environment: environment.into_iter().collect(),
        directory,
        terminal: with_terminal
            .unwrap_or_else(terminal::is_interactive)
            .then(terminal::like_ours),
    };
    run(&session.daemon().await?, &session.machine, &wanted).await
}

/// Runs the process until it ends; its exit code becomes ours.
pub(super) async fn run(client: &Client, machine: &str, wanted: &Exec) -> anyhow::Result<ExitCode> {
    let stream = client.exec(machine, wanted).await?;
    let raw_mode = match wanted.terminal {
        Some(_) => terminal::RawMode::set().context("cannot set the terminal to raw mode")?,
        None => None,
    };
    let (from_guest, to_guest) = tokio::io::split(stream);
    let code = tokio::select! {
        code = show_output(FramedRead::new(from_guest, ExecCodec)) => code?,
        error = pass_input(FramedWrite::new(to_guest, ExecCodec), wanted.terminal.is_some()) => return Err(error),
    };
    drop(raw_mode);
    // An exit code has eight bits here, as it has in the guest.
    Ok(ExitCode::from(code.to_le_bytes()[0]))
}

async fn show_output(
    mut packets: FramedRead<tokio::io::ReadHalf<Upgraded>, ExecCodec>,
) -> anyhow::Result<i32> {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    while let Some(packet) = packets.next().await {
        match packet.context("the machine sent something that makes no sense")? {
            ExecPacket::Stdout(data) => {
                stdout.write_all(&data).await?;
                stdout.flush().await?;
            }
            ExecPacket::Stderr(data) => {
                stderr.write_all(&data).await?;
                stderr.flush().await?;
            }
            ExecPacket::Exit(code) => return Ok(code),
            // Only ever sent by our side.
            ExecPacket::Stdin(_)
            | ExecPacket::StdinEnd
            | ExecPacket::Resize { .. }
            | ExecPacket::Signal(_) => {}
        }
    }
    Err(Failure::new(
        Exit::MachineFailed,
        "the connection to the machine ended before the program did",
        "see how the machine is with: cove status",
    )
    .into())
}

/// Passes on input, window sizes and signals until the guest takes no more. Never ends well by itself: the process's
/// exit is what ends the command.
async fn pass_input(mut guest: Guest, with_terminal: bool) -> anyhow::Error {
    match try_pass_input(&mut guest, with_terminal).await {
        Err(error) => error,
        Ok(()) => {
            // The guest takes no more input, which is its right; its output goes on.
            std::future::pending().await
        }
    }
}

async fn try_pass_input(guest: &mut Guest, with_terminal: bool) -> anyhow::Result<()> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; MAX_EXEC_DATA];
    let mut open = true;
    let mut host = HostEvents::new(with_terminal)?;
    loop {
        let packet = tokio::select! {
            read = stdin.read(&mut buffer), if open => {
                match read {
                    Ok(count) if count > 0 => ExecPacket::Stdin(Bytes::copy_from_slice(&buffer[..count])),
                    // A standard input that cannot be read is one that has ended.
                    _ => {
                        open = false;
                        ExecPacket::StdinEnd
                    }
                }
            }
            event = host.next() => match event {
                HostEvent::Resized => {
                    let (columns, rows) = terminal::size();
                    ExecPacket::Resize { columns, rows }
                }
                HostEvent::Signal(number) => ExecPacket::Signal(number),
                HostEvent::TerminalGone => {
                    return Err(Failure::new(Exit::Failed, "the terminal has gone away", "").into());
                }
            },
        };
        if let Err(error) = guest.send(packet).await {
            return match error {
                cove_wire::WireError::Io(source) if source.kind() != io::ErrorKind::InvalidData => Ok(()),
                error => Err(error).context("cannot send input to the machine"),
            };
        }
    }
}

/// What happens to us while the process runs.
enum HostEvent {
    /// Our window has another size.
    Resized,
    /// A signal that is the process's business, by its Linux number.
    Signal(u8),
    /// We are to end.
    TerminalGone,
}

#[cfg(unix)]
struct HostEvents {
    resized: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    with_terminal: bool,
}

#[cfg(unix)]
impl HostEvents {
    fn new(with_terminal: bool) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            with_terminal,
        })
    }

    async fn next(&mut self) -> HostEvent {
        loop {
            tokio::select! {
                _ = self.resized.recv() => if self.with_terminal { return HostEvent::Resized },
                _ = self.interrupt.recv() => return HostEvent::Signal(2),
                _ = self.quit.recv() => return HostEvent::Signal(3),
                _ = self.terminate.recv() => return HostEvent::Signal(15),
                _ = self.hang_up.recv() => return HostEvent::TerminalGone,
            }
        }
    }
}

#[cfg(windows)]
struct HostEvents {
    interrupt: tokio::signal::windows::CtrlC,
    closed: tokio::signal::windows::CtrlClose,
    with_terminal: bool,
    last: (u16, u16),
}

#[cfg(windows)]
impl HostEvents {
    fn new(with_terminal: bool) -> io::Result<Self> {
        Ok(Self {
            interrupt: tokio::signal::windows::ctrl_c()?,
            closed: tokio::signal::windows::ctrl_close()?,
            with_terminal,
            last: terminal::size(),
        })
    }

    /// No signal tells of a new window size here, so it is looked up now and then.
    async fn next(&mut self) -> HostEvent {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return HostEvent::Signal(2),
                _ = self.closed.recv() => return HostEvent::TerminalGone,
                () = tokio::time::sleep(std::time::Duration::from_millis(250)) => {
                    let now = terminal::size();
                    if self.with_terminal && now != self.last {
                        self.last = now;
                        return HostEvent::Resized;
                    }
                }
            }
        }
    }
}
