//! Builds of images: the machine's own buildx in a shared folder, followed, and kept in the history.

use crate::{
    commands::{folders, registries},
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
    guest::{self, Program, Said},
    history::{self, History},
    local,
    task::{Report, Tasks},
};
use cove_view::{
    BuildDetails, BuildHistory, BuildOutcome, BuildProgress, BuildRow, BuildSpec, BuildStepState, TaskStep,
};
use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tauri::{State, ipc::Channel};

/// Builds an image from a folder that a person dropped or chose, or that a build in the history read. It is kept there
/// under `id`, however it ends.
#[tauri::command]
#[expect(
    clippy::too_many_arguments,
    reason = "Tauri hands a command its states one by one"
)]
pub(crate) async fn build_image(
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
    history: State<'_, Arc<History>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    id: String,
    spec: BuildSpec,
) -> Answer<()> {
    if let Some(fault) = spec.fault() {
        return Err(Refusal::new(fault, "Change it and try again."));
    }
    if !history::is_id(&id) {
        return Err(Refusal::new(
            "this is no name for a build",
            "This is a mistake of the window's; open it again.",
        ));
    }
    let mut progress = BuildProgress::default();
    let mut outcome = None;
    let (started_ms, began) = (now_ms(), Instant::now());
    let answer = tasks
        .run(task, steps, |report| {
            let (cove, spec, drops, history) = (&**cove, &spec, &*drops, &*history);
            let (progress, outcome) = (&mut progress, &mut outcome);
            let row = BuildRow {
                id: id.clone(),
                spec: spec.clone(),
                started_ms,
                took_ms: 0,
                outcome: BuildOutcome::Running,
                failure: String::new(),
                steps: 0,
                cached: 0,
            };
            async move {
                named(drops, history, Path::new(&spec.folder)).await?;
                folders::in_machine(cove, Path::new(&spec.folder)).await?;
                // What is cancelled gets no further than this.
                *outcome = Some(BuildOutcome::Cancelled);
                begin(cove, history, row, &report).await;
                let answer = build(cove, spec, progress, &report).await;
                report.tell_all(progress.finish());
                *outcome = Some(match answer {
                    Ok(()) => BuildOutcome::Done,
                    Err(_) => BuildOutcome::Failed,
                });
                answer
            }
        })
        .await;
    // Otherwise it never began.
    if let Some(outcome) = outcome {
        progress.finish();
        let failure = match &answer {
            Err(refusal) if outcome == BuildOutcome::Failed => refusal.0.message.clone(),
            _ => String::new(),
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        keep(&history, &progress, |steps, cached| BuildRow {
            id,
            spec,
            started_ms,
            took_ms,
            outcome,
            failure,
            steps,
            cached,
        })
        .await;
    }
    answer
}

/// Refuses folders that no person named.
async fn named(drops: &Drops, history: &Arc<History>, folder: &Path) -> Answer<()> {
    let Err(refusal) = drops.check(&[folder.to_owned()]) else {
        return Ok(());
    };
    let (history, folder) = (Arc::clone(history), folder.to_owned());
    if local::blocking(move || history.knows_folder(&folder)).await? {
        Ok(())
    } else {
        Err(refusal)
    }
}

async fn build(cove: &Cove, spec: &BuildSpec, progress: &mut BuildProgress, report: &Report) -> Answer<()> {
    let mut exec = guest::docker(spec.words(), Some(&spec.folder));
    let (client, machine) = (cove.client(), cove.machine());
    let _loan = guest::lend_accounts(&client, &machine, &mut exec, report).await;
    let mut program = Program::start(&client, &machine, &exec, &[]).await?;
    loop {
        match program.next().await? {
            Said::Out(data) | Said::Err(data) => report.tell_all(progress.take(&data)),
            Said::Ended(0) => return Ok(()),
            Said::Ended(code) => {
                let why = match progress.failure() {
                    why if why.is_empty() => format!("it ended with {code}"),
                    why => why,
                };
                return Err(registries::refusal_of_build(&why));
            }
        }
    }
}

/// Keeps that a build began, so that it is not lost with its window. That it cannot be kept is told with what the build
/// tells.
async fn begin(cove: &Cove, history: &Arc<History>, row: BuildRow, report: &Report) {
    let history = Arc::clone(history);
    let began = match cove.window() {
        Ok(window) => local::blocking(move || history.begin(row, window)).await,
        Err(refusal) => Err(refusal),
    };
    let refused = match began {
        Ok(Ok(())) => return,
        Ok(Err(error)) => cannot("change", &error),
        Err(refusal) => refusal,
    };
    report.tell(TaskStep::Line {
        text: refused.0.message,
    });
}

/// Keeps a build. That it cannot be kept is no reason for it to fail.
async fn keep(history: &Arc<History>, progress: &BuildProgress, row: impl FnOnce(u32, u32) -> BuildRow) {
    let steps = progress.steps().to_vec();
    let count = |cached: bool| {
        let counted = steps.iter().filter(|step| {
            let is_cached = step.state == BuildStepState::Cached;
            if cached {
                is_cached
            } else {
                is_cached || step.state == BuildStepState::Done
            }
        });
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    };
    let row = row(count(false), count(true));
    let details = BuildDetails {
        steps,
        log: progress.log(),
    };
    let history = Arc::clone(history);
    if let Ok(Err(error)) = local::blocking(move || history.add(row, &details)).await {
        eprintln!("cannot keep a build in the history: {error}");
    }
}

/// The builds that are kept.
#[tauri::command]
pub(crate) async fn builds(history: State<'_, Arc<History>>) -> Answer<BuildHistory> {
    let history = Arc::clone(&history);
    local::blocking(move || history.read())
        .await?
        .map_err(|error| cannot("read", &error))
}

/// Steps and log of a build that is kept.
#[tauri::command]
pub(crate) async fn build_details(history: State<'_, Arc<History>>, id: String) -> Answer<BuildDetails> {
    let history = Arc::clone(&history);
    local::blocking(move || history.details(&id))
        .await?
        .map_err(|error| cannot("read", &error))?
        .ok_or_else(|| Refusal::new("steps and log of this build are not there any more", ""))
}

/// Lets go of builds in the history. Images stay.
#[tauri::command]
pub(crate) async fn forget_builds(history: State<'_, Arc<History>>, ids: Vec<String>) -> Answer<()> {
    let history = Arc::clone(&history);
    local::blocking(move || history.remove(&ids))
        .await?
        .map_err(|error| cannot("change", &error))
}

fn cannot(what: &str, error: &io::Error) -> Refusal {
    Refusal::new(
        format!("cannot {what} the history of builds: {error}"),
        "See that Cove's data directory can be written to.",
    )
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
