//! Emulated machines from their start to each way in which they end, on the QEMU of this computer.
//!
//! The guests are kernels of a few dozen bytes ([`kernel`]). One test boots the real image; it needs the image's
//! directory in `COVE_TEST_IMAGE` and says so when that is not set.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ending;
mod image;
mod kernel;
mod life;
#[path = "../../src/test_script.rs"]
mod test_script;

use cove_machine::{Backend, Emulated, ExitCause, Machine, MachineError, MachineSpec};
use kernel::Then;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take that takes well under a second on an idle computer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A place for one machine. Whatever still runs in it at the end is ended.
struct Bench {
    root: TempDir,
    spec: MachineSpec,
}

impl Bench {
    /// A machine whose kernel writes `message` and then does `then`.
    fn new(message: &str, then: Then) -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("kernel"), kernel::build(message, then)).unwrap();
        std::fs::write(at("initramfs"), [0; 512]).unwrap();
        std::fs::write(at("rootfs"), [0; 4096]).unwrap();
        std::fs::File::create(at("data"))
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        let spec = MachineSpec {
            name: "test".into(),
            directory: at("machine"),
            runtime: at("run"),
            kernel: at("kernel"),
            initramfs: at("initramfs"),
            rootfs: at("rootfs"),
            data_disk: at("data"),
            cpus: 1,
            memory_mib: 256,
            kernel_arguments: Vec::new(),
            own: Vec::new(),
        };
        Self { root, spec }
    }

    async fn start(&self) -> Box<dyn Machine> {
        match backend().start(&self.spec).await {
            Ok(machine) => machine,
            Err(error) => panic!("{error}\n{}", self.log()),
        }
    }

    /// Waits until the console holds `text` at least `times` times.
    async fn console_shows(&self, text: &str, times: usize) {
        let path = self.spec.directory.join("console.log");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let console = std::fs::read(&path).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            if console.matches(text).count() >= times {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no `{text}` in: {console}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The machine process's log.
    fn log(&self) -> String {
        std::fs::read_to_string(self.spec.directory.join("process.log")).unwrap_or_default()
    }

    fn console_size(&self) -> u64 {
        std::fs::metadata(self.spec.directory.join("console.log"))
            .unwrap()
            .len()
    }

    /// Checks that the machine left no socket, no process and no lock.
    async fn is_clear(&self, processes: &[u32]) {
        let deadline = Instant::now() + PATIENCE;
        // The machine process accounts for the end a moment before its own.
        while processes.iter().any(|pid| runs(*pid)) {
            assert!(
                Instant::now() < deadline,
                "one of the processes {processes:?} is left"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let sockets: Vec<_> = std::fs::read_dir(&self.spec.runtime)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            sockets.is_empty(),
            "sockets are left: {sockets:?}\n{}",
            self.log()
        );
        assert!(backend().adopt(&self.spec).await.unwrap().is_none());
        assert!(!self.spec.directory.join("processes.json").exists());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The names of the processes are in the machine's own record, for tests that failed half-way.
        let record = self.spec.directory.join("processes.json");
        let Ok(text) = std::fs::read_to_string(record) else {
            return;
        };
        let processes: serde_json::Value = serde_json::from_str(&text).unwrap();
        if let Some(pid) = processes["process"]["pid"].as_u64() {
            let pid = u32::try_from(pid).unwrap();
            if runs(pid) {
                signal(pid, Signal::KILL);
            }
        }
    }
}

fn backend() -> Emulated {
    Emulated::new(Some(program()))
}

/// The example that runs machine processes.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/machine-process");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p cove-machine --examples",
        program.display()
    );
    program
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Whether a process is there and not merely waiting to be reaped.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
