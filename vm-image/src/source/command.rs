//! Running the package clients: no terminal, plain English, output kept for the error message.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Output, Stdio};

use crate::error::{ImageError, ResultExt as _};

/// As many of the last lines of a program's output go into an error.
const LINES: usize = 12;

/// A command for `program`, found on the path or in the system's directories.
pub(crate) fn command(program: &'static str, purpose: &'static str) -> Result<Command, ImageError> {
    let path = crate::tools::find(program).ok_or(ImageError::ToolMissing { program, purpose })?;
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    Ok(command)
}

/// Runs `command` to its end and gives what it wrote to its standard output.
pub(crate) fn output(
    command: &mut Command,
    program: &'static str,
    purpose: &'static str,
) -> Result<String, ImageError> {
    let output = command.output().at("run", command.get_program().as_ref())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed_output(program, purpose, &output))
}

/// The error for a program that ran and failed.
pub(crate) fn failed_output(program: &'static str, purpose: &'static str, output: &Output) -> ImageError {
    let text = last_lines(&output.stdout, &output.stderr);
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        return ImageError::DiskFull {
            operation: "write with",
            path: program.into(),
        };
    }
    ImageError::ToolFailed {
        program,
        purpose,
        status: output.status.to_string(),
        output: text,
    }
}

/// Like [`failed_output`], for a program that downloads `what`.
pub(crate) fn failed_download(error: ImageError, what: &str) -> ImageError {
    match error {
        ImageError::ToolFailed { output, .. } => ImageError::Download {
            what: what.into(),
            output,
        },
        other => other,
    }
}

/// Runs `command` with its output going to files, calling `tick` now and then until it ends.
pub(crate) fn output_with_progress(
    command: &mut Command,
    program: &'static str,
    purpose: &'static str,
    mut tick: impl FnMut(),
) -> Result<(), ImageError> {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
    let path = OsStr::new(program).as_ref();
    let log = tempfile::tempfile().at("create a log for", path)?;
    let stderr = log.try_clone().at("create a log for", path)?;
    let stdout = log.try_clone().at("create a log for", path)?;
    let mut child = command.stdout(stdout).stderr(stderr).spawn().at("run", path)?;
    let status = loop {
        match child.try_wait().at("wait for", path)? {
            Some(status) => break status,
            None => std::thread::sleep(PAUSE),
        }
        tick();
    };
    if status.success() {
        return Ok(());
    }
    let stdout = read_back(log).at("read the log of", path)?;
    Err(failed_output(
        program,
        purpose,
        &Output {
            status,
            stdout,
            stderr: vec![],
        },
    ))
}

fn read_back(mut log: std::fs::File) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    log.rewind()?;
    log.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn last_lines(stdout: &[u8], stderr: &[u8]) -> String {
    let text = [String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr)].concat();
    // Progress meters rewrite their line; only the last state of each is worth reading.
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.rsplit('\r').next().unwrap_or_default().trim_end())
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = command("mkfs.nonesuch", "nothing").unwrap_err();
        assert!(matches!(error, ImageError::ToolMissing { .. }));
        let error = ImageError::ToolMissing {
            program: crate::tools::MKFS_EROFS,
            purpose: "x",
        };
        assert!(error.hint().unwrap().ends_with("erofs-utils"));
    }

    #[test]
    fn a_failure_shows_the_last_lines() {
        let error = output(
            Command::new("sh").args(["-c", "seq 100; echo last >&2; exit 3"]),
            "sh",
            "counting",
        );
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("last") && text.contains("100") && !text.contains("50"),
            "{text}"
        );
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let script = "echo 'write: No space left on device' >&2; exit 1";
        let error = output(Command::new("sh").args(["-c", script]), "sh", "writing").unwrap_err();
        assert!(matches!(error, ImageError::DiskFull { .. }));
    }
}
