//! Guests whose packets break the rules: the device resets the connection at fault and takes no other down with it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::io::{Read, Write};
use std::time::Duration;

use cove_tests::driver::queue::Buffer;
use cove_tests::driver::rig::{CID, Rig, WAYS, Way, read_all};
use cove_tests::driver::vsock::{BUF_ALLOC, Guest, Options, Ports};
use cove_virtio::vsock::packet::{Header, Op};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vm_memory::{Bytes, GuestAddress};

const NOBODY: Ports = Ports { guest: 11, host: 12 };

/// Sends a header that the device must answer with a RST.
fn assert_reset(guest: &mut Guest, header: Header) {
    guest.send(&header, &[]).unwrap();
    let ports = Ports {
        guest: header.src_port,
        host: header.dst_port,
    };
    let answer = guest.receive_for(ports).unwrap();
    assert!(answer.is(Op::Rst), "{header:?} was answered with {answer:?}");
}

/// Sends a header that the device must not answer.
fn assert_ignored(guest: &mut Guest, header: Header) {
    guest.send(&header, &[]).unwrap();
    assert_eq!(
        guest.receive_within(Duration::from_millis(50)).unwrap(),
        None,
        "{header:?} was answered"
    );
}

#[test]
fn packets_without_a_connection_are_reset_unless_they_are_resets() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        for op in [
            Op::Response,
            Op::Shutdown,
            Op::Rw,
            Op::CreditUpdate,
            Op::CreditRequest,
        ] {
            let header = rig.guest.header(NOBODY, op);
            assert_reset(&mut rig.guest, header);
        }
        let rst = rig.guest.header(NOBODY, Op::Rst);
        assert_ignored(&mut rig.guest, rst);
        rig.prove_alive().unwrap();
    }
}

#[test]
fn unknown_operations_and_types_are_reset() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        for op in [0, 8, u16::MAX] {
            let header = Header {
                op,
                ..rig.guest.header(NOBODY, Op::Rw)
            };
            assert_reset(&mut rig.guest, header);
        }
        for kind in [0, 2, u16::MAX] {
            let header = Header {
                kind,
                ..rig.guest.header(NOBODY, Op::Request)
            };
            assert_reset(&mut rig.guest, header);
        }
        rig.prove_alive().unwrap();
    }
}

#[test]
fn packets_with_foreign_addresses_are_dropped() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let _listener = rig.listen(NOBODY.host).unwrap();
        let request = rig.guest.header(NOBODY, Op::Request);
        for dst_cid in [0, 1, CID, u64::MAX, 1 << 32 | 2] {
            assert_ignored(&mut rig.guest, Header { dst_cid, ..request });
        }
        for src_cid in [0, 2, CID + 1, 1 << 32 | CID] {
            assert_ignored(&mut rig.guest, Header { src_cid, ..request });
        }
        rig.prove_alive().unwrap();
    }
}

#[test]
fn packets_out_of_order_reset_their_connection_and_no_other() {
    for way in WAYS {
        for op in [0, Op::Request as u16, Op::Response as u16, 99] {
            let mut rig = Rig::new(way).unwrap();
            let (mut innocent, mut bystander) = rig.connect(81).unwrap();
            let (mut host, guest) = rig.connect(80).unwrap();
            let header = Header {
                op,
                ..rig.guest.header(guest.ports, Op::Rw)
            };
            assert_reset(&mut rig.guest, header);
            assert_eq!(read_all(&mut host).unwrap(), b"");
            innocent.write_all(b"here").unwrap();
            assert_eq!(bystander.read_exact(&mut rig.guest, 4).unwrap(), b"here");
        }
    }
}

#[test]
fn more_than_the_granted_credit_resets_the_connection() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (host, guest) = rig.connect(80).unwrap();
        let header = Header {
            len: 32 * 1024,
            ..rig.guest.header(guest.ports, Op::Rw)
        };
        // The host does not read; the device passes on what the socket holds and keeps what it granted.
        for _ in 0..64 {
            rig.guest.send(&header, &vec![7; 32 * 1024]).unwrap();
        }
        rig.guest.expect(guest.ports, Op::Rst).unwrap();
        drop(host);
        // What was sent after that is for no connection.
        for packet in rig.guest.catch_up().unwrap() {
            assert!(packet.is(Op::Rst), "{packet:?}");
        }
        rig.prove_alive().unwrap();
    }
}

#[test]
fn forwarding_what_was_never_sent_resets_the_connection() {
    for way in WAYS {
        for fwd_cnt in [1, BUF_ALLOC, u32::MAX / 2] {
            let mut rig = Rig::new(way).unwrap();
            let (_host, guest) = rig.connect(80).unwrap();
            let header = Header {
                fwd_cnt,
                ..rig.guest.header(guest.ports, Op::CreditUpdate)
            };
            assert_reset(&mut rig.guest, header);
        }
    }
}

#[test]
fn a_receive_buffer_of_zero_or_of_everything_stalls_or_floods_nobody() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, guest) = rig.connect(80).unwrap();
        let none = Header {
            buf_alloc: 0,
            ..rig.guest.header(guest.ports, Op::CreditUpdate)
        };
        rig.guest.send(&none, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        host.write_all(b"wait").unwrap();
        let first = rig.guest.receive_for(guest.ports).unwrap();
        assert!(first.is(Op::CreditRequest), "{first:?}");
        let all = Header {
            buf_alloc: u32::MAX,
            ..rig.guest.header(guest.ports, Op::CreditUpdate)
        };
        rig.guest.send(&all, &[]).unwrap();
        assert_eq!(rig.guest.expect(guest.ports, Op::Rw).unwrap().payload, b"wait");
    }
}

#[test]
fn a_length_beyond_the_chain_resets_the_connection() {
    for way in WAYS {
        for len in [6, 4096, u32::MAX] {
            let mut rig = Rig::new(way).unwrap();
            let (mut host, guest) = rig.connect(80).unwrap();
            let header = Header {
                len,
                ..rig.guest.header(guest.ports, Op::Rw)
            };
            rig.guest.send(&header, b"five!").unwrap();
            rig.guest.expect(guest.ports, Op::Rst).unwrap();
            assert_eq!(
                read_all(&mut host).unwrap(),
                b"",
                "a malformed packet's payload reached the host"
            );
        }
    }
}

#[test]
fn a_guest_that_asks_without_listening_is_held_back_and_loses_nothing() {
    for way in WAYS {
        let options = Options {
            receive_buffers: 1,
            ..Options::linux(CID)
        };
        let mut rig = Rig::with(way, options, |_| {}).unwrap();
        // Each is answered with a RST, for which there is one buffer. The device remembers a bounded number and stops
        // taking more; with the buffer posted again and again, every answer comes.
        let count = 1000u32;
        let mut answered = 0;
        for port in 0..count {
            let header = rig.guest.header(Ports { guest: port, host: 9 }, Op::Rw);
            rig.guest.send(&header, &[]).unwrap();
        }
        while answered < count {
            let packet = rig
                .guest
                .receive_within(Duration::from_secs(5))
                .unwrap()
                .expect("an answer is missing");
            assert!(packet.is(Op::Rst));
            assert_eq!(packet.header.dst_port, answered);
            answered += 1;
        }
        rig.prove_alive().unwrap();
    }
}

#[test]
fn no_bytes_whatsoever_take_the_device_down() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let _listener = rig.listen(3).unwrap();
        let mut runner = TestRunner::new_with_rng(Config::with_cases(3000), deterministic());
        // Small numbers, so that ports, operations and addresses are hit often enough to reach every state.
        let header = (
            prop_oneof![8 => Just(CID), 1 => any::<u64>()],
            prop_oneof![8 => Just(2u64), 1 => any::<u64>()],
            (0u32..4, 0u32..5),
            prop_oneof![4 => 0u32..300, 1 => any::<u32>()],
            prop_oneof![9 => Just(1u16), 1 => any::<u16>()],
            0u16..9,
            (
                0u32..5,
                any::<u32>(),
                prop_oneof![3 => Just(0u32), 1 => any::<u32>()],
            ),
            proptest::collection::vec(1u32..100, 0..5),
        );
        let rig_cell = std::cell::RefCell::new(&mut rig);
        runner
            .run(
                &header,
                |(src_cid, dst_cid, ports, len, kind, op, (flags, buf_alloc, fwd_cnt), cuts)| {
                    let header = Header {
                        src_cid,
                        dst_cid,
                        src_port: ports.0,
                        dst_port: ports.1,
                        len,
                        kind,
                        op,
                        flags,
                        buf_alloc,
                        fwd_cnt,
                    };
                    let guest = &mut rig_cell.borrow_mut().guest;
                    guest.send_cut(&header, &[9; 256], &cuts).unwrap();
                    while guest.receive_within(Duration::ZERO).unwrap().is_some() {}
                    guest.reclaim().unwrap();
                    Ok(())
                },
            )
            .unwrap();
        rig.guest.catch_up().unwrap();
        rig.prove_alive().unwrap();
    }
}

#[test]
fn a_header_that_changes_while_it_is_read_is_harmless() {
    let mut rig = Rig::new(Way::VhostUser).unwrap();
    let (mut host, mut guest) = rig.connect(80).unwrap();
    let area = rig.guest.memory.allocate(4096).unwrap();
    let memory = rig.guest.memory.memory.clone();
    let honest = Header {
        len: 100,
        ..guest.header(&rig.guest, Op::Rw)
    };
    let lie = Header {
        len: u32::MAX,
        ..honest
    };
    memory
        .write_slice(&honest.to_bytes(), GuestAddress(area))
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flipping = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                memory.write_slice(&lie.to_bytes(), GuestAddress(area)).unwrap();
                memory
                    .write_slice(&honest.to_bytes(), GuestAddress(area))
                    .unwrap();
            }
        });
        let mut received = [0; 4096];
        host.set_nonblocking(true).unwrap();
        for _ in 0..2000 {
            rig.guest
                .send_raw(&[Buffer {
                    address: area,
                    len: 144,
                    writable: false,
                }])
                .unwrap();
            // Whole packets of 100 bytes, until one that lied ends the connection.
            if let Ok(count) = host.read(&mut received) {
                assert_eq!(count % 100, 0);
                if count == 0 {
                    break;
                }
            }
            while rig.guest.receive_within(Duration::ZERO).unwrap().is_some() {}
            while rig.guest.transmit.take_used().unwrap().is_none() {
                std::thread::yield_now();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        flipping.join().unwrap();
    });
    guest.reset = true;
    rig.guest.catch_up().unwrap();
    rig.prove_alive().unwrap();
}

fn deterministic() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}
