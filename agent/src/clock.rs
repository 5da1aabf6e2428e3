//! The guest kernel's clock, and setting the time of day.

use cove_wire::{Fault, FaultCode};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const NS_PER_S: u64 = 1_000_000_000;

/// 2020-01-01 in seconds since the Unix epoch. A host that sends an earlier time has no clock, and every
/// certificate would look invalid in the guest.
const EARLIEST_S: u64 = 1_577_836_800;

/// 2200-01-01 in seconds since the Unix epoch; beyond it file systems and programs misbehave.
const LATEST_S: u64 = 7_258_118_400;

/// Microseconds since the kernel started, time spent suspended included.
pub(crate) fn uptime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1000
}

/// Sets the time of day to `unix_ns` nanoseconds since the Unix epoch.
pub(crate) fn set_time_of_day(unix_ns: u64) -> Result<(), Fault> {
    let time = time_of_day(unix_ns)?;
    clock_settime(ClockId::Realtime, time).map_err(|error| {
        Fault::new(
            FaultCode::Failed,
            format!("setting the guest's clock failed: {error}"),
        )
    })
}

fn time_of_day(unix_ns: u64) -> Result<Timespec, Fault> {
    let seconds = unix_ns / NS_PER_S;
    if !(EARLIEST_S..LATEST_S).contains(&seconds) {
        return Err(Fault::new(
            FaultCode::Invalid,
            format!(
                "{unix_ns} ns since 1970 is not a time between the years 2020 and 2200; check the host's clock"
            ),
        ));
    }
    Ok(Timespec {
        tv_sec: seconds.cast_signed(),
        tv_nsec: (unix_ns % NS_PER_S).cast_signed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_keeps_its_nanoseconds() {
        let time = time_of_day(1_764_000_000_123_456_789).unwrap();
        assert_eq!((time.tv_sec, time.tv_nsec), (1_764_000_000, 123_456_789));
    }

    #[test]
    fn times_before_2020_and_after_2200_are_refused() {
        for unix_ns in [0, EARLIEST_S * NS_PER_S - 1, LATEST_S * NS_PER_S, u64::MAX] {
            assert_eq!(time_of_day(unix_ns).unwrap_err().code, FaultCode::Invalid);
        }
    }

    #[test]
    fn the_kernels_clock_does_not_go_back() {
        let before = uptime_us();
        assert!(before > 0 && uptime_us() >= before);
    }
}
