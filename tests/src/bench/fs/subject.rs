//! A file server under measurement, in a process of its own.

use std::num::NonZeroU32;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use cove_fs::{Config, Server, ShareOptions, abi};
use cove_virtio::fs::Fs;
use cove_virtio::vhost_user;
use rustix::fs::Mode;
use tempfile::TempDir;

use crate::bench::peer::{Kind, Peer};
use crate::driver::fs::FsGuest;
use crate::driver::transport::VhostUser;
use crate::harness::Running;

pub(super) const PEER: Peer = Peer {
    name: "virtiofsd",
    version: "1.14.0",
    variable: "COVE_BENCH_FS_PEER",
};

/// Under which name our server shares the folder; the peer has it as its root.
pub(super) const SHARE: &str = "share";
/// As many as a machine has.
const WORKERS: usize = 8;
/// Most changes that are taken at a time.
const CHANGES: usize = 128;

/// A running server with a guest. Dropping it ends its process.
pub(super) struct Subject {
    pub(super) guest: FsGuest,
    /// The node of the shared folder.
    pub(super) root: u64,
    _process: Running,
    _dir: TempDir,
}

/// Has `program` serve `folder` at `socket`, as `user` where that is another one than we are.
pub(super) fn start_server(
    (kind, program): (&Kind, &Path),
    folder: &Path,
    socket: &Path,
    user: Option<u32>,
) -> Result<Running> {
    let mut command = Command::new(program);
    match kind {
        Kind::Ours => {
            command.arg("serve-fs").arg(socket).arg(folder);
        }
        Kind::Peer(_) => {
            command.arg("--socket-path").arg(socket);
            command.arg("--shared-dir").arg(folder);
            // What it would confine itself to takes a privilege; its filter of system calls stays on.
            command.args(["--sandbox", "none", "--log-level", "error"]);
        }
    }
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    kind.serve(&mut command, socket)
}

/// The program that serves.
pub(super) fn program(kind: &Kind) -> Result<PathBuf> {
    match kind {
        Kind::Ours => std::env::current_exe().context("this very program is not to be found"),
        Kind::Peer(program) => Ok(program.clone()),
    }
}

impl Subject {
    /// Starts a server of `folder` and boots a guest on it, whose requests come from the user that we are.
    pub(super) fn start(kind: &Kind, folder: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("vhost-user");
        let process = start_server((kind, &program(kind)?), folder, &socket, None)?;
        let boot = || -> Result<(FsGuest, u64)> {
            let mut guest = FsGuest::boot(VhostUser::connect(&socket, 2)?)?;
            guest.caller = (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
            let root = match kind {
                Kind::Ours => guest
                    .walk(SHARE)?
                    .map_err(|errno| anyhow!("no share: error {errno}"))?,
                Kind::Peer(_) => abi::ROOT_ID,
            };
            Ok((guest, root))
        };
        let (guest, root) = boot().with_context(|| format!("cannot boot a guest on {kind}"))?;
        Ok(Self {
            guest,
            root,
            _process: process,
            _dir: dir,
        })
    }
}

/// Serves `folder` as a machine does, until killed: what [`Kind::Ours`] starts. Directories are watched, and the guest
/// may rely on that; but nobody else changes anything here, so that there is nothing to repeat in the guest.
pub fn serve(socket: &Path, folder: &Path) -> Result<()> {
    rustix::process::umask(Mode::empty());
    let server = Arc::new(Server::new(Config::default())?);
    let options = ShareOptions {
        name: SHARE.into(),
        read_only: false,
    };
    server.add_share(folder, options)?;
    let device = Fs::new("cove", Arc::clone(&server), WORKERS)?;
    server.set_repeater(NonZeroU32::new(1));
    std::thread::spawn(move || {
        loop {
            for change in server.take_changes(CHANGES, Duration::MAX) {
                server.finish_change(change.id);
            }
        }
    });
    Ok(vhost_user::serve(device, socket)?.wait()?)
}
