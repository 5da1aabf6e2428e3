//! Programs that the host runs in the guest, outside of any container: `cove shell`, `cove exec`.
//!
//! ```text
//!  running ──the program ends──▶ its last output is sent, then its exit code
//!     └──────the host hangs up──▶ its process group gets SIGHUP, later SIGKILL
//! ```

use super::pty::{self, Pty};
use crate::{
    descriptor::awaited,
    process::{
        Child, Process,
        cgroup::Cgroup,
        confine::{Confinement, Session as Grouping, confine},
    },
    socket::Socket,
};
use bytes::Bytes;
use cove_wire::{Exec, ExecCodec, ExecPacket, Fault, FaultCode, WireError};
use futures_util::{SinkExt, StreamExt, future::join_all};
use rustix::{io::Errno, process::Signal};
use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, unix::AsyncFd},
    sync::mpsc,
    time::timeout,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite},
    sync::CancellationToken,
};

/// Environment that a program finds unless the host says otherwise.
const ENVIRONMENT: [(&str, &str); 6] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", HOME),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
];

const HOME: &str = "/root";

/// Most bytes of output in one packet.
const CHUNK: usize = 32 * 1024;

/// How long programs may take to end when the host has hung up.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long output may still come when the program has ended. What it wrote itself is there already, but a terminal
/// passes it on in its own time, and programs that it left behind may hold its output open for ever.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// `VEOF`: what ends the input of a program on a terminal.
const END_OF_TEXT: &[u8] = &[4];

/// One end of a pipe or of a terminal, which does not block.
type Pipe = Arc<AsyncFd<OwnedFd>>;

/// A program that was started for the host.
pub(super) struct Session {
    child: Child,
    input: Option<Pipe>,
    outputs: Vec<Output>,
    terminal: Option<Pipe>,
}

struct Output {
    pipe: Pipe,
    packet: fn(Bytes) -> ExecPacket,
}

impl Session {
    /// Starts the program.
    pub(super) fn start(exec: &Exec) -> Result<Self, Fault> {
        if let Some(name) = exec
            .environment
            .keys()
            .find(|name| name.is_empty() || name.contains('='))
        {
            return Err(Fault::new(
                FaultCode::Invalid,
                format!("{name:?} is not the name of a variable"),
            ));
        }
        let cgroup = Cgroup::make("shell").and_then(|group| group.entrance());
        let cgroup = cgroup
            .map_err(|error| Fault::new(FaultCode::Failed, format!("preparing a cgroup failed: {error}")))?;
        Self::spawn(exec, Some(cgroup)).map_err(|error| failed(exec, &error))
    }

    fn spawn(exec: &Exec, cgroup: Option<OwnedFd>) -> io::Result<Self> {
        let mut command = command(exec);
        confine(
            &mut command,
            Confinement {
                session: if exec.terminal.is_some() {
                    Grouping::Terminal
                } else {
                    Grouping::Group
                },
                cgroup,
                oom_score: "0",
            },
        );
        let Some(terminal) = &exec.terminal else {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = Child::spawn(&mut command)?;
            let mut outputs = Vec::new();
            for (end, packet) in [
                (child.stdout.take(), ExecPacket::Stdout as fn(Bytes) -> ExecPacket),
                (child.stderr.take(), ExecPacket::Stderr),
            ] {
                if let Some(pipe) = end.map(pipe).transpose()? {
                    outputs.push(Output { pipe, packet });
                }
            }
            return Ok(Self {
                input: child.stdin.take().map(pipe).transpose()?,
                child,
                outputs,
                terminal: None,
            });
        };
        let Pty { controller, user } = Pty::open(terminal)?;
        command
            .stdin(user.try_clone()?)
            .stdout(user.try_clone()?)
            .stderr(user);
        let child = Child::spawn(&mut command)?;
        let controller = pipe(controller)?;
        Ok(Self {
            child,
            input: Some(controller.clone()),
            outputs: vec![Output {
                pipe: controller.clone(),
                packet: ExecPacket::Stdout,
            }],
            terminal: Some(controller),
        })
    }

    /// Carries input and output until the program has ended or the host has hung up.
    pub(super) async fn serve(self, mut socket: Socket) -> Result<(), WireError> {
        let Self {
            mut child,
            input,
            outputs,
            terminal,
        } = self;
        let process = child.process();
        let ended = CancellationToken::new();
        let exit = {
            let input = take_input(&socket, input, terminal, process);
            let output = give_output(&socket, &outputs, &ended);
            tokio::pin!(input, output);
            let mut sent_all = false;
            let exit = loop {
                tokio::select! {
                    exit = child.wait() => break exit,
                    gone = &mut input => {
                        farewell(&mut child).await;
                        return gone;
                    }
                    sent = &mut output, if !sent_all => match sent {
                        // The program has closed its output and goes on.
                        Ok(()) => sent_all = true,
                        Err(error) => {
                            farewell(&mut child).await;
                            return Err(error);
                        }
                    },
                }
            };
            ended.cancel();
            if !sent_all {
                tokio::select! {
                    sent = &mut output => sent?,
                    gone = &mut input => return gone,
                }
            }
            exit
        };
        FramedWrite::new(&mut socket, ExecCodec)
            .send(ExecPacket::Exit(exit.code()))
            .await?;
        Ok(socket.shutdown().await?)
    }
}

fn command(exec: &Exec) -> Command {
    let mut command;
    if let Some((program, arguments)) = exec.command.split_first() {
        command = Command::new(program);
        command.args(arguments);
    } else {
        command = Command::new("/bin/sh");
        // The leading hyphen makes it a login shell.
        command.arg0("-sh");
    }
    command
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir(exec.directory.as_deref().unwrap_or(HOME));
    if let Some(terminal) = &exec.terminal {
        command.env("TERM", &terminal.kind);
    }
    command.envs(&exec.environment);
    command
}

/// Says what of `exec` made it fail.
fn failed(exec: &Exec, error: &io::Error) -> Fault {
    let directory = exec.directory.as_deref().unwrap_or(HOME);
    let program = exec.command.first().map_or("/bin/sh", String::as_str);
    let (code, what) = match error.kind() {
        // The kernel does not say which of the two it has not found.
        io::ErrorKind::NotFound if !Path::new(directory).is_dir() => {
            (FaultCode::NotFound, format!("in the directory {directory}"))
        }
        io::ErrorKind::NotFound => (FaultCode::NotFound, String::new()),
        io::ErrorKind::InvalidInput => (FaultCode::Invalid, String::new()),
        _ => (FaultCode::Failed, String::new()),
    };
    let separator = if what.is_empty() { "" } else { " " };
    Fault::new(
        code,
        format!("running {program}{separator}{what} failed: {error}"),
    )
}

fn pipe(end: OwnedFd) -> io::Result<Pipe> {
    rustix::io::ioctl_fionbio(&end, true)?;
    Ok(Arc::new(awaited(end)?))
}

/// Takes the host's packets. Returns when the host has hung up, or has sent what makes no sense.
async fn take_input(
    socket: &Socket,
    mut input: Option<Pipe>,
    terminal: Option<Pipe>,
    process: Process,
) -> Result<(), WireError> {
    let mut packets = FramedRead::new(socket, ExecCodec);
    while let Some(packet) = packets.next().await.transpose()? {
        match packet {
            ExecPacket::Stdin(data) => {
                let Some(pipe) = &input else { continue };
                tokio::select! {
                    written = write_all(pipe, &data) => if written.is_err() {
                        // The program no longer reads, and need not.
                        input = None;
                    },
                    () = socket.hung_up() => return Ok(()),
                }
            }
            ExecPacket::StdinEnd => {
                if let (Some(terminal), Some(_)) = (&terminal, &input) {
                    write_all(terminal, END_OF_TEXT).await?;
                }
                input = None;
            }
            ExecPacket::Resize { columns, rows } => {
                if let Some(terminal) = &terminal {
                    pty::resize(terminal.get_ref(), columns, rows)?;
                }
            }
            ExecPacket::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                    process.signal_group(signal);
                }
            }
            ExecPacket::Stdout(_) | ExecPacket::Stderr(_) | ExecPacket::Exit(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the host sent a packet of the guest's",
                )
                .into());
            }
        }
    }
    drop(input);
    socket.hung_up().await;
    Ok(())
}

/// Sends the program's output to the host until it ends.
async fn give_output(
    socket: &Socket,
    outputs: &[Output],
    ended: &CancellationToken,
) -> Result<(), WireError> {
    let (sender, mut packets) = mpsc::channel(2);
    let read_all = join_all(outputs.iter().map(|output| output.read(sender.clone(), ended)));
    drop(sender);
    let send_all = async {
        let mut sink = FramedWrite::new(socket, ExecCodec);
        while let Some(packet) = packets.recv().await {
            sink.send(packet).await?;
        }
        Ok(())
    };
    let read_all = async {
        read_all.await;
        Ok(())
    };
    tokio::try_join!(send_all, read_all).map(|_| ())
}

impl Output {
    /// Reads until the end. When the program has `ended`, that is where nothing more comes.
    async fn read(&self, packets: mpsc::Sender<ExecPacket>, ended: &CancellationToken) {
        let mut buffer = vec![0; CHUNK];
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                // EIO is how a terminal says that its last program has closed it.
                Ok(0) | Err(Errno::IO) => return,
                Ok(length) => {
                    let data = Bytes::copy_from_slice(&buffer[..length]);
                    if packets.send((self.packet)(data)).await.is_err() {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    tokio::select! {
                        ready = readable(&self.pipe) => if ready.is_err() { return },
                        () = ended.cancelled() => match timeout(LAST_WORDS, readable(&self.pipe)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) | Err(_) => return,
                        },
                    }
                }
                Err(error) => {
                    tracing::warn!("reading a program's output failed: {error}");
                    return;
                }
            }
        }
    }
}

async fn readable(pipe: &Pipe) -> io::Result<()> {
    pipe.readable().await?.clear_ready();
    Ok(())
}

async fn write_all(pipe: &Pipe, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::write(pipe, data) {
            Ok(written) => data = &data[written..],
            Err(Errno::AGAIN) => pipe.writable().await?.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Ends a program whose host has hung up, as a terminal would that was closed.
async fn farewell(child: &mut Child) {
    let process = child.process();
    process.signal_group(Signal::HUP);
    process.signal_group(Signal::CONT);
    if timeout(FAREWELL, child.wait()).await.is_err() {
        process.signal_group(Signal::KILL);
        child.wait().await;
    }
}
