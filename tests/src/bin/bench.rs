//! `bench NAME FILE` and `bench page DIRECTORY FILE`: what `cargo xtask bench` runs.

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use cove_tests::bench;

    // The first is the program's name.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["page", figures, out] => bench::write_page(figures.as_ref(), out.as_ref()),
        // What `bench fs` starts to be measured.
        ["serve-fs", socket, folder] => bench::fs::serve(socket.as_ref(), folder.as_ref()),
        // What `bench vmm` starts where there is a KVM.
        #[cfg(target_arch = "x86_64")]
        ["vmm-here", cove, exercise, qemu, passt, image, scratch] => bench::vmm::here(
            cove.as_ref(),
            exercise.as_ref(),
            qemu.as_ref(),
            passt.as_ref(),
            image.as_ref(),
            scratch.as_ref(),
        ),
        // What `bench vsock` starts to be measured.
        ["serve-vsock", socket, host, cid] => {
            bench::vsock::serve(socket.as_ref(), host.as_ref(), cid.parse()?)
        }
        [name, out] => bench::run(name, out.as_ref()),
        _ => anyhow::bail!("usage: bench NAME FILE, or bench page DIRECTORY FILE"),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("machines are measured on Linux only")
}
