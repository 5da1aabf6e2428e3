//! The engine's runtimes: the agent under the names `cove-runtime`, which becomes crun, and `runc`, which becomes runc.
//!
//! Before either makes a container, it is looked at where the container's bind mounts come from; see
//! [`crate::sources`].
//!
//! What crun runs in a container that runs already, for `docker exec` and health checks, has the OOM score of whoever
//! started crun: that of a shim of containerd's, which the kernel is to spare. It would be killed after every container
//! and the engine, whatever memory it took. runc gives it the score that the engine asks for, and so does this, before
//! it becomes crun.
//!
//! Why a container does not start reaches the client as words: dockerd and the client tell 126 (cannot be run) and 127
//! (is not there) by those of Go's. crun has the C library's, and they are put into Go's where a start fails.

use crate::sources;
use serde_json::{Value, json};
use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Command, ExitCode},
};

/// The name under which the engine's shims start crun.
const NAME: &str = "cove-runtime";

/// The name under which they, and the engine's builder, look for runc on the `PATH`. The engine lets nobody say that it
/// is elsewhere.
const RUNC_NAME: &str = "runc";

const CRUN: &str = "/usr/bin/crun";
const RUNC: &str = "/usr/sbin/runc";

/// How eagerly the kernel kills this process, and what it becomes and starts, when memory is short.
const SCORE: &str = "/proc/self/oom_score_adj";

/// Why what was asked for was not done.
#[derive(Debug, thiserror::Error)]
enum RuntimeError {
    #[error("cannot look where the container's mounts come from: {0}")]
    Sources(io::Error),
    #[error(
        "`{0}` is not shared with this machine; share it, or a folder around it, with: cove share add '{quoted}'",
        quoted = .0.replace('\'', r"'\''")
    )]
    Unshared(String),
    #[error("cannot read what is to be run: {0}")]
    Read(io::Error),
    #[error("what is to be run is not described in JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot set its OOM score: {0}")]
    Score(io::Error),
    #[error("cannot start {0}: {1}")]
    Start(&'static str, io::Error),
}

/// Whether this process was started as a runtime.
pub(crate) fn is_wanted() -> bool {
    crate::is_called(NAME) || crate::is_called(RUNC_NAME)
}

/// Becomes the runtime, with the same arguments, or starts it where it may have to say why something did not start.
pub(crate) fn run() -> ExitCode {
    // The runtime's arguments are ours, without the name that we were started by.
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let outcome = refuse_unshared(&arguments).and_then(|()| {
        if crate::is_called(RUNC_NAME) {
            let failed = Command::new(RUNC).args(&arguments).exec();
            return Err(RuntimeError::Start(RUNC, failed));
        }
        take_score(&arguments)?;
        let failed = |error| RuntimeError::Start(CRUN, error);
        let mut crun = Command::new(CRUN);
        crun.args(&arguments);
        match log_of_a_start(&arguments) {
            Some(log) => start(&mut crun, log).map_err(failed),
            None => Err(failed(crun.exec())),
        }
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("cove-agent: {error}");
        if let Some(log) = value_of("--log", &arguments)
            && let Err(error) = note(log, &error.to_string())
        {
            eprintln!("cove-agent: cannot write {}: {error}", log.display());
        }
        ExitCode::FAILURE
    })
}

/// Refuses to make a container of which a folder would be an empty directory.
fn refuse_unshared(arguments: &[OsString]) -> Result<(), RuntimeError> {
    // The builder's containers come by `run`, and mount nothing that somebody names.
    if !arguments.iter().any(|argument| argument == "create") {
        return Ok(());
    }
    let bundle = value_of("--bundle", arguments).unwrap_or(Path::new("."));
    match sources::unshared(bundle) {
        Ok(None) => Ok(()),
        Ok(Some(source)) => Err(RuntimeError::Unshared(source)),
        Err(error) => Err(RuntimeError::Sources(error)),
    }
}

/// Adds an error to a runtime's log, where the shim looks for what to tell.
fn note(log: &Path, error: &str) -> io::Result<()> {
    let mut log = fs::OpenOptions::new().append(true).create(true).open(log)?;
    writeln!(log, "{}", json!({"level": "error", "msg": error}))
}

/// Runs crun to its end, and puts into Go's words what it has logged if it fails.
fn start(crun: &mut Command, log: &Path) -> io::Result<ExitCode> {
    let status = crun.status()?;
    if !status.success()
        && let Ok(text) = fs::read_to_string(log)
        // Without it the client gets crun's own words.
        && let Err(error) = fs::write(log, in_words_of_go(&text))
    {
        eprintln!("{NAME}: cannot write {}: {error}", log.display());
    }
    // A signal's number is at most 64.
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Where crun is to log why it could not start what it is asked to start.
fn log_of_a_start(arguments: &[OsString]) -> Option<&Path> {
    let starts = |argument: &OsString| argument == "create" || argument == "exec";
    arguments.iter().find(|argument| starts(argument))?;
    value_of("--log", arguments)
}

/// crun's log, a JSON object on each line, with the errors' messages in Go's words.
fn in_words_of_go(log: &str) -> String {
    let line = |line: &str| -> String {
        let Ok(mut entry) = serde_json::from_str::<Value>(line) else {
            return line.to_owned();
        };
        if entry["level"] == "error"
            && let Some(message) = entry["msg"].as_str()
        {
            entry["msg"] = reworded(message).into();
        }
        entry.to_string()
    };
    log.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// One message: `executable file ... not found in $PATH: No such file or directory`.
fn reworded(message: &str) -> String {
    let Some((what, why)) = message.rsplit_once(": ") else {
        return message.to_owned();
    };
    let why = match why {
        // crun says so of what is no file, or is not executable.
        "Operation not permitted" if what.starts_with("the path `") => "permission denied",
        "No such file or directory" => "no such file or directory",
        "Permission denied" => "permission denied",
        "Is a directory" => "is a directory",
        "Exec format error" => "exec format error",
        other => other,
    };
    format!("{what}: {why}")
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
    value_of("--process", arguments)
}

fn value_of<'a>(option: &str, arguments: &'a [OsString]) -> Option<&'a Path> {
    let option = arguments.iter().position(|argument| argument == option)?;
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

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_joins_a_container_is_described_in_a_file() {
        let file = |line: &str| process_file(&words(line)).map(Path::to_owned);
        let exec = "--root /run/runc --log-format json exec --process /tmp/runc-process1 --detach --pid-file /p 0123";
        assert_eq!(file(exec).as_deref(), Some(Path::new("/tmp/runc-process1")));
        assert_eq!(
            file("--root /run/runc create --bundle /b --pid-file /p 0123"),
            None
        );
        assert_eq!(file("exec --process"), None);
    }

    #[test]
    fn what_starts_something_logs_where_it_is_told_to() {
        let log = |line: &str| log_of_a_start(&words(line)).map(Path::to_owned);
        let create = "--root /run/runc --log /b/log.json --log-format json create --bundle /b 0123";
        assert_eq!(log(create).as_deref(), Some(Path::new("/b/log.json")));
        assert_eq!(log("--root /run/runc create --bundle /b 0123"), None);
        assert_eq!(log("--log /b/log.json --log-format json delete 0123"), None);
    }

    #[test]
    fn a_start_that_fails_says_why_in_the_words_that_clients_know() {
        let said = "{\"msg\":\"executable file `x` not found in $PATH: No such file or directory\",\
                    \"level\":\"error\",\"time\":\"2026-01-01T00:00:00Z\"}\nno JSON\n";
        let words = in_words_of_go(said);
        let lines: Vec<&str> = words.lines().collect();
        let entry: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(
            entry["msg"],
            "executable file `x` not found in $PATH: no such file or directory"
        );
        assert_eq!(entry["level"], "error");
        assert_eq!(lines[1..], ["no JSON"]);
        for (said, words) in [
            (
                "the path `/etc` is not a regular file: Operation not permitted",
                "the path `/etc` is not a regular file: permission denied",
            ),
            (
                "mount `proc`: Operation not permitted",
                "mount `proc`: Operation not permitted",
            ),
            ("out of luck", "out of luck"),
        ] {
            assert_eq!(reworded(said), words);
        }
    }

    #[test]
    fn a_container_whose_mounts_cannot_be_looked_at_is_not_made() {
        let create = words("--root /r create --bundle /nonexistent --pid-file /p 0123");
        assert!(matches!(refuse_unshared(&create), Err(RuntimeError::Sources(_))));
        assert!(refuse_unshared(&words("--root /r start 0123")).is_ok());
    }

    #[test]
    fn a_refusal_is_an_error_of_the_runtimes_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log.json");
        let refusal = RuntimeError::Unshared("/data".into());
        note(&log, &refusal.to_string()).unwrap();
        let noted: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
        assert_eq!(noted["level"], "error");
        let said = noted["msg"].as_str().unwrap();
        assert!(said.starts_with("`/data` is not shared"), "{said}");
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
