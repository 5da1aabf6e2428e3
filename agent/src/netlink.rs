//! Configuring network devices through the kernel's routing socket (rtnetlink(7)): as much of it as a guest with one
//! device needs.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
    sendto, socket_with,
};
use std::{fs, io, net::IpAddr, os::fd::OwnedFd, path::Path};

// Message types, flags and attributes of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
/// No other station could have the address: it need not be looked for.
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

/// Address families, which messages have as bytes.
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device(u32);

impl Device {
    /// The device called `name`; nothing if there is none.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let file = Path::new("/sys/class/net").join(name).join("ifindex");
        fs::read_to_string(file).ok()?.trim().parse().ok().map(Self)
    }
}

/// A connection to the kernel's routing tables.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        // `NETLINK_ROUTE` is the protocol number 0, which is also what none means.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings a device up.
    pub(crate) fn bring_up(&mut self, device: Device, mtu: Option<u32>) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.put(&[AF_UNSPEC, 0, 0, 0]);
        message.put(&device.0.to_ne_bytes());
        message.put(&IFF_UP.to_ne_bytes());
        message.put(&IFF_UP.to_ne_bytes());
        if let Some(mtu) = mtu {
            message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.carry_out(message)
    }

    /// Gives a device an address. One that it has already is no error.
    pub(crate) fn add_address(&mut self, device: Device, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWADDR, CREATE | REPLACE);
        message.put(&[family(address), prefix, IFA_F_NODAD, 0]);
        message.put(&device.0.to_ne_bytes());
        let bytes = octets(address);
        message.attribute(IFA_LOCAL, &bytes);
        message.attribute(IFA_ADDRESS, &bytes);
        self.carry_out(message)
    }

    /// Sends everything that has no route of its own to `gateway`.
    pub(crate) fn add_default_route(&mut self, device: Device, gateway: IpAddr) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWROUTE, CREATE | REPLACE);
        message.put(&[family(gateway), 0, 0, 0]);
        message.put(&[RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST]);
        message.put(&0_u32.to_ne_bytes());
        message.attribute(RTA_GATEWAY, &octets(gateway));
        message.attribute(RTA_OIF, &device.0.to_ne_bytes());
        self.carry_out(message)
    }

    fn carry_out(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        let request = message.finish(self.sequence);
        sendto(
            &self.socket,
            &request,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut answer = [0; 4096];
        loop {
            let (count, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
            if let Some(result) = outcome(&answer[..count.min(answer.len())], self.sequence) {
                return result;
            }
        }
    }
}

/// What an answer says about the request with this number; nothing if it is about another.
fn outcome(answer: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let short = || Some(Err(io::ErrorKind::InvalidData.into()));
    let word = |at: usize| {
        let bytes = answer.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    let (Some(kind), Some(about)) = (answer.get(4..6), word(8)) else {
        return short();
    };
    if kind != NLMSG_ERROR.to_ne_bytes() || about != sequence {
        return None;
    }
    match word(HEADER).map(u32::cast_signed) {
        Some(0) => Some(Ok(())),
        Some(error) => Some(Err(io::Error::from_raw_os_error(error.saturating_neg()))),
        None => short(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A request in the making.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(vec![0; 4]);
        message.put(&kind.to_ne_bytes());
        message.put(&(flags | REQUEST | ACK).to_ne_bytes());
        // The number and the sender, of which the first is filled in at the end and the second the kernel knows.
        message.put(&[0; 8]);
        message
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Adds an attribute, each of which begins on a multiple of four. Attributes here hold an address at most.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.put(&length.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_has_its_length_and_number_and_aligned_attributes() {
        let mut message = Message::new(RTM_NEWADDR, CREATE);
        message.put(&[0; 8]);
        message.attribute(IFA_LOCAL, &[1, 2, 3]);
        let bytes = message.finish(7);
        assert_eq!(bytes.len(), HEADER + 8 + 8);
        assert_eq!(bytes[..4], u32::try_from(bytes.len()).unwrap().to_ne_bytes());
        assert_eq!(bytes[8..12], 7_u32.to_ne_bytes());
        assert_eq!(bytes[24..26], 7_u16.to_ne_bytes());
    }

    #[test]
    fn the_kernel_answers_requests_of_this_form() {
        let mut netlink = Netlink::open().unwrap();
        // Refused for lack of a privilege, or of the device where the tests have it: understood in either case.
        let error = netlink.bring_up(Device(0x7fff_fff0), Some(1500)).unwrap_err();
        let understood = [rustix::io::Errno::PERM, rustix::io::Errno::NODEV];
        assert!(
            understood
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(answer in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = outcome(&answer, 1);
        }
    }
}
