//! What the commands do: one module a family of them. Each asks the daemon and tells what came of it.

mod configuration;
mod context;
mod daemon;
mod docker;
mod doctor;
mod environment;
mod exec;
mod forward;
mod image;
mod lifecycle;
mod logs;
mod machines;
mod net;
mod ports;
mod shares;
mod status;
mod trust;
mod version;

use crate::{
    args::{self, Args, Command},
    daemon_link,
    exit::Exit,
    failure::Failure,
    output,
    progress::Progress,
};
use anyhow::Context as _;
use clap::CommandFactory as _;
use cove_api::{Client, Dirs};
use cove_daemon::MachineName;
use std::{future::Future, path::Path, process::ExitCode};

/// What every command works with.
#[derive(Debug)]
struct Session {
    dirs: Dirs,
    machine: String,
    json: bool,
    quiet: bool,
}

impl Session {
    /// A client of the daemon, which is started if need be.
    async fn daemon(&self) -> anyhow::Result<Client> {
        let starting = daemon_link::ensure(&self.dirs, || {});
        self.during("Starting the daemon", starting).await
    }

    /// Waits for `work`, and says on a terminal that `what` is being done once it takes more than a moment.
    async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let _shown = Progress::brief(self.quiet, what);
        work.await
    }

    /// The same, with a word of it where the daemon is started.
    async fn daemon_showing(&self, progress: &Progress) -> anyhow::Result<Client> {
        daemon_link::ensure(&self.dirs, || progress.stage("Starting the daemon", None)).await
    }

    /// The machine's name, where there is such a machine as far as its directory tells: for what is answered without a
    /// daemon.
    fn known_machine(&self) -> Result<MachineName, Failure> {
        let machine = &self.machine;
        let make = match machine.parse::<MachineName>() {
            // The default machine has a place from the first start on; that of another is made with it.
            Ok(name) if name == MachineName::default() || self.dirs.machine(machine).is_dir() => {
                return Ok(name);
            }
            Ok(name) => format!("; make it with: cove machine create {name}"),
            Err(_) => String::new(),
        };
        Err(Failure::new(
            Exit::NotFound,
            format!("there is no machine `{machine}`"),
            format!("`cove machine list` shows those that are there{make}"),
        ))
    }

    /// A line for a person, on standard error.
    fn say(&self, text: &str) {
        if !self.quiet {
            output::note(text);
        }
    }
}

/// Carries out the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // These need neither directories nor a daemon.
    match &args.command {
        Command::Completion { shell } => return completion(*shell),
        Command::Manual { directory } => return manual(directory),
        Command::ExitCodes => return exit_codes(args.global.json),
        _ => {}
    }
    let session = Session {
        dirs: Dirs::from_env()?,
        machine: args.global.machine,
        json: args.global.json,
        quiet: args.global.quiet,
    };
    let session = &session;
    match args.command {
        Command::Daemon { action } => daemon::run(session, action),
        Command::DaemonProcess => daemon::run_detached(session),
        Command::Start => wait_for(lifecycle::start(session)),
        Command::Stop { force } => wait_for(lifecycle::stop(session, force)),
        Command::Restart => wait_for(lifecycle::restart(session)),
        Command::Pause => wait_for(lifecycle::pause(session)),
        Command::Resume => wait_for(lifecycle::resume(session)),
        Command::Status { timings } => wait_for(status::run(session, timings)),
        Command::Shell => wait_for(exec::shell(session)),
        Command::Exec {
            workdir,
            environment,
            terminal,
            no_terminal,
            command,
        } => {
            let wanted = match (terminal, no_terminal) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            };
            wait_for(exec::exec(session, command, environment, workdir, wanted))
        }
        Command::Docker { arguments } => wait_for(docker::run(session, arguments)),
        Command::Logs { source, follow, tail } => wait_for(logs::run(session, source, follow, tail)),
        Command::Forward { route } => wait_for(forward::run(session, route)),
        Command::Ports => wait_for(ports::run(session)),
        Command::Net(what) => wait_for(net::run(session, what)),
        Command::Share(what) => wait_for(shares::run(session, what)),
        Command::Trust(what) => wait_for(trust::run(session, what)),
        Command::Config(what) => wait_for(configuration::run(session, what)),
        Command::Machine(what) => wait_for(machines::run(session, what)),
        Command::Image(what) => image::run(session, what),
        Command::Doctor { bundle: None } => wait_for(doctor::run(session)),
        Command::Doctor { bundle: Some(to) } => wait_for(doctor::bundle(session, &to)),
        Command::Env { socket, unset, shell } => environment::run(session, socket, unset, shell),
        Command::Context(what) => wait_for(context::run(session, what)),
        Command::Version => wait_for(version::run(session)),
        Command::Completion { .. } | Command::Manual { .. } | Command::ExitCodes => {
            unreachable!("answered above")
        }
    }
}

/// Runs a command that talks to the daemon, on this thread.
fn wait_for(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up asynchronous I/O")?;
    let result = runtime.block_on(command);
    // A read from a terminal cannot be called back; the process ends all the same.
    runtime.shutdown_background();
    result
}

fn completion(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&Args::command()), "cove", &mut script);
    output::bytes(&script)?;
    Ok(Exit::Done.into())
}

/// The command without the subcommands that are hidden, which completions would offer all the same. They would offer
/// hidden options as well, which cannot be taken off a command: so there are none.
fn shown(whole: &clap::Command) -> clap::Command {
    let subcommands = whole.get_subcommands().filter(|one| !one.is_hide_set());
    clap::Command::new("cove")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments())
        .subcommands(subcommands)
}

fn manual(directory: &Path) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(Args::command(), directory)
        .with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
    Ok(Exit::Done.into())
}

fn exit_codes(as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        let codes: Vec<_> = Exit::TABLE
            .iter()
            .map(|&(exit, meaning)| serde_json::json!({ "code": exit as u8, "meaning": meaning }))
            .collect();
        output::json(&codes)?;
    } else {
        output::line(args::exit_codes_text())?;
    }
    Ok(Exit::Done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_offer_nothing_that_is_hidden() {
        fn look(command: &clap::Command) {
            let name = command.get_name();
            for argument in command.get_arguments() {
                assert!(!argument.is_hide_set(), "{name}: {}", argument.get_id());
            }
            for subcommand in command.get_subcommands() {
                assert!(!subcommand.is_hide_set(), "{name}: {}", subcommand.get_name());
                look(subcommand);
            }
        }
        look(&shown(&Args::command()));
    }
}
