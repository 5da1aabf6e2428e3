//! What the socket device promises to guests and host programs that behave, over both transports.

#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cove_tests::driver::rig::{CID, Rig, WAYS, read_all, read_ok};
use cove_tests::driver::stream::Stream;
use cove_tests::driver::vsock::{BUF_ALLOC, Options, PATIENCE, Ports};
use cove_virtio::vsock::packet::{Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use cove_virtio::vsock::{Vsock, VsockConfig};

/// Bytes that no accident reproduces.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|place| u8::try_from((place * 31 + place / 251) % 256).unwrap_or_default())
        .collect()
}

#[test]
fn bytes_sent_along_with_the_greeting_are_not_lost() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let mut host = UnixStream::connect(rig.host_socket()).unwrap();
        host.write_all(b"CONN").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        host.write_all(b"ECT 80\nGET / HTTP/1.1\r\n").unwrap();
        let mut guest = Stream::accept(&mut rig.guest).unwrap();
        host.write_all(b"\r\n").unwrap();
        assert_eq!(read_ok(&mut host).unwrap(), guest.ports.host);
        assert_eq!(
            guest.read_exact(&mut rig.guest, 18).unwrap(),
            b"GET / HTTP/1.1\r\n\r\n"
        );
    }
}

#[test]
fn a_host_program_sees_the_end_when_the_guest_refuses() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let mut host = rig.greet(80).unwrap();
        host.write_all(b"early").unwrap();
        let request = rig.guest.receive_within(Duration::from_secs(5)).unwrap().unwrap();
        let ports = Ports {
            guest: 80,
            host: request.header.src_port,
        };
        let rst = rig.guest.header(ports, Op::Rst);
        rig.guest.send(&rst, &[]).unwrap();
        assert_eq!(read_all(&mut host).unwrap(), b"");
    }
}

#[test]
fn host_programs_are_turned_away_while_no_guest_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vsock");
    let _device = Vsock::new(VsockConfig::new(CID, &path)).unwrap();
    let mut host = UnixStream::connect(&path).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(read_all(&mut host).unwrap(), b"");
}

#[test]
fn something_else_than_a_greeting_is_turned_away() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let mut host = UnixStream::connect(rig.host_socket()).unwrap();
        host.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(read_all(&mut host).unwrap(), b"");
        rig.prove_alive().unwrap();
    }
}

#[test]
fn the_guest_reaches_listeners_on_the_host_and_is_reset_where_nobody_listens() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.dial(1000, 5000).unwrap();
        guest.write_all(&mut rig.guest, b"hello").unwrap();
        let mut hello = [0; 5];
        host.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        host.write_all(b"and back").unwrap();
        assert_eq!(guest.read_exact(&mut rig.guest, 8).unwrap(), b"and back");

        let nobody = Ports {
            guest: 1000,
            host: 5001,
        };
        let request = rig.guest.header(nobody, Op::Request);
        rig.guest.send(&request, &[]).unwrap();
        rig.guest.expect(nobody, Op::Rst).unwrap();
    }
}

#[test]
fn a_listener_with_a_full_backlog_gets_the_connection_later() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let path = rig.dir.path().join("vsock_5000");
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        );
        let socket = socket.unwrap();
        rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        // The one place in the backlog is taken.
        let first = UnixStream::connect(&path).unwrap();
        let ports = Ports { guest: 1, host: 5000 };
        let request = rig.guest.header(ports, Op::Request);
        rig.guest.send(&request, &[]).unwrap();
        assert!(
            rig.guest
                .receive_within(Duration::from_millis(100))
                .unwrap()
                .is_none()
        );
        rustix::net::accept(&socket).unwrap();
        rig.guest.expect(ports, Op::Response).unwrap();
        drop(first);
    }
}

#[test]
fn a_host_that_is_done_sending_still_hears_the_guest() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        host.write_all(b"request").unwrap();
        host.shutdown(Shutdown::Write).unwrap();
        assert_eq!(guest.read_to_end(&mut rig.guest).unwrap(), b"request");
        assert_eq!(guest.peer_shutdown, SHUTDOWN_SEND);
        std::thread::sleep(Duration::from_millis(50));
        guest.write_all(&mut rig.guest, b"a late answer").unwrap();
        guest.shutdown(&mut rig.guest, SHUTDOWN_BOTH).unwrap();
        assert_eq!(read_all(&mut host).unwrap(), b"a late answer");
        rig.guest.expect(guest.ports, Op::Rst).unwrap();
    }
}

#[test]
fn a_guest_that_is_done_sending_still_hears_the_host() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        guest.write_all(&mut rig.guest, b"request").unwrap();
        guest.shutdown(&mut rig.guest, SHUTDOWN_SEND).unwrap();
        assert_eq!(read_all(&mut host).unwrap(), b"request");
        host.write_all(b"a late answer").unwrap();
        drop(host);
        assert_eq!(guest.read_to_end(&mut rig.guest).unwrap(), b"a late answer");
        while guest.peer_shutdown != SHUTDOWN_BOTH {
            guest.take_in(&mut rig.guest).unwrap();
        }
    }
}

#[test]
fn a_host_cannot_write_to_a_guest_that_is_done_receiving() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        guest.shutdown(&mut rig.guest, SHUTDOWN_RECEIVE).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Err(error) = host.write_all(b"x") {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                break;
            }
            assert!(Instant::now() < deadline, "writes go on succeeding");
        }
        guest.write_all(&mut rig.guest, b"still talking").unwrap();
        guest.shutdown(&mut rig.guest, SHUTDOWN_BOTH).unwrap();
        assert_eq!(read_all(&mut host).unwrap(), b"still talking");
    }
}

#[test]
fn a_host_that_is_gone_is_announced_and_its_port_freed_with_or_without_the_guests_rst() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (host, guest) = rig.connect(80).unwrap();
        let before = Instant::now();
        drop(host);
        let shutdown = rig.guest.expect(guest.ports, Op::Shutdown).unwrap();
        assert_eq!(shutdown.header.flags, SHUTDOWN_BOTH);
        // No RST from the guest: the device ends the wait itself, after about two seconds.
        rig.guest.expect(guest.ports, Op::Rst).unwrap();
        let waited = before.elapsed();
        assert!(waited >= Duration::from_millis(1900), "{waited:?}");
        rig.prove_alive().unwrap();
    }
}

/// Timers once went first: where the device's thread came late to both, a guest that had answered was reset as one that
/// had not.
#[test]
fn an_answer_that_is_there_when_its_time_is_up_came_in_time() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (host, guest) = rig.connect(80).unwrap();
        drop(host);
        rig.guest.expect(guest.ports, Op::Shutdown).unwrap();
        let rst = rig.guest.header(guest.ports, Op::Rst);
        rig.guest.send_unannounced(&rst).unwrap();
        // The device waits for it for two seconds, and then looks.
        let said = rig.guest.receive_within(Duration::from_secs(3)).unwrap();
        assert!(said.is_none(), "{said:?}");
        rig.prove_alive().unwrap();
    }
}

/// The end of what it had sent once stood before the news, and a guest that took nothing waited for a host that was
/// gone.
#[test]
fn a_host_that_is_gone_is_announced_to_a_guest_that_takes_nothing_and_what_it_sent_can_still_be_read() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        host.set_nonblocking(true).unwrap();
        let data = pattern(16 * BUF_ALLOC as usize);
        let (mut sent, mut refused) = (0, 0);
        while refused < 20 {
            if let Ok(taken) = host.write(&data[sent..]) {
                (sent, refused) = (sent + taken, 0);
            } else {
                refused += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(
            sent > BUF_ALLOC as usize,
            "{sent} bytes are fewer than the guest has room for"
        );
        drop(host);
        while guest.peer_shutdown == 0 {
            guest.take_in(&mut rig.guest).unwrap();
        }
        assert_eq!(guest.peer_shutdown, SHUTDOWN_RECEIVE);
        let received = guest.read_to_end(&mut rig.guest).unwrap();
        assert!(received == data[..sent], "the bytes differ");
        assert_eq!(guest.peer_shutdown, SHUTDOWN_BOTH);
    }
}

#[test]
fn what_a_guest_sent_before_it_closed_reaches_a_slow_host() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        let data = pattern(BUF_ALLOC as usize);
        guest.write_all(&mut rig.guest, &data).unwrap();
        guest.shutdown(&mut rig.guest, SHUTDOWN_BOTH).unwrap();
        // The guest may forget the connection at once, and even reuse its ports.
        rig.guest.expect(guest.ports, Op::Rst).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(read_all(&mut host).unwrap() == data, "the bytes differ");
    }
}

#[test]
fn a_request_is_withdrawn_when_the_host_program_leaves() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let host = rig.greet(80).unwrap();
        let request = rig.guest.receive_within(Duration::from_secs(5)).unwrap().unwrap();
        drop(host);
        let ports = Ports {
            guest: 80,
            host: request.header.src_port,
        };
        rig.guest.expect(ports, Op::Rst).unwrap();
    }
}

#[test]
fn a_guest_that_does_not_read_is_never_sent_more_than_linux_takes() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, guest) = rig.connect(80).unwrap();
        host.set_nonblocking(true).unwrap();
        let (mut packets, mut bytes, mut written) = (0u32, 0u32, 0);
        // Writes of a few bytes, as fast as the device takes them, so that each could become a packet; until it takes
        // no more, and has nothing more to say.
        let (deadline, mut silent) = (Instant::now() + 3 * PATIENCE, 0);
        while silent < 20 {
            assert!(Instant::now() < deadline, "the device was never held back");
            let taken = host.write(&[1, 2, 3]);
            written += taken.as_ref().unwrap_or(&0);
            let patience = if taken.is_ok() { 0 } else { 20 };
            let packet = rig.guest.receive_within(Duration::from_millis(patience)).unwrap();
            silent = if taken.is_ok() || packet.is_some() {
                0
            } else {
                silent + 1
            };
            if let Some(packet) = packet
                && !packet.is(Op::CreditRequest)
            {
                assert!(packet.is(Op::Rw), "{packet:?}");
                packets += 1;
                bytes += packet.header.len;
            }
            // SKB_TRUESIZE(0) is 576; the strictest kernels add the payload.
            assert!(
                packets * 576 + bytes <= BUF_ALLOC,
                "{packets} packets, {bytes} bytes"
            );
        }
        assert!(
            (bytes as usize) < written,
            "the device was never held back, so nothing was shown"
        );
        // The guest reads it all, and the rest follows in packets that are fewer than the writes were.
        let update = Header {
            fwd_cnt: bytes,
            ..rig.guest.header(guest.ports, Op::CreditUpdate)
        };
        rig.guest.send(&update, &[]).unwrap();
        let before = packets;
        while (bytes as usize) < written {
            let packet = rig.guest.receive_for(guest.ports).unwrap();
            if packet.is(Op::Rw) {
                packets += 1;
                bytes += packet.header.len;
            }
        }
        assert!(
            packets - before < 100,
            "{} packets for the rest",
            packets - before
        );
    }
}

#[test]
fn a_sender_without_credit_asks_for_it() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, guest) = rig.connect(80).unwrap();
        host.set_nonblocking(true).unwrap();
        while host.write(&pattern(4096)).is_ok() {}
        let mut bytes = 0;
        loop {
            let packet = rig.guest.receive_for(guest.ports).unwrap();
            match Op::try_from(packet.header.op) {
                Ok(Op::Rw) => bytes += packet.header.len,
                Ok(Op::CreditRequest) => break,
                other => panic!("unexpected {other:?}"),
            }
            let _ = host.write(&pattern(4096));
        }
        let update = Header {
            fwd_cnt: bytes,
            ..rig.guest.header(guest.ports, Op::CreditUpdate)
        };
        rig.guest.send(&update, &[]).unwrap();
        rig.guest.expect(guest.ports, Op::Rw).unwrap();
    }
}

/// Each stall once had a timer of its own that did not know one stall from the next, and a stream that was always
/// waiting for credit, if never for long, asked for it all the time.
#[test]
fn a_stream_that_gets_its_credit_in_time_does_not_ask_for_it() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, guest) = rig.connect(80).unwrap();
        let total = 16 * 1024 * 1024;
        let writing = std::thread::spawn(move || host.write_all(&vec![7; total]).map(|()| host));
        let (mut received, mut told, mut questions, mut late) = (0u32, 0, 0, 0);
        let mut last = Instant::now();
        while (received as usize) < total {
            let packet = rig.guest.receive_for(guest.ports).unwrap();
            questions += u32::from(packet.is(Op::CreditRequest));
            received += packet.header.len;
            // As late as Linux gives it, and a guest with other things to do.
            if received - told > BUF_ALLOC - 64 * 1024 || packet.is(Op::CreditRequest) {
                std::thread::sleep(Duration::from_millis(5));
                let update = Header {
                    fwd_cnt: received,
                    ..rig.guest.header(guest.ports, Op::CreditUpdate)
                };
                let sending = Instant::now();
                rig.guest.send(&update, &[]).unwrap();
                told = received;
                // On a busy computer.
                late += u32::from(last.elapsed() > Duration::from_millis(15));
                last = sending;
            }
        }
        assert!(
            questions <= late,
            "{questions} questions, credit was late {late} times"
        );
        writing.join().unwrap().unwrap();
    }
}

#[test]
fn a_host_that_does_not_read_holds_the_guest_back_and_gets_everything_in_the_end() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (mut host, mut guest) = rig.connect(80).unwrap();
        let data = pattern(3 * 1024 * 1024);
        let mut sent = 0;
        // As much as the device lets us: the socket's buffer and its own.
        while guest.credit() > 0 {
            let now = (guest.credit() as usize).min(50_000);
            guest.write_all(&mut rig.guest, &data[sent..sent + now]).unwrap();
            sent += now;
            while let Ok(Some(packet)) = rig.guest.receive_within(Duration::from_millis(20)) {
                assert!(packet.is(Op::CreditUpdate), "{packet:?}");
                guest.update(&packet.header);
            }
        }
        assert!(sent < 1024 * 1024, "{sent} bytes are buffered somewhere");
        let expected = data.clone();
        let reader = std::thread::spawn(move || read_all(&mut host).unwrap() == expected);
        guest.write_all(&mut rig.guest, &data[sent..]).unwrap();
        guest.shutdown(&mut rig.guest, SHUTDOWN_SEND).unwrap();
        assert!(reader.join().unwrap(), "the bytes differ");
    }
}

#[test]
fn a_question_for_credit_is_answered() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let (_host, mut guest) = rig.connect(80).unwrap();
        let question = guest.header(&rig.guest, Op::CreditRequest);
        rig.guest.send(&question, &[]).unwrap();
        let answer = rig.guest.receive_for(guest.ports).unwrap();
        assert!(answer.is(Op::CreditUpdate));
        assert_eq!(answer.header.buf_alloc, cove_virtio::vsock::BUF_ALLOC);
    }
}

#[test]
fn streams_are_intact_both_ways_at_once_with_and_without_event_idx() {
    for way in WAYS {
        for event_idx in [true, false] {
            let mut rig = Rig::with(
                way,
                Options {
                    event_idx,
                    ..Options::linux(CID)
                },
                |_| {},
            )
            .unwrap();
            let (mut host, mut guest) = rig.connect(80).unwrap();
            let (down, up) = (pattern(2_345_678), pattern(1_234_567));
            let mut writer = host.try_clone().unwrap();
            let sent = down.clone();
            let writing = std::thread::spawn(move || {
                for (place, chunk) in sent.chunks(7001).enumerate() {
                    let cut = place % chunk.len();
                    writer.write_all(&chunk[..cut]).unwrap();
                    writer.write_all(&chunk[cut..]).unwrap();
                }
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let expected = up.clone();
            let reading = std::thread::spawn(move || read_all(&mut host).unwrap() == expected);
            let mut received = Vec::new();
            for chunk in up.chunks(50_001) {
                guest.write_all(&mut rig.guest, chunk).unwrap();
                received.extend(guest.read(&mut rig.guest).unwrap());
            }
            guest.shutdown(&mut rig.guest, SHUTDOWN_SEND).unwrap();
            received.extend(guest.read_to_end(&mut rig.guest).unwrap());
            writing.join().unwrap();
            assert!(received == down, "the bytes to the guest differ");
            assert!(reading.join().unwrap(), "the bytes to the host differ");
        }
    }
}

#[test]
fn no_stream_starves_among_three_hundred() {
    for way in WAYS {
        let mut rig = Rig::new(way).unwrap();
        let mut hosts = Vec::new();
        let mut received = std::collections::HashMap::new();
        for _ in 0..300 {
            let (host, guest) = rig.connect(80).unwrap();
            host.set_nonblocking(true).unwrap();
            received.insert(guest.ports.host, 0u32);
            hosts.push(host);
        }
        // The first can send without end; each of the others has 16 KiB to send.
        for host in &mut hosts {
            assert_eq!(host.write(&pattern(16 * 1024)).unwrap(), 16 * 1024);
        }
        let mut greedy = &hosts[0];
        let plenty = pattern(64 * 1024);
        let mut total = 0u32;
        while received.values().any(|bytes| *bytes < 16 * 1024) {
            let _ = greedy.write(&plenty);
            let packet = rig
                .guest
                .receive_within(Duration::from_secs(5))
                .unwrap()
                .expect("a stream starves");
            assert!(packet.is(Op::Rw), "{packet:?}");
            let bytes = received.get_mut(&packet.header.src_port).unwrap();
            *bytes += packet.header.len;
            total += packet.header.len;
            // Credit for the greedy one keeps it going.
            let ports = Ports {
                guest: 80,
                host: packet.header.src_port,
            };
            let update = Header {
                fwd_cnt: *bytes,
                ..rig.guest.header(ports, Op::CreditUpdate)
            };
            rig.guest.send(&update, &[]).unwrap();
        }
        // While 299 others sent 16 KiB each, the greedy one had no more than its turns.
        let greedy = received.values().max().unwrap();
        assert!(
            *greedy < total / 4,
            "the greedy stream got {greedy} of {total} bytes"
        );
    }
}

#[test]
fn connections_beyond_the_limit_are_turned_away_on_both_sides() {
    for way in WAYS {
        let mut rig = Rig::with(way, Options::linux(CID), |config: &mut VsockConfig| {
            config.max_connections = 3;
        })
        .unwrap();
        let open: Vec<_> = (0..3).map(|_| rig.connect(80).unwrap()).collect();
        let mut extra = UnixStream::connect(rig.host_socket()).unwrap();
        assert_eq!(read_all(&mut extra).unwrap(), b"");
        let _listener = rig.listen(5000).unwrap();
        let ports = Ports { guest: 1, host: 5000 };
        let request = rig.guest.header(ports, Op::Request);
        rig.guest.send(&request, &[]).unwrap();
        rig.guest.expect(ports, Op::Rst).unwrap();
        // One that goes makes room for another.
        for (host, mut guest) in open {
            drop(host);
            while guest.peer_shutdown != SHUTDOWN_BOTH {
                guest.take_in(&mut rig.guest).unwrap();
            }
        }
        rig.prove_alive().unwrap();
    }
}
