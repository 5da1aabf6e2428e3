//! `cove`: the command.
//!
//! A thin shell around the daemon's control API: it parses words ([`args`]), finds or starts the daemon
//! ([`daemon_link`]), asks it, and tells a person or a script what came of it. What decides anything lives in the
//! daemon.
//!
//! Data goes to standard output; progress, notices and errors go to standard error. Exit codes are in [`exit`].

mod args;
mod command;
mod daemon_link;
mod exit;
mod failure;
mod output;
mod progress;
mod terminal;
mod time;

use clap::Parser as _;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    // Without this program's own name.
    let words: Vec<_> = env::args_os().skip(1).collect();
    if let Some((directory, part)) = machine_process(&words) {
        return cove_machine::process::run(directory, part);
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            // When nobody can read it, the exit code has to do.
            let _ = answer.print();
            if answer.exit_code() == 0 {
                return exit::Exit::Done.into();
            }
            let meant = args::Meant::by(env::args_os());
            if meant.json {
                // As well: standard error has told.
                let _ = output::json(&failure::of_line(&answer));
            }
            return if meant.passes_the_programs_code {
                exit::Exit::CoveFailed.into()
            } else {
                exit::Exit::Usage.into()
            };
        }
    };
    let wants_json = args.global.json;
    let machine = args.global.machine.clone();
    let passes_code = args.command.passes_the_programs_code();
    match command::run(args) {
        Ok(code) => code,
        Err(error) => failure::report(&error, &machine, wants_json, passes_code),
    }
}

/// The directory and the part of a process that a machine lives in, where the words are those that the daemon and these
/// processes start them with. Such a process stays for as long as its machine, confined and without anybody who types:
/// what reads and explains the words of people would be resident all that time, which is two megabytes and more.
fn machine_process(words: &[OsString]) -> Option<(&Path, Option<&str>)> {
    match words {
        [command, flag, directory] if command == "machine-process" && flag == "--directory" => {
            Some((Path::new(directory), None))
        }
        [command, flag, directory, further, part]
            if command == "machine-process" && flag == "--directory" && further == "--part" =>
        {
            Some((Path::new(directory), Some(OsStr::to_str(part)?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_processes_are_known_by_all_of_their_words() {
        let read = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            machine_process(&words).map(|(directory, part)| (directory.to_owned(), part.map(str::to_owned)))
        };
        let process = ["machine-process", "--directory", "/d"];
        assert_eq!(read(&process), Some(("/d".into(), None)));
        let cell = ["machine-process", "--directory", "/d", "--part", "{}"];
        assert_eq!(read(&cell), Some(("/d".into(), Some("{}".into()))));
        for others in [
            &process[..2],
            &cell[..4],
            &["--json", "machine-process"],
            &["status"],
            &[],
        ] {
            assert_eq!(read(others), None, "{others:?}");
        }
    }
}
