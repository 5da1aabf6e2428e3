//! docker: the guest's own Docker client, with our arguments, streams and terminal. It reaches the engine through the
//! gateway, like the clients of this computer.
//!
//! A shared folder has the same path on both sides, so the client runs in our working directory when that is shared.
//! Otherwise it runs in the guest's home, where relative paths would mean the guest's files: the commands that read or
//! write files are then refused, rather than answered from an empty directory or to one that goes with the machine.

use super::{Session, exec};
use crate::{exit::Exit, failure::Failure, terminal};
use cove_api::Client;
use cove_wire::{CLIENTS_SOCKET, Exec};
use std::{collections::BTreeMap, env, process::ExitCode};

/// What stands before the command and takes the next word with it.
const GLOBAL_WITH_VALUE: [&str; 9] = [
    "--config",
    "--context",
    "-c",
    "--host",
    "-H",
    "--log-level",
    "-l",
    "--tlscacert",
    "--tlscert",
];
/// The same between `compose` and its command.
const COMPOSE_WITH_VALUE: [&str; 9] = [
    "--ansi",
    "--env-file",
    "--file",
    "-f",
    "--parallel",
    "--profile",
    "--progress",
    "--project-name",
    "-p",
];
/// What of compose says something without a look at the project's files, or fails by itself for the lack of them.
const COMPOSE_ASKS: [&str; 4] = ["ls", "ps", "version", "help"];
/// Build contexts that are fetched, and not read here.
const REMOTE: [&str; 5] = ["http://", "https://", "git://", "ssh://", "git@"];

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
        environment: BTreeMap::from([("DOCKER_HOST".to_owned(), format!("unix://{CLIENTS_SOCKET}"))]),
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

/// The command among the arguments, if it reads or writes files here.
fn needs_files(arguments: &[String]) -> Option<&str> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words.contains(&"--help") {
        return None;
    }
    let (command, rest) = next_command(&words, &GLOBAL_WITH_VALUE)?;
    let (what, rest) = match command {
        // These words stand before what the older commands are called alone.
        "image" | "container" | "builder" | "buildx" => match next_command(rest, &[])? {
            (what @ ("build" | "bake" | "load" | "save" | "import" | "export" | "cp"), rest) => (what, rest),
            _ => return None,
        },
        other => (other, rest),
    };
    let says = |short: &str, long: &str| {
        let given = |word: &&str| {
            // A short option may have its value within the same word.
            *word == short || word.starts_with(long) || (word.starts_with(short) && !word.starts_with("--"))
        };
        rest.iter().any(given)
    };
    let needs = match what {
        "build" => rest
            .last()
            .is_none_or(|context| *context != "-" && !REMOTE.iter().any(|way| context.starts_with(way))),
        "bake" | "stack" => true,
        "compose" => {
            next_command(rest, &COMPOSE_WITH_VALUE).is_some_and(|(asked, _)| !COMPOSE_ASKS.contains(&asked))
        }
        // One side is a stream of this command's.
        "cp" => !rest.contains(&"-"),
        "import" => !rest.iter().any(|word| *word == "-" || word.starts_with("http")),
        "load" => says("-i", "--input"),
        "save" | "export" => says("-o", "--output"),
        _ => false,
    };
    needs.then_some(command)
}

/// The first word that is no option, and what follows it.
fn next_command<'a, 'w>(words: &'w [&'a str], with_value: &[&str]) -> Option<(&'a str, &'w [&'a str])> {
    let mut rest = words;
    while let [word, after @ ..] = rest {
        if !word.starts_with('-') {
            return Some((word, after));
        }
        rest = match after {
            [_value, after @ ..] if with_value.contains(word) => after,
            after => after,
        };
    }
    None
}

fn not_shared(session: &Session, command: &str) -> Failure {
    let here = env::current_dir().map_or_else(
        |_| "the working directory".to_owned(),
        |here| here.display().to_string(),
    );
    Failure::new(
        Exit::Failed,
        format!(
            "`docker {command}` reads or writes files here, and {here} is not shared with machine `{}`",
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
    fn commands_that_read_or_write_files_here_are_told_from_those_that_do_not() {
        for line in [
            "build .",
            "build -t x .",
            "compose up -d",
            "cp a web:/a",
            "load -i x.tar",
            "load --input=x.tar",
            "--debug build .",
            "--context default build .",
            "-H unix:///x build .",
            "build -f - .",
            "build -t ls .",
            "compose run web ls",
            "compose -p shop up",
            "save -o x.tar alpine",
            "save -ox.tar alpine",
            "export --output x.tar web",
            "image build .",
            "image save alpine -o x.tar",
            "image load -i x.tar",
            "container cp web:/a .",
            "container export -o x.tar web",
            "buildx build .",
            "buildx bake",
            "import x.tar",
        ] {
            assert!(needs(line), "{line}");
        }
        for line in [
            "ps",
            "run --rm alpine ls",
            "build -",
            "load",
            "compose version",
            "compose ls",
            "compose -p shop ps",
            "save alpine",
            "export web",
            "image ls",
            "container ls",
            "buildx ls",
            "cp - web:/a",
            "import - mine",
            "build https://example.org/x.git",
            "build --help",
            "",
        ] {
            assert!(!needs(line), "{line}");
        }
    }
}
