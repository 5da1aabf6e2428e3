//! What the kernel says of processes: memory that is resident, time on a processor, wake-ups.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::harness::number_in_stat;

/// Ticks in a second that times in `/proc/PID/stat` are counted in, on x86-64 (`USER_HZ`).
const USER_HZ: f64 = 100.0;

/// Resident bytes of a monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Of the guest's memory.
    pub(super) guest: u64,
    /// Of everything else, shared or not.
    pub(super) beyond: u64,
    /// Of that, what no file and no other process has: heap, stacks, and pages of files that were written to.
    pub(super) anonymous: u64,
    /// Of that, pages of the program's own file, which all processes that run it share.
    pub(super) program: u64,
}

impl Memory {
    /// What else there is beyond the guest's memory: pages of libraries, and what is shared with the kernel.
    pub(super) fn shared(&self) -> u64 {
        self.beyond.saturating_sub(self.anonymous + self.program)
    }
}

/// What processes have used since their start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Time on a processor in seconds, the guest's included; exact to a hundredth.
    pub(super) cpu: f64,
    /// Of that, the time of vCPUs.
    pub(super) vcpu_cpu: f64,
    /// Their threads, by their numbers: what they are called, and how often they woke up.
    threads: BTreeMap<OsString, (String, u64)>,
}

/// How often threads woke up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wakes {
    /// Those that run no guest.
    pub(super) others: u64,
    /// vCPUs: for what the guest's own timers and devices want.
    pub(super) vcpus: u64,
    /// Of the first, those of each name, without the numbers that it ends with.
    pub(super) by_name: BTreeMap<String, u64>,
}

impl Usage {
    /// How often threads have woken up since `earlier`. One that has ended meanwhile is not counted.
    pub(super) fn wakes_since(&self, earlier: &Self) -> Wakes {
        let mut wakes = Wakes::default();
        for (number, (name, all)) in &self.threads {
            let before = earlier.threads.get(number).map_or(0, |(_, before)| *before);
            let count = all.saturating_sub(before);
            if is_vcpu(name) {
                wakes.vcpus += count;
            } else if count > 0 {
                wakes.others += count;
                // Such as fs0, and iou-wrk-123 of the kernel's.
                let name = name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-');
                *wakes.by_name.entry(name.to_owned()).or_default() += count;
            }
        }
        wakes
    }
}

/// What is resident of process `pid`, whose guest has `guest` bytes of memory; nothing if we may not know.
pub(super) fn memory(pid: u32, guest: u64) -> Result<Option<Memory>> {
    let path = format!("/proc/{pid}/smaps");
    let read = fs::read_link(format!("/proc/{pid}/exe"))
        .and_then(|program| Ok((program, fs::read_to_string(&path)?)));
    match read {
        Ok((program, smaps)) => parse_memory(&smaps, guest, &program.to_string_lossy()).map(Some),
        // A process that is not to be traced shows this to nobody but root.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error).context(path),
    }
}

/// Resident bytes of process `pid`, shared or not, which everybody may know.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    resident
        .and_then(bytes)
        .with_context(|| format!("the memory of process {pid}: {status}"))
}

/// Seconds that process `pid` and no other has been on a processor, exact to a hundredth.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_cpu(&stat).with_context(|| format!("the times of process {pid}: {stat}"))
}

/// What all of `pids` have used together.
pub(super) fn usage(pids: &[u32]) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in pids {
        let process = Path::new("/proc").join(pid.to_string());
        sum.cpu += cpu(*pid)?;
        for thread in fs::read_dir(process.join("task"))? {
            let thread = thread?;
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else {
                // It has ended meanwhile.
                continue;
            };
            let (name, wakes) =
                parse_wakes(&status).with_context(|| format!("a thread's status: {status}"))?;
            if is_vcpu(name) {
                let stat = fs::read_to_string(thread.path().join("stat"))?;
                sum.vcpu_cpu +=
                    parse_cpu(&stat).with_context(|| format!("the times of the thread {name}: {stat}"))?;
            }
            sum.threads.insert(thread.file_name(), (name.to_owned(), wakes));
        }
    }
    Ok(sum)
}

/// Reads `/proc/PID/smaps` (proc(5)) of a process that runs `program`. The guest's memory is what is at least as large
/// as `guest`: nothing else is.
fn parse_memory(smaps: &str, guest: u64, program: &str) -> Result<Memory> {
    let mut memory = Memory::default();
    let mut found = false;
    let (mut of_guest, mut of_program) = (false, false);
    let amount = |amount: &str, line: &str| bytes(amount).with_context(|| format!("a mapping's {line}"));
    for line in smaps.lines() {
        if let Some(size) = mapping_size(line) {
            of_guest = size >= guest;
            found |= of_guest;
            // Access, offset, device and inode come before the file.
            of_program = line
                .splitn(6, ' ')
                .nth(5)
                .is_some_and(|file| file.trim() == program);
        } else if let Some(resident) = line.strip_prefix("Rss:") {
            let resident = amount(resident, line)?;
            if of_guest {
                memory.guest += resident;
            } else {
                memory.beyond += resident;
                memory.program += if of_program { resident } else { 0 };
            }
        } else if let Some(anonymous) = line.strip_prefix("Anonymous:")
            && !of_guest
        {
            let anonymous = amount(anonymous, line)?;
            memory.anonymous += anonymous;
            // It comes behind what is resident, of which it is a part.
            memory.program = memory
                .program
                .saturating_sub(if of_program { anonymous } else { 0 });
        }
    }
    found
        .then_some(memory)
        .context("the guest's memory is not among the mappings")
}

/// The size of the mapping that a line begins: `START-END PERMISSIONS …`.
fn mapping_size(line: &str) -> Option<u64> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    u64::from_str_radix(end, 16).ok()?.checked_sub(start)
}

/// An amount as the kernel writes it: `  12 kB`.
fn bytes(amount: &str) -> Option<u64> {
    let kib: u64 = amount.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Seconds on a processor, from `/proc/PID/stat`: the 14th field and the 15th.
fn parse_cpu(stat: &str) -> Option<f64> {
    let ticks = number_in_stat(stat, 14)?.checked_add(number_in_stat(stat, 15)?)?;
    Some(f64::from(u32::try_from(ticks).ok()?) / USER_HZ)
}

/// A thread's name and how often it waited, from its `status`.
fn parse_wakes(status: &str) -> Option<(&str, u64)> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let wakes = field("voluntary_ctxt_switches:\t")?.parse().ok()?;
    Some((field("Name:\t")?, wakes))
}

/// Whether a thread of that name runs the guest: ours are `vcpu0`, QEMU's `CPU 0/KVM`.
fn is_vcpu(name: &str) -> bool {
    name.starts_with("vcpu") || (name.starts_with("CPU ") && name.ends_with("/KVM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0a00000-55d0c0c00000 r-xp 00000000 fe:00 123                        /usr/bin/a-b
Size:               2048 kB
Rss:                1500 kB
Pss:                 750 kB
Anonymous:           100 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0040000000 rw-p 00000000 00:00 0
Size:            1048576 kB
Rss:               65536 kB
Anonymous:         65536 kB
7f0050000000-7f0050001000 rw-p 00000000 00:00 0
Rss:                   4 kB
Anonymous:             4 kB
7f0060000000-7f0060100000 r-xp 00000000 fe:00 7                          /usr/lib/libc.so.6
Rss:                 200 kB
Anonymous:             0 kB
";

    #[test]
    fn the_guests_memory_is_told_from_the_monitors() {
        let memory = parse_memory(SMAPS, 1 << 30, "/usr/bin/a-b").unwrap();
        assert_eq!((memory.guest, memory.beyond), (64 << 20, 1704 << 10));
        assert_eq!((memory.anonymous, memory.program), (104 << 10, 1400 << 10));
        assert_eq!(memory.shared(), 200 << 10);
    }

    #[test]
    fn a_monitor_without_the_guests_memory_is_not_taken_for_a_small_one() {
        assert!(parse_memory(SMAPS, 2 << 30, "/usr/bin/a-b").is_err());
    }

    #[test]
    fn our_own_figures_can_be_read() {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let usage = usage(&[std::process::id()]).unwrap();
        let wakes = usage.wakes_since(&Usage::default());
        assert!(wakes.others > 0 && wakes.vcpus == 0, "{usage:?}");
        let everything_is_smaller = memory(std::process::id(), 1 << 60);
        assert!(everything_is_smaller.is_err());
        assert!(resident(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn a_thread_that_ended_takes_nothing_from_the_wake_ups_of_others() {
        let usage = |threads: &[(&str, &str, u64)]| Usage {
            threads: threads
                .iter()
                .map(|(number, name, wakes)| (number.into(), ((*name).to_owned(), *wakes)))
                .collect(),
            ..Usage::default()
        };
        let before = usage(&[("1", "vcpu0", 9), ("2", "fs0", 5), ("3", "disk-ring", 1000)]);
        let after = usage(&[("1", "vcpu0", 10), ("2", "fs0", 7), ("4", "iou-wrk-1", 3)]);
        let wakes = after.wakes_since(&before);
        assert_eq!((wakes.vcpus, wakes.others), (1, 5));
        let by_name: Vec<_> = wakes.by_name.into_iter().collect();
        assert_eq!(by_name, [("fs".to_owned(), 2), ("iou-wrk".to_owned(), 3)]);
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) 1 2) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(parse_cpu(stat), Some(2.0));
        assert_eq!(parse_cpu("7 (a"), None);
    }

    #[test]
    fn vcpus_are_known_by_either_monitors_names() {
        let status =
            "Name:\tCPU 0/KVM\nState:\tS\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(parse_wakes(status), Some(("CPU 0/KVM", 12)));
        assert!(is_vcpu("CPU 0/KVM") && is_vcpu("vcpu0"));
        assert!(!is_vcpu("vsock") && !is_vcpu("worker"));
    }
}
