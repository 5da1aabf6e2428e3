//! Other people's programs that this computer has.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where passt is, if it is anywhere.
pub(super) fn passt() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/bin".into(), "/usr/local/bin".into()])
        .map(|directory| directory.join("passt"))
        .find(|program| program.is_file())
}

/// passt with its version, which that of Debian's package does not know itself.
pub(super) fn passt_version(program: &Path) -> String {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=passt ${Version}", "passt"]);
    let packaged = program.starts_with("/usr/bin") || program.starts_with("/bin");
    match query.stdin(Stdio::null()).output() {
        Ok(said) if packaged && said.status.success() => String::from_utf8_lossy(&said.stdout).into_owned(),
        _ => said_version(program, "--version"),
    }
}

/// What a program says first when it is asked for its version by `option`.
pub(super) fn said_version(program: &Path, option: &str) -> String {
    let said = Command::new(program).arg(option).stdin(Stdio::null()).output();
    // ssh says it on standard error.
    let said = said.map_or_else(|_| Vec::new(), |said| [said.stdout, said.stderr].concat());
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or("of an unknown version").to_owned()
}
