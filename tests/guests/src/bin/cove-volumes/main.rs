//! A volume plugin of Docker Engine: volumes are directories below [`ROOT`], which the engine propagates to the
//! machine.
//!
//! It speaks the protocol of <https://docs.docker.com/engine/extend/plugins_volume/> at the socket that its
//! `config.json` names. The option `seed` of `docker volume create` becomes the content of a file `seed`, and the
//! volume's status counts who has it mounted.

#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
mod volumes;

/// Where the volumes are, in the plugin's own file system.
#[cfg(target_os = "linux")]
const ROOT: &str = "/data";
/// Where the engine calls.
#[cfg(target_os = "linux")]
const SOCKET: &str = "/run/docker/plugins/volumes.sock";

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    server::serve(SOCKET.as_ref(), &volumes::Volumes::below(ROOT.as_ref()))
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the plugin runs in the machine, which is Linux");
}
