//! How far `BuildKit` is with a build, from what `docker buildx build --progress=plain` writes.
//!
//! Each step has a number, from 1 on, and each of its lines begins with it:
//!
//! ```text
//!  #5 [base 2/3] RUN make          its title: stage, place in it, what it does
//!  #5 0.213 cc -o a a.c            what it wrote, behind the seconds since its beginning
//!  #5 sha256:.. 1.05MB / 3.41MB    what of it is under way
//!  #5 ...                          another one is written about; the title is written again before it goes on
//!  #5 DONE 1.4s                    or CACHED, CANCELED, ERROR: why
//! ```
//!
//! Other lines are the client's words, such as why the build failed. The machine's buildx knows no format for programs.
//! A build runs programs of its Dockerfile, which write what they like, but each line of theirs stands behind number
//! and seconds; and everything is bounded, and what is beyond the bounds is left out.

use crate::{BuildStep, BuildStepState, TaskStep};
use std::collections::{HashMap, VecDeque};

/// Longest line that is kept, in bytes; of what is longer, the beginning.
const LINE: usize = 8 * 1024;
/// Longest name, in characters.
const NAME: usize = 400;
/// Most steps; no build has so many.
const STEPS: usize = 2000;
/// What is kept of the log, in bytes: its end, since that says why a build failed.
const LOG: usize = 1 << 20;
/// Lines of the client's that are kept to say why it failed.
const WORDS: usize = 20;

/// The steps of a build on their way.
#[derive(Debug, Default)]
pub struct BuildProgress {
    /// The beginning of a line whose end is still to come.
    open: Vec<u8>,
    steps: Vec<BuildStep>,
    /// Positions in `steps`, by `BuildKit`'s numbers.
    known: HashMap<u32, usize>,
    log: VecDeque<String>,
    log_bytes: usize,
    cut: bool,
    words: VecDeque<String>,
}

impl BuildProgress {
    /// Takes what the client wrote, however it is cut, and says what that tells.
    pub fn take(&mut self, mut bytes: &[u8]) -> Vec<TaskStep> {
        let mut told = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.open(&bytes[..end]);
            let line = std::mem::take(&mut self.open);
            self.line(&String::from_utf8_lossy(&line), &mut told);
            bytes = &bytes[end + 1..];
        }
        self.open(bytes);
        told
    }

    /// Says what a last line without an end tells. Steps that have not ended are ended with the build.
    pub fn finish(&mut self) -> Vec<TaskStep> {
        let mut told = self.take(b"\n");
        for step in &mut self.steps {
            if step.state == BuildStepState::Running {
                step.end(BuildStepState::Cancelled);
                told.push(TaskStep::Build { step: step.clone() });
            }
        }
        told
    }

    /// The steps in the order in which `BuildKit` named them.
    pub fn steps(&self) -> &[BuildStep] {
        &self.steps
    }

    /// What was written, one line each.
    pub fn log(&self) -> Vec<String> {
        let cut = self.cut.then(|| "…".to_owned());
        cut.into_iter().chain(self.log.iter().cloned()).collect()
    }

    /// Why the build failed, in the client's words; empty where it said nothing.
    pub fn failure(&self) -> String {
        let last = self
            .words
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("ERROR: "));
        let last = last.or(self.words.back().map(String::as_str));
        last.unwrap_or_default().to_owned()
    }

    fn open(&mut self, bytes: &[u8]) {
        let room = LINE.saturating_sub(self.open.len());
        self.open.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line(&mut self, line: &str, told: &mut Vec<TaskStep>) {
        // Of what a program wrote over and over on one line, the last counts.
        let line = line.trim_end();
        let (numbered, rest) = match line.rsplit_once('\r') {
            Some((before, last)) => (before, last),
            None => (line, line),
        };
        let Some((number, text)) = numbered_line(numbered) else {
            if !line.is_empty() {
                self.words.push_back(line.to_owned());
                if self.words.len() > WORDS {
                    self.words.pop_front();
                }
                self.write(line.to_owned(), told);
            }
            return;
        };
        let said = match self.known.get(&number) {
            _ if number == 0 => true,
            Some(&position) => self.more(position, text, told),
            None => self.begin(number, text, told),
        };
        if said {
            let again = numbered.len() != line.len();
            let shown = if again {
                format!("#{number} {rest}")
            } else {
                line.to_owned()
            };
            self.write(shown, told);
        }
    }

    /// A line with a number that is new is the step's title.
    fn begin(&mut self, number: u32, title: &str, told: &mut Vec<TaskStep>) -> bool {
        if self.steps.len() >= STEPS {
            return true;
        }
        let (stage, place, name) = parts_of(title);
        let step = BuildStep {
            number,
            stage,
            place,
            name,
            state: BuildStepState::Running,
            took_ms: None,
            note: String::new(),
            fraction: None,
            error: String::new(),
        };
        self.known.insert(number, self.steps.len());
        self.steps.push(step.clone());
        told.push(TaskStep::Build { step });
        true
    }

    /// Another line of a step; whether it says anything.
    fn more(&mut self, position: usize, text: &str, told: &mut Vec<TaskStep>) -> bool {
        let step = &mut self.steps[position];
        let before = step.clone();
        if text == "..." || parts_of(text).2 == step.name {
            return false;
        }
        if let Some(why) = text.strip_prefix("ERROR: ") {
            why.clone_into(&mut step.error);
            step.end(BuildStepState::Failed);
        } else if text == "CACHED" {
            step.end(BuildStepState::Cached);
        } else if text == "CANCELED" {
            step.end(BuildStepState::Cancelled);
        } else if let Some(took) = text.strip_prefix("DONE ").and_then(milliseconds) {
            step.took_ms = Some(took);
            // It may be cached and yet have had to be fetched.
            step.end(match step.state {
                BuildStepState::Cached => BuildStepState::Cached,
                _ => BuildStepState::Done,
            });
        } else if step.state == BuildStepState::Running && !is_output(text) {
            let over = text.ends_with(" done");
            step.note = if over { String::new() } else { cut(text, NAME) };
            step.fraction = if over { None } else { fraction(text) };
        }
        if *step != before {
            let step = step.clone();
            told.push(TaskStep::Build { step });
        }
        true
    }

    fn write(&mut self, line: String, told: &mut Vec<TaskStep>) {
        self.log_bytes += line.len();
        self.log.push_back(line.clone());
        while self.log_bytes > LOG
            && let Some(first) = self.log.pop_front()
        {
            self.log_bytes -= first.len();
            self.cut = true;
        }
        told.push(TaskStep::Line { text: line });
    }
}

impl BuildStep {
    fn end(&mut self, state: BuildStepState) {
        self.state = state;
        (self.note, self.fraction) = (String::new(), None);
    }
}

/// `#5 text` as 5 and `text`.
fn numbered_line(line: &str) -> Option<(u32, &str)> {
    let (number, text) = line.strip_prefix('#')?.split_once(' ')?;
    Some((number.parse().ok()?, text))
}

/// Whether a program wrote it: then the seconds since the step's beginning stand before it.
fn is_output(text: &str) -> bool {
    let (seconds, _) = text.split_once(' ').unwrap_or((text, ""));
    seconds.contains('.') && milliseconds(seconds).is_some()
}

/// `1.4s` or `1.4` in milliseconds.
fn milliseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.trim_end_matches('s').split_once('.').unwrap_or((text, "0"));
    let digits =
        |text: &str| !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * 1000 + thousandths.parse::<u64>().ok()?)
}

/// How much of `sha256:.. 1.05MB / 3.41MB 0.4s` has come.
fn fraction(text: &str) -> Option<f32> {
    let (come, all) = text.split_once(" / ")?;
    let size = |word: &str| -> Option<u64> {
        let unit = word.find(|letter: char| letter.is_ascii_alphabetic())?;
        let factor = match &word[unit..] {
            "B" => 1,
            "kB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return None,
        };
        Some(milliseconds(&word[..unit])?.checked_mul(factor)? / 1000)
    };
    let come = size(come.rsplit(' ').next()?)?;
    let all = size(all.split(' ').next()?)?;
    (all > 0).then(|| TaskStep::fraction(come, all))
}

/// A title as stage, place in it, and what is done: `[linux/arm64 build 2/4] RUN make`. What `BuildKit` does of
/// its own accord stands behind `[internal]` or `[auth]`, or behind nothing.
fn parts_of(name: &str) -> (Option<String>, String, String) {
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let Some((at, what)) = bracketed else {
        return (None, String::new(), cut(name, NAME));
    };
    let what = cut(what, NAME);
    let is_place = |word: &str| {
        word.split_once('/').is_some_and(|(one, all)| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits(one) && digits(all)
        })
    };
    let (stage, place) = match at.rsplit_once(' ') {
        Some((stage, place)) if is_place(place) => (stage.trim_end(), place),
        // The only stage of a Dockerfile has no name in BuildKit's words; of several, it calls this one so.
        None if is_place(at) => ("stage-0", at),
        _ => (at, ""),
    };
    match stage {
        "internal" | "auth" => (None, String::new(), what),
        stage => (Some(cut(stage, NAME)), cut(place, NAME), what),
    }
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

#[cfg(test)]
#[path = "build_progress/tests.rs"]
mod tests;
