//! Programs that tests put in the place of others.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// Makes a program of `script` at `path`.
///
/// This process never has it open: what another test starts in this moment would have a copy of the descriptor, and
/// what is open for writing cannot be run.
pub(crate) fn install(path: &Path, script: &str) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}
