//! Datagrams to and from an address within the guest, for published UDP ports.

use crate::socket::Socket;
use bytes::Bytes;
use cove_wire::{Dial, Fault, FaultCode};
use futures_util::{SinkExt, StreamExt};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::UdpSocket;
use tokio_util::codec::LengthDelimitedCodec;

/// The largest datagram: its length is a 16-bit number.
const LARGEST: usize = u16::MAX as usize;

/// A socket that sends to the address and receives from it only.
pub(super) async fn connect(dial: Dial) -> Result<UdpSocket, Fault> {
    let Dial { address, namespace } = dial;
    if namespace.is_some() {
        return Err(Fault::new(
            FaultCode::Invalid,
            "datagrams are sent from the guest's own network namespace only",
        ));
    }
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(address).await?;
        Ok::<_, io::Error>(socket)
    };
    connected.await.map_err(|error| {
        Fault::new(
            FaultCode::Unreachable,
            format!("sending to {address} failed: {error}"),
        )
    })
}

/// Carries datagrams both ways until the host hangs up.
pub(super) async fn serve(host: Socket, inner: UdpSocket) -> io::Result<()> {
    let (mut to_host, mut from_host) = LengthDelimitedCodec::builder()
        .length_field_length(2)
        .max_frame_length(LARGEST)
        .new_framed(host)
        .split();
    let inward = async {
        while let Some(datagram) = from_host.next().await {
            // What is lost on the way, or refused, is the sender's to notice.
            let _ = inner.send(&datagram?).await;
        }
        Ok(())
    };
    let outward = async {
        let mut buffer = vec![0; LARGEST];
        loop {
            match inner.recv(&mut buffer).await {
                Ok(length) => to_host.send(Bytes::copy_from_slice(&buffer[..length])).await?,
                // Nobody listens there, or not yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn datagrams_keep_their_bounds_up_to_the_largest() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let inner = connect(Dial {
            address,
            namespace: None,
        })
        .await
        .unwrap();
        let (mut ours, host) = Socket::pair();
        let serving = tokio::spawn(serve(host, inner));
        for length in [0_usize, 1, 1500, 65_507] {
            let sent = vec![7; length];
            ours.write_all(&u16::try_from(length).unwrap().to_be_bytes())
                .await
                .unwrap();
            ours.write_all(&sent).await.unwrap();
            let mut got = vec![0; LARGEST];
            let (count, from) = server.recv_from(&mut got).await.unwrap();
            assert_eq!(count, length);
            server.send_to(&got[..count], from).await.unwrap();
            let mut back = vec![0; length];
            assert_eq!(usize::from(ours.read_u16().await.unwrap()), length);
            ours.read_exact(&mut back).await.unwrap();
            assert_eq!(back, sent);
        }
        drop(ours);
        serving.await.unwrap().unwrap();
    }
}
