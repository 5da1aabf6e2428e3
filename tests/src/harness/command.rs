//! Programs that are run to their end, with a limit on how long that may take.

use std::{
    ffi::OsStr,
    fmt,
    io::{self, Read, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Generous, since an emulated machine on a busy computer can be ten times slower than usual.
const USUAL_LIMIT: Duration = Duration::from_mins(3);

/// Writes a program's standard input.
type Input = dyn FnOnce(&mut ChildStdin) -> io::Result<()> + Send;

/// A program about to be run.
#[must_use = "nothing runs before `run`, `ok` or `spawn`"]
pub struct Cmd {
    command: Command,
    input: Option<Box<Input>>,
    limit: Duration,
}

impl Cmd {
    /// A program with no input and the usual limit.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            command: Command::new(program),
            input: None,
            limit: USUAL_LIMIT,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable away.
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the working directory.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Gives it standard input, which then ends.
    pub fn input(self, input: impl Into<Vec<u8>>) -> Self {
        let input = input.into();
        self.input_from(move |stdin| stdin.write_all(&input))
    }

    /// Has its standard input written while it runs, for more than one would keep in memory.
    pub fn input_from(
        mut self,
        write: impl FnOnce(&mut ChildStdin) -> io::Result<()> + Send + 'static,
    ) -> Self {
        self.input = Some(Box::new(write));
        self
    }

    /// Sets another limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it with pipes for its standard streams, for tests that talk to it while it runs.
    #[track_caller]
    pub fn spawn(mut self) -> Child {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match self.command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {:?}: {error}", self.command),
        }
    }

    /// Runs it to its end; panics when that takes too long.
    #[track_caller]
    pub fn run(mut self) -> Finished {
        let words = format!("{:?}", self.command);
        let limit = self.limit;
        let input = self.input.take();
        let began = Instant::now();
        let mut child = self.spawn();
        let feeder = child.stdin.take().map(|mut stdin| {
            thread::spawn(move || {
                if let Some(input) = input {
                    // A program that does not read all of its input is within its rights.
                    let _ = input(&mut stdin);
                }
            })
        });
        let stdout = read_all(child.stdout.take());
        let stderr = read_all(child.stderr.take());
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if began.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    // It may end in this moment; the panic tells all the same.
                    let _ = child.kill();
                    panic!(
                        "{words} did not end within {} s\nstdout: {}\nstderr: {}",
                        limit.as_secs(),
                        text(stdout.join()),
                        text(stderr.join())
                    );
                }
                Err(error) => panic!("cannot wait for {words}: {error}"),
            }
        };
        let took = began.elapsed();
        if let Some(feeder) = feeder {
            let _ = feeder.join();
        }
        Finished {
            words,
            code: status.code(),
            stdout: stdout.join().unwrap_or_default(),
            stderr: text(stderr.join()),
            took,
        }
    }

    /// Runs it and expects success; its standard output without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        let finished = self.run();
        assert_eq!(finished.code, Some(0), "{finished}");
        finished.text()
    }
}

fn read_all(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is what there is.
            let _ = stream.read_to_end(&mut all);
        }
        all
    })
}

fn text(bytes: thread::Result<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    words: String,
    /// Its exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// Standard output as text, without the last newline.
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.stdout).into_owned();
        text.truncate(text.trim_end_matches('\n').len());
        text
    }

    /// Expects failure with this exit code.
    #[track_caller]
    pub fn fails_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Expects standard error to contain all of these.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "nothing says `{word}`: {self}");
        }
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self
            .code
            .map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
        let stdout = self.text();
        // A gibibyte in a panic message helps nobody.
        let shown: String = stdout.chars().take(4000).collect();
        write!(
            f,
            "{} ended with {end} after {:.1} s\nstdout: {shown}\nstderr: {}",
            self.words,
            self.took.as_secs_f32(),
            self.stderr
        )
    }
}
