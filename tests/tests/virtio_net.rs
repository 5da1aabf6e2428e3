//! The network device through its queues and its stream, called directly and over vhost-user.

use std::io::{ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use cove_tests::driver::block::buffer;
use cove_tests::driver::event::{self, Event};
use cove_tests::driver::memory::START;
use cove_tests::driver::net::{FEATURE_MERGEABLE, HEADER, NetGuest, QUEUE_SIZE, SLOT, Wire, framed};
use cove_tests::driver::queue::{DESC_NEXT, DESC_WRITE, Descriptor};
use cove_tests::driver::rig::{WAYS, Way};
use cove_tests::driver::transport::{InProcess, VhostUser};
use cove_tests::driver::vsock::PATIENCE;
use cove_virtio::device::FEATURE_EVENT_IDX;
use cove_virtio::net::{Net, NetConfig};
use cove_virtio::vhost_user;
use proptest::prelude::*;
use tempfile::TempDir;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const MTU: u16 = 65_520;
/// The longest frame: an Ethernet header and a packet.
const LONGEST: usize = 14 + MTU as usize;
/// The longest frame that is left out; a greater length ends the stream.
const BOUND: usize = 4096 + 65536;

/// A guest before its network. Fields are dropped in order.
struct Rig {
    guest: NetGuest,
    wire: Wire,
    listener: UnixListener,
    _service: Option<vhost_user::Server>,
    dir: TempDir,
}

impl Rig {
    fn new(way: Way) -> Result<Self> {
        Self::without(way, 0)
    }

    /// A driver that does not know the features `unknown`, and the device's first connection.
    fn without(way: Way, unknown: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let listener = UnixListener::bind(dir.path().join("net"))?;
        let device = device(&dir.path().join("net"))?;
        let (guest, service) = match way {
            Way::InProcess => (NetGuest::boot(InProcess::new(device), unknown)?, None),
            Way::VhostUser => {
                let socket = dir.path().join("vhost-user");
                let service = vhost_user::serve(device, &socket)?;
                let transport = VhostUser::connect(&socket, 2)?;
                (NetGuest::boot(transport, unknown)?, Some(service))
            }
        };
        Ok(Self {
            wire: Wire::accept(&listener)?,
            guest,
            listener,
            _service: service,
            dir,
        })
    }

    /// Ends the connection, and has nobody found at the socket until [`Self::call_in`].
    fn hang_up(&mut self) -> Result<()> {
        std::fs::rename(self.dir.path().join("net"), self.dir.path().join("away"))?;
        self.wire = Wire(UnixStream::pair()?.0);
        Ok(())
    }

    /// Takes the device's next call.
    fn call_in(&mut self) -> Result<()> {
        std::fs::rename(self.dir.path().join("away"), self.dir.path().join("net"))?;
        self.wire = Wire::accept(&self.listener)?;
        Ok(())
    }

    /// That frames still go both ways, and that none is under way that should not be.
    fn check_alive(&mut self) -> Result<()> {
        let (there, back) = (frame(251, 90), frame(250, 91));
        self.guest.send(&there)?;
        ensure!(self.wire.receive()? == there, "another frame arrived at the peer");
        if self.guest.has_received()? {
            let frame = self.guest.receive()?;
            anyhow::bail!("a frame of {} bytes is there already", frame.len());
        }
        self.guest.post(1, SLOT)?;
        self.wire.send(&back)?;
        ensure!(
            self.guest.receive()? == back,
            "another frame arrived at the guest"
        );
        Ok(())
    }
}

fn device(socket: &Path) -> Result<Net> {
    Ok(Net::new(NetConfig {
        mac: MAC,
        mtu: MTU,
        socket: socket.to_owned(),
    })?)
}

/// A frame that no other looks like.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let bytes = (0..).flat_map(|at: u32| (at ^ number.wrapping_mul(2_654_435_761)).to_le_bytes());
    bytes.take(len).collect()
}

#[test]
fn frames_go_both_ways_and_a_long_one_takes_several_buffers() -> Result<()> {
    for way in WAYS {
        for unknown in [0, FEATURE_EVENT_IDX] {
            let mut rig = Rig::without(way, unknown)?;
            rig.guest.post(40, SLOT)?;
            for (number, len) in (0..).zip([14, 60, 1514, 4084, 4085, 8180, 8181, LONGEST]) {
                let (there, back) = (frame(number, len), frame(number + 100, len));
                rig.guest.send(&there)?;
                ensure!(rig.wire.receive()? == there, "{way:?}: {len} from the guest");
                rig.wire.send(&back)?;
                ensure!(rig.guest.receive()? == back, "{way:?}: {len} to the guest");
                let buffers = u16::try_from((HEADER + len).div_ceil(SLOT as usize))?;
                rig.guest.post(buffers, SLOT)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_guest_learns_its_address_and_the_largest_packet() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        ensure!(rig.guest.config(0, 6)? == MAC, "{way:?}");
        ensure!(rig.guest.config(10, 2)? == MTU.to_le_bytes(), "{way:?}");
        rig.guest.await_link(true)?;
    }
    Ok(())
}

#[test]
fn what_the_guest_sends_is_a_frame_or_nothing() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        for len in [0, 1, 13, LONGEST + 1, LONGEST + 4, 100_000] {
            rig.guest.send(&frame(1, len))?;
            rig.guest.send(&frame(2, 14))?;
            ensure!(rig.wire.receive()? == frame(2, 14), "{way:?}: {len}");
        }
        // Less than a header, down to nothing.
        for len in [0, 1, 11, 12] {
            rig.guest.submit(&[buffer(rig.guest.place, len, false)])?;
        }
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn what_the_peer_sends_and_no_guest_can_take_is_left_out() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.guest.post(30, SLOT)?;
        for len in [0, 1, 13, LONGEST + 1, BOUND] {
            rig.wire.send(&frame(1, len))?;
            rig.wire.send(&frame(2, 14))?;
            ensure!(rig.guest.receive()? == frame(2, 14), "{way:?}: {len}");
        }
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn a_peer_whose_lengths_make_no_sense_is_hung_up_on_and_called_again() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        for lie in [u32::try_from(BOUND)? + 1, 1 << 31, u32::MAX] {
            rig.wire.0.write_all(&lie.to_be_bytes())?;
            rig.wire.await_end()?;
            rig.wire = Wire::accept(&rig.listener)?;
            rig.guest.await_link(true)?;
            rig.check_alive()?;
        }
    }
    Ok(())
}

#[test]
fn frames_arrive_whole_however_the_stream_is_cut() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.guest.post(8, SLOT)?;
        let bytes = [framed(&frame(1, 1000))?, framed(&frame(2, 60))?].concat();
        for piece in [1, 2, 3, 5, 1004, 1006] {
            for part in bytes.chunks(piece) {
                rig.wire.0.write_all(part)?;
            }
            ensure!(rig.guest.receive()? == frame(1, 1000), "{way:?}: {piece}");
            ensure!(rig.guest.receive()? == frame(2, 60), "{way:?}: {piece}");
            rig.guest.post(2, SLOT)?;
        }
    }
    Ok(())
}

#[test]
fn a_driver_that_takes_a_frame_in_one_buffer_only_gets_those_that_fit() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::without(way, FEATURE_MERGEABLE)?;
        rig.guest.post(3, 1526)?;
        rig.wire.send(&frame(1, 1515))?;
        rig.wire.send(&frame(2, 1514))?;
        // The buffer that was too small comes back empty, and the frame is gone.
        ensure!(rig.guest.next_buffer()?.is_empty(), "{way:?}");
        ensure!(rig.guest.receive()? == frame(2, 1514), "{way:?}");
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn a_guest_without_buffers_holds_the_stream_up_and_loses_nothing() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.wire.0.set_nonblocking(true)?;
        let mut sent = 0;
        let mut rest: Vec<u8> = Vec::new();
        // Until neither the device nor the socket takes any more.
        let mut quiet = 0;
        while quiet < 50 {
            if rest.is_empty() {
                rest = framed(&frame(sent, 9000))?;
                sent += 1;
            }
            match rig.wire.0.write(&rest) {
                Ok(count) => {
                    rest.drain(..count);
                    quiet = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(2));
                    quiet += 1;
                }
                Err(error) => return Err(error.into()),
            }
            ensure!(sent < 1000, "{way:?}: the device has no bound");
        }
        ensure!(!rig.guest.has_received()?, "{way:?}");
        rig.wire.0.set_nonblocking(false)?;
        let mut stream = rig.wire.0.try_clone()?;
        let last = std::thread::spawn(move || stream.write_all(&rest));
        for number in 0..sent {
            // One buffer at a time, which is never enough for a frame.
            for _ in 0..3 {
                rig.guest.post(1, SLOT)?;
            }
            ensure!(rig.guest.receive()? == frame(number, 9000), "{way:?}: {number}");
        }
        last.join().expect("the writer does not panic")?;
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn a_peer_that_does_not_read_holds_the_guest_up_and_misses_nothing() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let bytes = [&[0; HEADER][..], &frame(9, 60_000)].concat();
        let place = rig.guest.place;
        vm_memory::Bytes::write_slice(
            rig.guest.memory.memory.as_ref(),
            &bytes,
            vm_memory::GuestAddress(place),
        )?;
        for _ in 0..QUEUE_SIZE {
            rig.guest
                .transmit
                .add(&[buffer(place, u32::try_from(bytes.len())?, false)])?;
        }
        rig.guest.transmit.publish()?;
        let mut returned = 0;
        while event::wait(&[&rig.guest.transmit.call], Duration::from_millis(100))? {
            while rig.guest.transmit.take_used()?.is_some() {
                returned += 1;
            }
            rig.guest.transmit.arm()?;
        }
        ensure!(
            returned < QUEUE_SIZE,
            "{way:?}: the device took everything off the guest"
        );
        for _ in 0..QUEUE_SIZE {
            ensure!(rig.wire.receive()? == frame(9, 60_000), "{way:?}");
        }
        for _ in returned..QUEUE_SIZE {
            rig.guest.transmit.next_used()?;
        }
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn a_header_that_asks_for_offloads_costs_the_guest_its_frame() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let mut headers = Vec::new();
        for (at, value) in [(0, 1), (0, 0xff), (1, 1), (1, 4), (1, 0x81)] {
            let mut header = [0; HEADER];
            header[at] = value;
            headers.push(header);
        }
        headers.push([0xff; HEADER]);
        for header in headers {
            rig.guest.send_behind(header, &frame(1, 1514))?;
        }
        rig.check_alive()?;
        // What is said of offloads that are not used means nothing.
        let mut header = [0xff; HEADER];
        header[..2].fill(0);
        rig.guest.send_behind(header, &frame(3, 100))?;
        ensure!(rig.wire.receive()? == frame(3, 100), "{way:?}");
    }
    Ok(())
}

#[test]
fn a_frame_means_the_same_however_it_is_cut_into_buffers() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let place = rig.guest.place;
        rig.guest.send(&frame(1, 300))?;
        ensure!(rig.wire.receive()? == frame(1, 300), "{way:?}");
        // The same bytes again: the header in three parts, one of them with the beginning of the frame.
        rig.guest.submit(&[
            buffer(place, 1, false),
            buffer(place + 1, 0, false),
            buffer(place + 1, 10, false),
            buffer(place + 11, 100, false),
            buffer(place + 111, 201, false),
        ])?;
        ensure!(rig.wire.receive()? == frame(1, 300), "{way:?}");
    }
    Ok(())
}

#[test]
fn hostile_chains_come_back_and_the_device_goes_on() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (end, place) = (rig.guest.memory.end(), rig.guest.place);
        rig.guest.send(&frame(1, 100))?;
        rig.wire.receive()?;
        for chain in [
            vec![buffer(place, 112, true)],
            vec![buffer(place, 60, false), buffer(place + 60, 52, true)],
            vec![buffer(end, 112, false)],
            vec![buffer(end - 50, 112, false)],
            vec![buffer(0, 112, false)],
            vec![buffer(u64::MAX - 50, 112, false)],
            vec![buffer(START, u32::MAX, false)],
            vec![buffer(place, 112, false), buffer(end, 1, false)],
        ] {
            rig.guest.submit(&chain)?;
        }
        // A chain that follows itself.
        let looped = Descriptor {
            address: place,
            len: 4096,
            flags: DESC_NEXT,
            next: 20,
        };
        rig.guest.transmit.write_descriptor(20, looped)?;
        rig.guest.transmit.offer(20)?;
        rig.guest.transmit.publish()?;
        rig.guest.transmit.next_used()?;
        rig.check_alive()?;
    }
    Ok(())
}

/// An entry of a descriptor table, likely to be near the truth.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![
        4 => START..START + (2 << 20),
        1 => Just(START + (2 << 20) - 8),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![4 => 0u32..5000, 1 => any::<u32>()];
    (address, len, 0u16..8, 0u16..QUEUE_SIZE + 4).prop_map(|(address, len, flags, next)| Descriptor {
        address,
        len,
        flags,
        next,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_descriptors_and_heads_are_survived(
        tables in prop::collection::vec(descriptor(), 2 * usize::from(QUEUE_SIZE)),
        heads in prop::collection::vec(0..QUEUE_SIZE + 2, 1..40),
        lengths in prop::collection::vec(0usize..9000, 1..6),
    ) {
        survive(&tables, &heads, &lengths).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    }
}

/// Has a driver put those chains into both queues while frames arrive; after a reset the device works.
fn survive(tables: &[Descriptor], heads: &[u16], lengths: &[usize]) -> Result<()> {
    let mut rig = Rig::new(Way::InProcess)?;
    let (first, second) = tables.split_at(usize::from(QUEUE_SIZE));
    for (queue, table) in [(&mut rig.guest.receive, first), (&mut rig.guest.transmit, second)] {
        for (index, descriptor) in (0..).zip(table) {
            queue.write_descriptor(index, *descriptor)?;
        }
        for head in heads {
            queue.offer(*head)?;
        }
    }
    for (number, len) in (0..).zip(lengths) {
        rig.wire.send(&frame(number, *len))?;
    }
    rig.guest.receive.publish()?;
    rig.guest.transmit.publish()?;
    let settled = [&rig.guest.receive.broken, &rig.guest.transmit.broken];
    event::wait(&settled, Duration::from_millis(20))?;
    rig.guest.reboot()?;
    rig.wire.await_end()?;
    rig.wire = Wire::accept(&rig.listener)?;
    rig.check_alive()
}

#[test]
fn hostile_receive_buffers_come_back_empty_and_the_frame_takes_others() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (end, slots) = (rig.guest.memory.end(), rig.guest.slots);
        let looped = Descriptor {
            address: slots,
            len: 1,
            flags: DESC_NEXT | DESC_WRITE,
            next: 40,
        };
        let mut bad = Vec::new();
        for chain in [
            vec![buffer(slots, 4096, false)],
            vec![buffer(slots, 2048, true), buffer(slots, 2048, false)],
            vec![buffer(end, 4096, true)],
            vec![buffer(end - 8, 4096, true)],
            vec![buffer(u64::MAX - 8, 4096, true)],
            vec![buffer(slots, 11, true)],
            vec![buffer(slots, 0, true)],
        ] {
            bad.extend(rig.guest.receive.add(&chain)?);
        }
        rig.guest.receive.publish()?;
        rig.guest.receive.write_descriptor(40, looped)?;
        let first = frame(5, 6000);
        // Written into the loop's one byte again and again, or put into the good ones: nothing else.
        rig.wire.send(&first)?;
        rig.guest.post(2, SLOT)?;
        for head in bad {
            let used = rig.guest.receive.next_used()?;
            ensure!(used.head == head && used.written == 0, "{way:?}: {used:?}");
        }
        ensure!(rig.guest.receive()? == first, "{way:?}");
        rig.guest.receive.offer(40)?;
        rig.guest.receive.publish()?;
        rig.wire.send(&frame(6, 40))?;
        let used = rig.guest.receive.next_used()?;
        ensure!(
            used.head == 40 && used.written <= u32::from(QUEUE_SIZE),
            "{way:?}: {used:?}"
        );
        rig.guest.reboot()?;
        rig.wire = Wire::accept(&rig.listener)?;
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn buffers_that_are_too_few_for_a_frame_when_the_queue_is_full_of_them_come_back() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.guest.post(QUEUE_SIZE, 100)?;
        rig.wire.send(&frame(1, 60_000))?;
        for _ in 0..QUEUE_SIZE {
            ensure!(rig.guest.next_buffer()?.is_empty(), "{way:?}");
        }
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn the_device_calls_again_when_the_peer_hangs_up_and_the_link_says_so() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.guest.post(1, SLOT)?;
        for _ in 0..2 {
            rig.guest.await_link(true)?;
            // Half a frame, of which nothing must be left.
            rig.wire.0.write_all(&framed(&frame(1, 500))?[..300])?;
            rig.guest.send(&frame(2, 100))?;
            ensure!(rig.wire.receive()? == frame(2, 100), "{way:?}");
            rig.hang_up()?;
            rig.guest.await_link(false)?;
            // Nobody listens, and nobody is waited for.
            rig.guest.send(&frame(3, 100))?;
            rig.call_in()?;
            rig.guest.await_link(true)?;
            rig.wire.send(&frame(4, 700))?;
            ensure!(rig.guest.receive()? == frame(4, 700), "{way:?}");
            rig.guest.post(1, SLOT)?;
        }
    }
    Ok(())
}

#[test]
fn a_peer_that_leaves_while_the_guest_has_no_buffers_is_noticed() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.guest.await_link(true)?;
        rig.wire.send(&frame(1, 100))?;
        rig.hang_up()?;
        rig.guest.await_link(false)?;
        rig.call_in()?;
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn a_device_whose_socket_comes_later_finds_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("net");
    let mut guest = NetGuest::boot(InProcess::new(device(&path)?), 0)?;
    guest.send(&frame(1, 100))?;
    ensure!(!guest.link()?);
    let listener = UnixListener::bind(&path)?;
    let mut wire = Wire::accept(&listener)?;
    guest.await_link(true)?;
    guest.send(&frame(2, 100))?;
    ensure!(wire.receive()? == frame(2, 100));
    Ok(())
}

#[test]
fn a_pause_keeps_the_stream_and_what_is_in_it() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.guest.post(40, SLOT)?;
        let bytes = framed(&frame(7, 5000))?;
        for cut in [1, 4, 5, 3000, 5003] {
            rig.wire.0.write_all(&bytes[..cut])?;
            rig.guest.send(&frame(8, 64))?;
            ensure!(rig.wire.receive()? == frame(8, 64), "{way:?}");
            let taken = rig.guest.pause()?;
            let returned = [rig.guest.receive.used_index()?, rig.guest.transmit.used_index()?];
            ensure!(
                taken == returned,
                "{way:?}: {taken:?} taken, {returned:?} returned"
            );
            rig.wire.0.write_all(&bytes[cut..])?;
            ensure!(!rig.guest.has_received()?, "{way:?}: a paused device works");
            rig.guest.resume()?;
            ensure!(rig.guest.receive()? == frame(7, 5000), "{way:?}: cut at {cut}");
            ensure!(rig.guest.link()?, "{way:?}");
        }
        rig.listener.set_nonblocking(true)?;
        ensure!(rig.listener.accept().is_err(), "{way:?}: it connected again");
    }
    Ok(())
}

#[test]
fn a_reset_hangs_up_and_the_next_driver_gets_a_stream_of_its_own() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.wire.send(&frame(1, 100))?;
        rig.guest.send(&frame(2, 100))?;
        rig.guest.reboot()?;
        rig.wire.await_end()?;
        rig.wire = Wire::accept(&rig.listener)?;
        rig.check_alive()?;
        rig.guest.await_link(true)?;
    }
    Ok(())
}

#[test]
fn a_broken_queue_is_signalled_and_a_reset_repairs_it() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let index = rig.guest.transmit.available_index();
        rig.guest
            .transmit
            .forge_available_index(index.wrapping_add(1000))?;
        rig.guest.transmit.kick.ring()?;
        let told = event::wait(&[&rig.guest.transmit.broken], PATIENCE)?;
        ensure!(told, "{way:?}: nobody says that the queue is broken");
        rig.wire.await_end()?;
        rig.guest.reboot()?;
        rig.wire = Wire::accept(&rig.listener)?;
        rig.check_alive()?;
    }
    Ok(())
}

#[test]
fn the_driver_is_interrupted_when_its_link_changes_and_a_cable_that_is_out_is_a_link_down() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let listener = UnixListener::bind(dir.path().join("net"))?;
    let changed = Arc::new(Event::new()?);
    let device = device(&dir.path().join("net"))?;
    let cable = device.cable();
    let mut guest = NetGuest::boot(InProcess::hearing(device, Arc::clone(&changed)), 0)?;
    ensure!(
        event::wait(&[&changed], PATIENCE)?,
        "the first connection is not told"
    );
    ensure!(guest.link()?);
    cable.plug(false);
    ensure!(!guest.link()?);
    cable.plug(true);
    ensure!(guest.link()?);
    drop(Wire::accept(&listener)?);
    ensure!(event::wait(&[&changed], PATIENCE)?, "the hang-up is not told");
    let _wire = Wire::accept(&listener)?;
    guest.await_link(true)?;
    Ok(())
}
