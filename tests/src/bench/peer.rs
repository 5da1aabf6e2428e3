//! Other people's programs to compare with, from their registry.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::driver::vsock::PATIENCE;
use crate::harness::Running;

/// A program of that name in a crate of that name.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// Names the program, where somebody has built it already.
    pub(super) variable: &'static str,
}

/// Whose program is under measurement.
pub(super) enum Kind {
    /// Ours, served by this very program.
    Ours,
    /// The peer's program.
    Peer(PathBuf),
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ours => "our program",
            Self::Peer(_) => "the peer",
        })
    }
}

impl Kind {
    /// Starts `command`, the program, and waits until it serves at `socket`.
    pub(super) fn serve(&self, command: &mut Command, socket: &Path) -> Result<Running> {
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {self}"))?;
        let mut serving = Running(process);
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            let ended = serving.0.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "{self} does not serve"
            );
            sleep(Duration::from_millis(5));
        }
        Ok(serving)
    }
}

/// Where such programs are installed, for a bench that writes to `out`.
pub(super) fn tools_beside(out: &Path) -> PathBuf {
    out.parent().unwrap_or(Path::new(".")).join("tools")
}

impl Peer {
    /// Its name and version, for a report.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// The program; where there is none, says so.
    pub(super) fn find_or_say(&self, tools: &Path) -> Option<PathBuf> {
        self.find(tools)
            .inspect_err(|error| println!("peer missing: only our own figures follow ({error:#})"))
            .ok()
    }

    /// The program, built with optimisations and installed below `tools` if need be.
    fn find(&self, tools: &Path) -> Result<PathBuf> {
        let Self { name, version, .. } = self;
        if let Some(program) = std::env::var_os(self.variable) {
            return Ok(program.into());
        }
        let tools = std::path::absolute(tools).context("there is no current directory")?;
        let program = tools.join("bin").join(name);
        if program.exists() {
            return Ok(program);
        }
        println!("installing {name} {version} to compare with");
        // Cargo tells the programs it runs which toolchain and target directory to use; the peer has its own.
        let status = Command::new("cargo")
            .args(["install", name, "--version", version])
            .args(["--locked", "--quiet", "--root"])
            .arg(&tools)
            .current_dir(std::env::temp_dir())
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "cargo install {name} failed");
        Ok(program)
    }
}
