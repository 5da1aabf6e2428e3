//! The engine's runtime: the agent under the name `cove-runtime`, which becomes crun.
//!
//! What crun runs in a container that runs already, for `docker exec` and health checks, has the OOM score of whoever
//! started crun: that of a shim of containerd's, which the kernel is to spare. It would be killed after every container
//! and the engine, whatever memory it took. runc gives it the score that the engine asks for, and so does this, before
//! it becomes crun.

use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

/// The name under which the engine's shims start it.
const NAME: &str = "cove-runtime";

const CRUN: &str = "/usr/bin/crun";

/// How eagerly the kernel kills this process, and what it becomes and starts, when memory is short.
const SCORE: &str = "/proc/self/oom_score_adj";

/// Why crun was not started.
#[derive(Debug, thiserror::Error)]
enum RuntimeError {
    #[error("cannot read what is to be run: {0}")]
    Read(io::Error),
    #[error("what is to be run is not described in JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot set its OOM score: {0}")]
    Score(io::Error),
    #[error("cannot start {CRUN}: {0}")]
    Crun(io::Error),
}

/// Whether this process was started as the runtime.
pub(crate) fn is_wanted() -> bool {
    crate::is_called(NAME)
}

/// Becomes crun, with the same arguments. Returns only where that cannot be.
pub(crate) fn run() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let error = match take_score(&arguments) {
        Ok(()) => RuntimeError::Crun(Command::new(CRUN).args(&arguments).exec()),
        Err(error) => error,
    };
    eprintln!("{NAME}: {error}");
    ExitCode::FAILURE
}

/// Takes the score of what is to join a container, if that is what the arguments ask for. crun sees to that of a
/// container's first process by itself.
fn take_score(arguments: &[OsString]) -> Result<(), RuntimeError> {
    let Some(path) = process_file(arguments) else {
        return Ok(());
    };
    let process = fs::read(path).map_err(RuntimeError::Read)?;
    match score(&process)? {
        Some(score) => fs::write(SCORE, score.to_string()).map_err(RuntimeError::Score),
        None => Ok(()),
    }
}

/// The file that describes what is to join a container. `exec` alone has the option.
fn process_file(arguments: &[OsString]) -> Option<&Path> {
    let option = arguments.iter().position(|argument| argument == "--process")?;
    arguments.get(option + 1).map(Path::new)
}

/// The score in the description of a process (OCI runtime specification, "Linux process").
fn score(process: &[u8]) -> Result<Option<i64>, serde_json::Error> {
    let process: Value = serde_json::from_slice(process)?;
    Ok(process["oomScoreAdj"].as_i64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_joins_a_container_is_described_in_a_file() {
        let file = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            process_file(&arguments).map(Path::to_owned)
        };
        let exec = "--root /run/runc --log-format json exec --process /tmp/runc-process1 --detach --pid-file /p 0123";
        assert_eq!(file(exec).as_deref(), Some(Path::new("/tmp/runc-process1")));
        assert_eq!(
            file("--root /run/runc create --bundle /b --pid-file /p 0123"),
            None
        );
        assert_eq!(file("exec --process"), None);
    }

    #[test]
    fn the_score_is_what_the_engine_asks_for_be_it_0() {
        let told = |text: &str| score(text.as_bytes()).ok();
        assert_eq!(told(r#"{"args":["sh"],"oomScoreAdj":0}"#), Some(Some(0)));
        assert_eq!(told(r#"{"args":["sh"],"oomScoreAdj":-300}"#), Some(Some(-300)));
        assert_eq!(told(r#"{"args":["sh"]}"#), Some(None));
        assert_eq!(told("{"), None);
    }

    #[test]
    fn what_cannot_be_read_is_not_run_with_another_score() {
        let arguments = ["exec", "--process", "/nonexistent"].map(OsString::from);
        assert!(matches!(take_score(&arguments), Err(RuntimeError::Read(_))));
    }
}
