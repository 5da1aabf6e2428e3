//! An independent Cove: directories of its own, the daemon and the machines that run for them.

use super::{Cmd, Kit, eventually};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tempfile::TempDir;

/// A machine small enough that several fit beside each other.
const SETTINGS: &str = "[machine]\ncpus = 2\nmemory = \"1 GiB\"\ndisk = \"16 GiB\"\nbackend = \"emulated\"\n";
/// A boot takes ten seconds on an idle computer, several times that on a busy one.
const START_LIMIT: Duration = Duration::from_mins(5);

/// An independent Cove. Dropping it ends everything that it runs.
#[derive(Debug)]
pub struct Cove {
    name: String,
    kit: Kit,
    root: TempDir,
    failed: AtomicBool,
}

impl Cove {
    /// Directories with the image under test and no machine running. `name` names its logs.
    pub fn new(name: &str) -> Self {
        let cove = Self::without_image(name);
        let data = cove.home().join("data");
        must(fs::create_dir_all(&data), &data);
        must(symlink(&cove.kit.image, data.join("image")), &data);
        cove
    }

    /// Directories without an image.
    pub fn without_image(name: &str) -> Self {
        let kit = Kit::from_env();
        // Short, because the paths of sockets have to be.
        let root = must(
            tempfile::Builder::new().prefix("cove-").tempdir_in("/tmp"),
            Path::new("/tmp"),
        );
        let cove = Self {
            name: name.to_owned(),
            kit,
            root,
            failed: AtomicBool::new(false),
        };
        let config = cove.home().join("config");
        must(fs::create_dir_all(&config), &config);
        must(fs::write(config.join("settings.toml"), SETTINGS), &config);
        let plugins = cove.docker_config().join("cli-plugins");
        must(fs::create_dir_all(cove.docker_config()), &plugins);
        if let Some(from) = &cove.kit.plugins {
            must(symlink(from, &plugins), &plugins);
        }
        cove
    }

    /// What it is run with.
    pub fn kit(&self) -> &Kit {
        &self.kit
    }

    /// A directory for a test's files.
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    /// `COVE_HOME`.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("c")
    }

    /// Where the Docker client of this Cove keeps its configuration.
    pub fn docker_config(&self) -> PathBuf {
        self.root.path().join("d")
    }

    /// The hosts file that takes the system's place. There is none unless a test makes it.
    pub fn hosts_file(&self) -> PathBuf {
        self.root.path().join("hosts")
    }

    /// A directory of a machine's persistent files.
    pub fn machine_directory(&self, machine: &str) -> PathBuf {
        self.home().join("data/machines").join(machine)
    }

    /// The forwarded Docker socket of the default machine.
    pub fn docker_socket(&self) -> PathBuf {
        self.home().join("run/default/docker.sock")
    }

    /// `cove …`.
    pub fn cove<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Cmd {
        self.told(self.client(&self.kit.program)).args(arguments)
    }

    /// Another program, in the surroundings of `cove`.
    pub fn program(&self, program: &str) -> Cmd {
        self.told(self.client(program))
    }

    /// `docker …`, pointed at the forwarded socket by `DOCKER_HOST`.
    pub fn docker<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Cmd {
        let host = format!("unix://{}", self.docker_socket().display());
        self.bare_docker(arguments).env("DOCKER_HOST", host)
    }

    /// `docker …`, which finds its engine by its own configuration.
    pub fn bare_docker<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Cmd {
        self.client(&self.kit.docker).args(arguments)
    }

    /// Another program, which is told nothing about this Cove. Nothing of the surroundings but the path may decide what a
    /// test sees.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
        Cmd::new(program)
            .without_env("DOCKER_HOST")
            .without_env("DOCKER_CONTEXT")
            .without_env("COVE_MACHINE")
            .without_env("COVE_HOME")
            .without_env("COVE_HOSTS")
            .without_env("XDG_RUNTIME_DIR")
            .env("DOCKER_CONFIG", self.docker_config())
            .env("HOME", self.root.path())
            .directory(self.root.path())
    }

    /// Has a program find this Cove.
    fn told(&self, command: Cmd) -> Cmd {
        command
            .env("COVE_HOME", self.home())
            .env("COVE_HOSTS", self.hosts_file())
    }

    /// Starts the default machine and waits for its engine.
    #[track_caller]
    pub fn start(&self) {
        self.cove(["start"]).limit(START_LIMIT).ok();
    }

    /// `cove status --json`, whatever its exit code.
    #[track_caller]
    pub fn status(&self) -> Value {
        let finished = self.cove(["status", "--json"]).run();
        match serde_json::from_slice(&finished.stdout) {
            Ok(status) => status,
            Err(error) => panic!("no status ({error}): {finished}"),
        }
    }

    /// What the default machine runs on, such as `emulated`.
    #[track_caller]
    pub fn backend(&self) -> String {
        let status = self.status();
        match status["backend"]["kind"].as_str() {
            Some(kind) => kind.to_owned(),
            None => panic!("the status has no backend: {status}"),
        }
    }

    /// The word for the default machine's state.
    #[track_caller]
    pub fn state(&self) -> String {
        self.status()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The daemon's process id.
    #[track_caller]
    pub fn daemon_pid(&self) -> i32 {
        let version: Value = serde_json::from_str(&self.cove(["version", "--json"]).ok()).unwrap_or_default();
        let pid = version["daemon"]["pid"].as_i64().unwrap_or_default();
        i32::try_from(pid).unwrap_or_default()
    }

    /// Every process that runs for this Cove: its daemon, machine processes, hypervisors, by their command lines.
    pub fn processes(&self) -> BTreeMap<i32, String> {
        let home = self.home();
        let home = home.to_string_lossy().into_owned();
        let variable = format!("COVE_HOME={home}");
        let Ok(entries) = fs::read_dir("/proc") else {
            return BTreeMap::new();
        };
        entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let words = read_words(&entry.path().join("cmdline"))?;
                let variables = read_words(&entry.path().join("environ")).unwrap_or_default();
                let is_cove = words.contains(&self.kit.program.to_string_lossy().into_owned());
                let ours = words.contains(&home) || (is_cove && variables.contains(&variable));
                (ours && !words.is_empty()).then_some((pid, words))
            })
            .collect()
    }

    /// The processes whose command line contains `word`.
    pub fn processes_named(&self, word: &str) -> Vec<i32> {
        self.processes()
            .into_iter()
            .filter(|(_, words)| words.contains(word))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// The machine processes, without the confined ones that they started.
    pub fn machine_processes(&self) -> Vec<i32> {
        let processes = self.processes();
        let machine = |pid: &i32| {
            processes
                .get(pid)
                .is_some_and(|words| words.contains("machine-process"))
        };
        // A child of one is a part of it, also while it has not become another program yet.
        let is_part = |pid: &i32| parent(*pid).is_some_and(|parent| machine(&parent));
        processes
            .keys()
            .copied()
            .filter(|pid| machine(pid) && !is_part(pid))
            .collect()
    }

    /// `kill -9`.
    pub fn kill(pid: i32) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Has the logs kept when this is dropped.
    pub fn mark_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    fn keep_logs(&self) {
        let place = self.kit.logs.join(&self.name);
        if fs::create_dir_all(&place).is_err() {
            return;
        }
        for source in [
            "daemon",
            "console",
            "machine",
            "agent",
            "engine",
            "containerd",
            "kernel",
        ] {
            let log = self.cove(["logs", source]).limit(Duration::from_secs(20));
            let finished = log.run();
            // Logs that cannot be kept cannot be helped here.
            let _ = fs::write(
                place.join(source),
                [finished.stdout, finished.stderr.into()].concat(),
            );
        }
        let _ = fs::write(
            place.join("status"),
            self.cove(["status", "--timings"]).run().to_string(),
        );
        eprintln!("logs are kept in {}", place.display());
    }
}

impl Drop for Cove {
    fn drop(&mut self) {
        if self.failed.load(Ordering::Relaxed) || std::thread::panicking() {
            self.keep_logs();
        }
        if !self.processes().is_empty() {
            let _ = self.cove(["daemon", "stop"]).limit(Duration::from_mins(2)).run();
        }
        // What an orderly end has left over is ended by force, and that is said.
        for (pid, words) in self.processes() {
            eprintln!("left over: process {pid}: {words}");
            Self::kill(pid);
        }
        if !std::thread::panicking() {
            eventually("every process to end", || self.processes().is_empty());
        }
    }
}

/// The process that has started this one.
fn parent(pid: i32) -> Option<i32> {
    i32::try_from(stat(pid, 4)?).ok()
}

/// A number that `/proc/PID/stat` says of a process, by its place there, which proc(5) counts from one. The first that
/// can be asked for is the fourth, its parent.
pub(crate) fn stat(pid: i32, place: usize) -> Option<u64> {
    number_in_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, place)
}

/// The same in what was read there.
pub(crate) fn number_in_stat(stat: &str, place: usize) -> Option<u64> {
    // The name, in brackets, may hold anything.
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(place.checked_sub(3)?)?.parse().ok()
}

/// The words of `/proc/PID/cmdline` or `environ`, a blank between them.
fn read_words(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

#[track_caller]
fn must<T>(result: io::Result<T>, path: &Path) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("cannot prepare {}: {error}", path.display()),
    }
}
