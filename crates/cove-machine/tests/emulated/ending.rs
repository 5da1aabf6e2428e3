//! Each way in which a machine ends, and what a daemon finds that was not there to see it.

use super::*;

#[tokio::test]
async fn a_power_off_is_an_orderly_end() {
    let bench = Bench::new("bye\n", Then::PowerOff);
    let machine = bench.start().await;
    let processes = machine.processes();
    let exit = within(machine.stop(PATIENCE)).await.unwrap();
    assert_eq!(exit.cause, ExitCause::PoweredOff);
    assert!(exit.console_tail.is_empty());
    assert_eq!(backend().last_exit(&bench.spec), Some(exit));
    bench.is_clear(&processes).await;
}

#[tokio::test]
async fn a_panic_is_told_with_its_line_and_the_consoles_last_ones() {
    let message = "Kernel panic - not syncing: no root";
    let bench = Bench::new(&format!("booting\r\n{message}\r\n"), Then::Reset);
    let machine = bench.start().await;
    let exit = within(machine.wait()).await;
    assert_eq!(
        exit.cause,
        ExitCause::GuestPanicked {
            message: message.into()
        }
    );
    assert_eq!(exit.console_tail.last().unwrap(), message);
    bench.console_shows("booting", 1).await;
}

#[tokio::test]
async fn a_guest_that_only_restarts_is_given_up() {
    let bench = Bench::new("once more\n", Then::Reset);
    let machine = bench.start().await;
    let exit = within(machine.wait()).await;
    assert!(
        matches!(&exit.cause, ExitCause::GuestPanicked { message } if message.contains("restarted")),
        "{exit:?}"
    );
}

#[tokio::test]
async fn a_guest_that_does_not_power_off_is_killed_when_its_grace_is_over() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    let exit = within(machine.stop(Duration::from_millis(50))).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Killed);
}

#[tokio::test]
async fn a_hypervisor_that_is_killed_is_told_with_the_signal_and_the_console() {
    let bench = Bench::new("last words\n", Then::Idle);
    let machine = bench.start().await;
    bench.console_shows("last words", 1).await;
    let processes = machine.processes();
    signal(processes[1], Signal::KILL);
    let exit = within(machine.wait()).await;
    assert!(
        matches!(
            &exit.cause,
            ExitCause::HypervisorDied { status, crashed: false, .. } if status.contains("SIGKILL")
        ),
        "{exit:?}"
    );
    assert_eq!(exit.console_tail, ["last words"]);
    bench.is_clear(&processes).await;
}

#[tokio::test]
async fn a_hypervisor_that_aborts_is_told_to_have_crashed_and_the_machine_starts_again_at_once() {
    let bench = Bench::new("last words\n", Then::Idle);
    let machine = bench.start().await;
    bench.console_shows("last words", 1).await;
    signal(machine.processes()[1], Signal::ABORT);
    let exit = within(machine.wait()).await;
    assert!(
        matches!(
            &exit.cause,
            ExitCause::HypervisorDied { status, crashed: true, .. } if status.contains("SIGABRT")
        ),
        "{exit:?}"
    );
    // Nothing of it is in the way of the next.
    within(bench.start().await.kill()).await.unwrap();
    bench.is_clear(&machine.processes()).await;
}

#[tokio::test]
async fn a_hypervisor_dies_with_its_machine_process_and_the_machine_starts_again() {
    let bench = Bench::new("last words\n", Then::Idle);
    let machine = bench.start().await;
    bench.console_shows("last words", 1).await;
    let processes = machine.processes();
    signal(processes[0], Signal::KILL);
    let exit = within(machine.wait()).await;
    assert_eq!(exit.cause, ExitCause::Vanished);
    assert_eq!(exit.console_tail, ["last words"]);
    bench.is_clear(&processes).await;
    assert_eq!(backend().last_exit(&bench.spec), Some(exit));
    within(bench.start().await.kill()).await.unwrap();
    let exit = backend().last_exit(&bench.spec).unwrap();
    assert_eq!(
        exit.cause,
        ExitCause::Killed,
        "the account is of the last machine"
    );
}

#[tokio::test]
async fn a_machine_process_that_is_told_to_end_cuts_the_power_of_a_guest_that_cannot_be_asked() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    signal(machine.processes()[0], Signal::TERM);
    let exit = within(machine.wait()).await;
    assert_eq!(exit.cause, ExitCause::Killed);
    bench.is_clear(&machine.processes()).await;
}

#[tokio::test]
async fn a_sessions_end_is_left_to_the_machine_process() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    let processes = machine.processes();
    assert_eq!(processes.len(), 3, "QEMU, and the process of the devices");
    signal(processes[0], Signal::HUP);
    for part in &processes[1..] {
        signal(*part, Signal::HUP);
        signal(*part, Signal::TERM);
    }
    within(machine.pause()).await.unwrap();
    within(machine.folder_health()).await.unwrap();
    let exit = within(machine.kill()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Killed);
    bench.is_clear(&processes).await;
}

#[tokio::test]
async fn a_machine_process_that_hangs_is_killed_by_force() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    let processes = machine.processes();
    signal(processes[0], Signal::STOP);
    let exit = within(machine.kill()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Killed);
    bench.is_clear(&processes).await;
}

#[tokio::test]
async fn a_hypervisor_that_hangs_is_killed_like_any_other() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    signal(machine.processes()[1], Signal::STOP);
    let exit = within(machine.kill()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Killed);
}

fn daemon() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Starts the machine in a runtime that then goes away, as the daemon's does when it is killed.
fn start_and_forget(bench: &Bench) -> Vec<u32> {
    let daemon = daemon();
    let processes = daemon.block_on(async { bench.start().await.processes() });
    daemon.shutdown_background();
    processes
}

#[test]
fn a_daemon_that_starts_again_takes_over_the_machine_of_the_last_one() {
    let bench = Bench::new("hello\n", Then::Idle);
    let processes = start_and_forget(&bench);
    let daemon = daemon();
    daemon.block_on(async {
        let machine = within(backend().adopt(&bench.spec)).await.unwrap().unwrap();
        assert_eq!(machine.processes(), processes);
        within(machine.pause()).await.unwrap();
        let exit = within(machine.kill()).await.unwrap();
        assert_eq!(exit.cause, ExitCause::Killed);
        bench.is_clear(&processes).await;
    });
}

#[test]
fn after_daemon_and_machine_process_died_together_nothing_is_left_and_the_end_is_known() {
    let bench = Bench::new("hello\n", Then::Idle);
    let processes = start_and_forget(&bench);
    signal(processes[0], Signal::KILL);
    let daemon = daemon();
    daemon.block_on(async {
        assert!(within(backend().adopt(&bench.spec)).await.unwrap().is_none());
        let exit = backend().last_exit(&bench.spec).unwrap();
        assert_eq!(exit.cause, ExitCause::Vanished);
        bench.is_clear(&processes).await;
        within(bench.start().await.kill()).await.unwrap();
    });
}

#[test]
fn after_daemon_and_hypervisor_died_together_the_account_says_how() {
    let bench = Bench::new("hello\n", Then::Idle);
    let processes = start_and_forget(&bench);
    signal(processes[1], Signal::KILL);
    let daemon = daemon();
    daemon.block_on(async {
        let exit = match within(backend().adopt(&bench.spec)).await.unwrap() {
            // The machine process had not noticed yet.
            Some(machine) => within(machine.wait()).await,
            None => backend().last_exit(&bench.spec).unwrap(),
        };
        assert!(matches!(exit.cause, ExitCause::HypervisorDied { .. }), "{exit:?}");
    });
}

#[tokio::test]
async fn where_no_machine_ever_ran_there_is_none_to_adopt() {
    let bench = Bench::new("hello\n", Then::Idle);
    assert!(backend().adopt(&bench.spec).await.unwrap().is_none());
    assert_eq!(backend().last_exit(&bench.spec), None);
}
