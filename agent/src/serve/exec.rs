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
        cgroup::{self, Cgroup},
        confine::{Confinement, Session as Grouping, confine},
    },
    socket::Socket,
};
use bytes::{Buf, Bytes, BytesMut};
use cove_wire::{Exec, ExecCodec, ExecPacket, Fault, FaultCode, Terminal, WireError};
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

/// Most bytes of input that wait for a program to read them, but for the rest of the last packet.
const MAX_UNREAD: usize = 1 << 20;

/// `VEOF`: what ends the input of a program on a terminal.
const END_OF_TEXT: &[u8] = &[4];

/// The codes by which POSIX shells say that a program is not there, and that a file cannot be run.
const NOT_FOUND: i32 = 127;
const NO_PROGRAM: i32 = 126;

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

/// What became of a program that was to be started.
pub(super) enum Attempt {
    Running(Session),
    /// There is no such program, or it is none. The host learns it the way shells tell it: by a line on standard error
    /// and an exit code of its own.
    NotRun {
        code: i32,
        why: String,
    },
}

impl Attempt {
    /// Serves the program until it has ended, if it could be started.
    pub(super) async fn serve(self, mut socket: Socket) -> Result<(), WireError> {
        match self {
            Self::Running(session) => session.serve(socket).await,
            Self::NotRun { code, why } => {
                let mut host = FramedWrite::new(&mut socket, ExecCodec);
                host.feed(ExecPacket::Stderr(format!("{why}\n").into())).await?;
                host.send(ExecPacket::Exit(code)).await?;
                Ok(socket.shutdown().await?)
            }
        }
    }
}

impl Session {
    /// Starts the program.
    pub(super) fn start(exec: &Exec) -> Result<Attempt, Fault> {
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
        let cgroup = match Cgroup::make(cgroup::SHELL).and_then(|group| group.entrance()) {
            Ok(entrance) => Some(entrance),
            Err(error) => {
                // A shell is most needed where something is wrong.
                tracing::warn!("running a program without a control group of its own: {error}");
                None
            }
        };
        match Self::spawn(exec, cgroup) {
            Ok(session) => Ok(Attempt::Running(session)),
            Err(error) => failed(exec, &error),
        }
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
        match &exec.terminal {
            Some(terminal) => Self::on_terminal(command, terminal),
            None => Self::on_pipes(command),
        }
    }

    fn on_pipes(mut command: Command) -> io::Result<Self> {
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
        Ok(Self {
            input: child.stdin.take().map(pipe).transpose()?,
            child,
            outputs,
            terminal: None,
        })
    }

    fn on_terminal(mut command: Command, terminal: &Terminal) -> io::Result<Self> {
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
    async fn serve(self, mut socket: Socket) -> Result<(), WireError> {
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
fn failed(exec: &Exec, error: &io::Error) -> Result<Attempt, Fault> {
    let directory = exec.directory.as_deref().unwrap_or(HOME);
    let program = exec.command.first().map_or("/bin/sh", String::as_str);
    let why = format!("running {program} failed: {error}");
    match error.kind() {
        // The kernel does not say which of the two it has not found.
        io::ErrorKind::NotFound if !Path::new(directory).is_dir() => Err(Fault::new(
            FaultCode::NotFound,
            format!("running {program} in the directory {directory} failed: {error}"),
        )),
        io::ErrorKind::NotFound => Ok(Attempt::NotRun { code: NOT_FOUND, why }),
        _ if [Errno::ACCESS, Errno::PERM, Errno::ISDIR, Errno::NOEXEC]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            let code = NO_PROGRAM;
            Ok(Attempt::NotRun { code, why })
        }
        io::ErrorKind::InvalidInput => Err(Fault::new(FaultCode::Invalid, why)),
        _ => Err(Fault::new(FaultCode::Failed, why)),
    }
}

fn pipe(end: OwnedFd) -> io::Result<Pipe> {
    rustix::io::ioctl_fionbio(&end, true)?;
    Ok(Arc::new(awaited(end)?))
}

/// Takes the host's packets. Returns when the host has hung up, or has sent what makes no sense.
///
/// A program need not read its input, and still a signal has to reach it: packets are taken while it does not, until
/// [`MAX_UNREAD`] bytes wait for it.
async fn take_input(
    socket: &Socket,
    mut input: Option<Pipe>,
    terminal: Option<Pipe>,
    process: Process,
) -> Result<(), WireError> {
    let mut packets = FramedRead::new(socket, ExecCodec);
    let mut unread = BytesMut::new();
    // Whether the host has more to say, and whether some of that may be input.
    let (mut speaks, mut ended) = (true, false);
    while speaks || !unread.is_empty() {
        let packet = tokio::select! {
            packet = packets.next(), if speaks && unread.len() < MAX_UNREAD => packet.transpose()?,
            written = write_some(input.as_ref(), &unread), if !unread.is_empty() => {
                if let Ok(length) = written {
                    unread.advance(length);
                } else {
                    // The program no longer reads, and need not.
                    input = None;
                    unread.clear();
                }
                if ended && unread.is_empty() {
                    input = None;
                }
                continue;
            }
            () = socket.hung_up(), if unread.len() >= MAX_UNREAD || !speaks => return Ok(()),
        };
        match packet {
            None => (speaks, ended) = (false, true),
            Some(ExecPacket::Stdin(data)) if input.is_some() && !ended => unread.extend_from_slice(&data),
            Some(ExecPacket::Stdin(_)) => {}
            Some(ExecPacket::StdinEnd) => {
                if terminal.is_some() && input.is_some() && !ended {
                    unread.extend_from_slice(END_OF_TEXT);
                }
                ended = true;
            }
            Some(ExecPacket::Resize { columns, rows }) => {
                if let Some(terminal) = &terminal {
                    pty::resize(terminal.get_ref(), columns, rows)?;
                }
            }
            Some(ExecPacket::Signal(number)) => {
                if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                    process.signal_group(signal);
                }
            }
            Some(ExecPacket::Stdout(_) | ExecPacket::Stderr(_) | ExecPacket::Exit(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the host sent a packet of the guest's",
                )
                .into());
            }
        }
        if ended && unread.is_empty() {
            input = None;
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

/// Writes what the program takes of it now, at least one byte; answers how many.
async fn write_some(pipe: Option<&Pipe>, data: &[u8]) -> io::Result<usize> {
    let pipe = pipe.ok_or(io::ErrorKind::BrokenPipe)?;
    loop {
        match rustix::io::write(pipe, data) {
            Ok(written) => return Ok(written),
            Err(Errno::AGAIN) => pipe.writable().await?.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::reap;
    use tokio::task::JoinHandle;
    use tokio_util::codec::Framed;

    /// A program, and the host's end of its stream.
    struct Running {
        host: Framed<Socket, ExecCodec>,
        process: Process,
        served: JoinHandle<Result<(), WireError>>,
        reaper: JoinHandle<io::Result<()>>,
    }

    fn start(script: &str, terminal: Option<Terminal>) -> Running {
        let exec = Exec {
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            environment: [("GREETING".into(), "hello".into())].into(),
            directory: Some("/".into()),
            terminal,
        };
        let reaper = tokio::spawn(reap());
        let session = Session::spawn(&exec, None).unwrap();
        let (host, socket) = Socket::pair();
        Running {
            host: Framed::new(host, ExecCodec),
            process: session.child.process(),
            served: tokio::spawn(session.serve(socket)),
            reaper,
        }
    }

    impl Running {
        async fn send(&mut self, packet: ExecPacket) {
            self.host.send(packet).await.unwrap();
        }

        /// Standard output, standard error and exit code.
        async fn finish(mut self) -> (BytesMut, BytesMut, i32) {
            let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
            loop {
                match self.host.next().await.unwrap().unwrap() {
                    ExecPacket::Stdout(data) => out.extend_from_slice(&data),
                    ExecPacket::Stderr(data) => err.extend_from_slice(&data),
                    ExecPacket::Exit(code) => {
                        assert!(self.host.next().await.is_none(), "nothing follows the exit");
                        self.reaper.abort();
                        return (out, err, code);
                    }
                    other => panic!("the guest sent {other:?}"),
                }
            }
        }

        /// Drops the host's end and waits for the program to be gone.
        async fn hang_up(self) {
            drop(self.host);
            timeout(FAREWELL * 2, self.served)
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert!(!self.process.is_running());
            self.reaper.abort();
        }
    }

    #[tokio::test]
    async fn input_output_and_exit_code_go_through_pipes() {
        let mut running = start("echo $GREETING; cat; echo oops >&2; exit 7", None);
        running
            .send(ExecPacket::Stdin(Bytes::from_static(b"there")))
            .await;
        running.send(ExecPacket::StdinEnd).await;
        let (out, err, code) = running.finish().await;
        assert_eq!(
            (&out[..], &err[..], code),
            (&b"hello\nthere"[..], &b"oops\n"[..], 7)
        );
    }

    #[tokio::test]
    async fn a_program_left_in_the_background_does_not_hold_the_exit() {
        let started = std::time::Instant::now();
        let (out, _, code) = start("echo first; sleep 30 & exit 3", None).finish().await;
        assert_eq!((&out[..], code), (&b"first\n"[..], 3));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_terminal_has_its_size_and_is_resized() {
        let terminal = Terminal {
            kind: "xterm".into(),
            columns: 90,
            rows: 30,
        };
        let mut running = start(
            "stty -echo; stty size; read line; stty size; echo $TERM",
            Some(terminal),
        );
        running
            .send(ExecPacket::Resize {
                columns: 100,
                rows: 40,
            })
            .await;
        running.send(ExecPacket::Stdin(Bytes::from_static(b"\n"))).await;
        let (out, _, code) = running.finish().await;
        let out = String::from_utf8_lossy(&out).into_owned();
        assert!(out.ends_with("40 100\r\nxterm\r\n"), "{out:?}");
        assert_eq!(code, 0);
    }

    #[tokio::test]
    async fn a_signal_reaches_the_whole_group() {
        let mut running = start("echo up; sleep 60; true", None);
        assert!(matches!(
            running.host.next().await,
            Some(Ok(ExecPacket::Stdout(_)))
        ));
        running.send(ExecPacket::Signal(15)).await;
        assert_eq!(running.finish().await.2, 143);
    }

    #[tokio::test]
    async fn a_host_that_hangs_up_ends_the_program_even_when_it_is_silent() {
        start("sleep 60; true", None).hang_up().await;
    }

    #[tokio::test]
    async fn a_host_that_hangs_up_with_input_unread_ends_the_program() {
        let mut running = start("sleep 60; true", None);
        for _ in 0..3 {
            running.send(ExecPacket::Stdin(vec![b'x'; 40_000].into())).await;
        }
        running.hang_up().await;
    }

    #[tokio::test]
    async fn a_host_that_hangs_up_ends_a_program_whose_input_fills_everything_on_the_way() {
        let mut running = start("sleep 60; true", None);
        let flood = async {
            for _ in 0..1000 {
                running.send(ExecPacket::Stdin(vec![b'x'; 40_000].into())).await;
            }
        };
        assert!(timeout(Duration::from_secs(1), flood).await.is_err());
        running.hang_up().await;
    }

    #[tokio::test]
    async fn a_signal_reaches_a_program_that_does_not_read_its_input() {
        let mut running = start("echo up; sleep 60; true", None);
        assert!(matches!(
            running.host.next().await,
            Some(Ok(ExecPacket::Stdout(_)))
        ));
        for _ in 0..5 {
            running.send(ExecPacket::Stdin(vec![b'x'; 40_000].into())).await;
        }
        running.send(ExecPacket::StdinEnd).await;
        running.send(ExecPacket::Signal(15)).await;
        let (_, _, code) = timeout(FAREWELL * 2, running.finish()).await.unwrap();
        assert_eq!(code, 143);
    }

    #[tokio::test]
    async fn input_waits_for_a_program_that_reads_it_late_and_ends_after_it() {
        let mut running = start("sleep 0.3; wc -c", None);
        for _ in 0..50 {
            running.send(ExecPacket::Stdin(vec![b'x'; 40_000].into())).await;
        }
        running.send(ExecPacket::StdinEnd).await;
        let (out, _, code) = running.finish().await;
        assert_eq!((String::from_utf8_lossy(&out).trim(), code), ("2000000", 0));
    }

    #[tokio::test]
    async fn packets_that_only_the_guest_may_send_end_the_stream() {
        let mut running = start("sleep 60; true", None);
        running.send(ExecPacket::Exit(0)).await;
        let served = timeout(FAREWELL * 2, running.served).await.unwrap().unwrap();
        assert!(matches!(served, Err(WireError::Io(error)) if error.kind() == io::ErrorKind::InvalidData));
        assert!(!running.process.is_running());
        running.reaper.abort();
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let exec = |program: &str, directory: &str| Exec {
            command: vec![program.into()],
            environment: [].into(),
            directory: Some(directory.into()),
            terminal: None,
        };
        let attempt = |exec: &Exec| failed(exec, &Session::spawn(exec, None).err().unwrap());
        let fault = attempt(&exec("true", "/nowhere")).err().unwrap();
        assert_eq!(fault.code, FaultCode::NotFound);
        assert!(fault.message.contains("/nowhere"), "{}", fault.message);
        for (program, told) in [("nothing-there", 127), ("/etc/passwd", 126), ("/", 126)] {
            let Ok(Attempt::NotRun { code, why }) = attempt(&exec(program, "/")) else {
                panic!("{program} is told as something else");
            };
            assert_eq!(code, told, "{why}");
            assert!(why.contains(program), "{why}");
        }
    }
}
