//! Finding the daemon, and starting it when it is not there: for the command and for the window alike.
//!
//! Two clients may start it at the same time: the daemon that comes second finds the lock taken and ends, and both
//! clients reach the first. The lock may also be that of a daemon that is ending, which will not answer any more: so
//! another one is started for a while.

use crate::{Client, ClientError, Dirs, Version, make_private};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// How long a daemon may take until it answers. It only reads its settings and adopts machines before that.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one that runs may take to say so. It has to look at nothing for that, so that it hangs if it takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long another daemon, which has the lock, may take until it answers, or until it has ended.
const OTHER_DAEMON: Duration = Duration::from_secs(10);
/// How long after a daemon that found the lock taken the next one is started.
const AGAIN: Duration = Duration::from_millis(250);
/// Where a daemon that does not start is looked into.
const LOOK: &str = "look into its log with: cove logs daemon";
/// What to do about a directory that takes no files.
const ELSEWHERE: &str = "see that you may write there, or set COVE_HOME to a directory of your own";

/// Why there is no daemon to talk to.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It cannot be asked whether it runs.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file that takes its first words cannot be made.
    #[error("cannot create {}", path.display())]
    Messages {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its program cannot be started.
    #[error("cannot start {} daemon", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be seen whether it has ended.
    #[error("cannot watch the daemon start")]
    Watch(#[source] io::Error),
    /// It ended instead of answering.
    #[error("the daemon did not start: {why}")]
    Ended {
        /// Its own words, or how it ended.
        why: String,
        /// Its exit code, if it has one.
        code: Option<i32>,
        /// What to do next.
        hint: String,
    },
    /// It runs, perhaps, and does not answer.
    #[error("the daemon did not answer within {} s", START_TIMEOUT.as_secs())]
    Silent,
}

impl LaunchError {
    /// What to do next; empty when there is nothing sensible to say.
    pub fn hint(&self) -> &str {
        match self {
            Self::Client(ClientError::Api(error)) => &error.hint,
            Self::Ended { hint, .. } => hint,
            Self::Silent | Self::Client(ClientError::Silent { .. }) => LOOK,
            Self::Messages { .. } => ELSEWHERE,
            Self::Client(_) | Self::Spawn { .. } | Self::Watch(_) => "",
        }
    }
}

/// The daemon's version, or nothing when no daemon runs.
pub async fn running(client: &Client) -> Result<Option<Version>, ClientError> {
    running_within(client, ANSWER_TIMEOUT).await
}

/// The same, for whoever waits no longer than `limit`: then it is [`ClientError::Silent`].
pub async fn running_within(client: &Client, limit: Duration) -> Result<Option<Version>, ClientError> {
    let answered = timeout(limit, asked(client)).await;
    answered.unwrap_or_else(|_| {
        Err(ClientError::Silent {
            socket: client.socket().to_owned(),
            waited: limit,
        })
    })
}

async fn asked(client: &Client) -> Result<Option<Version>, ClientError> {
    let answer = match client.version().await {
        // A daemon that dies in this moment breaks the connection; the second try finds out whether one is left.
        Err(ClientError::Http { .. }) => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.version().await
        }
        answer => answer,
    };
    match answer {
        Ok(version) => Ok(Some(version)),
        Err(ClientError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A client of the daemon, which is started if it does not run yet: as `program daemon-process`, where `program` is
/// `cove`. `starting` is called before that.
pub async fn ensure(dirs: &Dirs, program: &Path, starting: impl FnOnce()) -> Result<Client, LaunchError> {
    let client = Client::of(dirs);
    if running(&client).await?.is_none() {
        starting();
        start(dirs, program, &client).await?;
    }
    Ok(client)
}

async fn start(dirs: &Dirs, program: &Path, client: &Client) -> Result<(), LaunchError> {
    let messages = dirs.logs().join("daemon-start.log");
    let mut child = spawn(program, &messages)?;
    let began = Instant::now();
    // Since when another daemon has been in the way, and when the last of ours gave way to it.
    let (mut in_the_way, mut gave_way) = (None, None::<Instant>);
    while began.elapsed() < START_TIMEOUT {
        if running(client).await?.is_some() {
            return Ok(());
        }
        if let Some(then) = gave_way {
            if then.elapsed() >= AGAIN {
                child = spawn(program, &messages)?;
                gave_way = None;
            }
        } else if let Some(status) = child.try_wait().map_err(LaunchError::Watch)? {
            if !status.success() {
                return Err(ended(&status.to_string(), status.code(), &messages));
            }
            let now = Instant::now();
            if now.duration_since(*in_the_way.get_or_insert(now)) > OTHER_DAEMON {
                let how = "another daemon holds the lock but does not answer";
                return Err(ended(how, None, &messages));
            }
            gave_way = Some(now);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(LaunchError::Silent)
}

/// Starts the daemon detached: it leaves our session by itself, and holds nothing of ours but its message file.
fn spawn(program: &Path, messages: &Path) -> Result<Child, LaunchError> {
    let create = || -> io::Result<(File, File)> {
        if let Some(directory) = messages.parent() {
            // Before the daemon has made any of them.
            make_private(directory)?;
        }
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(messages)?;
        Ok((file.try_clone()?, file))
    };
    let (stdout, stderr) = create().map_err(|source| LaunchError::Messages {
        path: messages.to_path_buf(),
        source,
    })?;
    let mut command = Command::new(program);
    command
        .arg("daemon-process")
        // A directory that is never unmounted or deleted while the daemon runs.
        .current_dir(program.ancestors().last().unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt as _;
        const DETACHED_PROCESS: u32 = 0x0000_0008;
        command.creation_flags(DETACHED_PROCESS);
    }
    command.spawn().map_err(|source| LaunchError::Spawn {
        program: program.to_path_buf(),
        source,
    })
}

fn ended(how: &str, code: Option<i32>, messages: &Path) -> LaunchError {
    let said = fs::read_to_string(messages).unwrap_or_default();
    let mut hint = LOOK.to_owned();
    let mut lines = Vec::new();
    for line in said.lines().filter(|line| !line.is_empty()) {
        if let Some(its_hint) = line.strip_prefix("hint: ") {
            its_hint.clone_into(&mut hint);
        } else {
            lines.push(line.strip_prefix("error: ").unwrap_or(line).to_owned());
        }
    }
    let why = if lines.is_empty() {
        how.to_owned()
    } else {
        lines.join("\n  ")
    };
    LaunchError::Ended { why, code, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_dies_at_once_is_quoted_with_its_own_hint() {
        let directory = tempfile::tempdir().unwrap();
        let messages = directory.path().join("said");
        fs::write(
            &messages,
            "error: the socket's path is too long\nhint: set COVE_HOME\n",
        )
        .unwrap();
        let error = ended("exit status: 2", Some(2), &messages);
        assert_eq!(
            error.to_string(),
            "the daemon did not start: the socket's path is too long"
        );
        assert_eq!(error.hint(), "set COVE_HOME");
    }

    #[tokio::test]
    #[cfg(unix)]
    async fn what_a_first_run_makes_is_its_users_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(&directory.path().join("home"));
        ensure(&dirs, Path::new("/bin/false"), || {}).await.unwrap_err();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let logs = dirs.logs();
        assert_eq!(mode(&logs.join("daemon-start.log")), 0o600);
        for made in logs.ancestors().take_while(|path| *path != directory.path()) {
            assert_eq!(mode(made), 0o700, "{}", made.display());
        }
    }

    #[tokio::test]
    #[cfg(unix)]
    async fn a_daemon_that_gives_way_to_one_that_is_ending_is_followed_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("cove");
        let script = "#!/bin/sh\nif test -e \"$0.came\"; then echo 'error: the second' >&2; exit 3; fi\n\
                      touch \"$0.came\"\n";
        // By a process of its own: a program that is open for writing, as in a child of another test, does not run.
        let write = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let mut writer = Command::new("/bin/sh");
        writer.args(["-c", write]).arg(&program).arg(script);
        assert!(writer.status().unwrap().success());
        let dirs = Dirs::below(&directory.path().join("home"));
        let error = ensure(&dirs, &program, || {}).await.unwrap_err().to_string();
        assert_eq!(error, "the daemon did not start: the second");
    }

    #[tokio::test]
    #[cfg(unix)]
    async fn a_daemon_that_does_not_answer_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(directory.path().join("daemon.sock"));
        // It takes connections, as the system does for it, and reads nothing.
        let _hung = std::os::unix::net::UnixListener::bind(client.socket()).unwrap();
        let answer = running_within(&client, Duration::from_millis(10)).await;
        assert!(matches!(answer, Err(ClientError::Silent { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        let program = directory.path().join("no-cove");
        let error = ensure(&dirs, &program, || {}).await.unwrap_err().to_string();
        assert!(error.contains("no-cove daemon"), "{error}");
    }
}
