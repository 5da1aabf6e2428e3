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
        agent: wanted.agent.map_or_else(own_agent, Ok)?,
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
        Step::Note(note) => progress.note(&note),
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

/// The guest agent that came with this program.
fn own_agent() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let places = agents_of(&program);
    if let Some(agent) = places.iter().find(|place| place.is_file()) {
        return Ok(agent.clone());
    }
    let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    Err(Failure::new(
        Exit::MissingDependency,
        format!("there is no guest agent at {}", places.join(" or ")),
        "name it with --agent; in a checkout, `cargo xtask image` builds both; the package `cove` brings it along",
    )
    .into())
}

/// Where the guest agent that came with `program` may be: beside it, and `PREFIX/lib/cove` for one in `PREFIX/bin`.
fn agents_of(program: &Path) -> Vec<PathBuf> {
    const AGENT: &str = "cove-agent";
    let mut places = vec![program.with_file_name(AGENT)];
    if let Some(bin) = program.parent().filter(|parent| parent.ends_with("bin"))
        && let Some(prefix) = bin.parent()
    {
        places.push(prefix.join("lib/cove").join(AGENT));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_beside_the_program_or_where_a_package_puts_it() {
        let places = |program: &str| agents_of(program.as_ref());
        assert_eq!(
            places("/usr/bin/cove"),
            ["/usr/bin/cove-agent", "/usr/lib/cove/cove-agent"].map(PathBuf::from)
        );
        assert_eq!(
            places("/src/target/debug/cove"),
            ["/src/target/debug/cove-agent"].map(PathBuf::from)
        );
    }

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
