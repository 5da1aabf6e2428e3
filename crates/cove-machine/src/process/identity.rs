//! Processes, named so that a number that the system gave to another one is not taken for them.

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use std::io;

/// A process: its number, and when it started on which boot of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the host's boot: field 22 of `proc_pid_stat(5)`.
    start: u64,
    /// The host's boot: the kernel's `random/boot_id`.
    boot: String,
}

impl ProcessId {
    /// The process that has the number `pid` now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start = start_of_living(&stat).ok_or(io::ErrorKind::NotFound)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned();
        Ok(Self { pid, start, boot })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }

    /// Ends it at once, if it still runs. It may take a moment until it is gone.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        // The descriptor holds on to one process: when that is ours, the signal reaches no other, whatever happens
        // to the number in between.
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The start time in the text of `/proc/PID/stat`; nothing for a process that has ended and waits to be reaped.
fn start_of_living(stat: &str) -> Option<u64> {
    // The program's name may hold anything, parentheses and spaces too, so that the last one ends it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // Field 3 is the state, the start time field 22.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "412 (a) b (c) S 1 412 412 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";

    #[test]
    fn a_start_time_is_found_behind_any_program_name() {
        assert_eq!(start_of_living(STAT), Some(98765));
        assert_eq!(start_of_living(&STAT.replace(" S ", " Z ")), None);
        assert_eq!(start_of_living("412 (a"), None);
    }

    #[test]
    fn a_process_is_itself_and_another_start_is_another_process() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let recycled = ProcessId {
            start: me.start - 1,
            ..me.clone()
        };
        assert!(!recycled.is_alive());
        // Were the number alone enough, this would end the test.
        recycled.kill().unwrap();
        let earlier_boot = ProcessId {
            boot: "another".into(),
            ..me
        };
        earlier_boot.kill().unwrap();
    }

    #[test]
    fn a_child_is_killed_and_then_no_longer_alive_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        id.kill().unwrap();
        while id.is_alive() {
            std::thread::yield_now();
        }
        assert!(!child.wait().unwrap().success());
        assert!(ProcessId::of(id.pid).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = start_of_living(&text);
        }
    }
}
