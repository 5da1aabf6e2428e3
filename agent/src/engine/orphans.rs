//! Containers whose dockerd is not there to stop them: they outlive one that crashes, until there is another.

use crate::{
    descriptor::awaited,
    process::cgroup::{self, Cgroup},
};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{fs, io};

/// Asks all containers to end, and returns when they have. The signal is SIGTERM, whatever an image or a container
/// names for it, which only the engine knows.
pub(super) async fn stop() -> io::Result<()> {
    let groups = cgroup::containers()?;
    let mut pids: Vec<Pid> = groups.iter().flat_map(Cgroup::processes).collect();
    pids.retain(|pid| {
        // Nothing can be read of one that has ended since.
        let path = format!("/proc/{}/status", pid.as_raw_nonzero());
        fs::read_to_string(path).is_ok_and(|status| is_leader(&status))
    });
    end(pids).await
}

/// Whether the process with this `/proc/PID/status` is one that a container stands or falls with: the first of the
/// container's process namespace, as for `docker stop`, or one in the guest's own namespace, which has no such first.
/// The others would take a second signal, passed on by the first, for another order; and they end with it anyhow.
fn is_leader(status: &str) -> bool {
    // The process's number in each namespace that it is in, the guest's own first.
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let mut ids = ids.unwrap_or_default().split_ascii_whitespace();
    matches!(
        (ids.next(), ids.next(), ids.next()),
        (Some(_), None | Some("1"), None)
    )
}

/// Sends SIGTERM to each process, and waits for all of them.
async fn end(pids: Vec<Pid>) -> io::Result<()> {
    let mut asked = Vec::new();
    for pid in pids {
        let sent = pidfd_open(pid, PidfdFlags::empty()).and_then(|process| {
            pidfd_send_signal(&process, Signal::TERM)?;
            Ok(process)
        });
        match sent {
            Ok(process) => asked.push(process),
            // It has ended by itself.
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for process in asked {
        // It can be read when the process has ended.
        awaited(process)?.readable().await?.retain_ready();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Child, Exit, reap};
    use std::{process::Command, time::Duration};

    #[test]
    fn the_first_process_of_a_container_is_asked_and_what_ends_with_it_is_not() {
        let is_asked = |ids: &str| is_leader(&format!("Name:\tsh\nNSpid:\t{ids}\nNSpgid:\t1\n"));
        assert!(is_asked("812\t1"), "the first process of a container");
        assert!(
            is_asked("812"),
            "a container in the guest's own process namespace"
        );
        assert!(!is_asked("813\t7"), "another process of a container");
        assert!(
            !is_asked("814\t9\t1"),
            "the first of a container within a container"
        );
        assert!(!is_leader("Name:\tsh\n"));
    }

    #[tokio::test]
    async fn what_is_asked_to_end_is_waited_for_and_what_has_ended_is_no_error() {
        let reaper = tokio::spawn(reap());
        let start = || Child::spawn(Command::new("sleep").arg("60")).unwrap();
        let pid = |child: &Child| Pid::from_raw(child.process().to_string().parse().unwrap()).unwrap();
        let (mut gone, mut there) = (start(), start());
        let pids = vec![pid(&gone), pid(&there)];
        gone.process().signal(Signal::KILL);
        gone.wait().await;
        tokio::time::timeout(Duration::from_secs(10), end(pids))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(there.wait().await, Exit::Signal(Signal::TERM.as_raw()));
        reaper.abort();
    }
}
