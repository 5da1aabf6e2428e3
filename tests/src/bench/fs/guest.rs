//! The same two servers in one real guest: Linux, emulated by QEMU with Cove's own kernel, with a file system device
//! for each of them. Its only program, `cove-files`, works in both in turns and says on the console how long it took.
//!
//! Everything is as it is where Cove runs: the servers are an ordinary user's, the guest's program is root, as most
//! containers are, and so our server keeps an owner for each file that is made, which the peer does not. Each has the
//! guest keep what it does unless told otherwise: ours for as long as nothing changes on the host, the peer for a
//! second.
//!
//! Before anything is measured, a little of all of it is done in each of the folders: an emulated processor translates
//! what it does for the first time, and ours, which comes first, would pay for both.
//!
//! Ours keeps extended attributes, too, which the peer does with `--xattr` alone. So the guest's kernel asks ours
//! whether a file has `security.capability` before the first write to it, and learns from the peer, once, that it need
//! not ask: of each file that is unpacked, ours answers one request more than the peer's six.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::subject::{self, SHARE};
use crate::bench::initramfs;
use crate::bench::peer::Kind;
use crate::bench::process;
use crate::bench::table::{Row, Target, median};
use crate::harness::Running;

/// How it is measured, for a report.
pub(super) const ABOUT: &str = "once, in one emulated guest of 2 processors; seconds, the less the better";
/// More would take longer than a bench should: one takes two minutes for each server on two busy processors.
const ROUNDS: usize = 1;
/// At most this many times the peer's time.
const TARGET: f64 = 0.7;
/// Rows that [`super::WHY`] knows about.
pub(super) const UNPACK: &str = "in a guest: unpack 10,000 small files";
pub(super) const WALK: &str = "in a guest: list and stat them, nothing cached";
pub(super) const NPM: &str = "in a guest: npm ci: replace and read 2,000 files";
/// What `cove-files` measures, and the name of its row.
const FIGURES: [(&str, &str); 5] = [
    ("unpack", UNPACK),
    ("walk, cold", WALK),
    ("walk, warm", "in a guest: again, 2 s later"),
    ("remove", "in a guest: remove them"),
    ("npm ci", NPM),
];
/// In the guest; [`Kind::Ours`] and the peer are called so.
const NAMES: [&str; 2] = ["ours", "peer"];
/// What begins a line of the console that is meant for us.
const MARK: &str = "@files ";
const PROGRAM: &str = "cove-files";
/// Whose the servers are where root measures.
const NOBODY: u32 = 65534;
/// For everything together.
const PATIENCE: Duration = Duration::from_mins(20);
/// By how much the guest's clock may be wrong, as a part of the whole.
const CLOCK_ERROR: f64 = 0.1;

/// Measures each of `kinds`, ours first.
pub(super) fn rows(kinds: &[Kind]) -> Result<Vec<Row>> {
    let user = rustix::process::geteuid().is_root().then_some(NOBODY);
    let dir = tempfile::tempdir()?;
    let mut servers = Vec::new();
    let mut sockets = Vec::new();
    for (kind, name) in kinds.iter().zip(NAMES) {
        let place = dir.path().join(name);
        let folder = place.join("folder");
        std::fs::create_dir_all(&folder)?;
        // The user may not be able to reach what root has built.
        let program = place.join("server");
        std::fs::copy(subject::program(kind)?, &program)?;
        for path in [dir.path(), &place, &folder] {
            std::os::unix::fs::chown(path, user, user)?;
        }
        let socket = place.join("vhost-user");
        servers.push(subject::start_server((kind, &program), &folder, &socket, user)?);
        sockets.push(socket);
    }
    let initramfs = dir.path().join("initramfs");
    let program = variable("COVE_BENCH_FILES")?;
    let archive = initramfs::with_program(&variable("COVE_TEST_IMAGE")?, &program, PROGRAM)?;
    std::fs::write(&initramfs, archive)?;
    let samples = boot(&initramfs, &sockets, &servers)?;
    let row = |figure: &str, name: String, target| -> Result<Row> {
        let of = |kind: &str| samples.get(&format!("{kind} {figure}")).map(|all| median(all));
        Ok(Row {
            name,
            unit: "s",
            ours: of(NAMES[0]).with_context(|| format!("nobody measured: {figure}"))?,
            peer: of(NAMES[1]),
            target,
        })
    };
    let mut rows = Vec::new();
    for (figure, name) in FIGURES {
        let target = (figure != "remove").then_some(Target::AtMost(TARGET));
        rows.push(row(figure, name.into(), target)?);
        let of_server = format!("in a guest: of that ({figure}), the server was on a processor");
        rows.push(row(&worked(figure), of_server, None)?);
    }
    Ok(rows)
}

/// The figure of how long the server worked for another one.
fn worked(figure: &str) -> String {
    format!("{figure}, server")
}

/// Runs the guest to its end; what it found, a value for each round, and how long each server worked for that.
fn boot(initramfs: &Path, sockets: &[PathBuf], servers: &[Running]) -> Result<BTreeMap<String, Vec<f64>>> {
    let mut child = qemu(initramfs, sockets)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start QEMU")?;
    let console = child.stdout.take().context("QEMU has no output")?;
    let _running = Running(child);
    let (sender, lines) = mpsc::channel();
    // Ends with QEMU's output.
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut console = Vec::new();
    // The guest's time and ours, at the first figure.
    let mut began = None;
    // How long each server had worked when it was last its turn.
    let mut busy = BTreeMap::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((at, line)) = lines.recv_timeout(left) else {
            bail!(
                "the guest ended, or never did; its console: {}",
                console.join("\n")
            );
        };
        let Some((_, report)) = line.split_once(MARK) else {
            console.push(line);
            continue;
        };
        let (what, value) = report.rsplit_once(": ").context("a report without a value")?;
        ensure!(what != "failed", "the guest's program failed: {value}");
        let value: f64 = value.parse().context("a report without a number")?;
        match what {
            "began" => {
                began = Some((value, at));
                for (server, name) in servers.iter().zip(NAMES) {
                    busy.insert(name, (server.0.id(), process::cpu(server.0.id())?));
                }
            }
            "done" => {
                let (guest, host) = began.context("the guest did not say when it began")?;
                let (guest, host) = (value - guest, at.duration_since(host).as_secs_f64());
                ensure!(
                    (guest / host - 1.0).abs() < CLOCK_ERROR,
                    "the guest's clock is wrong: {guest:.1} s were {host:.1} s"
                );
                return Ok(samples);
            }
            figure => {
                let name = figure.split(' ').next().unwrap_or_default();
                let (pid, before) = busy.get_mut(name).context("a figure of no server, or too soon")?;
                let now = process::cpu(*pid)?;
                let worked = (worked(figure), now - std::mem::replace(before, now));
                for (figure, value) in [(figure.to_owned(), value), worked] {
                    samples.entry(figure).or_default().push(value);
                }
            }
        }
    }
}

/// A machine as `cove-machine` emulates it, with nothing but what serves folders.
fn qemu(initramfs: &Path, sockets: &[PathBuf]) -> Result<Command> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.args([
        "-machine",
        "pc,memory-backend=memory,usb=off,smm=off,vmport=off,i8042=off,hpet=off",
    ]);
    qemu.args([
        "-accel",
        "tcg,thread=multi,tb-size=512",
        "-cpu",
        "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc",
        "-smp",
        "2",
        "-m",
        "1024M",
    ]);
    qemu.args(["-object", "memory-backend-memfd,id=memory,size=1024M,share=on"]);
    qemu.arg("-kernel")
        .arg(variable("COVE_TEST_IMAGE")?.join("kernel"));
    qemu.arg("-initrd").arg(initramfs);
    qemu.args([
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
    ]);
    let mut folders = Vec::new();
    for (socket, name) in sockets.iter().zip(NAMES) {
        qemu.arg("-chardev")
            .arg(format!("socket,id={name},path={}", socket.display()));
        qemu.arg("-device").arg(format!(
            "vhost-user-fs-pci,chardev={name},tag={name},queue-size=1024"
        ));
        // Ours shows its shares below its root; the peer's root is the folder.
        folders.push(format!("{name}:{}", if name == NAMES[0] { SHARE } else { "" }));
    }
    qemu.arg("-append").arg(format!(
        "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off rdinit=/{PROGRAM} ROUNDS={ROUNDS} FOLDERS={}",
        folders.join(",")
    ));
    Ok(qemu)
}

/// A path that `cargo xtask bench` names.
fn variable(name: &str) -> Result<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set; run this by: cargo xtask bench fs"))
}
