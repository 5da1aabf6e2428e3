//! The network device (virtio 1.2, section 5.1): Ethernet frames, carried on by a program at the end of a unix socket.
//!
//! The device connects to the socket, and again whenever the stream ends; the guest's link is up while it is connected
//! and the [`Cable`] is plugged in. There are no offloads: every frame is one that could be on a wire, with its
//! checksums.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`frames`] | frames on the stream |
//! | [`peer`] | the stream, and the link that stands for it |
//! | [`buffers`] | frames in the driver's buffers |
//! | [`session`] | the thread between the two |

mod buffers;
mod frames;
mod peer;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::SocketAddrUnix;

use self::peer::{Link, Peer};
use self::session::Session;
use crate::device::{
    Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1,
    QueueSpec, read_config_space,
};
use crate::queue::DeviceQueue;

/// `VIRTIO_NET_F_MTU`: the configuration space tells the largest packet.
const FEATURE_MTU: u64 = 1 << 3;
/// `VIRTIO_NET_F_MAC`: the configuration space tells the guest's address.
const FEATURE_MAC: u64 = 1 << 5;
/// `VIRTIO_NET_F_MRG_RXBUF`: a frame may take several chains of the receive queue. Without it every one of them would
/// have to be large enough for the largest frame.
const FEATURE_MERGEABLE: u64 = 1 << 15;
/// `VIRTIO_NET_F_STATUS`: the configuration space tells whether the link is up.
const FEATURE_STATUS: u64 = 1 << 16;

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;

const QUEUES: &[QueueSpec] = &[
    QueueSpec {
        max_size: 256,
        required: true,
    },
    QueueSpec {
        max_size: 256,
        required: true,
    },
];

/// Bytes of an Ethernet header, which the largest packet does not count.
const ETHERNET_HEADER: usize = 14;

/// The smallest MTU that IPv4 works with (RFC 791).
const LEAST_MTU: u16 = 68;

/// How a network device is set up.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// The guest's address on its network.
    pub mac: [u8; 6],
    /// The largest packet, in bytes and without its Ethernet header.
    pub mtu: u16,
    /// Where somebody listens, sooner or later, who takes the guest's frames.
    pub socket: PathBuf,
}

/// Why there is no network device.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address is a group's, or nobody's.
    #[error("{0:02x?} cannot be a network card's address: use one of a single card")]
    Mac([u8; 6]),
    /// No network can be used with it.
    #[error("packets of {0} bytes are too small: use {LEAST_MTU} at least")]
    Mtu(u16),
    /// The path does not fit a socket's address.
    #[error("{path:?} cannot be a socket's path")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The network device. Dropping it hangs up.
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    link: Arc<Link>,
    /// Locked by the session's thread for as long as there is one.
    peer: Arc<Mutex<Peer>>,
    session: Option<Session>,
}

/// The guest's network cable, in the hands of whoever knows that nobody is behind the socket.
#[derive(Clone, Debug)]
pub struct Cable(Arc<Link>);

impl Cable {
    /// Plugs it in or out. The driver learns of it when the transport tells it that the configuration has changed.
    pub fn plug(&self, plugged: bool) {
        self.0.plug(plugged);
    }
}

impl Net {
    /// A network device. It connects to its socket once a driver has it going.
    pub fn new(config: NetConfig) -> Result<Self, NetError> {
        let NetConfig { mac, mtu, socket } = config;
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(NetError::Mac(mac));
        }
        if mtu < LEAST_MTU {
            return Err(NetError::Mtu(mtu));
        }
        let address = SocketAddrUnix::new(&socket).map_err(|error| NetError::Path {
            path: socket,
            source: error.into(),
        })?;
        let link = Arc::new(Link::new());
        let peer = Peer::new(address, Arc::clone(&link), longest_frame(mtu));
        Ok(Self {
            mac,
            mtu,
            link,
            peer: Arc::new(Mutex::new(peer)),
            session: None,
        })
    }

    /// The cable, which is plugged in at first.
    pub fn cable(&self) -> Cable {
        Cable(Arc::clone(&self.link))
    }

    fn end_session(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.session.take().map_or(Ok(Vec::new()), Session::end)
    }

    /// The configuration space (section 5.1.4), up to the MTU.
    fn config(&self) -> [u8; 12] {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        let status = if self.link.is_up() { LINK_UP } else { 0 };
        config[6..8].copy_from_slice(&status.to_le_bytes());
        // The number of queue pairs stands in between, for drivers that can do with several.
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        config
    }
}

/// Bytes of the longest frame that carries a packet of `mtu` bytes.
fn longest_frame(mtu: u16) -> usize {
    usize::from(mtu) + ETHERNET_HEADER
}

impl Device for Net {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn features(&self) -> u64 {
        FEATURE_VERSION_1
            | FEATURE_INDIRECT_DESC
            | FEATURE_EVENT_IDX
            | FEATURE_MTU
            | FEATURE_MAC
            | FEATURE_MERGEABLE
            | FEATURE_STATUS
    }

    fn queues(&self) -> &'static [QueueSpec] {
        QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        if self.session.is_some() {
            return Err(DeviceError::AlreadyActive);
        }
        let peer = Arc::clone(&self.peer);
        self.session = Some(Session::begin(activation, peer, longest_frame(self.mtu))?);
        Ok(())
    }

    /// The stream stays, and what came from it or is under way to it.
    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.end_session()
    }

    /// Hangs up: whoever carried the old driver's frames knows of connections that the new one has not.
    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        let queues = self.end_session();
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).forget();
        queues
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // It logs what goes wrong.
        let _ = self.end_session();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(mac: [u8; 6], mtu: u16, socket: &str) -> Result<Net, NetError> {
        Net::new(NetConfig {
            mac,
            mtu,
            socket: socket.into(),
        })
    }

    #[test]
    fn the_configuration_space_tells_address_link_and_mtu() {
        let device = device([0x52, 0, 0, 0, 0, 1], 1500, "/nowhere").unwrap();
        let mut data = [0xff; 16];
        device.read_config(0, &mut data);
        assert_eq!(data, [0x52, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xdc, 0x05, 0, 0, 0, 0]);
    }

    #[test]
    fn what_cannot_be_a_network_card_is_refused() {
        assert!(matches!(
            device([1, 2, 3, 4, 5, 6], 1500, "/a"),
            Err(NetError::Mac(_))
        ));
        assert!(matches!(device([0; 6], 1500, "/a"), Err(NetError::Mac(_))));
        assert!(matches!(device([2; 6], 67, "/a"), Err(NetError::Mtu(67))));
        let long = format!("/{}", "a".repeat(200));
        assert!(matches!(device([2; 6], 1500, &long), Err(NetError::Path { .. })));
    }
}
