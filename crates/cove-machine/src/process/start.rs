//! Starts machine processes, finds those that an earlier daemon started, and cleans up after those that are gone.

use super::{
    left_over,
    lock::Lock,
    log::{self, ProcessLog},
    protocol::{self, Hello, Line, StartReport},
    record::{self, Launch},
    remote::Remote,
    spawn::{self, Bond},
};
use crate::{Exit, ExitCause, MachineError, MachineSpec, sockets};
use futures_util::StreamExt;
use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout},
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_util::codec::LinesCodecError;

/// How long a machine process may take to have its guest run. QEMU takes a third of a second on an idle computer.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a process that holds the lock may take to answer.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process may take to greet on a connection that it accepted, or to end after it said its last word.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest line in which a start is reported, in bytes.
const MAX_REPORT: u64 = 64 << 10;

/// Starts a machine process as `program machine-process --directory DIR` and waits until its guest runs.
pub(crate) async fn start(program: &Path, launch: &Launch) -> Result<Remote, MachineError> {
    let spec = &launch.spec;
    sockets::check_lengths(&spec.runtime)?;
    create(&spec.directory)?;
    create(&spec.runtime)?;
    {
        // The machine process takes the lock for itself; until then it keeps the specification from being replaced
        // under a machine that runs.
        let _lock = Lock::take(&spec.directory)?;
        record::write(&spec.directory, launch)?;
    }
    let log = log::open(&spec.directory)?;
    let (child, stdout) = spawn_process(program, &spec.directory, &log)?;
    let reaper = Reaper::new(child);
    let mut report = String::new();
    let mut stdout = BufReader::new(stdout).take(MAX_REPORT);
    if timeout(START_TIMEOUT, stdout.read_line(&mut report))
        .await
        .is_err()
    {
        reaper.kill();
        return Err(MachineError::StartFailed {
            why: format!("nothing happened for {} seconds", START_TIMEOUT.as_secs()),
        });
    }
    match protocol::decode(&report) {
        Ok(StartReport::Running) => {
            let greeted = connect(&spec.runtime).await;
            if greeted.is_err() {
                // A machine that nobody can reach must not run on.
                reaper.kill();
            }
            Ok(Remote::attend(spec, greeted?))
        }
        Ok(StartReport::Locked) => Err(MachineError::Locked {
            directory: spec.directory.clone(),
        }),
        Ok(StartReport::Failed { why, crashed: true }) => Err(MachineError::Crashed { why }),
        Ok(StartReport::Failed { why, crashed: false }) => Err(MachineError::StartFailed { why }),
        Err(_) => {
            let status = reaper.status().await;
            let status = status.map_or_else(|| "it is still there".to_owned(), |status| status.to_string());
            let said = log
                .last_words()
                .map_or_else(String::new, |said| format!(": {said}"));
            Err(MachineError::StartFailed {
                why: format!("the machine process gave no account of itself ({status}){said}"),
            })
        }
    }
}

fn spawn_process(
    program: &Path,
    directory: &Path,
    log: &ProcessLog,
) -> Result<(Child, ChildStdout), MachineError> {
    let failed = |source| MachineError::Io {
        operation: "start the machine process",
        path: program.to_owned(),
        source,
    };
    let mut command = std::process::Command::new(program);
    command
        .arg("machine-process")
        .arg("--directory")
        .arg(directory)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.share().map_err(failed)?);
    spawn::set_up(&mut command, Bond::Free, Vec::new());
    let mut child = tokio::process::Command::from(command).spawn().map_err(failed)?;
    match child.stdout.take() {
        Some(stdout) => Ok((child, stdout)),
        None => Err(failed(io::ErrorKind::BrokenPipe.into())),
    }
}

/// Waits for a machine process for as long as the daemon lives, so that it does not stay in the process table when it
/// ends. Dropping this leaves that as it is.
struct Reaper {
    status: oneshot::Receiver<Option<ExitStatus>>,
    kill: oneshot::Sender<()>,
}

impl Reaper {
    fn new(mut child: Child) -> Self {
        let (status_sender, status) = oneshot::channel();
        let (kill, killed) = oneshot::channel();
        tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                Ok(()) = killed => {
                    // It fails only for a process that has ended.
                    let _ = child.start_kill();
                    child.wait().await
                }
            };
            // Only a start that failed is interested.
            let _ = status_sender.send(status.ok());
        });
        Self { status, kill }
    }

    fn kill(self) {
        // It fails only for a process that has ended.
        let _ = self.kill.send(());
    }

    /// How the process ended, if it does so soon.
    async fn status(self) -> Option<ExitStatus> {
        timeout(GREETING_TIMEOUT, self.status).await.ok()?.ok()?
    }
}

/// Takes over the machine in `spec.directory`, or cleans up after one that is gone.
pub(crate) async fn adopt(spec: &MachineSpec) -> Result<Option<Remote>, MachineError> {
    if !spec.directory.exists() {
        return Ok(None);
    }
    // The machine's own specification says where its sockets are, even if they would be elsewhere today.
    let running = record::read::<Launch>(&spec.directory).ok().flatten();
    let spec = running.map_or_else(|| spec.clone(), |launch| launch.spec);
    let deadline = Instant::now() + ADOPT_TIMEOUT;
    while !left_over::is_free(&spec.directory)? {
        match connect(&spec.runtime).await {
            Ok(line) => return Ok(Some(Remote::attend(&spec, line))),
            Err(error @ (MachineError::Protocol(_) | MachineError::Foreign { .. })) => return Err(error),
            Err(error) if Instant::now() < deadline => {
                // It may be starting or ending.
                tracing::debug!(%error, "waiting for the machine process");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the machine process does not answer and is ended");
                break;
            }
        }
    }
    clear(spec.directory, spec.runtime, ExitCause::Vanished).await?;
    Ok(None)
}

/// Ends the machine in `directory`, whichever release started it.
pub(crate) async fn evict(directory: &Path, runtime: &Path) -> Result<(), MachineError> {
    // Another release may write its specification in another way.
    let launch = record::read::<Launch>(directory).ok().flatten();
    let runtime = launch.map_or_else(|| runtime.to_owned(), |launch| launch.spec.runtime);
    clear(directory.to_owned(), runtime, ExitCause::Killed)
        .await
        .map(drop)
}

/// [`left_over::clear`], where it may block.
pub(super) async fn clear(
    directory: PathBuf,
    runtime: PathBuf,
    cause: ExitCause,
) -> Result<Option<Exit>, MachineError> {
    match tokio::task::spawn_blocking(move || left_over::clear(&directory, &runtime, cause)).await {
        Ok(result) => result,
        Err(error) => Err(MachineError::Protocol(error.to_string())),
    }
}

/// Makes a directory for its owner alone, if it is not there.
fn create(directory: &Path) -> Result<(), MachineError> {
    let mut builder = DirBuilder::new();
    let result = builder.recursive(true).mode(0o700).create(directory);
    result.map_err(|source| MachineError::Io {
        operation: "create the directory",
        path: directory.to_owned(),
        source,
    })
}

/// A connection on which the machine process has greeted.
pub(super) struct Greeted {
    pub(super) line: Line,
    pub(super) hello: Hello,
}

/// Connects to the machine process.
pub(super) async fn connect(runtime: &Path) -> Result<Greeted, MachineError> {
    let path = sockets::control(runtime);
    let stream = sockets::open(&path).await.map_err(|source| MachineError::Io {
        operation: "reach the machine process through",
        path: path.clone(),
        source,
    })?;
    let mut line = protocol::line(stream);
    let greeting = match timeout(GREETING_TIMEOUT, line.next()).await {
        Ok(Some(Ok(greeting))) => greeting,
        Ok(Some(Err(LinesCodecError::MaxLineLengthExceeded))) => {
            return Err(MachineError::Protocol("its greeting is too long".into()));
        }
        // It ended while it was to greet.
        Ok(Some(Err(LinesCodecError::Io(_))) | None) => return Err(MachineError::Ended),
        Err(_) => {
            return Err(MachineError::Io {
                operation: "get an answer from the machine process through",
                path,
                source: io::ErrorKind::TimedOut.into(),
            });
        }
    };
    let hello = check_greeting(&greeting)?;
    Ok(Greeted { line, hello })
}

/// Reads a greeting, from a machine process of this release or of another.
fn check_greeting(greeting: &str) -> Result<Hello, MachineError> {
    /// What a greeting of any release has.
    #[derive(serde::Deserialize)]
    struct Any {
        version: u32,
        processes: Vec<u32>,
    }
    let Any { version, processes } = protocol::decode(greeting).map_err(MachineError::Protocol)?;
    if version == protocol::VERSION {
        return protocol::decode(greeting).map_err(MachineError::Protocol);
    }
    let process = processes
        .first()
        .map_or_else(|| "its process".to_owned(), |pid| format!("process {pid}"));
    Err(MachineError::Foreign {
        why: format!(
            "{process} speaks version {version} of its protocol, where this release speaks {}",
            protocol::VERSION
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_another_release_is_named_with_its_process() {
        let error = check_greeting(r#"{"version":9,"processes":[4711,4712],"new":{}}"#).unwrap_err();
        assert!(matches!(error, MachineError::Foreign { .. }), "{error:?}");
        let why = error.to_string();
        assert!(why.contains("process 4711") && why.contains("version 9"), "{why}");
        assert!(check_greeting("[]").is_err());
    }
}
