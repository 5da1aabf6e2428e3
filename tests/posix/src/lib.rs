//! What POSIX and Linux promise of a directory: scenarios that run in any directory and write down what they saw, so
//! that two directories can be compared. Nothing here knows what is right; a native file system does.
//!
//! Used by `cove-fs`'s own tests through this machine's kernel, and by the program of this crate, linked statically,
//! in containers of a Cove machine. Needs root: scenarios act as several users.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be set up fails")]

mod attributes;
mod data;
mod locks;
mod names;
mod stress;
mod transcript;
mod unwritten;
mod watch;

pub use locks::{Disturbance, Effect, Lock};
pub use stress::{summary, tree, write_and_read};
pub use transcript::Transcript;
pub use unwritten::unwritten;
pub use watch::watch;

use rustix::fs::{Gid, Mode, Uid};
use std::path::Path;

type Scenario = (&'static str, fn(&mut Transcript));

/// A line that may differ between a native directory and a shared folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The scenario.
    pub scenario: &'static str,
    /// The line's label.
    pub label: &'static str,
    /// Why it differs.
    pub why: &'static str,
}

/// All lines that may differ.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        scenario: "attributes",
        label: "set a trusted attribute",
        why: "the server has no privilege for trusted.*",
    },
    Difference {
        scenario: "attributes",
        label: "set a security attribute",
        why: "the server has no privilege for security.*",
    },
    Difference {
        scenario: "whiteouts",
        label: "rename with a whiteout",
        why: "a whiteout is a device node",
    },
];

/// What was found by comparing.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Lines that are the same.
    pub same: usize,
    /// Differences that are known.
    pub known: Vec<Difference>,
    /// Differences that are not, in words.
    pub unknown: Vec<String>,
}

/// Runs every scenario in a directory of its own below `native` and below `shared`.
///
/// # Panics
///
/// When a scenario cannot be set up, which is as much of a finding as a difference.
pub fn compare(native: &Path, shared: &Path) -> Comparison {
    rustix::process::umask(Mode::empty());
    let mut comparison = Comparison::default();
    let scenarios = [
        names::SCENARIOS,
        attributes::SCENARIOS,
        data::SCENARIOS,
        locks::SCENARIOS,
    ];
    for (name, scenario) in scenarios.concat() {
        let run = |root: &Path| {
            let dir = root.join(name);
            std::fs::create_dir(&dir).unwrap();
            rustix::fs::chmod(&dir, Mode::from_raw_mode(0o777)).unwrap();
            let mut transcript = Transcript::new(&dir);
            scenario(&mut transcript);
            transcript.lines
        };
        let (want, got) = (run(native), run(shared));
        assert_eq!(want.len(), got.len(), "{name} took another way");
        for ((label, want), (_, got)) in want.iter().zip(&got) {
            let known = DIFFERENCES
                .iter()
                .find(|known| known.scenario == name && known.label == label);
            match known {
                _ if want == got => comparison.same += 1,
                Some(known) => comparison.known.push(*known),
                None => comparison
                    .unknown
                    .push(format!("{name}: {label}\n  native: {want}\n  shared: {got}")),
            }
        }
    }
    comparison
}

/// Runs `act` as an ordinary user; threads that it starts stay that user.
///
/// # Panics
///
/// When this process may not become another user, or `act` panics.
pub fn as_user<T: Send>(id: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}
