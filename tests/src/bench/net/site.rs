//! What is measured: a machine with one container, and three ways to it.

use crate::bench::installed;
use crate::harness::{Cmd, Cove, Running, free_port, within};
use anyhow::{Context as _, Result, ensure};
use std::{
    env, fmt,
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// The program in the container, and its port.
pub(super) const METER: &str = "cove-meter";
const METER_PORT: u16 = 7070;
/// sshd's port in the container.
const SSH_PORT: u16 = 7022;
/// How long things in the machine may take to listen.
const STARTING: Duration = Duration::from_mins(1);

/// A way to the container, or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Published,
    Passt,
    Ssh,
    Out,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Passt => "passt",
            Self::Ssh => "ssh",
            Self::Out => "out",
        })
    }
}

pub(super) struct Site {
    cove: Cove,
    published: u16,
    passt: Option<u16>,
    ssh: Option<Tunnel>,
}

/// `ssh -L`, until this is dropped.
struct Tunnel {
    port: u16,
    client: Running,
}

/// The ports of this computer and of the guest that passt is to connect.
struct Forwards {
    meter: (u16, u16),
    ssh: (u16, u16),
}

impl Site {
    /// Boots the machine, starts the container, opens the tunnel.
    pub(super) fn begin() -> Result<Self> {
        let cove = Cove::new("bench-net");
        let forwards = Forwards {
            meter: (free_port(), free_port()),
            ssh: (free_port(), free_port()),
        };
        let wrapped = wrap_passt(&cove, &forwards)?;
        let mut start = cove.cove(["start"]).limit(Duration::from_mins(5));
        if let Some(directory) = &wrapped {
            let path = env::var("PATH").unwrap_or_default();
            start = start.env("PATH", format!("{}:{path}", directory.display()));
        }
        start.ok();
        let key = run_container(&cove, &forwards)?;
        let mut site = Self {
            published: forwards.meter.1,
            passt: wrapped.map(|_| forwards.meter.0),
            ssh: None,
            cove,
        };
        within(STARTING, "the container to answer", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, site.published)).ok()
        });
        if let (Some(key), Some(_)) = (key, site.passt) {
            site.ssh = Some(tunnel(&site.cove, &key, forwards.ssh.0)?);
        }
        Ok(site)
    }

    /// The ways that there are.
    pub(super) fn ways(&self) -> Vec<Way> {
        let mut ways = vec![Way::Published];
        ways.extend(self.passt.map(|_| Way::Passt));
        ways.extend(self.ssh.as_ref().map(|_| Way::Ssh));
        ways
    }

    /// This computer's port that leads there by `way`.
    pub(super) fn port(&self, way: Way) -> u16 {
        match way {
            Way::Published | Way::Out => self.published,
            Way::Passt => self.passt.unwrap_or_default(),
            Way::Ssh => self.ssh.as_ref().map_or(0, |tunnel| tunnel.port),
        }
    }

    /// What the machine runs on.
    pub(super) fn backend(&self) -> String {
        self.cove.backend()
    }

    /// The programs of the other ways that there are, with their versions.
    pub(super) fn peers(&self) -> Vec<String> {
        let passt = self.passt.and_then(|_| installed::passt());
        let ssh = self.ssh.as_ref();
        let ssh = ssh.map(|_| installed::said_version("ssh".as_ref(), "-V"));
        let passt = passt.map(|program| installed::passt_version(&program));
        passt
            .into_iter()
            .chain(ssh.map(|client| format!("{client} with dropbear in the container")))
            .collect()
    }
}

/// A directory with a passt that also forwards ports, which Cove's does not; nothing where there is none.
fn wrap_passt(cove: &Cove, forwards: &Forwards) -> Result<Option<PathBuf>> {
    let Some(passt) = installed::passt() else {
        return Ok(None);
    };
    let directory = cove.scratch().join("bin");
    fs::create_dir_all(&directory)?;
    let pairs = [forwards.meter, forwards.ssh].map(|(here, there)| format!("{here}:{there}"));
    let script = format!(
        "#!/bin/sh\nfor word; do\n  shift\n  [ \"$last\" = --tcp-ports ] && word=127.0.0.1/{}\n  set -- \"$@\" \"$word\"\n  \
         last=$word\ndone\nexec {} \"$@\"\n",
        pairs.join(","),
        passt.display()
    );
    let wrapper = directory.join("passt");
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755))?;
    Ok(Some(directory))
}

/// Runs the container, with sshd where there is one; the key that it lets in.
fn run_container(cove: &Cove, forwards: &Forwards) -> Result<Option<PathBuf>> {
    let root = cove.scratch().join("root");
    for directory in ["bin", "etc/dropbear", "root/.ssh", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let meter = env::var_os("COVE_BENCH_METER").context("COVE_BENCH_METER names no program")?;
    fs::copy(&meter, root.join("bin").join(METER))
        .with_context(|| format!("cannot copy {}", meter.display()))?;
    let sshd = env::var_os("COVE_BENCH_DROPBEAR").map(PathBuf::from);
    let key = match &sshd {
        Some(files) => Some(add_sshd(cove, files, &root)?),
        None => None,
    };
    let archive = cove.scratch().join("root.tar");
    let mut tar = Cmd::new("tar").args(["--owner=0", "--group=0", "-C"]).arg(&root);
    tar = tar.arg("-cf").arg(&archive).arg(".");
    tar.ok();
    cove.docker(["import"]).arg(&archive).arg("meter").ok();
    let publish = |port: u16, inner: u16| format!("{port}:{inner}");
    cove.docker(["run", "-d", "--name", "meter"])
        .args(["-p", &publish(forwards.meter.1, METER_PORT)])
        .args(["-p", &publish(forwards.ssh.1, SSH_PORT)])
        .args(["meter", "/bin/cove-meter", &METER_PORT.to_string()])
        .ok();
    if key.is_some() {
        cove.docker([
            "exec",
            "-d",
            "meter",
            "/usr/sbin/dropbear",
            "-F",
            "-E",
            "-R",
            "-p",
        ])
        .arg(SSH_PORT.to_string())
        .ok();
    }
    Ok(key)
}

/// Puts dropbear and its libraries into the container's files.
fn add_sshd(cove: &Cove, files: &Path, root: &Path) -> Result<PathBuf> {
    for part in fs::read_dir(files).with_context(|| format!("cannot read {}", files.display()))? {
        let part = part?.path();
        Cmd::new("cp").arg("-a").arg(&part).arg(root).ok();
    }
    // As Debian has it.
    for name in ["lib", "lib64"] {
        let link = root.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(format!("usr/{name}"), &link)?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/shells"), "/bin/sh\n")?;
    let key = cove.scratch().join("key");
    Cmd::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .ok();
    fs::copy(key.with_extension("pub"), root.join("root/.ssh/authorized_keys"))?;
    for (path, mode) in [
        ("root", 0o700),
        ("root/.ssh", 0o700),
        ("root/.ssh/authorized_keys", 0o600),
    ] {
        fs::set_permissions(root.join(path), Permissions::from_mode(mode))?;
    }
    Ok(key)
}

fn tunnel(cove: &Cove, key: &Path, through: u16) -> Result<Tunnel> {
    let port = free_port();
    // A published port takes connections before anything listens in the container, and then resets them. The first
    // word is ours, as ssh's own client has it: Debian 12's passt makes the connection in the guest with it, no sooner.
    within(STARTING, "the container's ssh server to greet", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, through)).ok()?;
        stream.set_read_timeout(Some(STARTING)).ok()?;
        stream.write_all(b"SSH-2.0-cove\r\n").ok()?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).ok()?;
        (greeting == *b"SSH-").then_some(())
    });
    let mut ssh = Command::new("ssh");
    ssh.args(["-N", "-F", "none", "-o", "StrictHostKeyChecking=no"])
        .args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "ExitOnForwardFailure=yes",
            "-o",
            "BatchMode=yes",
        ])
        .arg("-i")
        .arg(key)
        .args(["-L", &format!("127.0.0.1:{port}:127.0.0.1:{METER_PORT}")])
        .args(["-p", &through.to_string(), "root@127.0.0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let log = cove.scratch().join("ssh.log");
    ssh.stderr(fs::File::create(&log)?);
    let mut tunnel = Tunnel {
        port,
        client: Running(ssh.spawn().context("cannot start ssh")?),
    };
    within(STARTING, "the tunnel to open", || {
        if tunnel.client.0.try_wait().ok().flatten().is_some() {
            return Some(None);
        }
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(Some)
    });
    ensure!(
        tunnel.client.0.try_wait()?.is_none(),
        "ssh ended: {}",
        fs::read_to_string(&log).unwrap_or_default()
    );
    Ok(tunnel)
}
