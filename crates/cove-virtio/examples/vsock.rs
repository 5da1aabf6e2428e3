//! Serves a socket device to QEMU: `vsock <vhost-user socket> <host socket> <guest cid>`.
//!
//! ```text
//! qemu-system-x86_64 -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem … \
//!     -chardev socket,id=vs,path=<vhost-user socket> -device vhost-user-vsock-pci,chardev=vs
//! ```

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use anyhow::Context;
    use cove_virtio::vhost_user;
    use cove_virtio::vsock::{Vsock, VsockConfig};

    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, socket, host_socket, cid] = arguments.as_slice() else {
        anyhow::bail!("usage: vsock <vhost-user socket> <host socket> <guest cid>");
    };
    let cid = cid.parse().context("the guest cid is not a number")?;
    let device = Vsock::new(VsockConfig::new(cid, host_socket))?;
    vhost_user::serve(device, socket.as_ref())?.wait()?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
