//! Boots a kernel with an initramfs, its console on standard output, and a socket device: `boot KERNEL INITRAMFS VCPUS MIB [ARGUMENTS]`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> anyhow::Result<()> {
    use anyhow::Context as _;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, vcpus, mib, further @ ..] = &arguments[..] else {
        anyhow::bail!("usage: boot KERNEL INITRAMFS VCPUS MIB [ARGUMENTS]");
    };
    let config = cove_vmm::Config {
        kernel: kernel.into(),
        initramfs: initramfs.into(),
        command_line: further.join(" "),
        vcpus: vcpus.parse().context("VCPUS is no number")?,
        memory: mib.parse::<usize>().context("MIB is no number")? << 20,
    };
    let socket = std::env::temp_dir().join(format!("cove-vmm-boot-{}.sock", std::process::id()));
    let socket = cove_virtio::vsock::VsockConfig::new(3, socket);
    let devices: Vec<Box<dyn cove_virtio::device::Device>> =
        vec![Box::new(cove_virtio::vsock::Vsock::new(socket)?)];
    let end = cove_vmm::Vm::new(&config, Box::new(std::io::stdout()), devices)?.run()?;
    println!("the machine ended: {end:?}");
    // vCPUs that still wait end with the process.
    std::process::exit(0);
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}
