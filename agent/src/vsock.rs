//! vsock: listeners for the host, and connections to it.

#![expect(
    unsafe_code,
    reason = "the socket address of vsock is passed to the kernel as raw memory"
)]
// UNSAFETY: rustix has no type for `sockaddr_vm`. This module lays it out, hands it to the kernel, and reads it back
// from an accept; it does nothing else with raw memory.

use crate::{descriptor::awaited, socket::Socket};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with,
    addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
    bind, connect, listen, socket_with,
};
use std::{io, os::fd::OwnedFd};
use tokio::io::unix::AsyncFd;

/// `VMADDR_CID_ANY`: whatever our own context id is.
const CID_ANY: u32 = u32::MAX;

/// `VMADDR_CID_HOST`: the host's context id.
const CID_HOST: u32 = 2;

/// Connections that may wait to be accepted. The kernel answers those beyond it with a reset, so it has to be larger
/// than any burst of clients.
const BACKLOG: i32 = 4096;

/// `struct sockaddr_vm` of `linux/vm_sockets.h`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

impl Address {
    fn new(cid: u32, port: u32) -> Self {
        Self {
            family: AddressFamily::VSOCK.as_raw(),
            reserved: 0,
            port,
            cid,
            flags: 0,
            zero: [0; 3],
        }
    }
}

// SAFETY: the pointer is to a whole `sockaddr_vm` that outlives the call, and the length is its size.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        const LEN: SocketAddrLen = 16;
        const { assert!(size_of::<Address>() == LEN as usize) };
        f(std::ptr::from_ref(self).cast(), LEN)
    }
}

/// Connects to `port` of the host; the socket blocks.
pub(crate) fn connect_to_host(port: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::VSOCK,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    connect(&socket, &Address::new(CID_HOST, port))?;
    Ok(socket)
}

/// A listening vsock port that serves the host, and nobody else.
pub(crate) struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Listens on `port`.
    pub(crate) fn bind(port: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
        bind(&socket, &Address::new(CID_ANY, port))?;
        listen(&socket, BACKLOG)?;
        Ok(Self(awaited(socket)?))
    }

    /// The next connection from the host. Those from programs in the guest, which could loop back, are closed.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        loop {
            let mut ready = self.0.readable().await?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match ready.try_io(|socket| Ok(acceptfrom_with(socket, flags)?)) {
                Ok(Ok((socket, peer))) if peer.as_ref().and_then(cid) == Some(CID_HOST) => {
                    return Socket::new(socket);
                }
                Ok(Ok(_)) => tracing::warn!("a vsock connection that is not from the host was closed"),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// The context id in a vsock address.
fn cid(address: &SocketAddrAny) -> Option<u32> {
    if address.address_family() != AddressFamily::VSOCK {
        return None;
    }
    // SAFETY: rustix promises that the pointer is readable for the given length; more is not read.
    unsafe {
        address.with_sockaddr(|start, len| {
            let enough = len as usize >= size_of::<Address>();
            enough.then(|| start.cast::<Address>().read_unaligned().cid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        let any = Address::new(CID_HOST, 1024).as_any();
        assert_eq!(any.address_family(), AddressFamily::VSOCK);
        assert_eq!(cid(&any), Some(CID_HOST));
    }

    #[test]
    fn an_address_of_another_family_has_no_context_id() {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 80)).as_any();
        assert_eq!(cid(&any), None);
    }
}
