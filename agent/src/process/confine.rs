//! What a child sets up about itself between its fork and its program.

#![expect(
    unsafe_code,
    reason = "std runs code between fork and exec only through an unsafe function"
)]
// UNSAFETY: between fork and exec of a process with threads only async-signal-safe calls are allowed. The closure
// below makes nothing but system calls on values that were prepared before the fork, and allocates nothing.

use rustix::{
    fs::{Mode, OFlags, open},
    io::write,
    process::{Resource, Rlimit, getrlimit, ioctl_tiocsctty, setrlimit, setsid},
};
use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::Command,
};

/// Descriptors that a program may open unless it asks for more, and the most that it may ask for. Programs that
/// visit every possible descriptor are slow with a larger first number; the engine raises it for itself.
const DESCRIPTORS: u64 = 1024;
const MAX_DESCRIPTORS: u64 = 524_288;

/// How a child differs from the agent.
pub(crate) struct Confinement {
    /// Its process group.
    pub(crate) session: Session,
    /// `cgroup.procs` of the control group that it joins; the agent's own when absent.
    pub(crate) cgroup: Option<OwnedFd>,
    /// How eagerly the kernel kills it when memory is short, as text from `-1000` (never) to `1000`.
    pub(crate) oom_score: &'static str,
}

/// Which session and process group a child is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// A process group of its own.
    Group,
    /// A session of its own, with the terminal on its standard input.
    Terminal,
}

/// Makes `command` run in `confinement`.
pub(crate) fn confine(command: &mut Command, confinement: Confinement) {
    if confinement.session == Session::Group {
        command.process_group(0);
    }
    // SAFETY: `enter` makes only system calls, see the top of this file.
    unsafe {
        command.pre_exec(move || enter(&confinement));
    }
}

fn enter(confinement: &Confinement) -> io::Result<()> {
    if let Some(cgroup) = &confinement.cgroup {
        write(cgroup, b"0")?;
    }
    let score = open(
        c"/proc/self/oom_score_adj",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    write(score, confinement.oom_score.as_bytes())?;
    let most = getrlimit(Resource::Nofile).maximum;
    let most = most.map_or(MAX_DESCRIPTORS, |most| most.min(MAX_DESCRIPTORS));
    let limit = Rlimit {
        current: Some(DESCRIPTORS.min(most)),
        maximum: Some(most),
    };
    setrlimit(Resource::Nofile, limit)?;
    if confinement.session == Session::Terminal {
        setsid()?;
        ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    Ok(())
}
