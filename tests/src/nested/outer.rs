//! Where a program gets a KVM to work with: on this computer, if it has one that will do; else in the outer machine,
//! QEMU with Cove's own kernel and an initramfs made for the purpose.
//!
//! The outer machine sees the host's files over 9p, read-only, so that the program, and whatever it starts, is simply
//! there; it writes to memory. It is told how fast its processor's clock is, which is the host's: finding it out by
//! itself, it errs by a factor of twenty on a busy host, and then every patience in it runs out at once. (A clock
//! that counts instructions, QEMU's `-icount`, would be steady, but machines within the machine come to a standstill
//! with it.)

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cove_image::Cpio;
use cove_machine::{Availability, Backend as _, Kvm};

use crate::harness::Running;

/// Modules for KVM, for the host's files and for a network card that leads nowhere, in the order in which they need
/// each other.
const MODULES: [&str; 8] = [
    "irqbypass",
    "kvm",
    "kvm-amd",
    "netfs",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "dummy",
];
const QEMU: &str = "qemu-system-x86_64";
const OLDEST_QEMU: u32 = 10;
/// The outer machine's disk, in memory.
pub(super) const DISK: &str = "/run";
/// Where a program may write in the outer machine: on that disk.
pub(super) const SCRATCH: &str = "/run/nested";
/// Without the first three the timers of the inner guest get lost.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet nohz=off highres=off nolapic_timer mitigations=off panic=-1 no_timer_check";

/// Why nothing can be run under a KVM here at all.
pub fn unfit() -> Option<String> {
    if has_kvm() {
        return None;
    }
    let Ok(output) = Command::new(QEMU).arg("--version").output() else {
        return Some(format!("{QEMU} cannot be started"));
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_ascii_whitespace().nth(3).unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST_QEMU => None,
        _ => Some(format!("QEMU {version:?} is older than {OLDEST_QEMU}")),
    }
}

/// Whether this computer's own KVM will do.
pub fn has_kvm() -> bool {
    matches!(Kvm::new(None).probe(), Availability::Available { .. })
}

/// Runs `program` where there is a KVM, with `arguments`, the path of `image` and that of a directory that it may
/// write to. `hear` gets each line of its output as it comes; in the outer machine this is the console, and others
/// write to it, too. Fails when it has not ended after `limit`, and ends it then.
pub fn run(
    image: &Path,
    program: &Path,
    arguments: &[OsString],
    limit: Duration,
    mut hear: impl FnMut(&str),
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = if has_kvm() {
        let mut command = Command::new(program);
        command.args(arguments).arg(image).arg(dir.path());
        command
    } else {
        let mut words = vec![program.as_os_str()];
        words.extend(arguments.iter().map(OsString::as_os_str));
        words.extend([image.as_os_str(), OsStr::new(SCRATCH)]);
        let initramfs = dir.path().join("initramfs");
        std::fs::write(&initramfs, archive(image, &words, dir.path())?)?;
        qemu(image, &initramfs)
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start what runs {}", program.display()))?;
    let stdout = child.stdout.take().context("it has no output")?;
    let _running = Running(child);
    let (sender, lines) = mpsc::channel();
    // Ends with the output.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => hear(String::from_utf8_lossy(&line).trim_end()),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} was not done after {} s", program.display(), limit.as_secs())
            }
        }
    }
}

/// The outer machine, which powers off by itself.
fn qemu(image: &Path, initramfs: &Path) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-accel", "tcg,thread=multi,tb-size=512", "-smp", "1"]);
    qemu.args(["-cpu", "EPYC-v3,+svm,+npt", "-M", "pc", "-m", "4096"]);
    qemu.arg("-kernel").arg(image.join("kernel"));
    qemu.arg("-initrd").arg(initramfs);
    let clock = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| clock_khz(&text))
        .map_or_else(String::new, |khz| format!(" tsc_early_khz={khz}"));
    qemu.arg("-append").arg(format!("{KERNEL_ARGUMENTS}{clock}"));
    qemu.args(["-serial", "stdio"]);
    qemu.args([
        "-fsdev",
        "local,id=host,path=/,security_model=none,multidevs=remap,readonly=on",
    ]);
    qemu.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
    qemu.args(["-object", "rng-random,id=entropy,filename=/dev/urandom"]);
    qemu.args(["-device", "virtio-rng-pci,rng=entropy"]);
    qemu
}

/// How fast the processor runs, in kHz. Its time stamp counter may run at another speed where it saves power, but at
/// one that is near enough.
fn clock_khz(cpuinfo: &str) -> Option<u64> {
    let line = cpuinfo.lines().find(|line| line.starts_with("cpu MHz"))?;
    let (whole, fraction) = line.split_once(':')?.1.trim().split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 1000 + fraction.get(..3)?.parse::<u64>().ok()?)
}

/// An initramfs with busybox and the modules of the image's own root file system.
fn archive(image: &Path, words: &[&OsStr], dir: &Path) -> Result<Vec<u8>> {
    let root = dir.join("root");
    let extracted = Command::new("fsck.erofs")
        .arg(format!("--extract={}", root.display()))
        .arg("--no-preserve")
        .arg(image.join("rootfs.erofs"))
        .output()
        .context("cannot start fsck.erofs")?;
    ensure!(
        extracted.status.success(),
        "fsck.erofs: {}",
        String::from_utf8_lossy(&extracted.stderr)
    );
    let mut archive = Cpio::new(0);
    for directory in ["bin", "dev", "host", "lib", "mod", "proc", "sys"] {
        archive.directory(directory, 0o755);
    }
    // The kernel's own messages before devtmpfs is mounted.
    archive.character_device("dev/console", 0o600, 5, 1);
    for file in ["bin/busybox", "lib/ld-musl-x86_64.so.1"] {
        let bytes = std::fs::read(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        archive.file(file, 0o755, &bytes);
    }
    for module in MODULES {
        let name = format!("{module}.ko");
        let path = find(&root.join("lib/modules"), &name)?.with_context(|| format!("there is no {name}"))?;
        archive.file(&format!("mod/{name}"), 0o644, &std::fs::read(path)?);
    }
    archive.file("init", 0o755, script(words).as_bytes());
    // Several hundred megabytes that have served.
    std::fs::remove_dir_all(&root)?;
    Ok(archive.finish())
}

/// What the outer machine does: mounts the host's files, runs the program that `words` call, powers off.
fn script(words: &[&OsStr]) -> String {
    let modules = MODULES.join(" ");
    let call = words
        .iter()
        .map(|word| quoted(word))
        .collect::<Vec<_>>()
        .join(" ");
    format!(
        "#!/bin/busybox sh
alias b=/bin/busybox
b mount -t proc proc /proc
b mount -t sysfs sysfs /sys
b mount -t devtmpfs dev /dev
for module in {modules}; do b insmod /mod/$module.ko; done
b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host
b mount -t proc proc /host/proc
b mount --bind /dev /host/dev
b mount --bind /sys /host/sys
b mount -t tmpfs tmpfs /host{DISK}
b mkdir /host{SCRATCH}
b ifconfig lo up
# Without a card that a route leads through, passt does not start.
b ifconfig dummy0 up
b route add default dev dummy0
# As the root of all, since within another one nobody may make a user namespace, as passt does.
cd /host
b mount --move . /
b chroot . {call}
b poweroff -f
"
    )
}

/// A word as the shell takes it for itself.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

/// The file of that name below a directory.
fn find(directory: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_machine_calls_the_program_with_words_that_mean_themselves() {
        let script = script(&["/a b/it's", "run", "$HOME"].map(OsStr::new));
        assert!(
            script.contains("\nb chroot . '/a b/it'\\''s' 'run' '$HOME'\n"),
            "{script}"
        );
    }

    #[test]
    fn the_clock_is_read_to_the_kilohertz() {
        assert_eq!(
            clock_khz("processor\t: 0\ncpu MHz\t\t: 2649.998\n"),
            Some(2_649_998)
        );
        assert_eq!(clock_khz("cpu MHz : fast\n"), None);
    }
}
