//! Connections as the guest's end keeps them: credit, shutdown and what was received.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use cove_virtio::vsock::packet::{Header, Op, SHUTDOWN_BOTH, SHUTDOWN_SEND};

use super::vsock::{Guest, MAX_PAYLOAD, PATIENCE, Ports};

/// A connection, with the credit accounting that both sides owe each other.
#[derive(Debug)]
pub struct Stream {
    /// Its ports.
    pub ports: Ports,
    sent: u32,
    peer_alloc: u32,
    peer_forwarded: u32,
    forwarded: u32,
    told: u32,
    received: VecDeque<u8>,
    /// The host's SHUTDOWN flags so far.
    pub peer_shutdown: u32,
    /// The host sent a RST.
    pub reset: bool,
}

impl Stream {
    fn new(ports: Ports, opening: &Header) -> Self {
        Self {
            ports,
            sent: 0,
            peer_alloc: opening.buf_alloc,
            peer_forwarded: opening.fwd_cnt,
            forwarded: 0,
            told: 0,
            received: VecDeque::new(),
            peer_shutdown: 0,
            reset: false,
        }
    }

    /// Connects to a port of the host.
    pub fn connect(guest: &mut Guest, ports: Ports) -> Result<Self> {
        let request = guest.header(ports, Op::Request);
        guest.send(&request, &[])?;
        let answer = guest.receive_for(ports)?;
        ensure!(answer.is(Op::Response), "the host refused: {:?}", answer.header);
        Ok(Self::new(ports, &answer.header))
    }

    /// Takes the next connection that a host program asks for.
    pub fn accept(guest: &mut Guest) -> Result<Self> {
        let request = guest.receive_within(PATIENCE)?.context("no connection came")?;
        ensure!(
            request.is(Op::Request),
            "expected a request, got {:?}",
            request.header
        );
        let ports = Ports {
            guest: request.header.dst_port,
            host: request.header.src_port,
        };
        let response = guest.header(ports, Op::Response);
        guest.send(&response, &[])?;
        Ok(Self::new(ports, &request.header))
    }

    /// A header of this connection with its current credit.
    pub fn header(&mut self, guest: &Guest, op: Op) -> Header {
        self.told = self.forwarded;
        Header {
            fwd_cnt: self.forwarded,
            ..guest.header(self.ports, op)
        }
    }

    /// Bytes that the host still takes.
    pub fn credit(&self) -> u32 {
        self.peer_alloc
            .saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// Sends all of `data`, waiting for credit where there is none.
    pub fn write_all(&mut self, guest: &mut Guest, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let credit = self.credit() as usize;
            if credit == 0 {
                self.take_in(guest)?;
                ensure!(!self.reset, "the host reset the connection");
                continue;
            }
            let (now, later) = data.split_at(data.len().min(credit).min(MAX_PAYLOAD));
            let mut header = self.header(guest, Op::Rw);
            header.len = u32::try_from(now.len())?;
            guest.send(&header, now)?;
            self.sent = self.sent.wrapping_add(header.len);
            data = later;
        }
        Ok(())
    }

    /// Reads what there is, at least a byte unless the host is done sending. Credit goes back to the host as Linux
    /// sends it: when nothing is left, or much was read.
    pub fn read(&mut self, guest: &mut Guest) -> Result<Vec<u8>> {
        while self.received.is_empty() && self.peer_shutdown & SHUTDOWN_SEND == 0 && !self.reset {
            self.take_in(guest)?;
        }
        let data: Vec<u8> = self.received.drain(..).collect();
        self.forwarded = self.forwarded.wrapping_add(u32::try_from(data.len())?);
        if self.forwarded != self.told && !self.reset && self.peer_shutdown != SHUTDOWN_BOTH {
            let update = self.header(guest, Op::CreditUpdate);
            guest.send(&update, &[])?;
        }
        Ok(data)
    }

    /// Reads until `len` bytes have come.
    pub fn read_exact(&mut self, guest: &mut Guest, len: usize) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        while data.len() < len {
            let more = self.read(guest)?;
            ensure!(
                !more.is_empty(),
                "the host ended the stream after {} of {len} bytes",
                data.len()
            );
            data.extend(more);
        }
        ensure!(data.len() == len, "the host sent {} bytes, not {len}", data.len());
        Ok(data)
    }

    /// Reads until the host is done sending.
    pub fn read_to_end(&mut self, guest: &mut Guest) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let more = self.read(guest)?;
            if more.is_empty() {
                return Ok(data);
            }
            data.extend(more);
        }
    }

    /// Announces that we are done receiving, sending or both.
    pub fn shutdown(&mut self, guest: &mut Guest, flags: u32) -> Result<()> {
        let header = Header {
            flags,
            ..self.header(guest, Op::Shutdown)
        };
        guest.send(&header, &[])
    }

    /// Counts `bytes` as read, for those who look at packets themselves.
    pub fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Counts `bytes` as sent, for those who send packets themselves.
    pub fn count_sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Takes in the credit fields of a packet.
    pub fn update(&mut self, header: &Header) {
        self.peer_alloc = header.buf_alloc;
        self.peer_forwarded = header.fwd_cnt;
    }

    /// Waits for the next packet of the connection and takes it in.
    pub fn take_in(&mut self, guest: &mut Guest) -> Result<()> {
        let packet = guest.receive_for(self.ports)?;
        self.update(&packet.header);
        match Op::try_from(packet.header.op) {
            Ok(Op::Rw) => self.received.extend(&packet.payload),
            Ok(Op::CreditUpdate) => {}
            Ok(Op::CreditRequest) => {
                let update = self.header(guest, Op::CreditUpdate);
                guest.send(&update, &[])?;
            }
            Ok(Op::Shutdown) => {
                self.peer_shutdown |= packet.header.flags;
                if self.peer_shutdown == SHUTDOWN_BOTH {
                    let rst = self.header(guest, Op::Rst);
                    guest.send(&rst, &[])?;
                }
            }
            Ok(Op::Rst) => {
                self.reset = true;
                self.peer_shutdown = SHUTDOWN_BOTH;
            }
            other => bail!("unexpected {other:?} on an open connection"),
        }
        Ok(())
    }
}
