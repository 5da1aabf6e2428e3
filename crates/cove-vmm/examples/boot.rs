//! Boots a kernel with an initramfs, its console on standard output, a socket device, and disks:
//! `boot KERNEL INITRAMFS VCPUS MIB [--disk FILE | --read-only-disk FILE]... [ARGUMENTS]`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> anyhow::Result<()> {
    use anyhow::Context as _;
    use cove_virtio::block::{Access, Block};
    use cove_virtio::device::Device;
    use cove_virtio::vsock::{Vsock, VsockConfig};

    // The first is the program's name.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, vcpus, mib, further @ ..] = &arguments[..] else {
        anyhow::bail!(
            "usage: boot KERNEL INITRAMFS VCPUS MIB [--disk FILE | --read-only-disk FILE]... [ARGUMENTS]"
        );
    };
    let socket = std::env::temp_dir().join(format!("cove-vmm-boot-{}.sock", std::process::id()));
    let mut devices: Vec<Box<dyn Device>> = vec![Box::new(Vsock::new(VsockConfig::new(3, socket))?)];
    let mut rest = further;
    while let [option, file, others @ ..] = rest {
        let access = match option.as_str() {
            "--disk" => Access::ReadWrite,
            "--read-only-disk" => Access::ReadOnly,
            _ => break,
        };
        let disk = std::fs::OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .open(file)
            .with_context(|| format!("cannot open {file}"))?;
        let id = format!("disk{}", devices.len());
        devices.push(Box::new(Block::new(disk, access, &id)?));
        rest = others;
    }
    let config = cove_vmm::Config {
        kernel: kernel.into(),
        initramfs: initramfs.into(),
        command_line: rest.join(" "),
        vcpus: vcpus.parse().context("VCPUS is no number")?,
        memory: mib.parse::<usize>().context("MIB is no number")? << 20,
    };
    let end = cove_vmm::Vm::new(&config, Box::new(std::io::stdout()), devices)?.run()?;
    println!("the machine ended: {end:?}");
    // vCPUs that still wait end with the process.
    std::process::exit(0);
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}
