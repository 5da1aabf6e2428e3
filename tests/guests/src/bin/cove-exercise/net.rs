//! The work with the network: one TCP connection to a listener of the host, over which bytes go first one way, then the
//! other, and then a single one back and forth. The listener measures all of it.
//!
//! The kernel's command line says by `ADDRESS=ADDRESS/PREFIX` which address is the guest's, and by
//! `LISTENER=ADDRESS:PORT` where to connect to. Nobody on the network is asked for anything but the way there.
//!
//! | line | what it means |
//! | --- | --- |
//! | `init` | the kernel has started it |
//! | `connected: MTU` | there is a connection, through a network device that takes packets of so many bytes |
//! | `failed: WHY` | it does nothing any more |
//!
//! Either side sends pieces of one size, of which the last begins with another byte than all before, so that no carrier
//! has to bring the end of a direction.

use crate::machine::{begin, load, say};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
    socket_with,
};
use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    str::FromStr,
    thread::sleep,
    time::{Duration, Instant},
};

/// A line `name path dependency…` for each module of the initramfs, in an order in which they can be loaded.
const MODULES: &str = "/modules/modules.load";
const MODULE: &str = "virtio_net";
/// The network device, as the kernel calls the first one.
const DEVICE: &str = "/sys/class/net/eth0";
/// `IFF_UP`, `IFF_BROADCAST` and `IFF_MULTICAST` of linux/if.h.
const UP: &str = "0x1003";
/// For the device, for somebody at the far end of its cable, and for a connection.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that are sent at a time, and how long that is done.
const PIECE: usize = 64 << 10;
const SPAN: Duration = Duration::from_secs(10);
/// Begins the last piece, and is the answer once all have arrived.
const LAST: u8 = 1;

/// Does everything once.
pub(super) fn exercise() -> io::Result<()> {
    begin()?;
    load_driver()?;
    let address = variable("ADDRESS")?;
    let (address, prefix) = address
        .split_once('/')
        .ok_or_else(|| io::Error::other("ADDRESS has no prefix"))?;
    let device = Path::new(DEVICE);
    within("a network device", || fs::metadata(device))?;
    fs::write(device.join("flags"), UP)?;
    let number = parsed(&fs::read_to_string(device.join("ifindex"))?)?;
    take_address(number, parsed(address)?, parsed(prefix)?)?;
    within("anybody at the cable's far end", || {
        match fs::read_to_string(device.join("carrier"))?.trim() {
            "1" => Ok(()),
            carrier => Err(io::Error::other(format!("the carrier is {carrier}"))),
        }
    })?;
    let listener: SocketAddr = parsed(&variable("LISTENER")?)?;
    let mut stream = within("a connection", || TcpStream::connect_timeout(&listener, PATIENCE))?;
    stream.set_nodelay(true)?;
    let mtu = fs::read_to_string(device.join("mtu"))?;
    say(format_args!("connected: {}", mtu.trim()));
    send(&mut stream)?;
    receive(&mut stream)?;
    echo(&mut stream)
}

/// Loads the network device's driver, after the modules that it needs.
fn load_driver() -> io::Result<()> {
    let list = fs::read_to_string(MODULES)?;
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let needs = lines.iter().find_map(|line| match line[..] {
        [MODULE, _, ref needs @ ..] => Some(needs),
        _ => None,
    });
    let needs = needs.ok_or_else(|| io::Error::other(format!("the initramfs has no {MODULE}")))?;
    for line in &lines {
        if let [name, path, ..] = line[..]
            && (name == MODULE || needs.contains(&name))
        {
            load(Path::new(path))?;
        }
    }
    Ok(())
}

/// Gives the device of that number an address, by a request of rtnetlink(7): the kernel has no file for it.
fn take_address(device: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    // Of linux/netlink.h, linux/rtnetlink.h and linux/if_addr.h.
    const RTM_NEWADDR: u16 = 20;
    const NLM_F_REQUEST: u16 = 0x1;
    const NLM_F_ACK: u16 = 0x4;
    const NLMSG_ERROR: u16 = 2;
    const AF_INET: u8 = 2;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    /// Bytes of `struct nlmsghdr`, and of all that is asked.
    const HEADER: usize = 16;
    const REQUEST: u32 = 40;
    /// Bytes of an attribute with an address.
    const ATTRIBUTE: u16 = 8;

    let mut request: Vec<u8> = Vec::new();
    request.extend(REQUEST.to_ne_bytes());
    request.extend(RTM_NEWADDR.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // Its number and who sends it, of which nothing is made where there is only one.
    request.extend([0_u8; 8]);
    request.extend([AF_INET, prefix, 0, 0]);
    request.extend(device.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        request.extend(ATTRIBUTE.to_ne_bytes());
        request.extend(attribute.to_ne_bytes());
        request.extend(address.octets());
    }
    // `NETLINK_ROUTE` is the protocol number 0, which is also what none means.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sendto(
        &socket,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0_u8; 256];
    let (count, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let word = answer[..count].get(HEADER..HEADER + 4);
    let word = word.and_then(|word| <[u8; 4]>::try_from(word).ok());
    match word.map(i32::from_ne_bytes) {
        Some(0) if answer[4..6] == NLMSG_ERROR.to_ne_bytes() => Ok(()),
        Some(error @ ..0) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends pieces for as long as they are sent.
fn send(stream: &mut TcpStream) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let deadline = Instant::now() + SPAN;
    while Instant::now() < deadline {
        stream.write_all(&piece)?;
    }
    piece[0] = LAST;
    stream.write_all(&piece)
}

/// Takes pieces up to the last one, and says that it has them.
fn receive(stream: &mut TcpStream) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    while piece[0] != LAST {
        stream.read_exact(&mut piece)?;
    }
    stream.write_all(&[LAST])
}

/// Sends each byte back, up to the last one.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while byte[0] != LAST {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Tries until something is there.
fn within<T>(what: &str, mut look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(io::Error::other(format!("there is not {what}: {error}")));
            }
            Err(_) => sleep(PAUSE),
        }
    }
}

/// What the kernel's command line says.
fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

fn parsed<T: FromStr>(text: &str) -> io::Result<T> {
    let text = text.trim();
    text.parse()
        .map_err(|_| io::Error::other(format!("{text:?} makes no sense")))
}
