//! Finding the daemon, and starting it when it is not there.
//!
//! Two commands may start it at the same time: the daemon that comes second finds the lock taken and ends, and both
//! commands reach the first.

use crate::{exit::Exit, failure::Failure};
use anyhow::Context as _;
use cove_api::{Client, ClientError, Dirs, Version};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a daemon may take until it answers. It only reads its settings and adopts machines before that.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after the child has ended another daemon, which took the lock first, may take until it answers.
const OTHER_STARTER: Duration = Duration::from_secs(5);

/// The daemon's version, or nothing when no daemon runs.
pub(crate) async fn running(client: &Client) -> Result<Option<Version>, ClientError> {
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

/// Whether a machine process has outlived its daemon: then the machine runs although no daemon does.
pub(crate) async fn machine_outlived_daemon(dirs: &Dirs, machine: &str) -> bool {
    let control = dirs.machine_runtime(machine).join("control.sock");
    cove_api::transport::connect(&control).await.is_ok()
}

/// A client of the daemon, which is started if it does not run yet; `starting` is called before that.
pub(crate) async fn ensure(dirs: &Dirs, starting: impl FnOnce()) -> anyhow::Result<Client> {
    let client = Client::of(dirs);
    if running(&client).await?.is_none() {
        starting();
        start(dirs, &client).await?;
    }
    Ok(client)
}

async fn start(dirs: &Dirs, client: &Client) -> anyhow::Result<()> {
    let messages = dirs.logs().join("daemon-start.log");
    let mut child = spawn(&messages)?;
    let began = Instant::now();
    let mut ended_at = None;
    while began.elapsed() < START_TIMEOUT {
        if running(client).await?.is_some() {
            return Ok(());
        }
        if ended_at.is_none()
            && let Some(status) = child.try_wait().context("cannot watch the daemon start")?
        {
            if !status.success() {
                return Err(did_not_start(&status.to_string(), &messages).into());
            }
            ended_at = Some(Instant::now());
        }
        if ended_at.is_some_and(|ended: Instant| ended.elapsed() > OTHER_STARTER) {
            return Err(did_not_start("another daemon holds the lock but does not answer", &messages).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(Failure::new(
        Exit::Timeout,
        format!("the daemon did not answer within {} s", START_TIMEOUT.as_secs()),
        "look into its log with: cove logs daemon",
    )
    .into())
}

/// Starts the daemon detached: it leaves our session by itself, and holds nothing of ours but its message file.
fn spawn(messages: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let create = || -> std::io::Result<(File, File)> {
        if let Some(directory) = messages.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = File::create(messages)?;
        Ok((file.try_clone()?, file))
    };
    let (stdout, stderr) = create().with_context(|| format!("cannot create {}", messages.display()))?;
    let mut command = Command::new(&program);
    command
        .args(["daemon", "--detached"])
        .current_dir(root_directory())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt as _;
        const DETACHED_PROCESS: u32 = 0x0000_0008;
        command.creation_flags(DETACHED_PROCESS);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {} daemon", program.display()))
}

/// A directory that is never unmounted or deleted while the daemon runs.
fn root_directory() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|program| program.ancestors().last().map(Path::to_path_buf))
        .unwrap_or_else(|| PathBuf::from("/"))
}

fn did_not_start(how: &str, messages: &Path) -> Failure {
    let said = fs::read_to_string(messages).unwrap_or_default();
    let mut hint = "look into its log with: cove logs daemon".to_owned();
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
    Failure::new(Exit::Failed, format!("the daemon did not start: {why}"), hint)
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
        let failure = crate::failure::tell(&did_not_start("exit status: 1", &messages).into());
        assert!(
            failure.contains("the daemon did not start: the socket's path is too long"),
            "{failure}"
        );
        assert!(failure.contains("hint: set COVE_HOME"), "{failure}");
    }
}
