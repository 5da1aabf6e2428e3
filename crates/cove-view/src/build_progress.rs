//! How far `BuildKit` is with a build, from what `docker buildx build --progress=rawjson` writes.
//!
//! Each line is one JSON object, `BuildKit`'s `SolveStatus`: vertices, which are the steps, told again whenever something
//! about them changes; statuses, which are parts of a step under way; logs, pieces of what a step writes, in base64; and
//! warnings. Lines that are none are words of the client's, such as why it failed. A build runs programs of its
//! Dockerfile, which write what they like: everything is bounded, and what is beyond the bounds is left out.

use crate::{BuildStep, BuildStepState, TaskStep, time};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};

/// Longest line of the client's, in bytes. `BuildKit` cuts what a step writes into far smaller pieces.
const LONGEST: usize = 1 << 20;
/// Longest line of a log that is kept, in bytes; what is longer goes on in another line.
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
    /// Whether the line that is still to come is longer than it may be.
    skipping: bool,
    steps: Vec<Step>,
    /// Positions in `steps`, by `BuildKit`'s digests.
    known: HashMap<String, usize>,
    log: VecDeque<String>,
    log_bytes: usize,
    cut: bool,
    words: VecDeque<String>,
}

#[derive(Debug)]
struct Step {
    seen: BuildStep,
    /// Whether the log has its title.
    titled: bool,
    /// The beginning of a line of its log.
    open: Vec<u8>,
}

impl BuildProgress {
    /// Takes what the client wrote, however it is cut, and says what that tells.
    pub fn take(&mut self, mut bytes: &[u8]) -> Vec<TaskStep> {
        let mut told = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.open(&bytes[..end]);
            let line = std::mem::take(&mut self.open);
            if !std::mem::take(&mut self.skipping) {
                self.line(&line, &mut told);
            }
            bytes = &bytes[end + 1..];
        }
        self.open(bytes);
        told
    }

    /// Says what a last line without an end tells. Steps that have not ended are ended with the build.
    pub fn finish(&mut self) -> Vec<TaskStep> {
        let mut told = self.take(b"\n");
        for step in 0..self.steps.len() {
            let rest = std::mem::take(&mut self.steps[step].open);
            if !rest.is_empty() {
                self.write_of(step, &rest, &mut told);
            }
            let seen = &mut self.steps[step].seen;
            if matches!(seen.state, BuildStepState::Waiting | BuildStepState::Running) {
                seen.state = BuildStepState::Cancelled;
                told.push(TaskStep::Build { step: seen.clone() });
            }
        }
        told
    }

    /// The steps in the order in which `BuildKit` named them.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = &BuildStep> {
        self.steps.iter().map(|step| &step.seen)
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
        if self.skipping || self.open.len() + bytes.len() > LONGEST {
            self.skipping = true;
            self.open.clear();
        } else {
            self.open.extend_from_slice(bytes);
        }
    }

    fn line(&mut self, line: &[u8], told: &mut Vec<TaskStep>) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        if let Ok(status @ Value::Object(_)) = serde_json::from_str(text) {
            return self.status(&status, told);
        }
        let text = cut(text, LINE);
        self.words.push_back(text.clone());
        if self.words.len() > WORDS {
            self.words.pop_front();
        }
        self.write(text, told);
    }

    fn status(&mut self, status: &Value, told: &mut Vec<TaskStep>) {
        let all = |key: &str| status[key].as_array().into_iter().flatten();
        for vertex in all("vertexes") {
            self.vertex(vertex, told);
        }
        for part in all("statuses") {
            self.part(part, told);
        }
        for piece in all("logs") {
            if let Some(step) = self.step_of(piece)
                && let Some(data) = decoded(&piece["data"])
            {
                self.piece(step, &data, told);
            }
        }
        for warning in all("warnings") {
            if let Some(short) = decoded(&warning["short"]) {
                let text = String::from_utf8_lossy(&short);
                self.write(format!("WARNING: {}", cut(text.trim(), LINE)), told);
            }
        }
    }

    fn step_of(&self, of: &Value) -> Option<usize> {
        self.known.get(of["vertex"].as_str()?).copied()
    }

    fn vertex(&mut self, vertex: &Value, told: &mut Vec<TaskStep>) {
        let Some(digest) = vertex["digest"].as_str().filter(|digest| digest.len() <= NAME) else {
            return;
        };
        let position = match self.known.get(digest) {
            Some(&position) => position,
            None if self.steps.len() < STEPS => {
                let number = u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX);
                self.steps.push(Step::new(number));
                self.known.insert(digest.to_owned(), self.steps.len() - 1);
                self.steps.len() - 1
            }
            None => return,
        };
        let before = self.steps[position].seen.clone();
        let seen = &mut self.steps[position].seen;
        read(vertex, seen);
        if *seen == before {
            return;
        }
        let now = seen.clone();
        told.push(TaskStep::Build { step: now.clone() });
        if now.state == before.state || now.state == BuildStepState::Waiting {
            return;
        }
        self.title(position, told);
        if let Some(end) = ended(&now) {
            let rest = std::mem::take(&mut self.steps[position].open);
            if !rest.is_empty() {
                self.write_of(position, &rest, told);
            }
            self.write(format!("#{} {end}", now.number), told);
        }
    }

    fn part(&mut self, part: &Value, told: &mut Vec<TaskStep>) {
        let Some(position) = self.step_of(part) else {
            return;
        };
        let seen = &mut self.steps[position].seen;
        if seen.state != BuildStepState::Running {
            return;
        }
        let id = part["id"].as_str().unwrap_or_default();
        let (current, total) = (part["current"].as_u64(), part["total"].as_u64());
        let fraction = match (current, total) {
            (Some(current), Some(total)) if total > 0 => Some(TaskStep::fraction(current, total)),
            _ => None,
        };
        let over = part["completed"].is_string();
        let (note, fraction) = if over {
            (String::new(), None)
        } else {
            (cut(id, NAME), fraction)
        };
        if (&seen.note, seen.fraction) != (&note, fraction) {
            (seen.note, seen.fraction) = (note, fraction);
            told.push(TaskStep::Build { step: seen.clone() });
        }
    }

    fn piece(&mut self, position: usize, mut data: &[u8], told: &mut Vec<TaskStep>) {
        while !data.is_empty() {
            let open = &mut self.steps[position].open;
            let room = LINE.saturating_sub(open.len()).max(1);
            let window = &data[..data.len().min(room)];
            let end = window.iter().position(|&byte| byte == b'\n');
            open.extend_from_slice(&window[..end.unwrap_or(window.len())]);
            data = &data[end.map_or(window.len(), |end| end + 1)..];
            if end.is_some() || open.len() >= LINE {
                let line = std::mem::take(open);
                self.write_of(position, &line, told);
            }
        }
    }

    fn title(&mut self, position: usize, told: &mut Vec<TaskStep>) {
        let step = &mut self.steps[position];
        if std::mem::replace(&mut step.titled, true) {
            return;
        }
        let BuildStep {
            number,
            stage,
            place,
            name,
            ..
        } = &step.seen;
        let at = [stage.as_deref().unwrap_or_default(), place].join(" ");
        let title = match at.trim() {
            "" => format!("#{number} {name}"),
            at => format!("#{number} [{at}] {name}"),
        };
        self.write(title, told);
    }

    /// A line of a step's. Of what a program wrote over and over on one line, the last counts.
    fn write_of(&mut self, position: usize, line: &[u8], told: &mut Vec<TaskStep>) {
        self.title(position, told);
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches('\r');
        let text = text.rsplit('\r').next().unwrap_or(text);
        self.write(format!("#{} {text}", self.steps[position].seen.number), told);
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

impl Step {
    fn new(number: u32) -> Self {
        Self {
            seen: BuildStep {
                number,
                stage: None,
                place: String::new(),
                name: String::new(),
                state: BuildStepState::Waiting,
                started_ms: None,
                took_ms: None,
                note: String::new(),
                fraction: None,
                error: String::new(),
            },
            titled: false,
            open: Vec::new(),
        }
    }
}

/// Reads a vertex into a step.
fn read(vertex: &Value, step: &mut BuildStep) {
    let when = |key: &str| vertex[key].as_str().and_then(time::read_ms);
    (step.stage, step.place, step.name) = parts_of(vertex["name"].as_str().unwrap_or_default());
    step.error = cut(vertex["error"].as_str().unwrap_or_default(), LINE);
    step.started_ms = when("started").or(step.started_ms);
    let completed = when("completed");
    let took = |from: i64| completed.map(|to| to.saturating_sub(from).max(0).unsigned_abs());
    step.took_ms = step.started_ms.and_then(took);
    step.state = if step.error.contains("context canceled") {
        BuildStepState::Cancelled
    } else if !step.error.is_empty() {
        BuildStepState::Failed
    } else if vertex["cached"] == true {
        BuildStepState::Cached
    } else if completed.is_some() {
        BuildStepState::Done
    } else if step.started_ms.is_some() {
        BuildStepState::Running
    } else {
        BuildStepState::Waiting
    };
    if step.state != BuildStepState::Running {
        (step.note, step.fraction) = (String::new(), None);
    }
}

/// A vertex's name as stage, place in it, and what is done: `[linux/arm64 build 2/4] RUN make`. What `BuildKit` does of
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

/// How the log says that a step has ended; nothing while it has not.
fn ended(step: &BuildStep) -> Option<String> {
    match step.state {
        BuildStepState::Waiting | BuildStepState::Running => None,
        BuildStepState::Done => {
            let took = step.took_ms.unwrap_or(0);
            Some(format!("DONE {}.{}s", took / 1000, took % 1000 / 100))
        }
        BuildStepState::Cached => Some("CACHED".to_owned()),
        BuildStepState::Failed => Some(format!("ERROR: {}", step.error)),
        BuildStepState::Cancelled => Some("CANCELED".to_owned()),
    }
}

fn decoded(data: &Value) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(data.as_str()?).ok()
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

#[cfg(test)]
#[path = "build_progress/tests.rs"]
mod tests;
