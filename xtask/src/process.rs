//! Running other programs: said before they start, quiet while they succeed, quoted when they fail.

use anyhow::{Context as _, Result, bail};
use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What was begun, and when.
static STEPS: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());

/// Announces a step.
pub(crate) fn step(text: &str) {
    println!("==> {text}");
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    steps.push((text.to_owned(), Instant::now()));
}

/// How long each step took until the next one was announced; the last one, until now.
pub(crate) fn steps() -> Vec<(String, Duration)> {
    let steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = steps.iter().skip(1).map(|(_, began)| *began);
    let ends = ends.chain([Instant::now()]);
    let spent = |((text, began), end): (&(String, Instant), Instant)| (text.clone(), end - *began);
    steps.iter().zip(ends).map(spent).collect()
}

/// How long ago the first step was announced.
pub(crate) fn since_the_first_step() -> Duration {
    let steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    steps.first().map_or(Duration::ZERO, |(_, began)| began.elapsed())
}

/// Says something that a person should know.
pub(crate) fn note(text: &str) {
    println!("    {text}");
}

/// A command, as a person would give it to a shell.
pub(crate) fn words(command: &Command) -> String {
    /// Besides letters and digits, what a shell takes as it is.
    const PLAIN: &str = "-_./:=,+@%";
    let word = |word: &OsStr| {
        let word = word.to_string_lossy();
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || PLAIN.contains(letter);
        if !word.is_empty() && word.chars().all(is_plain) {
            word.into_owned()
        } else {
            quoted(&word)
        }
    };
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A text as a word of the shell's that means nothing else.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Runs it with our standard streams.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", words(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", words(command));
    }
    Ok(())
}

/// Runs it quietly; its output is only shown when it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// What it writes to standard output, without the last newline.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", words(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({})\n{}{}",
            words(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

/// What it writes to standard output if it can be started and succeeds.
pub(crate) fn try_capture(command: &mut Command) -> Option<String> {
    capture(command).ok()
}

/// Where a program is, searched as a shell would, with the system directories that an ordinary user's path lacks on
/// Debian.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// `cargo`, the one that runs us. It builds where the layout has it, and for this computer, even if a person's
/// configuration names another `build.target-dir`, `build.build-dir` or `build.target` for everything.
pub(crate) fn cargo(layout: &crate::layout::Layout) -> Command {
    let mut cargo = bare_cargo();
    cargo
        .current_dir(layout.root())
        .env("CARGO_TARGET_DIR", layout.target())
        .env("CARGO_BUILD_BUILD_DIR", layout.target());
    if let Some(platform) = layout.platform() {
        cargo.env("CARGO_BUILD_TARGET", platform);
    }
    cargo
}

/// The name that cargo has for this computer's platform, such as `x86_64-unknown-linux-gnu`.
pub(crate) fn platform() -> Result<String> {
    let said = capture(bare_cargo().arg("-vV"))?;
    host(&said)
        .map(str::to_owned)
        .with_context(|| format!("cargo does not say what platform it runs on: {said}"))
}

/// The platform in what `cargo -vV` says.
fn host(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.strip_prefix("host: "))
}

fn bare_cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_builds_where_the_layout_looks() {
        let layout = crate::layout::Layout::find().unwrap();
        let cargo = cargo(&layout);
        let target = cargo.get_envs().find(|(name, _)| *name == "CARGO_TARGET_DIR");
        assert_eq!(target.unwrap().1, Some(layout.target().as_os_str()));
    }

    #[test]
    fn a_command_that_is_shown_can_be_given_to_a_shell() {
        let mut command = Command::new("/a b/tool");
        command.args(["-o", "Dir::Cache=/x-1/y_2", "it's", "$HOME", ""]);
        assert_eq!(
            words(&command),
            r"'/a b/tool' -o Dir::Cache=/x-1/y_2 'it'\''s' '$HOME' ''"
        );
    }

    #[test]
    fn cargo_says_what_platform_it_runs_on() {
        let said = "cargo 1.95.0 (abcdef012 2026-03-01)\nrelease: 1.95.0\nhost: x86_64-unknown-linux-gnu\nos: Debian 12\n";
        assert_eq!(host(said), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host("cargo 1.95.0\n"), None);
    }
}
