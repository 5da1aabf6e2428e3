//! The socket of a published UDP port. It answers from the address that was asked: a client that has connected its
//! socket hears nobody else, and on a port of all addresses the host's routes may choose another.

use socket2::Socket;
use std::{io, net::SocketAddr};
use tokio::net::UdpSocket;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Endpoint(UdpSocket);

/// What tells the datagrams of one conversation from those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    /// The address of this computer that the client talks to: without a port, and a link-local one of IPv6 with its
    /// device's number as its scope. Nothing where the system does not tell or where it is a group's, which can send
    /// nothing; there the routes choose.
    here: Option<SocketAddr>,
}

impl Endpoint {
    /// Binds a socket for datagrams, which does not block.
    pub(super) fn bind(socket: Socket, address: SocketAddr) -> io::Result<Self> {
        // Before there can be a datagram, of which the system would not know it any more.
        #[cfg(target_os = "linux")]
        system::tell_destinations(&socket, address)?;
        socket.bind(&address.into())?;
        Ok(Self(UdpSocket::from_std(socket.into())?))
    }

    /// Receives a datagram, and tells its length. Nothing is lost when it is given up.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Flow)> {
        system::receive(&self.0, buffer).await
    }

    /// Sends a datagram to a flow's client, from the address that the client knows.
    pub(super) async fn send(&self, datagram: &[u8], flow: &Flow) -> io::Result<()> {
        system::send(&self.0, datagram, flow).await
    }
}

/// By ip(7) and ipv6(7): a message beside each datagram says where it came to, and one beside an answer where it is to
/// come from.
#[cfg(target_os = "linux")]
mod system {
    use super::Flow;
    use nix::{
        libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
        sys::socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
            sockopt,
        },
    };
    use socket2::Socket;
    use std::{
        io::{self, IoSlice, IoSliceMut},
        net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
        os::fd::AsRawFd,
    };
    use tokio::{io::Interest, net::UdpSocket};

    pub(super) fn tell_destinations(socket: &Socket, address: SocketAddr) -> io::Result<()> {
        match address {
            SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        Ok(())
    }

    pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Flow)> {
        // The larger of the two.
        let mut messages = nix::cmsg_space!(in6_pktinfo);
        socket
            .async_io(Interest::READABLE, || {
                let mut parts = [IoSliceMut::new(buffer)];
                let received = recvmsg::<SockaddrStorage>(
                    socket.as_raw_fd(),
                    &mut parts,
                    Some(messages.as_mut_slice()),
                    MsgFlags::empty(),
                )?;
                let client = received.address.as_ref().and_then(internet_address);
                let client = client.ok_or(io::ErrorKind::InvalidData)?;
                let here = received.cmsgs()?.find_map(|message| destination(&message));
                Ok((received.bytes, Flow { client, here }))
            })
            .await
    }

    pub(super) async fn send(socket: &UdpSocket, datagram: &[u8], flow: &Flow) -> io::Result<()> {
        let client = SockaddrStorage::from(flow.client);
        let parts = [IoSlice::new(datagram)];
        let send_with = |messages: &[ControlMessage<'_>]| {
            let sent = sendmsg(
                socket.as_raw_fd(),
                &parts,
                messages,
                MsgFlags::empty(),
                Some(&client),
            );
            sent.map(drop).map_err(io::Error::from)
        };
        let send = || match flow.here {
            Some(SocketAddr::V4(here)) => {
                let source = in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr {
                        s_addr: u32::from_ne_bytes(here.ip().octets()),
                    },
                    ipi_addr: in_addr { s_addr: 0 },
                };
                send_with(&[ControlMessage::Ipv4PacketInfo(&source)])
            }
            Some(SocketAddr::V6(here)) => {
                let source = in6_pktinfo {
                    ipi6_addr: in6_addr {
                        s6_addr: here.ip().octets(),
                    },
                    ipi6_ifindex: here.scope_id(),
                };
                send_with(&[ControlMessage::Ipv6PacketInfo(&source)])
            }
            None => send_with(&[]),
        };
        socket.async_io(Interest::WRITABLE, send).await
    }

    fn internet_address(address: &SockaddrStorage) -> Option<SocketAddr> {
        let four = address.as_sockaddr_in().copied().map(SocketAddr::from);
        four.or_else(|| address.as_sockaddr_in6().copied().map(SocketAddr::from))
    }

    /// The address that a datagram came to, if that is what the message is about and if it can be answered from.
    fn destination(message: &ControlMessageOwned) -> Option<SocketAddr> {
        let here = match message {
            // Where the datagram went to many, this is the computer's own address in their network.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                SocketAddr::from((address, 0))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // Any other address is the computer's whichever device an answer leaves by.
                let scope = if address.is_unicast_link_local() {
                    info.ipi6_ifindex
                } else {
                    0
                };
                SocketAddrV6::new(address, 0, 0, scope).into()
            }
            _ => return None,
        };
        let answers = !here.ip().is_unspecified() && !here.ip().is_multicast();
        answers.then_some(here)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::Flow;
    use std::io;
    use tokio::net::UdpSocket;

    pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Flow)> {
        let (length, client) = socket.recv_from(buffer).await?;
        Ok((length, Flow { client, here: None }))
    }

    pub(super) async fn send(socket: &UdpSocket, datagram: &[u8], flow: &Flow) -> io::Result<()> {
        socket.send_to(datagram, flow.client).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};
    use std::time::Duration;
    use tokio::time::timeout;

    /// Longer than a datagram takes on loopback.
    const LONG: Duration = Duration::from_secs(10);

    fn bound(address: &str) -> Endpoint {
        let address: SocketAddr = address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        Endpoint::bind(socket, address).unwrap()
    }

    fn at(ip: &str, endpoint: &Endpoint) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), endpoint.0.local_addr().unwrap().port())
    }

    /// Has a client that hears only whom it connected to ask and be answered.
    async fn ask(endpoint: &Endpoint, from: &str, to: &str) -> Flow {
        let client = UdpSocket::bind(from).await.unwrap();
        client.connect(at(to, endpoint)).await.unwrap();
        client.send(b"question").await.unwrap();
        let mut buffer = [0; 64];
        let (length, flow) = timeout(LONG, endpoint.receive(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&buffer[..length], b"question");
        assert_eq!(flow.client, client.local_addr().unwrap());
        endpoint.send(b"an answer", &flow).await.unwrap();
        let heard = timeout(LONG, client.recv(&mut buffer)).await;
        let length = heard.expect("the answer came from elsewhere").unwrap();
        assert_eq!(&buffer[..length], b"an answer", "{from} asked {to}");
        flow
    }

    /// The whole of 127.0.0.0/8 is this computer on Linux, where the route back would choose 127.0.0.1.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_port_of_all_addresses_answers_from_the_one_that_was_asked() {
        let endpoint = bound("0.0.0.0:0");
        for asked in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
            let flow = ask(&endpoint, "127.0.0.1:0", asked).await;
            assert_eq!(flow.here.unwrap().ip().to_string(), asked);
        }
    }

    #[tokio::test]
    async fn a_port_of_one_address_answers_from_it() {
        ask(&bound("127.0.0.1:0"), "127.0.0.1:0", "127.0.0.1").await;
    }

    #[tokio::test]
    async fn the_other_family_is_answered_as_well() {
        // A computer without IPv6 has nobody who could ask.
        if UdpSocket::bind("[::1]:0").await.is_ok() {
            ask(&bound("[::]:0"), "[::1]:0", "::1").await;
            ask(&bound("[::1]:0"), "[::1]:0", "::1").await;
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_client_of_two_addresses_has_two_flows() {
        let endpoint = bound("0.0.0.0:0");
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut flows = std::collections::HashSet::new();
        for asked in ["127.0.0.1", "127.0.0.2", "127.0.0.2"] {
            client.send_to(b"x", at(asked, &endpoint)).await.unwrap();
            let received = timeout(LONG, endpoint.receive(&mut [0; 8])).await;
            flows.insert(received.unwrap().unwrap().1);
        }
        assert_eq!(flows.len(), 2);
    }
}
