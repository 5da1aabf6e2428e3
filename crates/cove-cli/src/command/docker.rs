//! docker: the guest's own Docker client, with our arguments, streams and terminal.
//!
//! A shared folder has the same path on both sides, so the client runs in our working directory when that is shared.
//! Otherwise it runs in the guest's home, where relative paths would mean the guest's files: the commands that read
//! files are then refused rather than answered from an empty directory.

use super::{Session, exec};
use crate::{exit::Exit, failure::Failure, terminal};
use cove_api::Client;
use cove_wire::Exec;
use std::{collections::BTreeMap, env, process::ExitCode};

/// Commands whose meaning depends on files in the working directory.
const READ_FILES: [&str; 8] = [
    "bake", "build", "buildx", "compose", "cp", "import", "load", "stack",
];

pub(super) async fn run(session: &Session, arguments: Vec<String>) -> anyhow::Result<ExitCode> {
    let daemon = session.daemon().await?;
    let here = shared_here(&daemon, &session.machine).await?;
    if here.is_none()
        && let Some(command) = needs_files(&arguments)
    {
        return Err(not_shared(session, command).into());
    }
    let wanted = Exec {
        command: std::iter::once("docker".to_owned()).chain(arguments).collect(),
        environment: BTreeMap::new(),
        directory: here,
        terminal: terminal::is_interactive().then(terminal::like_ours),
    };
    exec::run(&daemon, &session.machine, &wanted).await
}

/// The working directory, if the machine has it.
#[cfg(unix)]
async fn shared_here(daemon: &Client, machine: &str) -> anyhow::Result<Option<String>> {
    let Ok(here) = super::shares::working_directory() else {
        return Ok(None);
    };
    let shares = daemon.shares().await?;
    let shared = shares
        .iter()
        .any(|share| share.machines.iter().any(|name| name == machine) && here.starts_with(&share.path));
    Ok(here.to_str().filter(|_| shared).map(str::to_owned))
}

/// Drive paths are elsewhere in the guest, where its client would not find them by the names that we give it.
#[cfg(not(unix))]
async fn shared_here(_: &Client, _: &str) -> anyhow::Result<Option<String>> {
    Ok(None)
}

/// The command among the arguments, if it is one that reads files and is not fed through standard input.
fn needs_files(arguments: &[String]) -> Option<&str> {
    let command = arguments.iter().find(|argument| !argument.starts_with('-'))?;
    let fed = arguments.iter().any(|argument| argument == "-");
    let asks_only = arguments
        .iter()
        .any(|argument| matches!(argument.as_str(), "--help" | "version" | "ls" | "ps"));
    let from_stdin = matches!(command.as_str(), "load")
        && !arguments.iter().any(|a| a == "-i" || a.starts_with("--input"));
    (READ_FILES.contains(&command.as_str()) && !fed && !asks_only && !from_stdin).then_some(command)
}

fn not_shared(session: &Session, command: &str) -> Failure {
    let here = env::current_dir().map_or_else(
        |_| "the working directory".to_owned(),
        |here| here.display().to_string(),
    );
    Failure::new(
        Exit::Failed,
        format!(
            "`docker {command}` reads files, and {here} is not shared with machine `{}`",
            session.machine
        ),
        "share it with `cove share add .`, or use a Docker client of this computer: eval \"$(cove env)\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(line: &str) -> bool {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        needs_files(&arguments).is_some()
    }

    #[test]
    fn commands_that_read_files_here_are_told_from_those_that_do_not() {
        for line in [
            "build .",
            "build -t x .",
            "compose up -d",
            "cp a web:/a",
            "load -i x.tar",
            "--debug build .",
        ] {
            assert!(needs(line), "{line}");
        }
        for line in [
            "ps",
            "run --rm alpine ls",
            "build -",
            "load",
            "compose version",
            "build --help",
            "",
        ] {
            assert!(!needs(line), "{line}");
        }
    }
}
