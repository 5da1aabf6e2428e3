//! Test executables: built by cargo, run as an ordinary user, counted.

use crate::{
    check::DESKTOP,
    layout::Layout,
    process::{cargo, since_the_first_step, words},
    unprivileged::Runner,
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A suite that has ended may have left a process behind that holds its output; it is not waited for any longer.
const LEFT_OPEN: Duration = Duration::from_secs(5);

/// Lines of a failed suite's account that are kept for the end of the run.
const ACCOUNT_LINES: usize = 60;

/// One test executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suite {
    /// Its package.
    pub(crate) package: String,
    /// Its target: the crate's name for unit tests, the file's for integration tests.
    pub(crate) name: String,
    /// The program.
    pub(crate) executable: PathBuf,
    /// The package's directory, where cargo would run it.
    pub(crate) directory: PathBuf,
}

impl Suite {
    /// How it is called in what we print.
    pub(crate) fn title(&self) -> String {
        format!("{}::{}", self.package, self.name)
    }
}

/// Outcomes of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Adds what another suite counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Builds every test executable and example of the workspace, and the programs that the suites start; the desktop
/// application's if `desktop`.
///
/// All in one go: crates that several packages use are compiled once, with the features that all of them together
/// want, and not once for every set of features.
pub(crate) fn build(layout: &Layout, features: &str, desktop: bool) -> Result<Vec<Suite>> {
    let mut command = cargo(layout);
    command.args([
        "build",
        "--quiet",
        "--locked",
        "--workspace",
        "--examples",
        "--tests",
        "--bin",
        "cove",
    ]);
    command.args(["--features", features]);
    if desktop {
        command.args(["--bin", DESKTOP, "--bin", "docker-credential-cove"]);
    } else {
        command.args(["--exclude", DESKTOP]);
    }
    command.args(["--message-format", "json-render-diagnostics"]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", words(&command)))?;
    let mut messages = String::new();
    child
        .stdout
        .take()
        .context("cargo has no standard output")?
        .read_to_string(&mut messages)
        .context("cannot read cargo's messages")?;
    if !child.wait()?.success() {
        bail!("the tests do not compile");
    }
    Ok(messages.lines().filter_map(suite_in).collect())
}

/// The test executable that a message of cargo announces, if it announces one.
fn suite_in(message: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?.to_path_buf();
    Some(Suite {
        package: directory.file_name()?.to_string_lossy().into_owned(),
        name: message["target"]["name"].as_str()?.to_owned(),
        executable: message["executable"].as_str()?.into(),
        directory,
    })
}

/// The variable by which a suite's processes are known.
const MARK: &str = "COVE_TEST_SUITE";

/// What a test that mounts runs in processes of their own, and no test by itself.
const PART: &str = "one_of_the_processes";

/// How to run a suite.
#[derive(Debug)]
pub(crate) struct How<'a> {
    /// As whom.
    pub(crate) runner: &'a Runner,
    /// Variables for it.
    pub(crate) environment: &'a [(&'static str, PathBuf)],
    /// Arguments of the test harness.
    pub(crate) arguments: &'a [String],
    /// Print its lines as they come; otherwise only when it fails.
    pub(crate) live: bool,
    /// It is killed after this long.
    pub(crate) limit: Duration,
    /// It holds tests that mount, which are left out unless we are root.
    pub(crate) mounts: bool,
}

/// How a suite ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// What it says of its failures; empty when there are none.
    pub(crate) account: String,
}

/// Runs one suite to its end.
pub(crate) fn run(suite: &Suite, how: &How<'_>) -> Result<Outcome> {
    let of_root = how.mounts.then(|| how.runner.command_of_root(&suite.executable));
    let mut command = match of_root.flatten() {
        Some(mut command) => {
            command.args(["--include-ignored", "--skip", PART]);
            command
        }
        None => how.runner.command(&suite.executable),
    };
    command.current_dir(&suite.directory).args(how.arguments);
    for (name, value) in how.environment {
        command.env(name, value);
    }
    command.env("CARGO_MANIFEST_DIR", &suite.directory);
    let live = how.live.then_some(suite.name.as_str());
    run_command(command, &suite.title(), live, how.limit, tally_in)
}

/// Runs a command that tries things to its end. Its lines are printed as they come, if `live` names whose they are, and
/// otherwise only when it fails. Of what it wrote to its standard output `tally` makes what it counted.
pub(crate) fn run_command(
    mut command: Command,
    title: &str,
    live: Option<&str>,
    limit: Duration,
    tally: impl FnOnce(&str) -> Option<Tally>,
) -> Result<Outcome> {
    let began = Instant::now();
    let mark = format!("{}-{title}", std::process::id());
    command.env(MARK, &mark);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(&mut command)?;
    let stdout = Output::collect(child.stdout.take(), live);
    let stderr = Output::collect(child.stderr.take(), live);
    let timed_out = !wait_until(&mut child, began + limit)?;
    let status = child.wait()?;
    if timed_out {
        end_marked(&mark);
    }
    let patience = Instant::now() + LEFT_OPEN;
    let stdout = stdout.text_by(patience);
    let stderr = stderr.text_by(patience);
    let tally = tally(&stdout);
    let mut counted = tally.unwrap_or_default();
    let mut account = String::new();
    if !status.success() || tally.is_none() {
        account = account_of(&stdout, &stderr);
        if live.is_none() {
            print!("{stdout}{stderr}");
        }
        // A suite that was killed or crashed has not counted its failure itself.
        counted.failed = counted.failed.max(1);
    }
    let how_it_ended = if timed_out {
        format!(" (killed after {} s)", limit.as_secs())
    } else if !status.success() {
        format!(" ({status})")
    } else {
        String::new()
    };
    println!(
        "    {:<44} {:>4} passed {:>3} failed {:>3} skipped  {:>6.1} s, at {:>4} s{how_it_ended}",
        title,
        counted.passed,
        counted.failed,
        counted.skipped,
        began.elapsed().as_secs_f32(),
        since_the_first_step().as_secs()
    );
    Ok(Outcome {
        tally: counted,
        account,
    })
}

fn spawn(command: &mut Command) -> Result<Child> {
    // A group of its own, so that a suite that is killed takes what it started along.
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        command.process_group(0);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start `{}`", words(command)))
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<bool> {
    loop {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        if Instant::now() > deadline {
            kill_group(child);
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn kill_group(child: &mut Child) {
    #[cfg(unix)]
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(group) = rustix::process::Pid::from_raw(pid)
    {
        // It may have ended in this moment, which is what was wanted.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
}

/// Ends what a killed suite has left: daemons and machines, which are in groups of their own.
fn end_marked(mark: &str) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Pid, Signal, kill_process};
        let variable = format!("{MARK}={mark}");
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes {
            let number = process.file_name().to_string_lossy().parse().ok();
            // Of those that ended in this moment, and those of others, there is nothing to read.
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == variable.as_bytes())
                && let Some(pid) = number.and_then(Pid::from_raw)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = mark;
}

/// What a suite writes to one of its streams.
struct Output {
    text: Arc<Mutex<String>>,
    reader: thread::JoinHandle<()>,
}

impl Output {
    /// Reads `stream` to its end; the lines are shown as they come, if `live` names whose they are.
    fn collect(stream: Option<impl std::io::Read + Send + 'static>, live: Option<&str>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let live = live.map(str::to_owned);
        let reader = thread::spawn({
            let text = Arc::clone(&text);
            move || {
                let Some(stream) = stream else { return };
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    if let Some(whose) = &live {
                        println!("    {whose:>13} | {line}");
                    }
                    let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        });
        Self { text, reader }
    }

    /// What has come when the stream ends, or at `deadline` if it is held open.
    fn text_by(self, deadline: Instant) -> String {
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        std::mem::take(&mut *self.text.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a suite says of its failures, without what came before; its last lines, where it did not get to say anything.
fn account_of(stdout: &str, stderr: &str) -> String {
    let account = match stdout.split_once("\nfailures:\n") {
        Some((_, account)) => account.to_owned(),
        None => format!("{stdout}{stderr}"),
    };
    let lines: Vec<&str> = account.lines().filter(|line| !line.is_empty()).collect();
    let last = lines.len().saturating_sub(ACCOUNT_LINES);
    lines.get(last..).unwrap_or_default().join("\n")
}

/// Adds up the closing lines of Rust's test harness; nothing when there is none.
fn tally_in(output: &str) -> Option<Tally> {
    let mut tally = None;
    for line in output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "))
    {
        let count = |word: &str| -> Option<u64> {
            let part = line
                .split(['.', ';'])
                .find(|part| part.trim_end().ends_with(word))?;
            part.split_whitespace().next()?.parse().ok()
        };
        let sum: &mut Tally = tally.get_or_insert_default();
        sum.add(Tally {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        });
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_closing_line_is_counted() {
        let output = "running 3 tests\n...\ntest result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; \
                      0 filtered out; finished in 0.05s\n";
        let expected = Tally {
            passed: 12,
            failed: 1,
            skipped: 2,
        };
        assert_eq!(tally_in(output), Some(expected));
    }

    #[test]
    fn a_failed_suites_account_is_what_it_says_of_its_failures() {
        let output = "test a ... FAILED\n\nfailures:\n\n---- a ----\nit is 2\n\nfailures:\n    a\n";
        assert_eq!(
            account_of(output, "noise\n"),
            "---- a ----\nit is 2\nfailures:\n    a"
        );
        assert_eq!(account_of("test a ... ", "it crashed\n"), "test a ... it crashed");
        let long = "line\n".repeat(ACCOUNT_LINES + 1);
        assert_eq!(account_of(&long, "").lines().count(), ACCOUNT_LINES);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_killed_suite_left_is_ended_and_nothing_else() {
        let mark = format!("a-test-of-{}", std::process::id());
        let cat = |value: &str| {
            let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
            let mut cat = Command::new("cat")
                .env(MARK, value)
                .stdin(stdin)
                .stdout(stdout)
                .spawn()
                .unwrap();
            // Its environment can be read once it runs: only the program itself can say so.
            cat.stdin.as_mut().unwrap().write_all(b"?").unwrap();
            cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            cat
        };
        let (mut left, mut other) = (cat(&mark), cat(&format!("{mark}-and-another")));
        end_marked(&mark);
        // Waiting closes what it reads: one that lives ends then, and well.
        assert!(!left.wait().unwrap().success());
        assert!(other.wait().unwrap().success());
    }

    #[test]
    fn output_that_is_held_open_is_not_waited_for() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"test a ... ok\n").unwrap();
        let output = Output::collect(Some(reader), None);
        while output.text.lock().unwrap().is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(output.text_by(Instant::now()), "test a ... ok\n");
        drop(writer);
    }

    #[test]
    fn a_suite_that_died_has_no_closing_line() {
        assert_eq!(tally_in("running 3 tests\ntest a ... "), None);
    }

    #[test]
    fn test_executables_are_told_from_other_artifacts() {
        let test = r#"{"reason":"compiler-artifact","manifest_path":"/c/tests/Cargo.toml",
            "target":{"name":"e2e"},"profile":{"test":true},"executable":"/t/e2e-1"}"#
            .replace('\n', "");
        let suite = suite_in(&test).unwrap();
        assert_eq!(suite.title(), "tests::e2e");
        assert_eq!(suite.directory, Path::new("/c/tests"));
        assert_eq!(suite_in(&test.replace("true", "false")), None);
        assert_eq!(suite_in("not json"), None);
    }
}
