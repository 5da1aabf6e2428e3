//! version: of the command, the daemon, the protocol and the image. Starts nothing, and tells what is known here
//! whatever the daemon does.

use super::Session;
use crate::{daemon_link, exit::Exit, failure, output};
use cove_api::Client;
use cove_image::Manifest;
use serde_json::json;
use std::{process::ExitCode, time::Duration};

const OURS: &str = env!("CARGO_PKG_VERSION");
/// How long the daemon may take to say its own, which it has at hand.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn run(session: &Session) -> anyhow::Result<ExitCode> {
    let image = Manifest::load(&session.dirs.image()).ok();
    if !session.json {
        output::line(format!("cove      {OURS}"))?;
        output::line(format!("protocol  {}", cove_wire::PROTOCOL_VERSION))?;
        match &image {
            Some(image) => output::line(format!(
                "image     Docker Engine {}, Linux {}, protocol {}",
                image.engine_version, image.kernel_version, image.protocol
            ))?,
            None => output::line("image     none")?,
        }
    }
    let client = Client::of(&session.dirs);
    let asking = daemon_link::running_within(&client, ANSWER_LIMIT);
    let (daemon, failed) = match session.during("Asking the daemon", asking).await {
        Ok(daemon) => (daemon, None),
        Err(error) => (None, Some(anyhow::Error::from(error))),
    };
    if session.json {
        let mut versions = json!({
            "version": OURS,
            "protocol": cove_wire::PROTOCOL_VERSION,
            "daemon": daemon,
            "image": image.as_ref().map(|image| json!({
                "protocol": image.protocol,
                "engine": image.engine_version,
                "kernel": image.kernel_version,
                "fingerprint": image.fingerprint,
            })),
        });
        if let Some(error) = &failed {
            versions["error"] = failure::as_json(error, &session.machine);
        }
        output::json(&versions)?;
    } else {
        match &daemon {
            Some(daemon) => output::line(format!("daemon    {} (pid {})", daemon.version, daemon.pid))?,
            None if failed.is_some() => output::line("daemon    does not answer")?,
            None => output::line("daemon    not running")?,
        }
    }
    if let Some(error) = failed {
        // A script has been told by the data.
        return Ok(failure::report(&error, &session.machine, false, false));
    }
    if let Some(daemon) = daemon.filter(|daemon| !session.json && daemon.version != OURS) {
        session.say(&format!(
            "hint: the daemon is of another release; `cove daemon stop` stops every machine in order and ends it, and the \
             next command starts this one; after `kill {}` machines go on, out of reach if this release speaks another \
             protocol with them",
            daemon.pid
        ));
    }
    Ok(Exit::Done.into())
}
