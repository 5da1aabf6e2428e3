//! The header that starts every packet (virtio 1.2, section 5.10.6).

/// Size of a header in bytes.
pub const HEADER_SIZE: usize = 44;

/// The host's context id, `VMADDR_CID_HOST`.
pub const HOST_CID: u64 = 2;

/// `VIRTIO_VSOCK_TYPE_STREAM`, the only type of socket that is offered.
pub const TYPE_STREAM: u16 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will not receive any more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will not send any more.
pub const SHUTDOWN_SEND: u32 = 2;
/// Both ways.
pub const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet asks for (virtio 1.2, section 5.10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Open a connection.
    Request = 1,
    /// The connection is open.
    Response = 2,
    /// The connection does not exist, or no longer.
    Rst = 3,
    /// The sender is done sending, receiving or both.
    Shutdown = 4,
    /// Payload.
    Rw = 5,
    /// Nothing but the credit fields that every packet has.
    CreditUpdate = 6,
    /// Please send a credit update.
    CreditRequest = 7,
}

impl TryFrom<u16> for Op {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Rst,
            4 => Self::Shutdown,
            5 => Self::Rw,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            other => return Err(other),
        })
    }
}

/// A packet's header. Field values are as received: nothing is checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Context id of the sender.
    pub src_cid: u64,
    /// Context id of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes of payload that follow.
    pub len: u32,
    /// Type of socket.
    pub kind: u16,
    /// What the packet asks for, see [`Op`].
    pub op: u16,
    /// The operation's flags.
    pub flags: u32,
    /// Size of the sender's receive buffer for the connection, in bytes.
    pub buf_alloc: u32,
    /// Bytes of the connection that the sender has taken out of that buffer so far, modulo 2³².
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads a header from its bytes.
    pub fn from_bytes(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut rest = bytes.as_mut_slice();
        rest = put(rest, self.src_cid.to_le_bytes());
        rest = put(rest, self.dst_cid.to_le_bytes());
        rest = put(rest, self.src_port.to_le_bytes());
        rest = put(rest, self.dst_port.to_le_bytes());
        rest = put(rest, self.len.to_le_bytes());
        rest = put(rest, self.kind.to_le_bytes());
        rest = put(rest, self.op.to_le_bytes());
        rest = put(rest, self.flags.to_le_bytes());
        rest = put(rest, self.buf_alloc.to_le_bytes());
        put(rest, self.fwd_cnt.to_le_bytes());
        bytes
    }
}

/// Takes the next field; zeroes when the bytes have run out, which the fixed size of a header rules out.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, after)) => {
            *rest = after;
            *field
        }
        None => [0; N],
    }
}

/// Writes a field and returns what follows it; the fixed size of a header leaves room for each.
fn put<const N: usize>(bytes: &mut [u8], field: [u8; N]) -> &mut [u8] {
    match bytes.split_first_chunk_mut() {
        Some((place, after)) => {
            *place = field;
            after
        }
        None => &mut [],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_parse_and_come_back_unchanged(bytes in proptest::array::uniform::<_, HEADER_SIZE>(any::<u8>())) {
            prop_assert_eq!(Header::from_bytes(&bytes).to_bytes(), bytes);
        }

        #[test]
        fn an_operation_is_known_exactly_when_the_specification_lists_it(value in any::<u16>()) {
            match Op::try_from(value) {
                Ok(op) => prop_assert_eq!(op as u16, value),
                Err(rejected) => {
                    prop_assert_eq!(rejected, value);
                    prop_assert!(!(1..=7).contains(&value));
                }
            }
        }
    }

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let header = Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            src_port: 0x0102_0304,
            dst_port: 0x0506_0708,
            len: 0x1000,
            kind: TYPE_STREAM,
            op: Op::Rw as u16,
            flags: 0x0a0b_0c0d,
            buf_alloc: 0x4_0000,
            fwd_cnt: 7,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes[0..8], 3u64.to_le_bytes());
        assert_eq!(bytes[8..16], 2u64.to_le_bytes());
        assert_eq!(bytes[16..20], [4, 3, 2, 1]);
        assert_eq!(bytes[20..24], [8, 7, 6, 5]);
        assert_eq!(bytes[24..28], [0, 0x10, 0, 0]);
        assert_eq!(bytes[28..32], [1, 0, 5, 0]);
        assert_eq!(bytes[32..36], [0x0d, 0x0c, 0x0b, 0x0a]);
        assert_eq!(bytes[36..40], [0, 0, 4, 0]);
        assert_eq!(bytes[40..44], [7, 0, 0, 0]);
    }
}
