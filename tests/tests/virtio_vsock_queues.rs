//! Chains and queues as drivers may lay them out, and as they may not: a bad chain costs itself, a broken queue asks
//! for a reset.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::io::Read;
use std::time::Duration;

use cove_tests::driver::event;
use cove_tests::driver::queue::{Buffer, DESC_INDIRECT, DESC_NEXT, Descriptor};
use cove_tests::driver::rig::{CID, Rig, WAYS, read_all};
use cove_tests::driver::vsock::{Guest, Options};
use cove_virtio::vsock::packet::{HEADER_SIZE, Header, Op};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vm_memory::{Bytes, GuestAddress};

#[test]
fn a_header_may_be_spread_over_any_descriptors() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        let mut runner = TestRunner::new_with_rng(Config::with_cases(200), deterministic());
        let cuts = proptest::collection::vec(1u32..60, 0..30);
        let payloads = proptest::collection::vec(any::<u8>(), 1..600);
        let ends = std::cell::RefCell::new((&mut rig, &mut guest, &mut host));
        runner
            .run(&(cuts, payloads), |(cuts, payload)| {
                let (rig, guest, host) = &mut *ends.borrow_mut();
                let header = Header {
                    len: u32::try_from(payload.len()).unwrap(),
                    ..guest.header(&rig.guest, Op::Rw)
                };
                rig.guest.send_cut(&header, &payload, &cuts).unwrap();
                let mut received = vec![0; payload.len()];
                host.read_exact(&mut received).unwrap();
                prop_assert_eq!(received, payload);
                rig.guest.reclaim().unwrap();
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn indirect_descriptors_are_followed() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, guest) = rig.connect(80).unwrap();
        let area = rig.guest.memory.allocate(8192).unwrap();
        let header = Header {
            len: 5,
            ..rig.guest.header(guest.ports, Op::Rw)
        };
        let mut packet = header.to_bytes().to_vec();
        packet.extend(b"hello");
        let memory = &rig.guest.memory.memory;
        memory.write_slice(&packet, GuestAddress(area)).unwrap();
        // Three entries that cut both header and payload.
        let table = area + 4096;
        let cuts = [(0u16, 10u32), (10, 36), (46, 3)];
        for (place, (offset, len)) in cuts.into_iter().enumerate() {
            let flags = if place == 2 { 0 } else { DESC_NEXT };
            let next = u16::try_from(place + 1).unwrap();
            let entry = Descriptor {
                address: area + u64::from(offset),
                len,
                flags,
                next,
            };
            memory
                .write_slice(&entry.to_bytes(), GuestAddress(table + 16 * place as u64))
                .unwrap();
        }
        let indirect = Descriptor {
            address: table,
            len: 48,
            flags: DESC_INDIRECT,
            next: 0,
        };
        offer_raw(&mut rig.guest, &[indirect]);
        let mut received = [0; 5];
        host.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"hello");
    }
}

/// Writes descriptors into the table's last entries, which well-formed traffic does not reach, and offers the first.
fn offer_raw(guest: &mut Guest, descriptors: &[Descriptor]) {
    let first = guest.transmit.size - u16::try_from(descriptors.len()).unwrap();
    for (place, descriptor) in descriptors.iter().enumerate() {
        guest
            .transmit
            .write_descriptor(first + u16::try_from(place).unwrap(), *descriptor)
            .unwrap();
    }
    guest.transmit.offer(first).unwrap();
    guest.transmit.publish().unwrap();
}

#[test]
fn chains_that_hold_no_packet_are_returned_and_nothing_else_happens() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let area = rig.guest.memory.allocate(4096).unwrap();
        let end = rig.guest.memory.end();
        let last = rig.guest.transmit.size - 1;
        let nested = area + 2048;
        let inner = Descriptor {
            address: area,
            len: 64,
            flags: DESC_INDIRECT,
            next: 0,
        };
        rig.guest
            .memory
            .memory
            .write_slice(&inner.to_bytes(), GuestAddress(nested))
            .unwrap();
        let readable = |address, len| Descriptor {
            address,
            len,
            flags: 0,
            next: 0,
        };
        let chains: &[&[Descriptor]] = &[
            // Nothing; too short for a header; to be written instead of read.
            &[readable(area, 0)],
            &[readable(area, 43)],
            &[Descriptor {
                flags: 2,
                ..readable(area, 100)
            }],
            // Outside of memory: before it, after it, across its end, around the end of all addresses.
            &[readable(0, 100)],
            &[readable(end, 100)],
            &[readable(end - 50, 100)],
            &[readable(u64::MAX - 10, 100)],
            &[readable(area, u32::MAX)],
            // To itself; beyond the table; out of an indirect table that is misaligned, nested or outside of memory.
            &[Descriptor {
                flags: DESC_NEXT,
                next: last,
                ..readable(area, 1)
            }],
            &[Descriptor {
                flags: DESC_NEXT,
                next: 60_000,
                ..readable(area, 10)
            }],
            &[Descriptor {
                flags: DESC_INDIRECT,
                ..readable(area, 17)
            }],
            &[Descriptor {
                flags: DESC_INDIRECT,
                ..readable(end, 160)
            }],
            &[Descriptor {
                flags: DESC_INDIRECT,
                ..readable(nested, 16)
            }],
        ];
        for chain in chains {
            rig.guest.settle().unwrap();
            let before = rig.guest.transmit.used_index().unwrap();
            offer_raw(&mut rig.guest, chain);
            let returned = rig.guest.transmit.next_used();
            assert!(returned.is_ok(), "{chain:?}: {returned:?}");
            assert_eq!(
                rig.guest.receive_within(Duration::from_millis(20)).unwrap(),
                None,
                "{chain:?}"
            );
            let after = rig.guest.transmit.used_index().unwrap();
            assert_eq!(after.wrapping_sub(before), 1, "{chain:?} was returned twice");
            rig.prove_alive().unwrap();
        }
    }
}

#[test]
fn a_broken_queue_closes_everything_asks_for_a_reset_and_works_after_it() {
    for way in WAYS {
        type Break = fn(&mut Guest);
        let breaks: &[(u16, Break)] = &[
            // More chains than the queue has entries.
            (1, |guest| {
                let index = guest.transmit.available_index().wrapping_add(500);
                guest.transmit.forge_available_index(index).unwrap();
            }),
            // A head that the table does not have.
            (1, |guest| {
                guest.transmit.offer(5000).unwrap();
                guest.transmit.publish().unwrap();
            }),
        ];
        for (queue, damage) in breaks {
            let mut rig = Rig::new(way).unwrap();
            let (mut host, _guest) = rig.connect(80).unwrap();
            damage(&mut rig.guest);
            let broken = rig.guest.broken(*queue).unwrap();
            assert!(
                event::wait(&[broken], Duration::from_secs(5)).unwrap(),
                "the guest is not told"
            );
            assert_eq!(read_all(&mut host).unwrap(), b"");
            let mut late = std::os::unix::net::UnixStream::connect(rig.host_socket()).unwrap();
            assert_eq!(read_all(&mut late).unwrap(), b"");
            rig.guest.reboot().unwrap();
            rig.prove_alive().unwrap();
        }
    }
}

#[test]
fn useless_receive_buffers_are_returned_empty_and_the_packet_waits_for_a_good_one() {
    for way in WAYS {
        let options = Options {
            receive_buffers: 0,
            ..Options::linux(CID)
        };
        let mut rig = Rig::with(way, options, |_| {}).unwrap();
        let host = rig.greet(80).unwrap();
        let area = rig.guest.memory.allocate(4096).unwrap();
        let end = rig.guest.memory.end();
        let useless = [
            Buffer {
                address: area,
                len: 43,
                writable: true,
            },
            Buffer {
                address: area,
                len: 4096,
                writable: false,
            },
            Buffer {
                address: end - 10,
                len: 4096,
                writable: true,
            },
        ];
        for buffer in useless {
            rig.guest.receive.add(&[buffer]).unwrap();
        }
        rig.guest.receive.publish().unwrap();
        for _ in useless {
            assert_eq!(rig.guest.receive.next_used().unwrap().written, 0);
        }
        // Cut so that header and payload each lie in several descriptors.
        let cuts = [0u32, 20, 40, 100];
        let buffers: Vec<Buffer> = cuts
            .windows(2)
            .map(|cut| Buffer {
                address: area + u64::from(cut[0]),
                len: cut[1] - cut[0],
                writable: true,
            })
            .collect();
        rig.guest.receive.add(&buffers).unwrap();
        rig.guest.receive.publish().unwrap();
        assert_eq!(rig.guest.receive.next_used().unwrap().written, 44);
        let mut bytes = [0; HEADER_SIZE];
        rig.guest
            .memory
            .memory
            .read_slice(&mut bytes, GuestAddress(area))
            .unwrap();
        let request = Header::from_bytes(&bytes);
        assert_eq!((request.op, request.dst_port), (Op::Request as u16, 80));
        drop(host);
    }
}

#[test]
fn descriptor_tables_of_noise_take_nothing_down() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let start = cove_tests::driver::memory::START;
        let end = rig.guest.memory.end();
        let mut runner = TestRunner::new_with_rng(Config::with_cases(1000), deterministic());
        let address = prop_oneof![4 => start..end, 1 => any::<u64>()];
        let descriptor = (address, prop_oneof![0u32..300, any::<u32>()], 0u16..8, 0u16..140);
        let descriptors = proptest::collection::vec(descriptor, 1..8);
        let rig_cell = std::cell::RefCell::new(&mut rig);
        runner
            .run(&descriptors, |descriptors| {
                let descriptors: Vec<Descriptor> = descriptors
                    .into_iter()
                    .map(|(address, len, flags, next)| Descriptor {
                        address,
                        len,
                        flags,
                        next,
                    })
                    .collect();
                let guest = &mut rig_cell.borrow_mut().guest;
                offer_raw(guest, &descriptors);
                let returned = guest.transmit.next_used();
                prop_assert!(returned.is_ok(), "{returned:?}");
                Ok(())
            })
            .unwrap();
        // Buffers of the noise may have overwritten nothing: the device only reads transmitted chains.
        rig.guest.reboot().unwrap();
        rig.prove_alive().unwrap();
    }
}

fn deterministic() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}
