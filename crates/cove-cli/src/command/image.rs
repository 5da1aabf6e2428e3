//! image build, verify: no daemon has a part in it.

use super::Session;
use crate::{args, exit::Exit, failure::Failure, output, progress::Progress};
use anyhow::Context as _;
use cove_image::{BuildOptions, Manifest, Outcome, Progress as Step, Stage};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(super) fn run(session: &Session, what: args::Image) -> anyhow::Result<ExitCode> {
    match what {
        args::Image::Build(wanted) => build(session, wanted),
        args::Image::Verify { directory } => {
            verify(session, &directory.unwrap_or_else(|| session.dirs.image()))
        }
    }
}

fn build(session: &Session, wanted: args::ImageBuild) -> anyhow::Result<ExitCode> {
    let options = BuildOptions {
        agent: wanted.agent.map_or_else(agent_beside_us, Ok)?,
        output: wanted.output.unwrap_or_else(|| session.dirs.own_image()),
        cache: session.dirs.cache().join("image"),
        recipe: wanted.recipe,
        offline: wanted.offline,
        refresh: wanted.refresh,
        sources: wanted.sources,
        debian_mirror: wanted.debian_mirror,
    };
    let progress = Progress::new(session.quiet);
    let outcome = cove_image::build(&options, &mut |step| match step {
        Step::Started(stage) => progress.stage(&stage.to_string(), Some(fraction(stage, 0, 0))),
        Step::Step { stage, done, total } => {
            progress.stage(&stage.to_string(), Some(fraction(stage, done, total)));
        }
        Step::Finished(_) => {}
    })?;
    let place = options.output.display();
    match &outcome {
        Outcome::Built(_) => progress.done(&format!("built the image in {place}")),
        Outcome::Unchanged(_) => {
            drop(progress);
            session.say(&format!("the image in {place} is up to date"));
        }
    }
    tell(session, outcome.manifest(), matches!(outcome, Outcome::Built(_)))
}

fn verify(session: &Session, directory: &Path) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(session.quiet);
    progress.stage("Checking every file of the image", None);
    let manifest = cove_image::verify(directory)?;
    progress.done(&format!("verified the image in {}", directory.display()));
    tell(session, &manifest, false)
}

fn tell(session: &Session, manifest: &Manifest, built: bool) -> anyhow::Result<ExitCode> {
    if session.json {
        output::json(&json!({ "built": built, "manifest": manifest }))?;
    } else {
        session.say(&format!(
            "Docker Engine {}, Linux {}, {} packages",
            manifest.engine_version,
            manifest.kernel_version,
            manifest.packages.len()
        ));
    }
    Ok(Exit::Done.into())
}

/// How far a build is: stages count alike, steps within a stage divide it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a fraction for a progress bar"
)]
fn fraction(stage: Stage, done: u64, total: u64) -> f32 {
    let index = Stage::ALL.iter().position(|&other| other == stage).unwrap_or(0);
    let within = if total == 0 {
        0.0
    } else {
        done as f64 / total as f64
    };
    ((index as f64 + within.min(1.0)) / Stage::ALL.len() as f64) as f32
}

fn agent_beside_us() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let agent = program.with_file_name("cove-agent");
    if agent.is_file() {
        return Ok(agent);
    }
    Err(Failure::new(
        Exit::MissingDependency,
        format!("there is no guest agent at {}", agent.display()),
        "name it with --agent; in a checkout, `cargo xtask image` builds both",
    )
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_only_ever_moves_forwards_and_stays_below_one() {
        let mut last = -1.0;
        for stage in Stage::ALL {
            for done in [0, 5, 10] {
                let now = fraction(stage, done, 10);
                assert!(now >= last && now <= 1.0, "{stage}: {now} after {last}");
                last = now;
            }
        }
    }
}
