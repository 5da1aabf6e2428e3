//! Where a question comes from, by what the kernel tells of it.
//!
//! A container with the capability `NET_RAW`, which the engine gives to all, can write any source address into a
//! datagram, and answer for every address of its own network. Which network it is in it cannot choose. So shares are
//! given to networks first, and within each to source addresses.

use nix::{
    libc::in_pktinfo,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt},
};
use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
};
use tokio::{io::Interest, net::UdpSocket};

/// The network that somebody asks from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Network {
    /// The number of the device that a datagram came by, as the bridge of a network of the engine's.
    Device(i32),
    /// The guest's own address in the network of a client that has connected. The connection would not be open if its
    /// address were another network's: the greeting that it had to repeat went there.
    Own(IpAddr),
}

/// Binds the socket for questions by datagram.
pub(super) async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    Ok(socket)
}

/// Receives a question by datagram: its length, who says to have sent it, and the network that it came from.
pub(super) async fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Network)> {
    let mut messages = nix::cmsg_space!(in_pktinfo);
    socket
        .async_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(buffer)];
            let received = recvmsg::<SockaddrIn>(
                socket.as_raw_fd(),
                &mut parts,
                Some(messages.as_mut_slice()),
                MsgFlags::empty(),
            )?;
            let from = received.address.map(SocketAddr::from);
            let device = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Network::Device(info.ipi_ifindex)),
                _ => None,
            });
            match (from, device) {
                (Some(from), Some(device)) => Ok((received.bytes, from, device)),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        })
        .await
}

/// The network of a client that has connected from `source`.
pub(super) fn network_of(source: IpAddr) -> io::Result<Network> {
    // Connecting such a socket sends nothing: it has the kernel choose the way there, and the address to go by.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((source, super::PORT))?;
    Ok(Network::Own(socket.local_addr()?.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_is_known_by_the_device_that_it_came_by_whatever_its_source() {
        let loopback = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        let loopback = Network::Device(loopback.trim().parse().unwrap());
        let socket = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut buffer = [0; 64];
        for source in [[127, 0, 0, 1], [127, 0, 0, 2]] {
            let client = UdpSocket::bind((Ipv4Addr::from(source), 0)).await.unwrap();
            client.send_to(b"question", address).await.unwrap();
            let (length, from, network) = receive(&socket, &mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"question");
            assert_eq!((from, network), (client.local_addr().unwrap(), loopback));
        }
    }

    #[test]
    fn a_connection_is_known_by_the_guests_own_address_in_its_network() {
        let own = |source: [u8; 4]| network_of(source.into()).unwrap();
        assert_eq!(own([127, 0, 0, 7]), Network::Own(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(own([127, 0, 0, 7]), own([127, 77, 0, 1]));
    }
}
