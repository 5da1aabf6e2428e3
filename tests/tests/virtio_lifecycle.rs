//! Reset, reboot, pause, and front ends that come and go.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cove_tests::driver::rig::{CID, Rig, WAYS, Way, read_all, read_ok};
use cove_tests::driver::stream::Stream;
use cove_tests::driver::transport::{InProcess, Transport, VhostUser};
use cove_tests::driver::vsock::{Guest, Options, PATIENCE};
use cove_virtio::device::FEATURE_VERSION_1;
use cove_virtio::vhost_user;
use cove_virtio::vsock::packet::Op;
use cove_virtio::vsock::{Vsock, VsockConfig, VsockError};
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

#[test]
fn a_reboot_closes_the_old_guests_connections_and_the_new_one_starts_clean() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        for _ in 0..3 {
            let (mut host, _guest) = rig.connect(80).unwrap();
            let mut waiting = rig.greet(81).unwrap();
            rig.guest.reboot().unwrap();
            assert_eq!(read_all(&mut host).unwrap(), b"");
            assert_eq!(read_all(&mut waiting).unwrap(), b"");
            // Nothing of the old guest's reaches the new one.
            assert_eq!(rig.guest.receive_within(Duration::from_millis(50)).unwrap(), None);
            rig.prove_alive().unwrap();
        }
    }
}

#[test]
fn connections_survive_a_pause_and_new_ones_wait_for_its_end() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        let taken = rig.guest.transmit.available_index();
        let bases = rig.guest.pause().unwrap();
        assert_eq!(bases[1], taken, "the device took chains that it did not return");
        assert_eq!(rig.guest.transmit.used_index().unwrap(), taken);
        host.write_all(b"written while paused").unwrap();
        let mut late = rig.greet(81).unwrap();
        assert_eq!(
            rig.guest.receive_within(Duration::from_millis(100)).unwrap(),
            None
        );
        rig.guest.resume().unwrap();
        assert_eq!(
            guest.read_exact(&mut rig.guest, 20).unwrap(),
            b"written while paused"
        );
        let accepted = Stream::accept(&mut rig.guest).unwrap();
        assert_eq!(accepted.ports.guest, 81);
        assert_eq!(read_ok(&mut late).unwrap(), accepted.ports.host);
    }
}

#[test]
fn a_pause_in_the_middle_of_a_stream_loses_and_repeats_nothing() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (host, mut guest) = rig.connect(80).unwrap();
        let data: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let mut writer = host.try_clone().unwrap();
        let sent = data.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent));
        let mut received = Vec::new();
        while received.len() < data.len() {
            received.extend(guest.read(&mut rig.guest).unwrap());
            rig.guest.pause().unwrap();
            rig.guest.resume().unwrap();
        }
        writing.join().unwrap().unwrap();
        assert!(received == data, "the bytes differ");
    }
}

#[test]
fn a_deadline_stands_still_while_the_machine_is_paused() {
    let mut rig = Rig::new(Way::InProcess).unwrap();
    let (host, mut guest) = rig.connect(80).unwrap();
    drop(host);
    rig.guest.expect(guest.ports, Op::Shutdown).unwrap();
    rig.guest.pause().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    rig.guest.resume().unwrap();
    // The guest answers in time by its own clock.
    assert_eq!(
        rig.guest.receive_within(Duration::from_millis(300)).unwrap(),
        None
    );
    let rst = guest.header(&rig.guest, Op::Rst);
    rig.guest.send(&rst, &[]).unwrap();
    assert_eq!(rig.guest.receive_within(Duration::from_secs(3)).unwrap(), None);
}

#[test]
fn a_guest_that_goes_on_with_another_device_is_told_to_forget_its_connections() {
    let dir = tempfile::tempdir().unwrap();
    let device = |name: &str| Vsock::new(VsockConfig::new(CID, dir.path().join(name))).unwrap();
    let options = Options {
        event_queue: true,
        ..Options::linux(CID)
    };
    let mut guest = Guest::boot(InProcess::new(device("old")), options).unwrap();
    let area = guest.memory.allocate(4096).unwrap();
    let event = guest.event.as_mut().unwrap();
    let buffer = cove_tests::driver::queue::Buffer {
        address: area,
        len: 4,
        writable: true,
    };
    event.add(&[buffer]).unwrap();
    event.publish().unwrap();
    let mut host = UnixStream::connect(dir.path().join("old")).unwrap();
    host.write_all(b"CONNECT 80\n").unwrap();
    Stream::accept(&mut guest).unwrap();
    assert_eq!(
        guest.event.as_mut().unwrap().take_used().unwrap(),
        None,
        "a fresh device has nothing to announce"
    );

    guest
        .memory
        .memory
        .write_obj(u32::MAX, GuestAddress(area))
        .unwrap();
    let bases = guest.pause().unwrap();
    guest.resume_on(InProcess::new(device("new")), &bases).unwrap();
    let used = guest
        .event
        .as_mut()
        .unwrap()
        .take_used()
        .unwrap()
        .expect("no event came");
    assert_eq!(used.written, 4);
    let event: u32 = guest.memory.memory.read_obj(GuestAddress(area)).unwrap();
    assert_eq!(event, 0, "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET");
}

#[test]
fn without_a_reset_message_rings_that_start_anew_are_a_reboot() {
    let dir = tempfile::tempdir().unwrap();
    let device = Vsock::new(VsockConfig::new(CID, dir.path().join("vsock"))).unwrap();
    let socket = dir.path().join("vhost-user");
    let server = vhost_user::serve(device, &socket).unwrap();
    let front_end = VhostUser::connect_without(&socket, 3, VhostUserProtocolFeatures::RESET_DEVICE).unwrap();
    let guest = Guest::boot(front_end, Options::linux(CID)).unwrap();
    let mut rig = Rig {
        guest,
        server: Some(server),
        dir,
    };
    let (mut host, _guest) = rig.connect(80).unwrap();
    rig.guest.reboot().unwrap();
    assert_eq!(read_all(&mut host).unwrap(), b"");
    rig.prove_alive().unwrap();
    // The same front end's pauses are still pauses.
    let (mut host, mut guest) = rig.connect(80).unwrap();
    rig.guest.pause().unwrap();
    rig.guest.resume().unwrap();
    host.write_all(b"still here").unwrap();
    assert_eq!(guest.read_exact(&mut rig.guest, 10).unwrap(), b"still here");
}

#[test]
fn a_front_end_that_leaves_takes_its_connections_along_and_the_next_one_is_served() {
    let mut rig = Rig::new(Way::VhostUser).unwrap();
    for _ in 0..3 {
        let (mut host, _guest) = rig.connect(80).unwrap();
        let socket = rig.dir.path().join("vhost-user");
        // The next one may knock before the first has left.
        let knocking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            VhostUser::connect(&socket, 3)
        });
        std::thread::sleep(Duration::from_millis(50));
        let absent =
            InProcess::new(Vsock::new(VsockConfig::new(CID, rig.dir.path().join("elsewhere"))).unwrap());
        rig.guest = Guest::boot(absent, Options::linux(CID)).unwrap();
        assert_eq!(read_all(&mut host).unwrap(), b"");
        rig.guest = Guest::boot(knocking.join().unwrap().unwrap(), Options::linux(CID)).unwrap();
        rig.prove_alive().unwrap();
    }
}

#[test]
fn the_service_stops_at_once_even_in_the_middle_of_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let device = Vsock::new(VsockConfig::new(CID, dir.path().join("vsock"))).unwrap();
    let socket = dir.path().join("vhost-user");
    let server = vhost_user::serve(device, &socket).unwrap();
    let mut half = UnixStream::connect(&socket).unwrap();
    half.write_all(&[1, 0, 0]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let (sender, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(server.stop()));
    stopped.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(
        !socket.exists() && !dir.path().join("vsock").exists(),
        "sockets are left behind"
    );
    assert_eq!(half.read(&mut [0; 1]).unwrap_or_default(), 0);
}

#[test]
fn garbage_from_a_front_end_ends_its_session_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let device = Vsock::new(VsockConfig::new(CID, dir.path().join("vsock"))).unwrap();
    let socket = dir.path().join("vhost-user");
    let server = vhost_user::serve(device, &socket).unwrap();
    for garbage in [&[0xff; 4096][..], &[0; 12], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let guest = Guest::boot(VhostUser::connect(&socket, 3).unwrap(), Options::linux(CID)).unwrap();
    Rig {
        guest,
        server: Some(server),
        dir,
    }
    .prove_alive()
    .unwrap();
}

#[test]
fn the_configuration_space_holds_the_context_id_and_zeroes_after_it() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let config = rig.guest.transport().config(0, 8).unwrap();
        assert_eq!(config, CID.to_le_bytes());
        assert_eq!(rig.guest.transport().config(4, 8).unwrap(), [0; 8]);
    }
}

#[test]
fn context_ids_that_the_specification_reserves_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for cid in [0, 1, 2, u64::from(u32::MAX), 1 << 32] {
        let result = Vsock::new(VsockConfig::new(cid, dir.path().join("vsock")));
        assert!(matches!(result, Err(VsockError::ReservedCid(refused)) if refused == cid));
    }
}

/// A front end that has negotiated, its device's server, and a started guest's queues to tamper with.
struct Tampering {
    front_end: VhostUser,
    guest: Guest,
    _server: vhost_user::Server,
    _dir: tempfile::TempDir,
}

/// The guest's queues are laid out, on a device of its own; the front end's device has none yet.
fn tampering() -> Tampering {
    let dir = tempfile::tempdir().unwrap();
    let other = Vsock::new(VsockConfig::new(CID, dir.path().join("other"))).unwrap();
    let guest = Guest::boot(InProcess::new(other), Options::linux(CID)).unwrap();
    let device = Vsock::new(VsockConfig::new(CID, dir.path().join("vsock"))).unwrap();
    let socket = dir.path().join("vhost-user");
    let server = vhost_user::serve(device, &socket).unwrap();
    let front_end = VhostUser::connect(&socket, 3).unwrap();
    Tampering {
        front_end,
        guest,
        _server: server,
        _dir: dir,
    }
}

#[test]
fn a_started_rings_configuration_is_frozen() {
    let mut setup = tampering();
    setup.guest.pause().unwrap();
    let queues = [&setup.guest.receive, &setup.guest.transmit];
    let features = setup.front_end.features().unwrap();
    setup
        .front_end
        .start(features & !(1 << 28), &setup.guest.memory, &queues)
        .unwrap();
    let front_end = setup.front_end.front_end();
    let elsewhere = VringConfigData {
        queue_max_size: 128,
        queue_size: 128,
        ..VringConfigData::default()
    };
    for ring in 0..2 {
        assert!(front_end.set_vring_num(ring, 64).is_err());
        assert!(front_end.set_vring_base(ring, 5).is_err());
        assert!(front_end.set_vring_addr(ring, &elsewhere).is_err());
    }
    assert!(front_end.set_features(features).is_err());
    // Once stopped, all of it may change.
    front_end.get_vring_base(0).unwrap();
    front_end.set_vring_num(0, 64).unwrap();
    front_end.set_vring_base(0, 5).unwrap();
}

#[test]
fn impossible_rings_and_features_are_refused() {
    let mut setup = tampering();
    let region = setup.guest.memory.memory.iter().next().unwrap();
    let mapping = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
    let front_end = setup.front_end.front_end();
    front_end.set_mem_table(&[mapping]).unwrap();
    for size in [0, 3, 2048, u16::MAX] {
        assert!(front_end.set_vring_num(0, size).is_err(), "{size}");
    }
    assert!(front_end.set_features(1 << 50).is_err());
    // Ring messages need VHOST_USER_F_PROTOCOL_FEATURES.
    front_end.set_features(FEATURE_VERSION_1 | 1 << 30).unwrap();
    let at = |address| VringConfigData {
        desc_table_addr: address,
        used_ring_addr: mapping.userspace_addr,
        avail_ring_addr: mapping.userspace_addr,
        ..VringConfigData::default()
    };
    let end = mapping.userspace_addr + mapping.memory_size;
    for address in [16, end, mapping.userspace_addr - 16] {
        assert!(front_end.set_vring_addr(0, &at(address)).is_err(), "{address:#x}");
    }
    // Within memory, but the table reaches beyond its end: refused when the ring is to be started.
    front_end.set_vring_num(0, 128).unwrap();
    front_end.set_vring_addr(0, &at(end - 16)).unwrap();
    front_end.set_vring_num(1, 128).unwrap();
    front_end.set_vring_addr(1, &at(mapping.userspace_addr)).unwrap();
    for (ring, queue) in [(0, &setup.guest.receive), (1, &setup.guest.transmit)] {
        front_end.set_vring_kick(ring, &queue.kick.0).unwrap();
    }
    front_end.set_vring_enable(1, true).unwrap();
    assert!(front_end.set_vring_enable(0, true).is_err());
}

#[test]
fn memory_may_be_mapped_anew_under_running_connections() {
    let mut rig = Rig::new(Way::VhostUser).unwrap();
    let (mut host, mut guest) = rig.connect(80).unwrap();
    let region = rig.guest.memory.memory.iter().next().unwrap();
    let mapping = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
    rig.guest.transport().remap(&[mapping]).unwrap();
    host.write_all(b"through the new mapping").unwrap();
    assert_eq!(
        guest.read_exact(&mut rig.guest, 23).unwrap(),
        b"through the new mapping"
    );
}
