//! One run of each measurement. What the far end does is told in `cove-meter`.

use super::site::{METER, Site, Way};
use anyhow::{Context as _, Result, anyhow, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Bytes that a run of a stream moves.
const BULK: u32 = 48 << 20;
const PIECE: usize = 64 << 10;
/// Connections, and round trips, of one run.
const CONNECTIONS: u32 = 60;
const TRIPS: usize = 200;
/// Clients at once, and the connections that each makes in one run.
const CLIENTS: u32 = 32;
const EACH: u32 = 20;
/// Nothing takes longer than this unless it has stopped.
const PATIENCE: Duration = Duration::from_mins(2);
/// Where containers find this computer's loopback.
const HOST: &str = "192.168.127.1";

fn connect(site: &Site, way: Way) -> Result<TcpStream> {
    connect_to(site.port(way))
}

fn connect_to(port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("cannot connect to port {port}"))?;
    prepared(stream)
}

fn prepared(stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, what: u8) -> Result<()> {
    let mut request = vec![what];
    request.extend(u64::from(BULK).to_be_bytes());
    Ok(stream.write_all(&request)?)
}

fn send(stream: &mut TcpStream) -> Result<()> {
    let piece = vec![7; PIECE];
    for _ in 0..BULK as usize / PIECE {
        stream.write_all(&piece)?;
    }
    Ok(())
}

/// Takes everything, at how many MiB/s since `began`, and tells the other end.
fn receive(stream: &mut TcpStream, began: Instant) -> Result<f64> {
    let mut buffer = vec![0; PIECE];
    let mut left = BULK as usize;
    while left > 0 {
        let got = stream.read(&mut buffer)?;
        ensure!(got > 0, "the connection ended {left} bytes too early");
        left = left.saturating_sub(got);
    }
    let rate = rate(began);
    stream.write_all(b".")?;
    Ok(rate)
}

fn rate(began: Instant) -> f64 {
    f64::from(BULK) / f64::from(1 << 20) / began.elapsed().as_secs_f64()
}

/// MiB/s into the container.
pub(super) fn inward(site: &Site, way: Way) -> Result<f64> {
    let mut stream = connect(site, way)?;
    let began = Instant::now();
    ask(&mut stream, b't')?;
    send(&mut stream)?;
    stream.read_exact(&mut [0])?;
    Ok(rate(began))
}

/// MiB/s out of the container.
pub(super) fn outward(site: &Site, way: Way) -> Result<f64> {
    let mut stream = connect(site, way)?;
    let began = Instant::now();
    ask(&mut stream, b'g')?;
    receive(&mut stream, began)
}

/// Connections a second, each good for one byte there and back.
pub(super) fn connections(site: &Site, way: Way) -> Result<f64> {
    let began = Instant::now();
    make(CONNECTIONS, site.port(way))?;
    Ok(f64::from(CONNECTIONS) / began.elapsed().as_secs_f64())
}

/// The same by several clients at once, and a minute.
pub(super) fn connections_at_once(site: &Site, way: Way) -> Result<f64> {
    let port = site.port(way);
    let began = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || make(EACH, port)))
            .collect();
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        anyhow::Ok(())
    })?;
    Ok(f64::from(CLIENTS * EACH) * 60.0 / began.elapsed().as_secs_f64())
}

/// Makes so many connections, one after the other.
fn make(count: u32, port: u16) -> Result<()> {
    for _ in 0..count {
        let mut stream = connect_to(port)?;
        stream.write_all(b"ex")?;
        stream.read_exact(&mut [0])?;
    }
    Ok(())
}

/// The median round trip of a byte, in microseconds.
pub(super) fn round_trip(site: &Site, way: Way) -> Result<f64> {
    let mut stream = connect(site, way)?;
    stream.write_all(b"e")?;
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let began = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        trips.push(began.elapsed());
    }
    trips.sort_unstable();
    Ok(trips[TRIPS / 2].as_secs_f64() * 1e6)
}

/// Has the container connect to this computer, which then is at the other end.
fn called(site: &Site, what: u8) -> Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let mut control = connect(site, Way::Published)?;
    ask(&mut control, what)?;
    control.write_all(format!("{HOST}:{port}\n").as_bytes())?;
    let (stream, _) = listener
        .accept()
        .with_context(|| format!("{METER} did not connect"))?;
    prepared(stream)
}

/// MiB/s from the container through its way out.
pub(super) fn upload(site: &Site, _: Way) -> Result<f64> {
    let mut stream = called(site, b'G')?;
    receive(&mut stream, Instant::now())
}

/// MiB/s to the container on a connection that it made.
pub(super) fn download(site: &Site, _: Way) -> Result<f64> {
    let mut stream = called(site, b'T')?;
    let began = Instant::now();
    send(&mut stream)?;
    stream.read_exact(&mut [0])?;
    Ok(rate(began))
}
