//! What a child process inherits, and what it does when its parent dies.

// UNSAFETY: code between fork and exec can only be given to the standard library as unsafe.
#![expect(
    unsafe_code,
    reason = "the child's descriptors and its bond to the parent are set up before exec"
)]

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid},
};
use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::Command,
};

/// How a child lives in relation to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bond {
    /// In a session of its own: no terminal's signals reach it, and it outlives the parent.
    Free,
    /// Killed when the thread that started it ends, however that happens. That has to be a thread which lives as long
    /// as the process. The signals that end a session are the parent's to answer, and do nothing to the child.
    DiesWithParent,
}

/// Makes the child of `command` inherit, apart from standard input, output and error, only `kept`.
pub(crate) fn set_up(command: &mut Command, bond: Bond, kept: Vec<OwnedFd>) {
    let parent = getpid();
    let in_child = move || {
        close_all_on_exec();
        for descriptor in &kept {
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        match bond {
            Bond::Free => {
                setsid()?;
            }
            Bond::DiesWithParent => {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if getppid() != Some(parent) {
                    return Err(rustix::io::Errno::SRCH.into());
                }
                block_signals_of_a_sessions_end()?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls that are async-signal-safe; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// Keeps SIGTERM and SIGHUP from this process, and from what it becomes and starts. A system that shuts down sends
/// them to every process of a session, where this one is needed until its parent has seen to an orderly end. They are
/// blocked and not ignored, because QEMU and passt have handlers for them.
fn block_signals_of_a_sessions_end() -> io::Result<()> {
    // SAFETY: all zeros are a signal set, which is only passed to calls that fill it in or read it. All of them are
    // async-signal-safe.
    let result = unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::sigaddset(&raw mut signals, libc::SIGHUP);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has this child be killed when the thread that started it ends. The parent may be in another process namespace, where
/// its number says nothing, so that one that died before this call has to be noticed otherwise.
pub(crate) fn die_with_parent_outside() -> rustix::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
}

/// Marks every descriptor but the standard ones to be closed on exec: whoever started this process may have left some
/// open that were never meant to be inherited.
fn close_all_on_exec() {
    // SAFETY: the call changes flags of descriptors of this process, which is about to become another program. A kernel
    // before 5.11 refuses it, and then the descriptors that Rust opened are still marked.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{fd::AsRawFd, unix::process::ExitStatusExt};

    #[test]
    fn a_child_inherits_what_is_kept_and_nothing_else() {
        let kept = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let leaked = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        fcntl_setfd(&leaked, FdFlags::empty()).unwrap();
        let (kept_number, leaked_number) = (kept.as_raw_fd(), leaked.as_raw_fd());
        let mut command = Command::new("sh");
        let script =
            format!("test -e /proc/self/fd/{kept_number} && ! test -e /proc/self/fd/{leaked_number}");
        command.args(["-c", &script]);
        set_up(&mut command, Bond::DiesWithParent, vec![kept]);
        assert!(command.status().unwrap().success());
        drop(leaked);
    }

    #[test]
    fn a_free_child_leads_a_session_of_its_own() {
        let mut command = Command::new("sh");
        command.args(["-c", "set -- $(cat /proc/$$/stat); test \"$6\" = $$"]);
        set_up(&mut command, Bond::Free, Vec::new());
        assert!(command.status().unwrap().success());
    }

    #[test]
    fn a_bound_child_leaves_the_signals_of_a_sessions_end_to_its_parent() {
        // No shell is asked, since some of them begin by letting every signal through.
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        set_up(&mut command, Bond::DiesWithParent, Vec::new());
        let status = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
        let blocked = u64::from_str_radix(blocked.unwrap(), 16).unwrap();
        for signal in [libc::SIGHUP, libc::SIGTERM] {
            assert_eq!((blocked >> (signal - 1)) & 1, 1, "{status}");
        }
    }

    #[test]
    fn a_bound_child_dies_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("60");
            set_up(&mut command, Bond::DiesWithParent, Vec::new());
            command.spawn().unwrap()
        })
        .join()
        .unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
