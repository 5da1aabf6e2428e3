//! exec and shell: a process in the guest with our standard streams, or with a terminal like ours.
//!
//! ```text
//!  stdin ──▶ Stdin … StdinEnd ──▶ ┐           ┌──▶ Stdout ──▶ stdout
//!  window changes ──▶ Resize ───▶ ├─ process ─┼──▶ Stderr ──▶ stderr
//!  SIGINT, SIGTERM … ──▶ Signal ▶ ┘           └──▶ Exit ────▶ our exit code
//! ```
//!
//! The process ends when its connection does, so that a command that is killed leaves nothing behind in the guest. That
//! is also the way out for a signal that cannot reach the process, because input that it does not read is before it.

use super::Session;
use crate::{exit::Exit, failure::Failure, terminal};
use anyhow::Context as _;
use bytes::Bytes;
use cove_api::{Client, Upgraded};
use cove_wire::{Exec, ExecCodec, ExecPacket, MAX_EXEC_DATA, WireError};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    process::ExitCode,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until},
};
use tokio_util::codec::{FramedRead, FramedWrite};

/// How long a signal waits behind input that is being sent, before it ends this command instead of the process.
const GRACE: Duration = Duration::from_secs(1);
/// So many signals end this command whatever the process does about them, as they end the Docker client.
const INSISTENCE: u32 = 3;
/// SIGHUP, as Linux counts.
const HANG_UP: u8 = 1;

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
    let mut host = HostEvents::new(wanted.terminal.is_some())?;
    let guest = FramedWrite::new(to_guest, ExecCodec);
    let code = tokio::select! {
        code = show_output(FramedRead::new(from_guest, ExecCodec)) => code?,
        // The connection ends with this function, and the process with the connection.
        signal = pass_input(tokio::io::stdin(), guest, &mut host) => 128 + i32::from(signal?),
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

/// Passes on input, window sizes and signals. Answers the signal that ends this command because the process cannot be
/// reached by it: input that it does not read stands in the way, or the guest takes nothing any more, or it was sent
/// [`INSISTENCE`] times. As long as none comes, the process's own end is what ends the command.
async fn pass_input(
    mut stdin: impl AsyncRead + Unpin,
    mut guest: FramedWrite<impl AsyncWrite + Unpin, ExecCodec>,
    host: &mut HostEvents,
) -> anyhow::Result<u8> {
    let mut buffer = vec![0; MAX_EXEC_DATA];
    let mut open = true;
    let mut signals = 0;
    // What happened while something else was being sent.
    let mut due = VecDeque::new();
    loop {
        let next = async {
            match due.pop_front() {
                Some(packet) => packet,
                None => std::future::pending().await,
            }
        };
        let packet = tokio::select! {
            biased;
            packet = next => packet,
            event = host.next() => match event {
                HostEvent::Resized => resize(),
                HostEvent::Signal(number) => {
                    signals += 1;
                    if signals >= INSISTENCE {
                        return Ok(number);
                    }
                    ExecPacket::Signal(number)
                }
                HostEvent::TerminalGone => return Ok(HANG_UP),
            },
            read = stdin.read(&mut buffer), if open => match read {
                Ok(count) if count > 0 => ExecPacket::Stdin(Bytes::copy_from_slice(&buffer[..count])),
                // A standard input that cannot be read is one that has ended.
                _ => {
                    open = false;
                    ExecPacket::StdinEnd
                }
            },
        };
        let sending = guest.send(packet);
        tokio::pin!(sending);
        let mut ultimatum: Option<(u8, Instant)> = None;
        let sent = loop {
            let (signal, deadline) = ultimatum.unwrap_or((0, Instant::now()));
            tokio::select! {
                sent = &mut sending => break sent,
                event = host.next() => match event {
                    HostEvent::Resized => due.push_back(resize()),
                    HostEvent::Signal(number) if ultimatum.is_some() => return Ok(number),
                    HostEvent::Signal(number) => {
                        signals += 1;
                        ultimatum = Some((number, Instant::now() + GRACE));
                        due.push_back(ExecPacket::Signal(number));
                    }
                    HostEvent::TerminalGone => return Ok(HANG_UP),
                },
                () = sleep_until(deadline), if ultimatum.is_some() => return Ok(signal),
            }
        };
        match sent {
            Ok(()) => {}
            Err(WireError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
                // The guest takes no more input, which is its right; its output goes on.
                return Ok(ended_by(host).await);
            }
            Err(error) => return Err(error).context("cannot send input to the machine"),
        }
    }
}

/// The signal that ends us, once nothing can be passed on.
async fn ended_by(host: &mut HostEvents) -> u8 {
    loop {
        match host.next().await {
            HostEvent::Resized => {}
            HostEvent::Signal(number) => return number,
            HostEvent::TerminalGone => return HANG_UP,
        }
    }
}

fn resize() -> ExecPacket {
    let (columns, rows) = terminal::size();
    ExecPacket::Resize { columns, rows }
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// Signals are the process's, so that the tests that send some take turns.
    static SIGNALS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn signal_ourselves() {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::INT).unwrap();
    }

    #[tokio::test]
    async fn a_signal_behind_input_that_nobody_reads_ends_the_command() {
        let _turn = SIGNALS.lock().await;
        let mut host = HostEvents::new(false).unwrap();
        let (ours, _never_read) = tokio::io::duplex(1024);
        let guest = FramedWrite::new(ours, ExecCodec);
        let ends = pass_input(tokio::io::repeat(b'y'), guest, &mut host);
        let signals = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            signal_ourselves();
        };
        let (signal, ()) = timeout(GRACE * 10, async { tokio::join!(ends, signals) })
            .await
            .unwrap();
        assert_eq!(signal.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_signal_is_passed_on_until_somebody_insists() {
        let _turn = SIGNALS.lock().await;
        let mut host = HostEvents::new(false).unwrap();
        let (ours, theirs) = tokio::io::duplex(1024);
        let ends = pass_input(tokio::io::empty(), FramedWrite::new(ours, ExecCodec), &mut host);
        let guest = async {
            let mut packets = FramedRead::new(theirs, ExecCodec);
            assert_eq!(packets.next().await.unwrap().unwrap(), ExecPacket::StdinEnd);
            for _ in 1..INSISTENCE {
                signal_ourselves();
                assert_eq!(packets.next().await.unwrap().unwrap(), ExecPacket::Signal(2));
            }
            signal_ourselves();
            packets.next().await
        };
        let (signal, nothing) = timeout(GRACE * 10, async { tokio::join!(ends, guest) })
            .await
            .unwrap();
        assert_eq!(signal.unwrap(), 2);
        assert!(nothing.is_none(), "{nothing:?}");
    }
}
