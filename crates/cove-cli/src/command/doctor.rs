//! doctor: everything that was looked at, with what to do about it.

use super::Session;
use crate::{exit::Exit, output};
use cove_api::CheckState;
use std::process::ExitCode;

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
        }
    }
    Ok(if broken { Exit::Failed } else { Exit::Done }.into())
}
