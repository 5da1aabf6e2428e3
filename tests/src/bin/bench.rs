//! `bench boot|events|fs|net|ui|vmm|vsock FILE`: what `cargo xtask bench` runs.

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use cove_tests::bench;
    use std::path::PathBuf;

    // The first is the program's name.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["boot", out] => bench::boot::run(&PathBuf::from(out)),
        ["events", out] => bench::events::run(&PathBuf::from(out)),
        ["fs", out] => bench::fs::run(&PathBuf::from(out)),
        // What `bench fs` starts to be measured.
        ["serve-fs", socket, folder] => bench::fs::serve(socket.as_ref(), folder.as_ref()),
        ["net", out] => bench::net::run(&PathBuf::from(out)),
        ["ui", out] => bench::ui::run(&PathBuf::from(out)),
        #[cfg(target_arch = "x86_64")]
        ["vmm", out] => bench::vmm::run(&PathBuf::from(out)),
        // What `bench vmm` starts where there is a KVM.
        #[cfg(target_arch = "x86_64")]
        ["vmm-here", cove, exercise, qemu, image, scratch] => bench::vmm::here(
            cove.as_ref(),
            exercise.as_ref(),
            qemu.as_ref(),
            image.as_ref(),
            scratch.as_ref(),
        ),
        ["vsock", out] => bench::vsock::run(&PathBuf::from(out)),
        // What `bench vsock` starts to be measured.
        ["serve-vsock", socket, host, cid] => {
            bench::vsock::serve(socket.as_ref(), host.as_ref(), cid.parse()?)
        }
        _ => anyhow::bail!("usage: bench boot|events|fs|net|ui|vmm|vsock FILE"),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("machines are measured on Linux only")
}
