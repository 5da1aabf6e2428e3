//! Credit: who may send how much to whom (virtio 1.2, section 5.10.6.3).
//!
//! Both sides count the bytes of a connection modulo 2³² and tell each other, in every packet, how large their
//! receive buffer is (`buf_alloc`) and how much they have taken out of it (`fwd_cnt`).

use std::collections::VecDeque;

/// Size of the receive buffer that the device grants a connection, in bytes, unless it has many. It is what Linux uses
/// for its own side, and recent kernels do not send more than that ahead whatever they are granted.
pub const BUF_ALLOC: u32 = 256 * 1024;

/// Size of the receive buffer of a connection that is made beside `others`. A guest may fill all of them, with a host
/// that reads none: in 16,384 connections there is room for 832 MiB together, where it would be 4 GiB.
pub(super) fn window(others: usize) -> u32 {
    match others {
        0..1024 => BUF_ALLOC,
        1024..4096 => BUF_ALLOC / 4,
        _ => BUF_ALLOC / 8,
    }
}

/// What a queued packet costs the guest on top of its payload.
///
/// Linux guests keep one `sk_buff` for each packet, and since mid-2026 (CVE-2026-53132) they reset a connection when
/// those structures alone outgrow the buffer: (queued + 1) × `SKB_TRUESIZE(0)` > `buf_alloc`, in the first stable
/// releases even with the payload added to the left side. `SKB_TRUESIZE(0)` is 576 bytes on 64-bit machines. Credit
/// in bytes cannot express this, so each packet is charged for its own structure too, with a margin.
const PACKET_OVERHEAD: u32 = 768;

/// Below this, a packet is not worth sending while others are on their way: it is better merged with what follows.
const MIN_PAYLOAD: u32 = 512;

/// Largest receive buffer of a guest that is made use of, which bounds what is remembered of packets on their way.
const MAX_WINDOW: u32 = 8 * 1024 * 1024;

/// The guest claims to have forwarded bytes that it was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest forwarded {ahead} bytes more than it was sent")]
pub(super) struct ForwardedTooMuch {
    ahead: u32,
}

/// The guest sent more than it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest sent {excess} bytes more than it had credit for")]
pub(super) struct Overrun {
    excess: u32,
}

/// How much the device may send to the guest on one connection.
#[derive(Debug, Default)]
pub(super) struct ToGuest {
    buf_alloc: u32,
    fwd_cnt: u32,
    tx_cnt: u32,
    /// The value of `tx_cnt` after each packet that the guest has not fully forwarded yet, oldest first.
    outstanding: VecDeque<u32>,
}

impl ToGuest {
    /// Takes in the credit fields of a packet from the guest.
    pub(super) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Result<(), ForwardedTooMuch> {
        self.buf_alloc = buf_alloc.min(MAX_WINDOW);
        let in_flight = self.tx_cnt.wrapping_sub(self.fwd_cnt);
        let progress = fwd_cnt.wrapping_sub(self.fwd_cnt);
        if progress > in_flight {
            // A guest builds headers on several CPUs and may queue them in another order, so an older count can
            // arrive after a newer one; that one is stale, and harmless.
            if progress > u32::MAX / 2 {
                return Ok(());
            }
            return Err(ForwardedTooMuch {
                ahead: progress - in_flight,
            });
        }
        self.fwd_cnt = fwd_cnt;
        while let Some(end) = self.outstanding.front() {
            if end.wrapping_sub(fwd_cnt).wrapping_sub(1) < MAX_WINDOW {
                break;
            }
            self.outstanding.pop_front();
        }
        Ok(())
    }

    /// A plan for packets to send now. Nothing counts as sent before [`ToGuest::sent`].
    pub(super) fn plan(&self) -> Plan {
        let bytes = self.tx_cnt.wrapping_sub(self.fwd_cnt);
        let packets = u32::try_from(self.outstanding.len()).unwrap_or(u32::MAX);
        Plan {
            room: self
                .buf_alloc
                .saturating_sub(bytes)
                .saturating_sub(packets.saturating_mul(PACKET_OVERHEAD)),
            credit: self.buf_alloc.saturating_sub(bytes),
            idle: packets == 0,
        }
    }

    /// Counts a packet of `len` bytes as sent.
    pub(super) fn sent(&mut self, len: u32) {
        self.tx_cnt = self.tx_cnt.wrapping_add(len);
        self.outstanding.push_back(self.tx_cnt);
    }
}

/// How the packets to be sent next may be cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    room: u32,
    credit: u32,
    idle: bool,
}

impl Plan {
    /// The payload of the next packet into a buffer of `capacity` bytes, or none if it must wait for credit.
    pub(super) fn next(&mut self, capacity: usize) -> Option<u32> {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        let roomy = self.room.saturating_sub(PACKET_OVERHEAD).min(capacity);
        let len = if roomy >= MIN_PAYLOAD.min(capacity) {
            roomy
        } else if self.idle {
            // A guest whose whole buffer is hardly larger than the overhead must still get something.
            self.credit.min(capacity)
        } else {
            0
        };
        if len == 0 {
            return None;
        }
        self.idle = false;
        self.room = self.room.saturating_sub(len).saturating_sub(PACKET_OVERHEAD);
        self.credit -= len;
        Some(len)
    }

    /// Whether nothing can be sent.
    pub(super) fn is_blocked(mut self) -> bool {
        self.next(usize::MAX).is_none()
    }
}

/// How much the guest may send to the host on one connection.
#[derive(Debug)]
pub(super) struct FromGuest {
    window: u32,
    rx_cnt: u32,
    fwd_cnt: u32,
    told: u32,
}

impl FromGuest {
    /// With a receive buffer of `window` bytes.
    pub(super) fn new(window: u32) -> Self {
        Self {
            window,
            rx_cnt: 0,
            fwd_cnt: 0,
            told: 0,
        }
    }

    /// The size of the receive buffer: a packet's `buf_alloc`.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// Counts `len` bytes as received.
    pub(super) fn receive(&mut self, len: u32) -> Result<(), Overrun> {
        let room = self.window.saturating_sub(self.rx_cnt.wrapping_sub(self.fwd_cnt));
        if len > room {
            return Err(Overrun { excess: len - room });
        }
        self.rx_cnt = self.rx_cnt.wrapping_add(len);
        Ok(())
    }

    /// Counts `len` received bytes as taken out of the buffer.
    pub(super) fn forward(&mut self, len: u32) {
        self.fwd_cnt = self.fwd_cnt.wrapping_add(len);
    }

    /// The value to put into a packet's `fwd_cnt`.
    pub(super) fn forwarded(&self) -> u32 {
        self.fwd_cnt
    }

    /// The guest has been told the current value.
    pub(super) fn advertised(&mut self) {
        self.told = self.fwd_cnt;
    }

    /// Whether the guest should be told of freed room even if there is nothing else to send: once half of the buffer has
    /// been freed since it was last told, early enough that a steady sender never runs dry, late enough that updates are
    /// few.
    pub(super) fn update_due(&self) -> bool {
        self.fwd_cnt.wrapping_sub(self.told) >= self.window / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_window(buf_alloc: u32) -> ToGuest {
        let mut credit = ToGuest::default();
        credit.update(buf_alloc, 0).unwrap();
        credit
    }

    #[test]
    fn nothing_may_be_sent_before_the_guest_has_said_how_much() {
        assert!(ToGuest::default().plan().is_blocked());
    }

    #[test]
    fn a_count_ahead_of_what_was_sent_is_refused() {
        let mut credit = with_window(4096);
        credit.sent(100);
        assert_eq!(credit.update(4096, 101), Err(ForwardedTooMuch { ahead: 1 }));
    }

    #[test]
    fn a_stale_count_is_ignored() {
        let mut credit = with_window(4096);
        credit.sent(100);
        credit.update(4096, 100).unwrap();
        credit.update(4096, 40).unwrap();
        assert_eq!(credit.plan().next(usize::MAX), Some(4096 - PACKET_OVERHEAD));
    }

    #[test]
    fn a_buffer_smaller_than_the_overhead_still_gets_its_bytes() {
        let mut credit = with_window(10);
        assert_eq!(credit.plan().next(4096), Some(10));
        credit.sent(10);
        assert!(credit.plan().is_blocked());
    }

    #[test]
    fn sending_beyond_the_buffer_is_an_overrun_and_forwarding_makes_room() {
        for others in [0, 1024, 4096] {
            let window = window(others);
            let mut credit = FromGuest::new(window);
            credit.receive(window).unwrap();
            assert_eq!(credit.receive(1), Err(Overrun { excess: 1 }));
            credit.forward(window / 2);
            assert!(credit.update_due());
            credit.advertised();
            assert!(!credit.update_due());
            credit.receive(window / 2).unwrap();
        }
    }

    proptest! {
        /// Whatever sizes are written and however the guest reads, it never holds more bytes than it granted, nor
        /// more packets than Linux accepts, and the sender never stalls for good.
        #[test]
        fn a_linux_guest_never_has_cause_to_reset(
            steps in proptest::collection::vec((1u32..70_000, 1usize..5_000, any::<bool>()), 1..200),
            start in any::<u32>(),
        ) {
            const SKB_TRUESIZE: usize = 576;
            let window = 256 * 1024;
            let mut credit = ToGuest { fwd_cnt: start, tx_cnt: start, ..ToGuest::default() };
            credit.update(window, start).unwrap();
            let mut queued: VecDeque<u32> = VecDeque::new();
            let mut forwarded = start;
            for (read, capacity, reads_all) in steps {
                let mut plan = credit.plan();
                while let Some(len) = plan.next(capacity) {
                    credit.sent(len);
                    queued.push_back(len);
                    let held: u32 = queued.iter().sum();
                    prop_assert!(held <= window);
                    prop_assert!(queued.len() * SKB_TRUESIZE + held as usize <= window as usize);
                }
                prop_assert!(!queued.is_empty());
                let mut left = if reads_all { u32::MAX } else { read };
                while let Some(front) = queued.front_mut() {
                    let taken = left.min(*front);
                    forwarded = forwarded.wrapping_add(taken);
                    left -= taken;
                    if taken < *front {
                        *front -= taken;
                        break;
                    }
                    queued.pop_front();
                }
                credit.update(window, forwarded).unwrap();
            }
        }
    }
}
