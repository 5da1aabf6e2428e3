//! Packets of an exec stream: a kind byte, a 32-bit big-endian length, the body. Standard output and error stay
//! apart, and window sizes, signals and the exit code travel beside the data.

use crate::WireError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Most data bytes in one packet.
pub const MAX_EXEC_DATA: usize = 64 * 1024;

const HEADER: usize = 5;

/// One packet. The host sends `Stdin`, `StdinEnd`, `Resize` and `Signal`, the agent the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecPacket {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// End of standard input.
    StdinEnd,
    /// Bytes of standard output, or of the terminal.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The terminal's new size.
    Resize {
        /// Width in characters.
        columns: u16,
        /// Height in lines.
        rows: u16,
    },
    /// A signal for the process, by its Linux number.
    Signal(u8),
    /// The process ended; nothing follows. 128 + signal when a signal ended it.
    Exit(i32),
}

impl ExecPacket {
    fn kind(&self) -> u8 {
        match self {
            Self::Stdin(_) => 0,
            Self::StdinEnd => 1,
            Self::Stdout(_) => 2,
            Self::Stderr(_) => 3,
            Self::Resize { .. } => 4,
            Self::Signal(_) => 5,
            Self::Exit(_) => 6,
        }
    }
}

/// [`ExecPacket`]s for `tokio_util::codec::Framed`.
#[derive(Debug, Default, Clone, Copy)]
pub struct ExecCodec;

impl Encoder<ExecPacket> for ExecCodec {
    type Error = WireError;

    fn encode(&mut self, packet: ExecPacket, dst: &mut BytesMut) -> Result<(), WireError> {
        dst.put_u8(packet.kind());
        match packet {
            ExecPacket::Stdin(data) | ExecPacket::Stdout(data) | ExecPacket::Stderr(data) => {
                let len = u32::try_from(data.len())
                    .ok()
                    .filter(|_| data.len() <= MAX_EXEC_DATA)
                    .ok_or(WireError::Oversized { len: data.len() })?;
                dst.put_u32(len);
                dst.put_slice(&data);
            }
            ExecPacket::StdinEnd => dst.put_u32(0),
            ExecPacket::Resize { columns, rows } => {
                dst.put_u32(4);
                dst.put_u16(columns);
                dst.put_u16(rows);
            }
            ExecPacket::Signal(signal) => {
                dst.put_u32(1);
                dst.put_u8(signal);
            }
            ExecPacket::Exit(code) => {
                dst.put_u32(4);
                dst.put_i32(code);
            }
        }
        Ok(())
    }
}

impl Decoder for ExecCodec {
    type Item = ExecPacket;
    type Error = WireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<ExecPacket>, WireError> {
        let Some(&[kind, l0, l1, l2, l3]) = src.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if len > MAX_EXEC_DATA {
            return Err(WireError::Oversized { len });
        }
        if src.len() < HEADER + len {
            src.reserve(HEADER + len - src.len());
            return Ok(None);
        }
        src.advance(HEADER);
        let mut body = src.split_to(len).freeze();
        Ok(Some(match (kind, len) {
            (0, _) => ExecPacket::Stdin(body),
            (1, 0) => ExecPacket::StdinEnd,
            (2, _) => ExecPacket::Stdout(body),
            (3, _) => ExecPacket::Stderr(body),
            (4, 4) => ExecPacket::Resize {
                columns: body.get_u16(),
                rows: body.get_u16(),
            },
            (5, 1) => ExecPacket::Signal(body.get_u8()),
            (6, 4) => ExecPacket::Exit(body.get_i32()),
            _ => return Err(WireError::BadPacket { kind }),
        }))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<ExecPacket>, WireError> {
        match self.decode(src)? {
            Some(packet) => Ok(Some(packet)),
            None if src.is_empty() => Ok(None),
            None => Err(WireError::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packets() -> impl Strategy<Value = ExecPacket> {
        let data = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop_oneof![
            data().prop_map(ExecPacket::Stdin),
            Just(ExecPacket::StdinEnd),
            data().prop_map(ExecPacket::Stdout),
            data().prop_map(ExecPacket::Stderr),
            (any::<u16>(), any::<u16>()).prop_map(|(columns, rows)| ExecPacket::Resize { columns, rows }),
            any::<u8>().prop_map(ExecPacket::Signal),
            any::<i32>().prop_map(ExecPacket::Exit),
        ]
    }

    proptest! {
        #[test]
        fn packets_read_back_as_they_were_sent(sent in proptest::collection::vec(packets(), 0..20)) {
            let mut wire = BytesMut::new();
            for packet in &sent {
                ExecCodec.encode(packet.clone(), &mut wire).unwrap();
            }
            let mut received = Vec::new();
            while let Some(packet) = ExecCodec.decode(&mut wire).unwrap() {
                received.push(packet);
            }
            prop_assert_eq!(sent, received);
        }

        #[test]
        fn arbitrary_bytes_never_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut wire = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = ExecCodec.decode(&mut wire) {}
        }
    }

    #[test]
    fn too_much_data_in_one_packet_is_refused_on_both_sides() {
        let big = Bytes::from(vec![0; MAX_EXEC_DATA + 1]);
        assert!(
            ExecCodec
                .encode(ExecPacket::Stdin(big), &mut BytesMut::new())
                .is_err()
        );
        let mut wire = BytesMut::from(&[2, 0xff, 0, 0, 0][..]);
        assert!(matches!(
            ExecCodec.decode(&mut wire),
            Err(WireError::Oversized { .. })
        ));
    }
}
