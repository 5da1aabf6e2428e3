//! What a machine's network brings: its device and a passt behind it, whichever the monitor, carry a TCP connection of
//! the guest's program to a listener of this bench, which measures all of it.
//!
//! ```text
//!  ours:  cove-exercise ─ virtio-net ─▶ monitor ─▶ net.sock of the machine process ─▶ passt ─▶ listener on loopback
//!  QEMU:  cove-exercise ─ virtio-net ─▶ QEMU ────▶ its socket ──────────────────────▶ passt ─▶ listener on loopback
//! ```
//!
//! Both devices take packets of the same size, and may put one into several buffers. QEMU's has no offloads on such a
//! stream, and neither has ours. Each passt has the arguments of ours.
//!
//! It is done by machines of its own, whose guests do nothing else, so that one that fails at its disk fails there and
//! nowhere else.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cove_wire::network;
use rustix::io::{FdFlags, fcntl_setfd};

use super::START_PATIENCE;
use super::console::tail;
use super::measure::{self, Figures};
use super::subject::{Kind, Place, Subject, Task};
use crate::harness::Running;

/// From the guest to this computer, in bytes a second.
pub(super) const SENDING: &str = "network-sending";
/// From this computer to the guest.
pub(super) const RECEIVING: &str = "network-receiving";
/// A byte to the guest and back, in seconds.
pub(super) const ROUND_TRIP: &str = "network-round-trip";

/// Machines of each kind.
pub(super) const ROUNDS: usize = 3;

/// For the guest's connection, for each step of which it has a minute itself.
const PATIENCE: Duration = Duration::from_mins(4);
/// For the next byte: a QEMU whose guest KVM can run no further stops it, and stays.
const STALL: Duration = Duration::from_mins(1);
/// For QEMU to connect to its socket, where processors are emulated one in the other.
const STARTING: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(2);
/// How long this side sends, and bytes go back and forth. The guest sends as long by its own clock.
const SPAN: Duration = Duration::from_secs(10);
/// Bytes that are sent at a time: `cove-exercise` has the same number.
const PIECE: u32 = 64 << 10;
/// Begins the last piece and the last byte that goes back and forth, and is the guest's answer once it has all.
const LAST: u8 = 1;

/// Measures the network of one machine.
pub(super) fn one(place: &Place<'_>, kind: Kind) -> Result<Figures> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on the loopback")?;
    // Who is not there when the guest says so is not waited for.
    listener.set_nonblocking(true)?;
    // The gateway's address is this computer's loopback.
    let arguments = [
        "exercise=network".to_owned(),
        format!("ADDRESS={}/{}", network::GUEST_V4, network::PREFIX_V4),
        format!(
            "LISTENER={}:{}",
            network::GATEWAY_V4,
            listener.local_addr()?.port()
        ),
    ];
    let mut subject = Subject::start(place, kind, Task::Network(&arguments))?;
    measure::start(&mut subject, START_PATIENCE)?;
    let (_, mtu) = subject.expect("connected: ", PATIENCE)?;
    ensure!(
        mtu == network::MTU.to_string(),
        "the guest's network device takes packets of {mtu} bytes instead of {}",
        network::MTU
    );
    let (stream, _) = listener
        .accept()
        .context("the guest's connection has not arrived")?;
    carry(stream).or_else(|error| {
        // If it was the guest's program that failed, that is what there is to say.
        subject.has_said_more()?;
        Err(error.context(subject.account()))
    })
}

fn carry(mut stream: TcpStream) -> Result<Figures> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    let sending = take(&mut stream).context("taking what the guest sends")?;
    let receiving = give(&mut stream, SPAN).context("sending to the guest")?;
    let round_trip = echoes(&mut stream, SPAN).context("sending a byte back and forth")?;
    Ok(Figures::from([
        (SENDING.to_owned(), sending),
        (RECEIVING.to_owned(), receiving),
        (ROUND_TRIP.to_owned(), round_trip),
    ]))
}

/// Takes pieces up to the last one; bytes in a second, from the first piece's arrival on.
fn take(stream: &mut impl Read) -> Result<f64> {
    let mut piece = vec![0; PIECE as usize];
    stream.read_exact(&mut piece)?;
    let began = Instant::now();
    let mut pieces = 0;
    while piece[0] != LAST {
        stream.read_exact(&mut piece)?;
        pieces += 1;
    }
    ensure!(pieces > 0, "there was one piece only");
    Ok(rate(pieces, began.elapsed()))
}

/// Sends pieces for `span`; bytes in a second, until the other end has said that it has all of them.
fn give(stream: &mut (impl Read + Write), span: Duration) -> Result<f64> {
    let mut piece = vec![0; PIECE as usize];
    let began = Instant::now();
    let mut pieces = 1;
    while began.elapsed() < span {
        stream.write_all(&piece)?;
        pieces += 1;
    }
    piece[0] = LAST;
    stream.write_all(&piece)?;
    stream.read_exact(&mut [0])?;
    Ok(rate(pieces, began.elapsed()))
}

/// Sends a byte and waits until it is back, again and again for `span`; seconds that this takes once.
fn echoes(stream: &mut (impl Read + Write), span: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut trips = 0_u32;
    let mut once = |byte: u8| -> Result<()> {
        stream.write_all(&[byte])?;
        stream.read_exact(&mut [0])?;
        trips += 1;
        Ok(())
    };
    while began.elapsed() < span {
        once(0)?;
    }
    once(LAST)?;
    Ok(began.elapsed().as_secs_f64() / f64::from(trips))
}

fn rate(pieces: u32, elapsed: Duration) -> f64 {
    f64::from(pieces) * f64::from(PIECE) / elapsed.as_secs_f64()
}

/// Where QEMU's network device finds its passt.
pub(super) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// In a directory that the machine has for itself.
    pub(super) fn bind(dir: &Path) -> Result<Self> {
        let path = dir.join("net");
        let listener = UnixListener::bind(&path).context("cannot listen for QEMU's network device")?;
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener })
    }

    /// Gives `qemu` a network device that connects to it.
    pub(super) fn add_device(&self, qemu: &mut Command) {
        qemu.arg("-netdev").arg(format!(
            "stream,id=net,server=off,addr.type=unix,addr.path={}",
            self.path.display()
        ));
        qemu.arg("-device").arg(format!(
            "virtio-net-device,netdev=net,mrg_rxbuf=on,host_mtu={}",
            network::MTU
        ));
    }

    /// Waits for `qemu` to connect, and starts `passt` at the connection's other end, with which it ends. What both say
    /// goes to `words`.
    pub(super) fn serve(self, passt: &Path, qemu: &mut Running, words: &Path) -> Result<Running> {
        let deadline = Instant::now() + STARTING;
        let connection = loop {
            match self.listener.accept() {
                Ok((connection, _)) => break connection,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("QEMU's network device cannot connect"),
            }
            if qemu.0.try_wait()?.is_some() || Instant::now() > deadline {
                let said = tail(&fs::read(words).unwrap_or_default());
                bail!("QEMU does not connect to its network; it said {said:?}");
            }
            sleep(LOOK);
        };
        // For passt. Nothing else is started before our end of it is gone.
        fcntl_setfd(&connection, FdFlags::empty())?;
        let said = File::options().append(true).open(words)?;
        let child = Command::new(passt)
            .args(["--foreground", "--quiet", "--fd"])
            .arg(connection.as_raw_fd().to_string())
            .args(["--address", &network::GUEST_V4.to_string()])
            .args(["--netmask", &network::PREFIX_V4.to_string()])
            .args(["--gateway", &network::GATEWAY_V4.to_string()])
            .args(["--address", &network::GUEST_V6.to_string()])
            .args(["--gateway", &network::GATEWAY_V6.to_string()])
            .args(["--mtu", &network::MTU.to_string()])
            .args(["--no-dhcp", "--no-dhcpv6", "--no-ra"])
            .args(["--tcp-ports", "none", "--udp-ports", "none"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .with_context(|| format!("cannot start {}", passt.display()))?;
        Ok(Running(child))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn what_arrives_after_the_first_piece_is_measured() {
        let mut sent = vec![0; 3 * PIECE as usize];
        sent[2 * PIECE as usize] = LAST;
        sent.push(7);
        let mut left = &sent[..];
        let rate = take(&mut left).unwrap();
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
        assert_eq!(left, [7], "the last piece ends it");
        let error = take(&mut &sent[2 * PIECE as usize..]).unwrap_err();
        assert!(error.to_string().contains("one piece"), "{error}");
        assert!(take(&mut &sent[..=PIECE as usize]).is_err(), "it breaks off");
    }

    #[test]
    fn both_ends_know_when_it_is_over() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let guest = thread::spawn(move || {
            let mut piece = vec![0; PIECE as usize];
            let mut pieces = 0;
            while piece[0] != LAST {
                there.read_exact(&mut piece).unwrap();
                pieces += 1;
            }
            there.write_all(&[LAST]).unwrap();
            let mut trips = 0;
            let mut byte = [0];
            while byte[0] != LAST {
                there.read_exact(&mut byte).unwrap();
                there.write_all(&byte).unwrap();
                trips += 1;
            }
            (pieces, trips)
        });
        let rate = give(&mut here, SHORT).unwrap();
        let seconds = echoes(&mut here, SHORT).unwrap();
        let (pieces, trips) = guest.join().unwrap();
        assert!(pieces > 1 && trips > 1, "{pieces} pieces, {trips} trips");
        // Neither took less than its span, so that no rate is above this.
        let most = f64::from(pieces) * f64::from(PIECE) / SHORT.as_secs_f64();
        assert!(rate > 0.0 && rate <= most, "{rate} of at most {most}");
        assert!(seconds >= SHORT.as_secs_f64() / f64::from(trips), "{seconds}");
    }
}
