//! The real image: kernel, agent and socket device together.

use super::*;
use cove_machine::{Connection, MachineEvent};
use cove_wire::{Call, FromGuest, FromHost, HEADER_LEN, Hello, Reply, body_len, decode, encode, port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A machine on the image in `COVE_TEST_IMAGE`; nothing without one.
fn bench() -> Option<Bench> {
    let Some(image) = std::env::var_os("COVE_TEST_IMAGE").map(PathBuf::from) else {
        eprintln!("SKIPPED: set COVE_TEST_IMAGE to the directory of an image to boot it");
        return None;
    };
    let mut bench = Bench::new("", Then::Idle);
    bench.spec.kernel = image.join("kernel");
    bench.spec.initramfs = image.join("initramfs");
    bench.spec.rootfs = image.join("rootfs.erofs");
    bench.spec.cpus = 2;
    bench.spec.memory_mib = 1024;
    let data = std::fs::File::options()
        .write(true)
        .open(&bench.spec.data_disk)
        .unwrap();
    data.set_len(4 << 30).unwrap();
    Some(bench)
}

/// Exchanges greetings with the agent as soon as it listens.
async fn greet(machine: &dyn Machine) -> Connection {
    let deadline = Instant::now() + PATIENCE;
    let mut connection = loop {
        match machine.connect(port::CONTROL).await {
            Ok(connection) => break connection,
            Err(MachineError::Refused { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let ours = Hello::new("test");
    send(&mut connection, &FromHost::Hello(ours.clone())).await;
    let FromGuest::Hello(theirs) = receive(&mut connection).await else {
        panic!("the agent does not greet first");
    };
    ours.accept(&theirs).unwrap();
    connection
}

async fn send(connection: &mut Connection, message: &FromHost) {
    connection.write_all(&encode(message).unwrap()).await.unwrap();
}

async fn receive(connection: &mut Connection) -> FromGuest {
    let mut header = [0; HEADER_LEN];
    connection.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; body_len(header).unwrap()];
    connection.read_exact(&mut body).await.unwrap();
    decode(&body).unwrap()
}

async fn shut_down(machine: &dyn Machine, reboot: bool) {
    let mut connection = greet(machine).await;
    let call = Call::Shutdown {
        grace_ms: 1000,
        reboot,
    };
    send(&mut connection, &FromHost::Request { id: 1, call }).await;
    assert_eq!(
        receive(&mut connection).await,
        FromGuest::Response {
            id: 1,
            result: Ok(Reply::Done)
        }
    );
}

#[tokio::test]
async fn the_agent_greets_and_greets_again_after_a_pause_and_an_adoption() {
    let Some(bench) = bench() else { return };
    let begun = Instant::now();
    let machine = bench.start().await;
    let running = begun.elapsed();
    within(greet(&*machine)).await;
    eprintln!(
        "the guest ran after {running:?}, its agent greeted after {:?}",
        begun.elapsed()
    );
    within(machine.pause()).await.unwrap();
    within(machine.resume()).await.unwrap();
    drop(machine);
    let machine = within(backend().adopt(&bench.spec)).await.unwrap().unwrap();
    within(greet(&*machine)).await;
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn a_machine_process_that_is_told_to_end_has_the_guest_power_off() {
    let Some(bench) = bench() else { return };
    let machine = bench.start().await;
    within(greet(&*machine)).await;
    // It goes on to be asked.
    within(machine.pause()).await.unwrap();
    for process in machine.processes() {
        signal(process, Signal::TERM);
    }
    let exit = within(machine.wait()).await;
    assert_eq!(exit.cause, ExitCause::PoweredOff, "{}", bench.log());
    bench.is_clear(&machine.processes()).await;
}

#[tokio::test]
async fn the_agent_restarts_the_guest_and_then_powers_it_off() {
    let Some(bench) = bench() else { return };
    let machine = bench.start().await;
    let mut events = machine.events();
    within(shut_down(&*machine, true)).await;
    assert_eq!(within(events.recv()).await.unwrap(), MachineEvent::Rebooted);
    within(shut_down(&*machine, false)).await;
    let exit = within(machine.stop(PATIENCE)).await.unwrap();
    assert_eq!(exit.cause, ExitCause::PoweredOff, "{}", bench.log());
    bench.is_clear(&machine.processes()).await;
}
