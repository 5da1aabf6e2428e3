//! Watches a running QEMU to its end, carries out what the daemon asks, and says how it ended.
//!
//! The one task that runs [`supervise`] owns the machine's state ([`super::guest`]). It never waits for QEMU, so that
//! a kill gets through however stuck QEMU is: commands run in tasks beside it, and what they bring about comes back as
//! events.

use super::{
    command,
    guest::{Guest, Step},
    hypervisor::{Hypervisor, MAX_STDERR, has_crashed},
    qmp::{Event, Qmp, QmpError},
};
use crate::{
    Disk, Exit, ExitCause, MachineSpec,
    process::{
        ansi,
        console::{Console, PIPE, SILENCE},
        control::{Asked, Audience, reply},
        hypervisor::Input,
        protocol::Order,
    },
};
use futures_util::future::OptionFuture;
use serde_json::json;
use std::{io, process::ExitStatus, time::Duration};
use tokio::{
    io::AsyncReadExt,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// How long QEMU may take to write back its disks and end, after it was told to.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

struct Supervisor<'a> {
    spec: &'a MachineSpec,
    audience: Audience,
    guest: Guest,
    qmp: Qmp,
    /// Commands under way, whose failure means that QEMU cannot be worked with.
    steps: JoinSet<Result<(), QmpError>>,
    /// Why the machine ends, once that is known.
    decided: Option<ExitCause>,
    /// When QEMU is killed if it has not ended by itself.
    deadline: Option<Instant>,
}

/// Watches `hypervisor`, whose vCPUs run, to its end. Dropped, it kills QEMU.
pub(crate) async fn supervise(
    mut hypervisor: Hypervisor,
    mut console: Console,
    Input {
        mut requests,
        mut plugged,
    }: Input,
    spec: &MachineSpec,
    audience: Audience,
) -> Exit {
    let mut supervisor = Supervisor {
        spec,
        audience,
        guest: Guest::new(),
        qmp: hypervisor.qmp.clone(),
        steps: JoinSet::new(),
        decided: None,
        deadline: None,
    };
    let mut stderr = Vec::new();
    let mut console_buffer = vec![0; PIPE];
    let mut stderr_buffer = vec![0; PIPE];
    let (mut console_open, mut stderr_open) = (true, true);
    // Told at once, whatever it is.
    plugged.mark_changed();
    let status = loop {
        tokio::select! {
            count = hypervisor.console.read(&mut console_buffer), if console_open => {
                let count = count.unwrap_or(0);
                console_open = count > 0;
                console.write(&console_buffer[..count]);
            }
            count = hypervisor.stderr.read(&mut stderr_buffer), if stderr_open => {
                let count = count.unwrap_or(0);
                stderr_open = count > 0;
                keep_stderr(&mut stderr, &stderr_buffer[..count]);
            }
            Some(event) = hypervisor.events.recv() => {
                if matches!(event, Event::Shutdown { .. }) {
                    console.drain(&mut hypervisor.console).await;
                }
                supervisor.observe(&event, &mut console);
            }
            Some(asked) = requests.recv() => supervisor.answer(asked, &mut hypervisor.child),
            Ok(()) = plugged.changed() => supervisor.plug(*plugged.borrow_and_update()),
            Some(result) = supervisor.steps.join_next() => supervisor.stepped(result, &mut hypervisor.child),
            status = hypervisor.child.wait() => break status,
            Some(()) = OptionFuture::from(supervisor.deadline.map(sleep_until)) => {
                tracing::warn!("QEMU does not end by itself");
                supervisor.deadline = None;
                kill(&mut hypervisor.child);
            }
        }
    };
    console.drain(&mut hypervisor.console).await;
    if let Ok(Ok(count)) = timeout(SILENCE, hypervisor.stderr.read(&mut stderr_buffer)).await {
        keep_stderr(&mut stderr, &stderr_buffer[..count]);
    }
    let cause = match supervisor.decided {
        Some(cause) => cause,
        None => died(&status, &stderr),
    };
    let orderly = matches!(cause, ExitCause::PoweredOff | ExitCause::Killed);
    Exit {
        cause,
        console_tail: if orderly { Vec::new() } else { console.tail() },
    }
}

impl Supervisor<'_> {
    fn observe(&mut self, event: &Event, console: &mut Console) {
        tracing::debug!(?event, "QEMU");
        let panic = console.panic().map(str::to_owned);
        let step = self
            .guest
            .observe(event, panic.as_deref(), std::time::Instant::now());
        match step {
            None => {}
            Some(Step::Tell(event)) => self.audience.tell(event),
            Some(Step::Reset) => {
                tracing::info!("the guest restarts");
                console.begin();
                let qmp = self.qmp.clone();
                self.steps.spawn(async move {
                    // While resets are turned into pauses, this one would be too.
                    qmp.execute("set-action", json!({"reboot": "reset"})).await?;
                    qmp.execute("system_reset", json!({})).await
                });
            }
            Some(Step::Continue) => {
                let qmp = self.qmp.clone();
                self.steps.spawn(async move {
                    qmp.execute("set-action", json!({"reboot": "shutdown"})).await?;
                    qmp.execute("cont", json!({})).await
                });
            }
            Some(Step::End(cause)) => {
                tracing::info!(?cause, "the guest ended");
                self.decided.get_or_insert(cause);
                self.deadline = Some(Instant::now() + QUIT_TIMEOUT);
                let qmp = self.qmp.clone();
                // QEMU may be gone before its answer is read, which is no failure.
                self.steps.spawn(async move {
                    let _ = qmp.execute("quit", json!({})).await;
                    Ok(())
                });
            }
        }
    }

    fn answer(&mut self, Asked { order, answer }: Asked, child: &mut tokio::process::Child) {
        let (command, arguments) = match order {
            Order::Kill => {
                self.kill(child);
                reply(answer, Ok(()));
                return;
            }
            Order::Pause | Order::Resume if !self.guest.is_settled() => {
                reply(answer, Err("the guest is restarting or ending".into()));
                return;
            }
            Order::Pause => {
                if let Some(event) = self.guest.asked_to_pause() {
                    self.audience.tell(event);
                }
                ("stop", json!({}))
            }
            Order::Resume => ("cont", json!({})),
            Order::Grow { disk, size } => {
                if let Err(why) = self.check_growth(disk, size) {
                    reply(answer, Err(why));
                    return;
                }
                let node = format!("{}-disk", command::device(disk));
                ("block_resize", json!({"node-name": node, "size": size}))
            }
        };
        let qmp = self.qmp.clone();
        tokio::spawn(async move {
            let result = qmp.execute(command, arguments).await;
            reply(answer, result.map_err(|error| error.to_string()));
        });
    }

    /// Plugs the guest's network cable in, or out: without a network, programs in the guest are told so at once
    /// instead of waiting for answers.
    fn plug(&mut self, up: bool) {
        let qmp = self.qmp.clone();
        self.steps.spawn(async move {
            let link = json!({"name": command::NET_DEVICE, "up": up});
            if let Err(error @ QmpError::Refused { .. }) = qmp.execute("set_link", link).await {
                tracing::warn!(%error, up, "the guest was not told about its network");
            }
            Ok(())
        });
    }

    /// A size below that of the file would cut off what the guest keeps there.
    fn check_growth(&self, disk: Disk, size: u64) -> Result<(), String> {
        let path = match disk {
            Disk::Data => &self.spec.data_disk,
        };
        let now = std::fs::metadata(path)
            .map_err(|error| format!("cannot look at {}: {error}", path.display()))?
            .len();
        if size < now {
            return Err(format!("{} is {now} bytes large already", path.display()));
        }
        Ok(())
    }

    fn stepped(
        &mut self,
        result: Result<Result<(), QmpError>, tokio::task::JoinError>,
        child: &mut tokio::process::Child,
    ) {
        let why = match result {
            // When QEMU is gone, its exit status says why.
            Ok(Ok(()) | Err(QmpError::Gone)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(%why, "the guest cannot be restarted");
        self.decided.get_or_insert(ExitCause::HypervisorDied {
            status: "ended because it could not restart the guest".into(),
            stderr: why,
            crashed: false,
        });
        kill(child);
    }

    fn kill(&mut self, child: &mut tokio::process::Child) {
        self.decided.get_or_insert(ExitCause::Killed);
        kill(child);
    }
}

fn kill(child: &mut tokio::process::Child) {
    // It fails only for a child that has ended.
    let _ = child.start_kill();
}

/// Keeps the last of what QEMU complains about, and logs it.
fn keep_stderr(kept: &mut Vec<u8>, bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        tracing::warn!("QEMU: {}", ansi::plain(line));
    }
    kept.extend_from_slice(bytes);
    let excess = kept.len().saturating_sub(MAX_STDERR);
    kept.drain(..excess);
}

/// The cause of an end that nobody asked for.
fn died(status: &io::Result<ExitStatus>, stderr: &[u8]) -> ExitCause {
    let lines: Vec<_> = stderr
        .split(|byte| *byte == b'\n')
        .map(ansi::plain)
        .filter(|line| !line.is_empty())
        .collect();
    ExitCause::HypervisorDied {
        status: match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("unknown: {error}"),
        },
        stderr: lines.join("\n"),
        crashed: status.as_ref().is_ok_and(|status| has_crashed(*status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_crash_is_an_abort_or_a_fault_and_no_end_that_others_bring_or_that_has_an_error() {
        let crashed = |status| {
            let ExitCause::HypervisorDied { crashed, .. } = died(&Ok(ExitStatus::from_raw(status)), b"")
            else {
                panic!("not a death");
            };
            crashed
        };
        // As wait(2) has them: a signal's number, 128 more where there is a core, or an exit status above the byte.
        for (status, is_crash) in [(6, true), (6 | 0x80, true), (11, true), (9, false), (15, false)] {
            assert_eq!(crashed(status), is_crash, "signal {status}");
        }
        for status in [0, 1 << 8, 6 << 8, 134 << 8] {
            assert!(!crashed(status), "exit status {status:#x}");
        }
    }

    #[test]
    fn an_end_by_a_signal_names_it_and_keeps_the_last_complaints() {
        let mut stderr = Vec::new();
        for number in 0..1000 {
            keep_stderr(&mut stderr, format!("complaint {number}\n").as_bytes());
        }
        let ExitCause::HypervisorDied { status, stderr, .. } = died(&Ok(ExitStatus::from_raw(9)), &stderr)
        else {
            panic!("not a death");
        };
        assert_eq!(status, "signal: 9 (SIGKILL)");
        assert!(stderr.ends_with("complaint 999") && stderr.len() <= MAX_STDERR);
    }
}
