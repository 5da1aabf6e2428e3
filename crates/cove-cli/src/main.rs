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
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            // When nobody can read it, the exit code has to do.
            let _ = answer.print();
            return match answer.exit_code() {
                0 => exit::Exit::Done.into(),
                _ if args::would_pass_the_programs_code(std::env::args_os()) => exit::Exit::CoveFailed.into(),
                _ => exit::Exit::Usage.into(),
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
