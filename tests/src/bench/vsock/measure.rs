//! The measurements themselves.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cove_virtio::vsock::packet::{Header, Op};
use rustix::event::{PollFd, PollFlags};

use super::Way;
use super::subject::Subject;
use crate::driver::stream::Stream;
use crate::driver::vsock::{BUF_ALLOC, Guest, MAX_PAYLOAD, PATIENCE};

const TRIPS: usize = 20_000;
const WARM_UP: usize = 1_000;

/// Packets that are put into the transmit queue before the device is told.
const BURST: usize = 16;

/// Round trips in microseconds, shortest first.
pub(super) struct RoundTrip(Vec<f64>);

impl RoundTrip {
    pub(super) fn median(&self) -> f64 {
        self.0[TRIPS / 2]
    }

    /// The 99th percentile.
    pub(super) fn late(&self) -> f64 {
        self.0[TRIPS * 99 / 100]
    }
}

/// What became of many connections at once.
pub(super) struct Crowd {
    /// MiB per second, all together.
    pub(super) throughput: f64,
    /// What the least served connection had when half of all bytes had moved, as a share of the mean.
    pub(super) least_share: f64,
    /// Seconds from the first connection's end to the last's.
    pub(super) spread: f64,
}

/// One stream of `total` bytes in writes of `size`; MiB per second.
pub(super) fn stream(subject: &mut Subject, way: Way, size: usize, total: usize) -> Result<f64> {
    match way {
        Way::ToGuest => to_guest(subject, size, total),
        Way::ToHost => to_host(subject, size, total),
    }
}

fn to_guest(subject: &mut Subject, size: usize, total: usize) -> Result<f64> {
    let (mut host, mut stream) = subject.connect(80)?;
    let start = Instant::now();
    let writing = std::thread::spawn(move || -> std::io::Result<UnixStream> {
        let data = vec![7; size];
        for _ in 0..total / size {
            host.write_all(&data)?;
        }
        Ok(host)
    });
    let mut received = 0;
    while received < total {
        let mut now = 0u32;
        subject.guest.receive_each(|header| now += header.len)?;
        if now > 0 {
            received += now as usize;
            // The receiver has read it all, and Linux then says so.
            stream.forward(now);
            let update = stream.header(&subject.guest, Op::CreditUpdate);
            send(&mut subject.guest, &update)?;
        } else {
            ensure!(
                subject.guest.wait(false, PATIENCE)?,
                "nothing came after {received} of {total} bytes"
            );
        }
    }
    let rate = rate(total, start.elapsed());
    writing
        .join()
        .ok()
        .context("the host program panicked")?
        .context("the host program could not write")?;
    Ok(rate)
}

fn to_host(subject: &mut Subject, size: usize, total: usize) -> Result<f64> {
    let (mut host, mut stream) = subject.dial(5000)?;
    let start = Instant::now();
    let reading = std::thread::spawn(move || -> std::io::Result<(usize, Instant)> {
        let mut buffer = vec![0; 256 << 10];
        let mut read = 0;
        while read < total {
            match host.read(&mut buffer)? {
                0 => break,
                count => read += count,
            }
        }
        Ok((read, Instant::now()))
    });
    let guest = &mut subject.guest;
    let mut sent = 0;
    while sent < total {
        let mut burst = 0;
        while sent < total && burst < BURST {
            // A write is cut into packets; the last may be shorter.
            let left = size - sent % size;
            let len = left.min(MAX_PAYLOAD).min(stream.credit() as usize);
            if len == 0 {
                break;
            }
            let header = Header {
                len: u32::try_from(len)?,
                ..stream.header(guest, Op::Rw)
            };
            if !guest.send_stale(&header)? {
                break;
            }
            stream.count_sent(header.len);
            sent += len;
            burst += 1;
        }
        if burst > 0 {
            guest.transmit.publish()?;
        }
        let news = guest.receive_each(|header| stream.update(header))?;
        if burst == 0 && news == 0 {
            let need_room = stream.credit() > 0;
            ensure!(
                guest.wait(need_room, PATIENCE)?,
                "stuck after {sent} of {total} bytes"
            );
        }
    }
    let (read, end) = reading
        .join()
        .ok()
        .context("the host program panicked")?
        .context("the host program could not read")?;
    ensure!(read == total, "the host got {read} of {total} bytes");
    Ok(rate(total, end - start))
}

/// 64 bytes from a host program to the guest and back, one at a time.
pub(super) fn round_trip(subject: &mut Subject) -> Result<RoundTrip> {
    let (mut host, mut stream) = subject.connect(80)?;
    let asking = std::thread::spawn(move || -> std::io::Result<Vec<f64>> {
        let mut message = [7; 64];
        let mut trips = Vec::with_capacity(TRIPS);
        for trip in 0..WARM_UP + TRIPS {
            let start = Instant::now();
            host.write_all(&message)?;
            host.read_exact(&mut message)?;
            if trip >= WARM_UP {
                trips.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(trips)
    });
    let mut answered = 0;
    while answered < (WARM_UP + TRIPS) * 64 {
        let mut now = 0;
        let updates = &mut stream;
        subject.guest.receive_each(|header| {
            now += header.len;
            updates.update(header);
        })?;
        if now > 0 {
            stream.forward(now);
            let answer = Header {
                len: now,
                ..stream.header(&subject.guest, Op::Rw)
            };
            send(&mut subject.guest, &answer)?;
            stream.count_sent(now);
            answered += now as usize;
        } else {
            ensure!(subject.guest.wait(false, PATIENCE)?, "nothing came");
        }
    }
    let mut trips = asking
        .join()
        .ok()
        .context("the host program panicked")?
        .context("the host program got no answer")?;
    trips.sort_by(f64::total_cmp);
    Ok(RoundTrip(trips))
}

/// `count` connections, each with `bytes` to carry to the guest, all at once.
pub(super) fn crowd(subject: &mut Subject, count: usize, bytes: usize) -> Result<Crowd> {
    let mut hosts = Vec::new();
    let mut streams = HashMap::new();
    for _ in 0..count {
        let (host, stream) = subject.connect(80)?;
        host.set_nonblocking(true)?;
        hosts.push(host);
        streams.insert(
            stream.ports.host,
            Member {
                stream,
                received: 0,
                news: 0,
            },
        );
    }
    let start = Instant::now();
    let writing = std::thread::spawn(move || write_to_all(hosts, bytes));
    let (mut total, mut finished) = (0, Vec::new());
    let mut least_share = None;
    let mut touched = Vec::new();
    while finished.len() < count {
        let came = subject.guest.receive_each(|header| {
            if let Some(member) = streams.get_mut(&header.src_port)
                && header.op == Op::Rw as u16
            {
                if member.news == 0 {
                    touched.push(header.src_port);
                }
                member.news += header.len;
            }
        })?;
        for port in touched.drain(..) {
            let Some(member) = streams.get_mut(&port) else {
                continue;
            };
            let news = std::mem::take(&mut member.news);
            member.stream.forward(news);
            member.received += news as usize;
            total += news as usize;
            if member.received == bytes {
                finished.push(start.elapsed());
            }
            let update = member.stream.header(&subject.guest, Op::CreditUpdate);
            send(&mut subject.guest, &update)?;
        }
        if least_share.is_none() && total >= count * bytes / 2 {
            let least = streams
                .values()
                .map(|member| member.received)
                .min()
                .unwrap_or_default();
            #[expect(clippy::cast_precision_loss, reason = "byte counts are far below 2⁵²")]
            let share = (least * count) as f64 / total as f64;
            least_share = Some(share);
        }
        if came == 0 {
            let starved = count - finished.len();
            ensure!(
                subject.guest.wait(false, PATIENCE)?,
                "{starved} of {count} connections starve"
            );
        }
    }
    let elapsed = start.elapsed();
    writing.join().ok().context("the host program panicked")??;
    let first = finished.first().copied().unwrap_or_default();
    Ok(Crowd {
        throughput: rate(total, elapsed),
        least_share: least_share.unwrap_or_default(),
        spread: elapsed.saturating_sub(first).as_secs_f64(),
    })
}

/// One of a crowd.
struct Member {
    stream: Stream,
    received: usize,
    /// Bytes that came since credit was last given.
    news: u32,
}

/// Writes `bytes` to each of `hosts`, a little at a time to whichever takes more.
fn write_to_all(hosts: Vec<UnixStream>, bytes: usize) -> Result<()> {
    let chunk = vec![7; 16 << 10];
    let mut left: Vec<(UnixStream, usize)> = hosts.into_iter().map(|host| (host, bytes)).collect();
    let mut done = Vec::new();
    while !left.is_empty() {
        let ready: Vec<bool> = {
            let mut fds: Vec<PollFd<'_>> = left
                .iter()
                .map(|(host, _)| PollFd::new(host, PollFlags::OUT))
                .collect();
            rustix::event::poll(&mut fds, None)?;
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for ((host, left), _) in left.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            match host.write(&chunk[..chunk.len().min(*left)]) {
                Ok(written) => *left -= written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("a host program could not write"),
            }
        }
        // Those that are done stay open until all are.
        done.extend(left.extract_if(.., |(_, left)| *left == 0));
    }
    Ok(())
}

/// Sends a packet without payload, or with what its slot held before.
fn send(guest: &mut Guest, header: &Header) -> Result<()> {
    while !guest.send_stale(header)? {
        ensure!(
            guest.wait(true, PATIENCE)?,
            "the device does not return transmitted packets"
        );
    }
    guest.transmit.publish()
}

fn rate(bytes: usize, elapsed: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "byte counts are far below 2⁵²")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    mebibytes / elapsed.as_secs_f64()
}

// The guest's window is what a stream can have in flight; a run must be much longer than that to mean anything.
const _: () = assert!(super::STREAM > 100 * BUF_ALLOC as usize);
