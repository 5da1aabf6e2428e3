//! doctor: everything that was looked at, with what to do about it; and all that helps others to find out more.

use super::Session;
use crate::{exit::Exit, failure::Failure, output};
use cove_api::{CheckState, diagnostics};
use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

pub(super) async fn run(session: &Session) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    let checks = session.during("Looking at everything", client.doctor()).await?;
    let broken = checks.iter().any(|check| check.state == CheckState::Failed);
    if session.json {
        output::json(&checks)?;
    } else {
        for check in &checks {
            let mark = match check.state {
                CheckState::Ok => "ok     ",
                CheckState::Warning => "warning",
                CheckState::Failed => "FAILED ",
            };
            output::line(format!("{mark}  {}: {}", check.name, check.evidence))?;
            if !check.fix.is_empty() {
                output::line(format!("         hint: {}", check.fix))?;
            }
            if let Some(command) = check.unsaid_command() {
                output::line(format!("         run: {command}"))?;
            }
        }
    }
    Ok(if broken { Exit::Failed } else { Exit::Done }.into())
}

/// Writes a diagnostics bundle to a new file, or to standard output. Whether something is broken is in it.
pub(super) async fn bundle(session: &Session, to: &Path) -> anyhow::Result<ExitCode> {
    let daemon = session.daemon().await;
    let daemon = daemon.as_ref().map_err(|error| format!("{error:#}"));
    let gathering = diagnostics::gather(&session.dirs, daemon);
    let text = session.during("Gathering diagnostics", gathering).await;
    if to == Path::new("-") {
        output::bytes(text.as_bytes())?;
        return Ok(Exit::Done.into());
    }
    write_new(to, &text).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("cannot write {}: {error}", to.display()),
            "name a file that is not there yet, in a folder that you may write to",
        )
    })?;
    session.say(&format!(
        "wrote {}; read it before you give it away: what looks like a secret is masked, names and addresses are not",
        to.display()
    ));
    Ok(Exit::Done.into())
}

/// Writes a file that nobody else can read, and none that is there already.
fn write_new(to: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(to)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_bundle_is_written_over_nothing() {
        let directory = std::env::temp_dir().join(format!("cove-bundle-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let to = directory.join("bundle.txt");
        write_new(&to, "first").unwrap();
        let again = write_new(&to, "second").unwrap_err();
        let kept = fs::read_to_string(&to).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(kept, "first");
    }
}
