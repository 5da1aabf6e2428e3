//! The words of the command line. Only shapes and help texts; what they do is in [`crate::command`].

use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};
use cove_api::size;
use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

/// Docker Engine in a lightweight virtual machine
#[derive(Debug, Parser)]
#[command(
    name = "cove",
    version,
    propagate_version = false,
    disable_help_subcommand = false,
    after_help = "`cove help exit-codes` lists the exit codes"
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Global {
    /// Name of the machine
    #[arg(
        long,
        short = 'm',
        global = true,
        env = "COVE_MACHINE",
        default_value = cove_api::DEFAULT_MACHINE,
        value_name = "NAME"
    )]
    pub(crate) machine: String,
    /// Print data as JSON, for scripts
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no notices
    #[arg(long, short = 'q', global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the machine and wait until its engine answers
    Start,
    /// Stop containers, engine and machine, in this order
    Stop {
        /// Cut the power instead; the data disk's journal is all that protects the data
        #[arg(long)]
        force: bool,
    },
    /// Stop the machine and start it again
    Restart,
    /// Halt the machine's virtual CPUs; connections stay open and wait
    Pause,
    /// Let a paused machine go on
    Resume,
    /// Say how the machine is; exits 3 when it does not run
    Status {
        /// Show where the time of the last start went
        #[arg(long)]
        timings: bool,
    },
    /// Open a shell in the machine
    Shell,
    /// Run a program in the machine, outside of any container
    Exec {
        /// Working directory in the machine
        #[arg(long, short = 'w', value_name = "DIRECTORY")]
        workdir: Option<String>,
        /// Set a variable
        #[arg(long = "env", short = 'e', value_name = "NAME=VALUE", value_parser = variable)]
        environment: Vec<(String, String)>,
        /// Give it a terminal; the default is to give it one when this command has one
        #[arg(long, short = 't', overrides_with = "no_terminal")]
        terminal: bool,
        /// Give it pipes, even though this command has a terminal
        #[arg(long, short = 'T')]
        no_terminal: bool,
        /// Program and arguments
        #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Run the machine's own Docker client, for hosts that have none
    #[command(disable_help_flag = true)]
    Docker {
        /// What `docker` takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Print a log
    Logs {
        /// Whose
        #[arg(value_enum, default_value = "engine")]
        source: Log,
        /// Go on with new lines as they come
        #[arg(long, short = 'f')]
        follow: bool,
        /// Only the last lines
        #[arg(long, short = 'n', value_name = "LINES")]
        tail: Option<u32>,
    },
    /// Make a TCP port of the machine or of a container reachable on this computer, while the command runs
    Forward {
        /// `[ADDRESS:]PORT:GUEST_ADDRESS:GUEST_PORT`; without ADDRESS on 127.0.0.1, PORT 0 takes a free one
        #[arg(value_parser = route)]
        route: Route,
    },
    /// List what containers publish on this computer
    Ports,
    /// Find out why something cannot be reached
    #[command(subcommand)]
    Net(Net),
    /// Share folders with containers, each at its own path
    #[command(subcommand)]
    Share(Share),
    /// Have the engine trust certificates of your own, such as that of a company's registry
    #[command(subcommand)]
    Trust(Trust),
    /// Read and change the settings
    #[command(subcommand)]
    Config(Config),
    /// List, create and delete machines
    #[command(subcommand)]
    Machine(Machine),
    /// Build and verify the guest image
    #[command(subcommand)]
    Image(Image),
    /// Look for what keeps Cove from working, or from working well
    Doctor {
        /// Write all that helps to find out why to a new file instead: checks, settings, machines and the ends of logs,
        /// with secrets masked; `-` is standard output
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
    },
    /// Print how Docker clients reach the machine, for the shell's `eval`
    Env {
        /// Print only the value of `DOCKER_HOST`
        #[arg(long, conflicts_with = "unset")]
        socket: bool,
        /// Print what takes it back
        #[arg(long)]
        unset: bool,
        /// Whose syntax; the default is told from SHELL
        #[arg(long, value_enum)]
        shell: Option<EnvShell>,
    },
    /// Show, use and remove the machine's Docker context
    #[command(subcommand)]
    Context(Context),
    /// Print the completions for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of all commands, for a package
    #[command(hide = true)]
    Manual {
        /// A directory that is there
        directory: PathBuf,
    },
    /// Say the versions of the command, the daemon, the protocol and the image
    Version,
    /// Run the daemon, or stop it; other commands start it when they need it
    Daemon {
        #[command(subcommand)]
        action: Option<DaemonAction>,
    },
    /// What other commands and the window start as the daemon
    #[command(hide = true)]
    DaemonProcess,
    /// List the exit codes
    #[command(hide = true, long_about = exit_codes_text())]
    ExitCodes,
}

impl Command {
    /// Whether the exit code is that of a program in the machine.
    pub(crate) fn passes_the_programs_code(&self) -> bool {
        matches!(self, Self::Exec { .. } | Self::Shell | Self::Docker { .. })
    }
}

/// What a command line that is not valid asks for, as far as it makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meant {
    /// As [`Command::passes_the_programs_code`] has it.
    pub(crate) passes_the_programs_code: bool,
    pub(crate) json: bool,
}

impl Meant {
    pub(crate) fn by(line: impl IntoIterator<Item = OsString>) -> Self {
        let line: Vec<OsString> = line.into_iter().collect();
        // What comes behind the mistake is not looked at.
        let matches = Args::command().ignore_errors(true).try_get_matches_from(&line);
        let (program, json) = matches.map_or((false, false), |matches| {
            (
                matches!(matches.subcommand_name(), Some("exec" | "shell" | "docker")),
                matches!(matches.try_get_one::<bool>("json"), Ok(Some(true))),
            )
        });
        let mut words = line.iter().take_while(|word| *word != "--");
        Self {
            passes_the_programs_code: program,
            // Behind a program's name the word may be the program's.
            json: json || !program && words.any(|word| word == "--json"),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Share {
    /// Share a folder with every machine, at once and from now on
    Add {
        /// The folder
        path: PathBuf,
        /// Containers may only read
        #[arg(long)]
        read_only: bool,
    },
    /// List the shared folders
    #[command(visible_alias = "ls")]
    List,
    /// Cease to share a folder
    #[command(visible_alias = "rm")]
    Remove {
        /// The folder
        path: PathBuf,
        /// Also when containers have it mounted; those that run lose access, and those that are stopped do not start
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Net {
    /// Walk the way to a target hop by hop, and say at which it stops and what to do
    ///
    /// The exit code is 0 where the target can be reached, and otherwise says why not: `cove help exit-codes`.
    Explain {
        /// `HOST:PORT`, a URL, a port of this computer, a container, or NAME.cove.localhost
        target: String,
        /// Begin in this container instead of on this computer
        #[arg(long, value_name = "CONTAINER")]
        from: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// Trust the certificates in a file, at once and from now on
    Add {
        /// A file in PEM; `-` reads standard input
        file: PathBuf,
    },
    /// List what is trusted besides the public authorities
    #[command(visible_alias = "ls")]
    List,
    /// Cease to trust a certificate
    #[command(visible_alias = "rm")]
    Remove {
        /// The first digits of its fingerprint, as the list shows them
        fingerprint: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print a setting, or all of them
    Get {
        /// Such as `machine.memory`; all when absent
        key: Option<String>,
    },
    /// Change a setting, or with --unset take it back to its default
    Set {
        /// Such as `machine.memory`
        key: String,
        /// The value, as it would stand in the settings file; quotes around a string may be left out
        #[arg(required_unless_present = "unset", allow_hyphen_values = true)]
        value: Option<String>,
        /// Back to the default
        #[arg(long, conflicts_with = "value")]
        unset: bool,
    },
    /// Open the settings file in $VISUAL or $EDITOR, and take it over once it is valid
    Edit,
    /// Print the path of the settings file
    Path,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Machine {
    /// List the machines
    #[command(visible_alias = "ls")]
    List,
    /// Create a machine; what is not given comes from the settings
    Create {
        /// Lower-case letters, digits and hyphens
        name: String,
        /// Virtual CPUs
        #[arg(long)]
        cpus: Option<u32>,
        /// Memory, such as `2GiB`
        #[arg(long, value_parser = mebibytes, value_name = "SIZE")]
        memory: Option<u32>,
        /// Largest size of the data disk, such as `64GiB`; it takes only what is used
        #[arg(long, value_parser = gibibytes, value_name = "SIZE")]
        disk: Option<u32>,
    },
    /// Give this computer back the disk space that the machine does not use any more
    Reclaim,
    /// Delete a machine with everything in it: containers, images and volumes
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name
        name: String,
        /// The name once more; asked for when absent
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build the image from its recipe; does nothing when nothing has changed
    Build(ImageBuild),
    /// Check every file of the image against its manifest
    Verify {
        /// The image; the default is the one that machines use
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImageBuild {
    /// The guest agent's program; the default is the one that came with this program
    #[arg(long, env = "COVE_AGENT", value_name = "FILE")]
    pub(crate) agent: Option<PathBuf>,
    /// Where to put the image; the default is where machines take it from
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output: Option<PathBuf>,
    /// Another recipe than the one that is built in
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Fetch nothing; fail when something is not in the cache
    #[arg(long)]
    pub(crate) offline: bool,
    /// Look for newer packages than those that were used before
    #[arg(long, conflicts_with = "offline")]
    pub(crate) refresh: bool,
    /// Take every source file from this directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "refresh")]
    pub(crate) sources: Option<PathBuf>,
    /// A Debian mirror in place of the one that this computer is configured for
    #[arg(long, env = "COVE_DEBIAN_MIRROR", value_name = "ADDRESS")]
    pub(crate) debian_mirror: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// Print the context's name
    Show,
    /// Make it the context that Docker clients use unless told otherwise
    Use,
    /// Remove it from Docker's configuration; the next start of the machine makes it again
    Remove {
        /// Those of all machines, as before Cove is removed
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum DaemonAction {
    /// Run in the foreground until SIGTERM or Ctrl-C; machines go on
    Run,
    /// Stop all machines, then the daemon
    Stop,
}

/// Whose log, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// The daemon's own
    Daemon,
    /// The guest's console
    Console,
    /// The machine process's, with the hypervisor's messages
    Machine,
    /// The guest agent's
    Agent,
    /// dockerd's
    Engine,
    /// containerd's
    Containerd,
    /// The guest kernel's
    Kernel,
}

/// Whose syntax `cove env` speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvShell {
    /// POSIX: bash, zsh, dash
    Sh,
    /// fish
    Fish,
    /// `PowerShell`
    Powershell,
}

/// A port of this computer and what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// Where to listen on this computer.
    pub(crate) listen: SocketAddr,
    /// The address in the guest.
    pub(crate) target: SocketAddr,
}

fn route(text: &str) -> Result<Route, String> {
    const SHAPE: &str = "expected [ADDRESS:]PORT:GUEST_ADDRESS:GUEST_PORT, such as 8080:172.17.0.2:80";
    let shape = |_| SHAPE.to_owned();
    // IPv6 addresses stand in brackets, so a colon within brackets separates nothing.
    let mut depth = 0_u32;
    let parts: Vec<&str> = text
        .split(|c: char| {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ':' && depth == 0
        })
        .collect();
    let (address, port, guest, guest_port) = match parts[..] {
        [port, guest, guest_port] => ("127.0.0.1", port, guest, guest_port),
        [address, port, guest, guest_port] => (address, port, guest, guest_port),
        _ => return Err(SHAPE.to_owned()),
    };
    let target: SocketAddr = format!("{guest}:{guest_port}").parse().map_err(shape)?;
    if target.port() == 0 {
        return Err("the guest's port cannot be 0".to_owned());
    }
    Ok(Route {
        listen: format!("{address}:{port}").parse().map_err(shape)?,
        target,
    })
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        // A name alone passes the variable on, as it does in `docker run -e`.
        None if !text.is_empty() => std::env::var(text)
            .map(|value| (text.to_owned(), value))
            .map_err(|_| format!("{text} is not set here; give it a value with {text}=VALUE")),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn mebibytes(text: &str) -> Result<u32, String> {
    size_in(text, 1 << 20)
}

fn gibibytes(text: &str) -> Result<u32, String> {
    size_in(text, 1 << 30)
}

fn size_in(text: &str, unit: u64) -> Result<u32, String> {
    let bytes = size::parse(text)
        .ok_or_else(|| format!("`{text}` is no size; write it with its unit, like 2GiB, 1.5GiB or 512MiB"))?;
    u32::try_from(bytes.div_ceil(unit)).map_err(|_| "that is too much".to_owned())
}

/// The table of exit codes as text.
pub(crate) fn exit_codes_text() -> String {
    use std::fmt::Write as _;
    let mut text = String::from("The exit codes of `cove`:\n");
    for (exit, meaning) in crate::exit::Exit::TABLE {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{:>5}  {meaning}", exit as u8);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// Every text at a place or below it that people are shown.
    fn texts(place: &Path, found: &mut Vec<(PathBuf, String)>) {
        if place.is_dir() {
            for entry in fs::read_dir(place).unwrap() {
                texts(&entry.unwrap().path(), found);
            }
            return;
        }
        let name = place.to_str().unwrap();
        let shown = ["md", "svelte", "ts"]
            .iter()
            .any(|end| name.ends_with(&format!(".{end}")));
        if shown && !name.ends_with(".test.ts") {
            found.push((place.to_owned(), fs::read_to_string(place).unwrap()));
        }
    }

    /// What follows the program's name where a text shows a command: behind a quote, or at the beginning of a line.
    fn commands(text: &str) -> Vec<Vec<&str>> {
        ["`cove ", "\"cove ", ">cove ", "\ncove ", "$(cove "]
            .into_iter()
            // What stands before the first mark is no command.
            .flat_map(move |mark| text.split(mark).skip(1))
            .map(|rest| rest.split(['`', '"', '<', '\n', '#', ')']).next().unwrap_or(rest))
            .map(|line| line.split_whitespace().collect())
            .collect()
    }

    /// The first word that is neither a command nor an option where it stands.
    fn wrong<'a>(program: &clap::Command, words: &[&'a str]) -> Option<&'a str> {
        let mut command = program;
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            // What follows is another program's.
            if matches!(command.get_name(), "docker" | "exec") {
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                let mut options = command.get_arguments();
                let Some(option) = options.find(|option| option.get_long() == Some(long)) else {
                    return Some(word);
                };
                if option.get_action().takes_values() {
                    words.next();
                }
            } else if command.has_subcommands() && word != "…" {
                let Some(found) = command.find_subcommand(word) else {
                    return Some(word);
                };
                command = found;
            }
        }
        None
    }

    #[test]
    fn every_command_that_the_window_and_the_readme_show_is_one() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let mut shown = Vec::new();
        for place in ["README.md", "docs/folders.md", "ui/src"] {
            texts(&root.join(place), &mut shown);
        }
        let mut program = Args::command();
        // Only then do commands have the options that all have.
        program.build();
        let mut count = 0;
        for (place, text) in &shown {
            for words in commands(text) {
                count += 1;
                let line = words.join(" ");
                assert_eq!(wrong(&program, &words), None, "{}: cove {line}", place.display());
            }
        }
        assert!(count > 80, "{count} are not all that there are");
        for line in [
            "config unset machine.cpus",
            "logs engine --nope",
            "--nope dev start",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(wrong(&program, &words).is_some(), "{line}");
        }
    }

    #[test]
    fn the_definitions_contradict_nothing() {
        Args::command().debug_assert();
    }

    #[test]
    fn everything_after_docker_belongs_to_docker() {
        let args = Args::parse_from(["cove", "docker", "run", "--rm", "--help", "-it", "alpine"]);
        let Command::Docker { arguments } = args.command else {
            panic!("not docker: {args:?}");
        };
        assert_eq!(arguments, ["run", "--rm", "--help", "-it", "alpine"]);
    }

    #[test]
    fn options_after_the_program_belong_to_the_program() {
        let args = Args::parse_from(["cove", "exec", "-w", "/tmp", "ls", "--json", "-l"]);
        assert!(!args.global.json);
        let Command::Exec { command, workdir, .. } = args.command else {
            panic!("not exec: {args:?}");
        };
        assert_eq!(command, ["ls", "--json", "-l"]);
        assert_eq!(workdir.as_deref(), Some("/tmp"));
    }

    fn meant(line: &str) -> Meant {
        Meant::by(line.split(' ').map(OsString::from))
    }

    #[test]
    fn a_bad_line_is_known_to_ask_for_json_before_and_behind_what_is_wrong() {
        for line in [
            "cove --json start --nope",
            "cove start --nope --json",
            "cove --json begin",
            "cove begin --json",
            "cove exec --json --nope true",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line} is valid");
            assert!(meant(line).json, "{line}");
        }
        for line in [
            "cove start --nope",
            "cove start --nope -- --json",
            "cove exec -e NOT_SET_ANYWHERE program --json",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line} is valid");
            assert!(!meant(line).json, "{line}");
        }
    }

    #[test]
    fn a_bad_line_is_known_to_be_about_a_program_in_the_machine() {
        let of = |line: &str| meant(line).passes_the_programs_code;
        for line in [
            "cove exec --nope true",
            "cove -m dev exec -e NOT_SET_ANYWHERE true",
            "cove exec",
            "cove shell extra",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line} is valid");
            assert!(of(line), "{line}");
        }
        for line in [
            "cove",
            "cove start --nope",
            "cove exce true",
            "cove -m exec status",
        ] {
            assert!(!of(line), "{line}");
        }
    }

    #[test]
    fn a_route_listens_on_loopback_unless_it_says_otherwise() {
        let short = route("8080:172.17.0.2:80").unwrap();
        assert_eq!(short.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(short.target, "172.17.0.2:80".parse().unwrap());
        let long = route("[::1]:0:[fd00::2]:80").unwrap();
        assert_eq!(long.listen, "[::1]:0".parse().unwrap());
        assert_eq!(long.target, "[fd00::2]:80".parse().unwrap());
    }

    #[test]
    fn a_malformed_route_is_refused() {
        for text in [
            "",
            "80",
            "8080:80",
            "8080:web:80",
            "8080:1.2.3.4:0",
            "a:b:c:d:e",
            "99999:1.2.3.4:1",
        ] {
            assert!(route(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_rounded_up_to_their_unit() {
        assert_eq!(mebibytes("2GiB"), Ok(2048));
        assert_eq!(gibibytes("1025MiB"), Ok(2));
        assert!(mebibytes("much").is_err());
    }
}
