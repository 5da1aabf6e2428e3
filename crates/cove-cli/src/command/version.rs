//! version: of the command, the daemon, the protocol and the image. Starts nothing.

use super::Session;
use crate::{daemon_link, exit::Exit, output};
use cove_api::Client;
use cove_image::Manifest;
use serde_json::json;
use std::process::ExitCode;

const OURS: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn run(session: &Session) -> anyhow::Result<ExitCode> {
    let daemon = daemon_link::running(&Client::of(&session.dirs)).await?;
    let image = Manifest::load(&session.dirs.image()).ok();
    if session.json {
        output::json(&json!({
            "version": OURS,
            "protocol": cove_wire::PROTOCOL_VERSION,
            "daemon": daemon,
            "image": image.as_ref().map(|image| json!({
                "protocol": image.protocol,
                "engine": image.engine_version,
                "kernel": image.kernel_version,
                "fingerprint": image.fingerprint,
            })),
        }))?;
        return Ok(Exit::Done.into());
    }
    output::line(format!("cove      {OURS}"))?;
    output::line(format!("protocol  {}", cove_wire::PROTOCOL_VERSION))?;
    match &daemon {
        Some(daemon) => output::line(format!("daemon    {} (pid {})", daemon.version, daemon.pid))?,
        None => output::line("daemon    not running")?,
    }
    match &image {
        Some(image) => {
            output::line(format!(
                "image     Docker Engine {}, Linux {}, protocol {}",
                image.engine_version, image.kernel_version, image.protocol
            ))?;
        }
        None => output::line("image     none")?,
    }
    if let Some(daemon) = daemon.filter(|daemon| daemon.version != OURS) {
        session.say(&format!(
            "hint: the daemon is of another release; `cove daemon stop` stops every machine in order and ends it, and the \
             next command starts this one; after `kill {}` machines go on, out of reach if this release speaks another \
             protocol with them",
            daemon.pid
        ));
    }
    Ok(Exit::Done.into())
}
