//! QEMU's command line, a pure function of the machine and of QEMU's version.
//!
//! The board is `pc`. Its alternative, `microvm`, has the kernel start about a sixth sooner, and was found wanting:
//! with its defaults most boots end in the kernel's first interrupt, because the timer reaches an interrupt controller
//! that its ACPI tables deny and the kernel therefore never set up; without timer and controller the kernel has no
//! clock but a TSC whose frequency nothing tells. `pc` has three clocks to choose from, and what a machine does not
//! need of it is switched off.
//!
//! The processor is all that QEMU can emulate, except what it would be slow at. A lesser model saves a tenth of the
//! boot, but programs in containers may ask for AVX2 and more: several distributions are built for nothing less than
//! x86-64-v2 or v3.

use super::qemu::Qemu;
use crate::{Disk, MachineSpec, nat::GUEST_MAC, sockets};
use cove_wire::SHARES_TAG;
use serde_json::json;
use std::{
    ffi::OsString,
    os::fd::{AsRawFd, BorrowedFd},
    path::Path,
};

/// Name of the data disk's device, for [`Disk`].
const DATA_DEVICE: &str = "data";

/// Name of the network device, for its cable.
pub(super) const NET_DEVICE: &str = "net";

/// The command line, and what the user should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Arguments of QEMU.
    pub(crate) arguments: Vec<OsString>,
    /// Settings that could not be honoured.
    pub(crate) notices: Vec<String>,
}

/// The name that QMP knows a disk by.
pub(crate) fn device(disk: Disk) -> &'static str {
    match disk {
        Disk::Data => DATA_DEVICE,
    }
}

/// The command line for a machine that passed [`crate::process::check`]. QEMU inherits `qmp` and speaks QMP on it; the
/// console is its standard output; its vCPUs do not run until QMP tells them to.
pub(crate) fn command_line(spec: &MachineSpec, qemu: &Qemu, qmp: BorrowedFd<'_>) -> CommandLine {
    let (vcpus, notice) = qemu.version.vcpus(spec.cpus);
    let mut notices = Vec::from_iter(notice);
    let reconnect = qemu.version.reconnect().unwrap_or_else(|notice| {
        notices.push(notice);
        ""
    });
    let mut line = Arguments::default();
    line.behaviour(&spec.name);
    line.board(qemu.version.processor(), vcpus, spec.memory_mib);
    line.option("-kernel", &spec.kernel);
    line.option("-initrd", &spec.initramfs);
    line.option("-append", kernel_command_line(&spec.kernel_arguments));
    line.option("-chardev", "stdio,id=console,signal=off");
    line.option("-serial", "chardev:console");
    line.option("-chardev", format!("socket,id=qmp,fd={}", qmp.as_raw_fd()));
    line.option("-mon", "chardev=qmp,mode=control");
    line.disk("root", &spec.rootfs, Access::ReadOnly);
    line.disk(DATA_DEVICE, &spec.data_disk, Access::ReadWrite);
    line.own_devices();
    line.vhost_user_devices(&spec.runtime);
    line.network(&spec.runtime, reconnect);
    CommandLine {
        arguments: line.0,
        notices,
    }
}

/// What the guest's kernel is told.
fn kernel_command_line(further: &[String]) -> String {
    let ours = [
        "console=ttyS0",
        "quiet",
        // A kernel that panics restarts at once, which the machine process takes for what it is.
        "panic=-1",
        // The check counts timer interrupts, and a busy host fails it: the kernel would not start.
        "no_timer_check",
        // Each processor would wake every few seconds to see whether it still does, and a busy host makes that look
        // like a hang.
        "nowatchdog",
        // Where the kernel looks for devices and their drivers switch them on, QEMU maps them anew, and of two processors
        // that run meanwhile the other may reach a device by what was mapped before: QEMU ends by an assertion
        // (`iotlb_to_section`), or the guest stands still. So the agent starts the others, once the drivers are there.
        // Nor is the kernel to patch itself for one processor, and then back.
        "maxcpus=1",
        "noreplace-smp",
        // They cost time in emulation, where the flaws that they guard against are the host's to mitigate.
        "mitigations=off",
        // The kernel would look twice a second whether more than nine tenths of its free memory are in pieces below
        // 2 MiB, and then bring that to eight tenths, which helps little in giving it back.
        "sysctl.vm.compaction_proactiveness=0",
        // The kernel would wake ten times a second to guard another of its allocations, even while nothing is allocated.
        "kfence.sample_interval=0",
    ];
    let further = further.iter().map(String::as_str);
    ours.into_iter().chain(further).collect::<Vec<_>>().join(" ")
}

/// How a guest may use a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

#[derive(Debug, Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.flag(name);
        self.0.push(value.into());
    }

    /// What QEMU does of its own accord, which is nothing.
    fn behaviour(&mut self, name: &str) {
        self.flag("-no-user-config");
        self.flag("-nodefaults");
        self.option("-display", "none");
        self.option("-name", format!("cove-{name},debug-threads=on"));
        // It opens no file by a name that it was not given, starts no program, gains no privilege.
        self.option(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        self.flag("-S");
        // A guest that ends or restarts waits for the machine process, which knows whether its kernel had panicked.
        self.option("-action", "reboot=shutdown,shutdown=pause,panic=pause");
    }

    /// Processors and memory.
    fn board(&mut self, processor: &str, vcpus: u32, memory_mib: u32) {
        self.option(
            "-machine",
            "pc,memory-backend=memory,usb=off,smm=off,vmport=off,i8042=off,hpet=off",
        );
        self.option("-accel", "tcg,thread=multi,tb-size=512");
        self.option("-cpu", processor);
        self.option("-smp", format!("cpus={vcpus}"));
        self.option("-m", format!("{memory_mib}M"));
        // Shared, because the devices behind vhost-user map the guest's memory too.
        self.option(
            "-object",
            format!("memory-backend-memfd,id=memory,size={memory_mib}M,share=on"),
        );
    }

    /// The devices that QEMU emulates itself, disks and network apart.
    fn own_devices(&mut self) {
        self.option("-object", "rng-random,id=entropy,filename=/dev/urandom");
        self.option("-device", "virtio-rng-pci,rng=entropy");
        // Memory that the guest does not use is given back, within seconds. QEMU's own device, since it is QEMU's
        // memory.
        self.option(
            "-device",
            "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on,disable-legacy=on",
        );
    }

    /// The devices that the cell serves, at sockets in `runtime`.
    fn vhost_user_devices(&mut self, runtime: &Path) {
        let vsock = sockets::vhost(runtime);
        self.option(
            "-chardev",
            format!("socket,id=vsock,path={}", escape_commas(&vsock)),
        );
        self.option("-device", "vhost-user-vsock-pci,chardev=vsock");
        let fs = sockets::fs(runtime);
        self.option("-chardev", format!("socket,id=fs,path={}", escape_commas(&fs)));
        self.option(
            "-device",
            format!("vhost-user-fs-pci,chardev=fs,tag={SHARES_TAG},queue-size=1024"),
        );
    }

    /// The network device; `reconnect` is the option that has it connect anew.
    fn network(&mut self, runtime: &Path, reconnect: &str) {
        let net = sockets::net(runtime);
        self.option(
            "-netdev",
            format!(
                "stream,id=nat,server=off,addr.type=unix,addr.path={}{reconnect}",
                escape_commas(&net)
            ),
        );
        let address = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        self.option(
            "-device",
            format!("virtio-net-pci,id={NET_DEVICE},netdev=nat,mac={address},disable-legacy=on,romfile="),
        );
    }

    /// A disk on a raw file. Written through the host's page cache and flushed when the guest says so. JSON, because a
    /// path may hold what QEMU's own syntax gives a meaning to. Without QEMU's own locks: the file is
    /// locked already, by a lock that QEMU inherits, and that is waited for where it lingers after a QEMU was killed.
    fn disk(&mut self, id: &str, file: &Path, access: Access) {
        let read_only = access == Access::ReadOnly;
        let node = json!({
            "node-name": format!("{id}-disk"),
            "driver": "raw",
            "read-only": read_only,
            "discard": "unmap",
            "detect-zeroes": if read_only { "off" } else { "unmap" },
            "cache": { "direct": false, "no-flush": false },
            "file": {
                "driver": "file",
                "filename": file.to_string_lossy(),
                "aio": "threads",
                "locking": "off",
                "discard": "unmap",
                "cache": { "direct": false, "no-flush": false },
            },
        });
        self.option("-blockdev", node.to_string());
        self.option(
            "-device",
            format!("virtio-blk-pci,id={id},drive={id}-disk,disable-legacy=on"),
        );
    }
}

/// A path within QEMU's `key=value,key=value` syntax, in which a doubled comma is a comma.
fn escape_commas(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::super::qemu::Version;
    use super::*;
    use std::os::fd::AsFd;

    fn line(spec: &MachineSpec, version: Version) -> CommandLine {
        let qemu = Qemu {
            path: "/usr/bin/qemu-system-x86_64".into(),
            version,
        };
        command_line(spec, &qemu, std::io::stdin().as_fd())
    }

    fn values(line: &CommandLine, option: &str) -> Vec<String> {
        line.arguments
            .windows(2)
            .filter(|pair| pair[0] == option)
            .map(|pair| pair[1].to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_guest_gets_what_the_specification_says() {
        let line = line(&MachineSpec::example(), Version::new(10, 0, 2));
        assert_eq!(values(&line, "-smp"), ["cpus=4"]);
        assert_eq!(values(&line, "-m"), ["2048M"]);
        assert!(values(&line, "-object")[0].contains("size=2048M,share=on"));
        assert!(values(&line, "-append")[0].ends_with(" cove.trace=1"));
        assert!(line.notices.is_empty());
    }

    #[test]
    fn an_old_qemu_gets_one_vcpu_no_second_network_and_a_notice_of_each() {
        let line = line(&MachineSpec::example(), Version::new(7, 2, 0));
        assert_eq!(values(&line, "-smp"), ["cpus=1"]);
        assert_eq!(line.notices.len(), 2);
        // It ends at a name that it does not know.
        assert_eq!(values(&line, "-cpu"), ["max,-erms,-fsrm"]);
        assert!(!values(&line, "-netdev")[0].contains("reconnect"));
    }

    #[test]
    fn the_network_connects_again_in_the_words_of_each_qemu() {
        let network = |version| values(&line(&MachineSpec::example(), version), "-netdev").remove(0);
        assert!(network(Version::new(10, 0, 2)).ends_with("path=/run/a,,b/net.sock,reconnect-ms=250"));
        assert!(network(Version::new(8, 2, 0)).ends_with(",reconnect=1"));
    }

    #[test]
    fn paths_mean_themselves_whatever_they_hold() {
        let line = line(&MachineSpec::example(), Version::new(10, 0, 2));
        let root: serde_json::Value = serde_json::from_str(&values(&line, "-blockdev")[0]).unwrap();
        assert_eq!(root["file"]["filename"], "/image/root,fs \"x\".erofs");
        assert!(values(&line, "-chardev").contains(&"socket,id=vsock,path=/run/a,,b/vhost.sock".to_owned()));
    }

    #[test]
    fn the_root_is_read_only_and_the_data_disk_honours_flush_and_discard() {
        let line = line(&MachineSpec::example(), Version::new(10, 0, 2));
        let disks: Vec<serde_json::Value> = values(&line, "-blockdev")
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        assert_eq!(
            (&disks[0]["read-only"], &disks[1]["read-only"]),
            (&true.into(), &false.into())
        );
        assert_eq!(disks[1]["discard"], "unmap");
        for level in [&disks[1]["cache"], &disks[1]["file"]["cache"]] {
            assert_eq!(level["no-flush"], false);
        }
    }
}
