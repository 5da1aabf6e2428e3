//! `bench boot FILE`, `bench vsock FILE`: what `cargo xtask bench` runs.

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use cove_tests::bench;
    use std::path::PathBuf;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["boot", out] => bench::boot::run(&PathBuf::from(out)),
        _ => anyhow::bail!("usage: bench boot FILE"),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("machines are measured on Linux only")
}
