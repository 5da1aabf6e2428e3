//! docker: the guest's own Docker client, with our arguments, streams and terminal. It reaches the engine through the
//! gateway, like the clients of this computer.
//!
//! A shared folder has the same path on both sides, so the client runs in our working directory when that is shared.
//! Otherwise it runs in the guest's home, where relative paths would mean the guest's files: the commands that read or
//! write files are then refused, rather than answered from an empty directory or to one that goes with the machine.
//!
//! It has the accounts at registries that the Docker client of this computer has: while a command runs that may need
//! one, they are lent to it, and `login` and `logout` are this computer's. Where this computer has none and no place
//! for a password, what somebody signs in to there is the guest's own business and goes with it.

use super::{Session, exec};
use crate::{exit::Exit, failure::Failure, output, terminal};
use cove_api::Client;
use cove_credentials::{Loan, Rights, borrow, client_variables, lendable_for, lender};
use cove_wire::Exec;
use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

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
/// The commands that may speak with a registry, beside `login` and `logout`.
const OF_REGISTRIES: [&str; 16] = [
    "build",
    "builder",
    "buildx",
    "compose",
    "container",
    "create",
    "image",
    "manifest",
    "plugin",
    "pull",
    "push",
    "run",
    "search",
    "service",
    "stack",
    "trust",
];
/// Build contexts that are fetched, and not read here.
const REMOTE: [&str; 5] = ["http://", "https://", "git://", "ssh://", "git@"];

pub(super) async fn run(session: &Session, arguments: Vec<String>) -> anyhow::Result<ExitCode> {
    let daemon = session.daemon().await?;
    let shared = shared(&daemon, &session.machine).await?;
    let here = shared_here(&shared);
    if let Some(Files { command, paths }) = files_of(&arguments) {
        if here.is_none() {
            return Err(not_shared(session, command, &working_directory()).into());
        }
        let foreign = |path: &&&str| !shared.iter().any(|share| Path::new(path).starts_with(share));
        if let Some(path) = paths.iter().find(foreign) {
            return Err(not_shared(session, command, path).into());
        }
    }
    let with_terminal = terminal::is_interactive();
    let lent = match rights_of(&arguments) {
        Some(rights) => lendable_for(rights).await.zip(Some(rights)),
        None => None,
    };
    let mut environment = client_variables(lent.is_some());
    // It lasts until the client has ended.
    let loan = match lent {
        Some((registries, rights)) => {
            // A terminal that is raw by then does not begin a line where the last one ended.
            let end = if with_terminal { "\r" } else { "" };
            let tell = move |problem: String| output::note(format!("{problem}{end}"));
            let program = lender();
            borrow(daemon.exec(&session.machine, &program), registries, rights, tell).await
        }
        None => None,
    };
    environment.extend(loan.as_ref().map(Loan::variable));
    let wanted = Exec {
        command: std::iter::once("docker".to_owned()).chain(arguments).collect(),
        environment,
        directory: here,
        terminal: with_terminal.then(terminal::like_ours),
    };
    exec::run(&daemon, &session.machine, &wanted).await
}

/// What a command may do with accounts at registries, if it may need one.
fn rights_of(arguments: &[String]) -> Option<Rights> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match next_command(&words, &GLOBAL_WITH_VALUE)?.0 {
        "login" => Some(Rights::SignIn),
        "logout" => Some(Rights::SignOut),
        command => OF_REGISTRIES.contains(&command).then_some(Rights::Read),
    }
}

/// The folders that the machine has.
async fn shared(daemon: &Client, machine: &str) -> anyhow::Result<Vec<PathBuf>> {
    let shares = daemon.shares().await?.into_iter();
    let here = shares.filter(|share| share.machines.iter().any(|name| name == machine));
    Ok(here.map(|share| share.path).collect())
}

/// The working directory, if the machine has it.
#[cfg(unix)]
fn shared_here(shared: &[PathBuf]) -> Option<String> {
    let here = super::shares::working_directory().ok()?;
    let shared = shared.iter().any(|share| here.starts_with(share));
    here.to_str().filter(|_| shared).map(str::to_owned)
}

/// Drive paths are elsewhere in the guest, where its client would not find them by the names that we give it.
#[cfg(not(unix))]
fn shared_here(_: &[PathBuf]) -> Option<String> {
    None
}

/// What a command that reads or writes files here says of them.
struct Files<'a> {
    command: &'a str,
    /// Those that are named from the root. What is named otherwise lies below the working directory, most often.
    paths: Vec<&'a str>,
}

/// The command among the arguments, if it reads or writes files here.
fn files_of(arguments: &[String]) -> Option<Files<'_>> {
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
    let paths = match what {
        // The words of a compose command may be a container's command, in which paths are the container's.
        "compose" | "stack" => Vec::new(),
        _ => rest.iter().filter_map(|word| from_root(word)).collect(),
    };
    needs.then_some(Files { command, paths })
}

/// The path within a word of the command line, if it is a file of this computer named from the root.
fn from_root(word: &str) -> Option<&str> {
    let attached = ["-o", "-i", "-f", "--output=", "--input=", "--file="];
    let value = attached.iter().find_map(|option| word.strip_prefix(option));
    // The machine has devices of its own: its standard output goes to ours.
    Some(value.unwrap_or(word)).filter(|path| path.starts_with('/') && !path.starts_with("/dev/"))
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

fn working_directory() -> String {
    env::current_dir().map_or_else(
        |_| "the working directory".to_owned(),
        |here| here.display().to_string(),
    )
}

fn not_shared(session: &Session, command: &str, place: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        format!(
            "`docker {command}` reads or writes files of this computer, and {place} is not shared with machine `{}`",
            session.machine
        ),
        "share its folder with `cove share add FOLDER`, or use a Docker client of this computer: eval \"$(cove env)\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(line: &str) -> bool {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        files_of(&arguments).is_some()
    }

    fn paths(line: &str) -> Vec<String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let files = files_of(&arguments);
        files.map_or_else(Vec::new, |files| {
            files.paths.iter().map(|path| (*path).to_owned()).collect()
        })
    }

    #[test]
    fn files_named_from_the_root_are_found() {
        assert_eq!(paths("save -o /a/x.tar alpine"), ["/a/x.tar"]);
        assert_eq!(paths("save --output=/a/x.tar alpine"), ["/a/x.tar"]);
        assert_eq!(paths("image load -i/a/x.tar"), ["/a/x.tar"]);
        assert_eq!(paths("cp web:/etc/hosts /a/hosts"), ["/a/hosts"]);
        assert_eq!(paths("build -f /a/Dockerfile /b"), ["/a/Dockerfile", "/b"]);
        for line in [
            "save -o x.tar alpine",
            "save -o /dev/stdout alpine",
            "compose exec web ls /etc",
            "ps",
        ] {
            assert!(paths(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn accounts_are_lent_to_what_speaks_with_registries_and_changed_by_signing_in_and_out() {
        let rights = |line: &str| {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            rights_of(&arguments)
        };
        for line in [
            "pull r.example/a",
            "--log-level debug build .",
            "compose up",
            "image push r.example/a",
            "trust inspect r.example/a",
        ] {
            assert_eq!(rights(line), Some(Rights::Read), "{line}");
        }
        for line in ["ps", "logs --follow login", "exec web docker login", "--help", ""] {
            assert_eq!(rights(line), None, "{line}");
        }
        assert_eq!(rights("login -u mole r.example"), Some(Rights::SignIn));
        assert_eq!(rights("-H unix:///x logout"), Some(Rights::SignOut));
        // An image may be called that.
        assert_eq!(rights("run login"), Some(Rights::Read));
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
