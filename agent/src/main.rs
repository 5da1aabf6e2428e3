//! PID 1 of the guest: boots it, supervises the engine, serves the host.
//!
//! ```text
//!  kernel ─▶ main ─▶ boot ──┬─ modules ─▶ serve (vsock: control and stream ports)
//!                           ├─ root    ─▶ the system's mounts, sysctls, cgroups, network
//!                           └─ data    ─▶ the data disk
//!                      guest: owns the life of the guest (Boot … Shutdown), asks
//!                      engine: owns containerd and dockerd
//! ```
//!
//! The agent holds no policy. What is to be done, and how, comes from the daemon in `cove_wire::Call`s; the agent
//! decides only what the guest's own layout dictates. One thread runs everything that waits (the guest has few
//! processors, and nearly all of the agent's work is waiting); what blocks in the kernel, such as mounting or
//! loading a module, runs beside it on threads that end when they are idle.

mod accounts;
mod boot;
mod changes;
mod clock;
mod data;
mod descriptor;
mod engine;
mod files;
mod guest;
mod hangup;
mod logs;
mod mountinfo;
mod names;
mod netlink;
mod power;
mod process;
mod processors;
mod proxy;
mod relay;
mod report;
mod runtime;
mod serve;
mod shares;
mod socket;
mod sources;
mod trust;
mod vsock;
mod watch;

use std::{ffi::OsStr, path::Path, process::ExitCode};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    if proxy::is_wanted() {
        return proxy::run();
    }
    if runtime::is_wanted() {
        return runtime::run();
    }
    if accounts::is_helper() {
        return accounts::help();
    }
    if accounts::is_lender() {
        return accounts::lend();
    }
    if let Some(question) = files::question() {
        return files::run(&question);
    }
    if let Some(shell) = hangup::wanted() {
        return hangup::run(&shell);
    }
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        eprintln!("cove-agent is the first process of a Cove guest and does nothing anywhere else");
        return ExitCode::from(USAGE);
    }
    power::off_on_panic();
    power::end(boot::run())
}

/// Whether this process was started under this name.
fn is_called(name: &str) -> bool {
    let called = std::env::args_os().next();
    called.as_deref().map(Path::new).and_then(Path::file_name) == Some(OsStr::new(name))
}
