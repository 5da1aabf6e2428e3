//! The real image: kernel, agent and socket device together.

use super::*;
use tokio::io::AsyncReadExt;

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

/// Connects to the agent's control port as soon as it listens, and reads the first bytes of its greeting.
async fn greeting(machine: &dyn Machine) -> [u8; 4] {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match machine.connect(cove_wire::port::CONTROL).await {
            Ok(mut connection) => {
                let mut first = [0; 4];
                connection.read_exact(&mut first).await.unwrap();
                return first;
            }
            Err(MachineError::Refused { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn the_agent_greets_and_greets_again_after_a_pause_and_an_adoption() {
    let Some(bench) = bench() else { return };
    let begun = Instant::now();
    let machine = bench.start().await;
    greeting(&*machine).await;
    eprintln!("the agent greeted after {:?}", begun.elapsed());
    within(machine.pause()).await.unwrap();
    within(machine.resume()).await.unwrap();
    drop(machine);
    let machine = within(backend().adopt(&bench.spec)).await.unwrap().unwrap();
    greeting(&*machine).await;
    within(machine.kill()).await.unwrap();
}
