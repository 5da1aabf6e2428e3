//! Serves folders to QEMU: `fs <vhost-user socket> <tag> <folder>...`.
//!
//! ```text
//! qemu-system-x86_64 -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem … \
//!     -chardev socket,id=fs,path=<vhost-user socket> -device vhost-user-fs-pci,chardev=fs,tag=<tag>
//! ```

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use anyhow::Context;
    use cove_fs::{Config, Server, ShareOptions};
    use cove_virtio::fs::Fs;
    use cove_virtio::vhost_user;
    use std::path::Path;
    use std::sync::Arc;

    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, socket, tag, folders @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: fs <vhost-user socket> <tag> <folder>...");
    };
    rustix::process::umask(rustix::fs::Mode::empty());
    let server = Arc::new(Server::new(Config::default())?);
    for folder in folders.iter().map(Path::new) {
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.context("a folder needs a name in UTF-8")?.to_owned();
        let options = ShareOptions {
            name,
            read_only: false,
        };
        server.add_share(folder, options)?;
    }
    let device = Fs::new(tag, server, 2)?;
    vhost_user::serve(device, socket.as_ref())?.wait()?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
