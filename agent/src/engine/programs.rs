//! How dockerd and containerd are started.

use super::config::{CONTAINERD_SOCKET, Config, ENGINE_SOCKET, Files};
use crate::process::{
    cgroup::{self, Cgroup},
    confine::{Confinement, Session, confine},
};
use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::Path,
    process::{Command, Stdio},
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts dockerd with the listening socket, which is its standard input, as systemd would (`sd_listen_fds(3)`). The
/// process id has to be in the environment, and only the process itself knows it in time.
const WITH_SOCKET: &str = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";

/// The engine's programs are among the last that the kernel should kill when memory is short.
const ENGINE_OOM_SCORE: &str = "-500";
const CONTAINERD_OOM_SCORE: &str = "-800";

/// Opens the engine's socket. It lives as long as the agent: clients that connect while the engine starts, or starts
/// again, wait in it and are served by the next one.
pub(crate) fn listen() -> io::Result<OwnedFd> {
    let path = Path::new(ENGINE_SOCKET);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(path)?;
    // std's backlog is for programs that accept at once; the engine may take seconds.
    rustix::net::listen(&socket, 4096)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(socket.into())
}

/// containerd, to be started.
pub(crate) fn containerd(config: &Config, files: &Files) -> io::Result<Command> {
    // A socket that an earlier one left would look like this one's.
    match fs::remove_file(CONTAINERD_SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all("/run/containerd")?;
    let mut containerd = Command::new("/usr/bin/containerd");
    containerd
        .arg("--config")
        .arg(&files.containerd)
        .stdin(Stdio::null());
    surround(&mut containerd, config, cgroup::CONTAINERD, CONTAINERD_OOM_SCORE)?;
    Ok(containerd)
}

/// dockerd, to be started with the listening `socket`.
pub(crate) fn dockerd(config: &Config, files: &Files, socket: &OwnedFd) -> io::Result<Command> {
    let group = Cgroup::make(cgroup::DOCKERD)?;
    // What an earlier dockerd left behind, such as a half-done build, is in the way of this one.
    group.kill()?;
    let mut dockerd = Command::new("/bin/sh");
    dockerd.args(["-c", WITH_SOCKET, "/usr/sbin/dockerd"]);
    dockerd
        .arg("--config-file")
        .arg(&files.engine)
        .stdin(socket.try_clone()?);
    surround(&mut dockerd, config, cgroup::DOCKERD, ENGINE_OOM_SCORE)?;
    Ok(dockerd)
}

fn surround(command: &mut Command, config: &Config, group: &str, oom_score: &'static str) -> io::Result<()> {
    command.env_clear().env("PATH", PATH).env("HOME", "/root");
    command.envs(config.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir("/");
    confine(
        command,
        Confinement {
            session: Session::Group,
            cgroup: Some(Cgroup::make(group)?.entrance()?),
            oom_score,
        },
    );
    Ok(())
}
