//! Compose projects: found by their containers' labels or opened by a person, brought up and down by the machine's own
//! compose, their logs followed.
//!
//! The page names projects and never a path: which folder and which files a project has is what a person opened, or
//! what the labels say, which an image may have brought along. So before anything of them is used, the machine follows
//! their links, and where these end has to lie in what is shared ([`placed`]).

use crate::{
    commands::folders,
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
    guest::{self, Program, Said},
    logs::{self, After, BATCHES, Log, Page, Reading, Source},
    stream::Streams,
    task::{Report, Tasks},
};
use cove_api::Client;
use cove_engine::Place;
use cove_view::{
    ComposeAction, ComposeProgress, ContainerRow, ContainerState, LogLine, LogReader, ProjectRow, TaskStep,
    is_project_name, line_of_project, words_of_files,
};
use cove_wire::Exec;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tauri::{State, ipc::Channel};

/// Projects that are remembered without containers.
const OPENED: usize = 50;
/// So many of the last lines of each container's log are read.
const TAIL: &str = "2000";
/// Of what compose says of a failure, so many of the last bytes are shown.
const COMPLAINT: usize = 2000;

/// Projects that are remembered, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<Remembered>);

#[derive(Debug, Clone, Default)]
struct Remembered {
    /// Those that a person opened: their folders and files count.
    opened: Vec<ProjectRow>,
    /// Those that had containers when something was done to them. What labels say later counts more.
    seen: Vec<ProjectRow>,
}

impl Opened {
    fn all(&self) -> Remembered {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self, project: ProjectRow) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.seen.retain(|known| known.name != project.name);
        put(&mut remembered.opened, project);
    }

    /// Remembers a project as it is now. One that a person opened keeps its folder and files.
    fn see(&self, mut project: ProjectRow) {
        for service in &mut project.services {
            service.containers.clear();
        }
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { opened, seen } = &mut *remembered;
        match opened.iter_mut().find(|known| known.name == project.name) {
            Some(known) => known.services = project.services,
            None => put(seen, project),
        }
    }
}

fn put(projects: &mut Vec<ProjectRow>, project: ProjectRow) {
    projects.retain(|known| known.name != project.name);
    projects.push(project);
    let more = projects.len().saturating_sub(OPENED);
    projects.drain(..more);
}

/// The projects that have containers, and those that were opened.
#[tauri::command]
pub(crate) async fn projects(
    cove: State<'_, Arc<Cove>>,
    opened: State<'_, Opened>,
) -> Answer<Vec<ProjectRow>> {
    all(&cove, &opened).await
}

async fn all(cove: &Cove, opened: &Opened) -> Answer<Vec<ProjectRow>> {
    let place = Place::of(&["containers", "json"]).with("all", "true");
    let containers = match cove.engine().get(&place).await? {
        Value::Array(containers) => containers,
        _ => Vec::new(),
    };
    let Remembered { opened, seen } = opened.all();
    Ok(ProjectRow::read_all(&containers, &opened, &seen))
}

pub(super) async fn find(cove: &Cove, opened: &Opened, name: &str) -> Answer<ProjectRow> {
    let projects = all(cove, opened).await?;
    let found = projects.into_iter().find(|project| project.name == name);
    found.ok_or_else(|| {
        Refusal::new(
            format!("there is no project {name} any more"),
            "Open its folder again.",
        )
    })
}

/// Opens the project of a shared folder that a person dropped or chose, and returns its name.
#[tauri::command]
pub(crate) async fn open_project(
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
    opened: State<'_, Opened>,
    folder: PathBuf,
) -> Answer<String> {
    drops.check(std::slice::from_ref(&folder))?;
    let (files, Some(path)) = (folders::compose_files(&folder).await?, folder.to_str()) else {
        return Err(Refusal::new(
            format!("the path {} is not UTF-8", folder.display()),
            "Rename it, so that compose can be told of it.",
        ));
    };
    if files.is_empty() {
        return Err(Refusal::new(
            format!("there is no compose file in {path}"),
            "Choose a folder that holds a compose.yaml.",
        ));
    }
    placed(&cove, path, &files).await?;
    let mut words = ["compose", "--ansi=never"].map(str::to_owned).to_vec();
    words.extend(words_of_files(Some(path), &files, None));
    let project = match config(&cove, words, path).await? {
        Ok(config) => ProjectRow::of_config(&config, path, files),
        Err(complaint) => return Err(invalid(&files[0], &complaint)),
    };
    let project =
        project.ok_or_else(|| Refusal::new("compose said nothing of this project", "Try again."))?;
    let name = project.name.clone();
    opened.open(project);
    Ok(name)
}

/// What compose makes of a project's files, or its complaint.
async fn config(cove: &Cove, mut words: Vec<String>, folder: &str) -> Answer<Result<Value, String>> {
    words.extend(["config", "--format=json"].map(str::to_owned));
    let said = guest::finished(cove, &guest::docker(words, Some(folder)), &[]).await?;
    Ok(match said.code {
        0 => Ok(serde_json::from_slice(&said.out).unwrap_or_default()),
        _ => Err(said.complaint),
    })
}

/// Where a project's folder and files are in the machine, behind all links, in that order. Refuses one of which something
/// lies in nothing that is shared with the machine.
pub(super) async fn placed(cove: &Cove, folder: &str, files: &[String]) -> Answer<Vec<String>> {
    let named: Vec<&str> = std::iter::once(folder)
        .chain(files.iter().map(String::as_str))
        .collect();
    let paths: Vec<&Path> = named.iter().map(Path::new).collect();
    folders::all_in_machine(cove, &paths).await?;
    let command: Vec<&str> = std::iter::once("realpath").chain(named.iter().copied()).collect();
    let out = run(cove, &command, &[], "find the files in", folder).await?;
    let places: Vec<String> = String::from_utf8(out)
        .map(|text| text.split_terminator('\n').map(str::to_owned).collect())
        .unwrap_or_default();
    // A line for each is what makes them the places of these.
    if places.len() != paths.len() {
        return Err(Refusal::new(
            format!("the machine did not say where all files of {folder} are"),
            "Rename those whose names hold line breaks.",
        ));
    }
    let paths: Vec<&Path> = places.iter().map(Path::new).collect();
    folders::all_in_machine(cove, &paths).await?;
    Ok(places)
}

/// The folder of a project whose files are known.
pub(super) fn folder_of(project: &ProjectRow) -> Answer<&str> {
    let folder = project.folder.as_deref().filter(|_| !project.files.is_empty());
    folder.ok_or_else(|| {
        Refusal::new(
            format!(
                "the containers of {} do not say where its files are, or do not say the same",
                project.name
            ),
            "Open the folder that holds its compose file.",
        )
    })
}

/// Brings a project up or down, stops it or starts it anew.
#[tauri::command]
pub(crate) async fn compose(
    cove: State<'_, Arc<Cove>>,
    opened: State<'_, Opened>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    name: String,
    action: ComposeAction,
) -> Answer<()> {
    tasks
        .run(task, steps, |report| async move {
            let project = find(&cove, &opened, &name).await?;
            let (mut words, folder) = words_for(&cove, &opened, &project, action).await?;
            words.extend(action.words().iter().map(|&word| word.to_owned()));
            let mut exec = guest::docker(words, folder.as_deref());
            let (client, machine) = (cove.client(), cove.machine());
            // What it pulls and what its builds begin with may be private.
            let _loan = match action {
                ComposeAction::Up => guest::lend_accounts(&client, &machine, &mut exec, &report).await,
                ComposeAction::Stop | ComposeAction::Restart | ComposeAction::Down => None,
            };
            follow(&client, &machine, &exec, &report).await
        })
        .await
}

/// The words that name a project for what is done to it, and the folder to say them in.
async fn words_for(
    cove: &Cove,
    opened: &Opened,
    project: &ProjectRow,
    action: ComposeAction,
) -> Answer<(Vec<String>, Option<String>)> {
    let by_name = (project.words_of_name(), None);
    match action {
        ComposeAction::Up => {
            let folder = folder_of(project)?;
            placed(cove, folder, &project.files).await?;
            // What compose cannot read it says once more when it is to bring it up.
            let now = match config(cove, project.words(None), folder).await {
                Ok(Ok(config)) => ProjectRow::of_config(&config, folder, project.files.clone()),
                _ => None,
            };
            opened.see(now.unwrap_or_else(|| project.clone()));
            Ok((project.words(None), Some(folder.to_owned())))
        }
        // Files tell nothing of what runs that its containers do not, and they may be gone.
        ComposeAction::Stop | ComposeAction::Restart => Ok(by_name),
        ComposeAction::Down => {
            let Ok(folder) = folder_of(project) else {
                return Ok(by_name);
            };
            // What is brought down stays in the list, so that it can be brought up again.
            opened.see(project.clone());
            if placed(cove, folder, &project.files).await.is_err() {
                return Ok(by_name);
            }
            match config(cove, project.words(None), folder).await {
                Ok(Ok(_)) => Ok((project.words(None), Some(folder.to_owned()))),
                // What is wrong with its files is no reason to let it run.
                _ => Ok(by_name),
            }
        }
    }
}

/// Tells what compose says in this machine until it has ended.
async fn follow(client: &Client, machine: &str, exec: &Exec, report: &Report) -> Answer<()> {
    let mut program = Program::start(client, machine, exec, &[]).await?;
    let mut progress = ComposeProgress::default();
    loop {
        match program.next().await? {
            Said::Out(data) | Said::Err(data) => report.tell_all(progress.take(&data)),
            Said::Ended(0) => return Ok(()),
            Said::Ended(code) => {
                report.tell_all(progress.take(b"\n"));
                let why = match progress.failure() {
                    why if why.is_empty() => format!("compose ended with {code}"),
                    why => why,
                };
                return Err(Refusal::new(why, "What compose wrote shows how far it came."));
            }
        }
    }
}

/// Tells the logs of a project's containers in batches, each line behind its container's name, and what comes. Goes on
/// when containers start again.
#[tauri::command]
pub(crate) fn follow_project_log(
    cove: State<'_, Arc<Cove>>,
    streams: State<'_, Streams>,
    name: String,
    seen: Channel<Vec<LogLine>>,
) -> u32 {
    let cove = Arc::clone(&cove);
    streams.start(BATCHES, |allowance| async move {
        if is_project_name(&name) {
            logs::follow(cove, ProjectLog { name }, Page::new(seen, allowance)).await;
        } else {
            let _ = seen.send(logs::said(&format!("compose takes no project {name}")));
        }
    })
}

/// The logs of the containers of the project with this name.
struct ProjectLog {
    name: String,
}

impl Log for ProjectLog {
    const AT_LAST: Duration = Duration::from_mins(1);

    async fn read(&self, cove: &Cove, page: &mut Page) -> Reading {
        // A break is followed by another try once a container runs; what it wrote in between is kept for us.
        let mut source = match self.open(cove, page.since()).await {
            Ok(source) => source,
            Err(refusal) => return Reading::Failed(refusal.0.message),
        };
        match page.tell_all(&mut source).await {
            Reading::Ended => source.end(),
            other => other,
        }
    }

    fn after(&self, rows: &[ContainerRow]) -> After {
        let runs = rows.iter().any(|row| {
            row.project.as_deref() == Some(self.name.as_str()) && row.state == ContainerState::Running
        });
        if runs { After::Reading } else { After::Waiting }
    }
}

impl ProjectLog {
    async fn open(&self, cove: &Cove, since: Option<String>) -> Answer<ComposeLines> {
        let mut words: Vec<String> = ["compose", "--ansi=never"].map(str::to_owned).to_vec();
        words.push(format!("--project-name={}", self.name));
        words.extend(["logs", "--follow", "--timestamps", "--no-color"].map(str::to_owned));
        words.push(match since {
            Some(since) => format!("--since={since}"),
            None => format!("--tail={TAIL}"),
        });
        let exec = guest::docker(words, None);
        Ok(ComposeLines {
            program: Program::start(&cove.client(), &cove.machine(), &exec, &[]).await?,
            reader: LogReader::new(false),
            complaint: Vec::new(),
            failure: None,
        })
    }
}

/// A project's log as compose writes it.
struct ComposeLines {
    program: Program,
    reader: LogReader,
    /// The last of compose's own words, such as that a container has ended.
    complaint: Vec<u8>,
    /// Why it ended, unless all was well.
    failure: Option<String>,
}

impl Source for ComposeLines {
    async fn next(&mut self, lines: &mut Vec<LogLine>) -> bool {
        let mut came = Vec::new();
        let more = match self.program.next().await {
            Ok(Said::Out(data)) => {
                self.reader.take(&data, &mut came);
                true
            }
            Ok(Said::Err(data)) => {
                self.complaint.extend_from_slice(&data);
                let more = self.complaint.len().saturating_sub(COMPLAINT);
                self.complaint.drain(..more);
                true
            }
            Ok(Said::Ended(code)) => {
                self.reader.finish(&mut came);
                self.failure = (code != 0).then(|| {
                    let words = String::from_utf8_lossy(&self.complaint).trim().to_owned();
                    if words.is_empty() {
                        format!("compose ended with {code}")
                    } else {
                        words
                    }
                });
                false
            }
            Err(refusal) => {
                self.failure = Some(refusal.0.message);
                false
            }
        };
        lines.extend(came.into_iter().map(line_of_project));
        more
    }
}

impl ComposeLines {
    /// How it has ended.
    fn end(self) -> Reading {
        self.failure.map_or(Reading::Ended, Reading::Failed)
    }
}

pub(super) fn invalid(file: &str, complaint: &str) -> Refusal {
    let name = file.rsplit('/').next().unwrap_or(file);
    Refusal::new(
        format!("{name} is not valid: {complaint}"),
        "Nothing was changed. Correct what compose names.",
    )
}

pub(super) async fn run(
    cove: &Cove,
    command: &[&str],
    input: &[u8],
    what: &str,
    file: &str,
) -> Answer<Vec<u8>> {
    let said = guest::finished(cove, &guest::program(command), input).await?;
    if said.code == 0 {
        return Ok(said.out);
    }
    Err(cannot(what, file, &said.complaint))
}

pub(super) fn cannot(what: &str, file: &str, complaint: &str) -> Refusal {
    Refusal::new(
        format!("cannot {what} {file}: {complaint}"),
        "See that its folder is shared with the machine, and for writing if it is to be changed.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_never_counts_as_opened_and_what_was_opened_keeps_its_folder() {
        let project = |folder: &str, services: Value| {
            let config = serde_json::json!({"name": "shop", "services": services});
            ProjectRow::of_config(&config, folder, vec![format!("{folder}/compose.yaml")]).unwrap()
        };
        let opened = Opened::default();
        opened.see(project("/labels", serde_json::json!({})));
        assert!(opened.all().opened.is_empty());
        opened.open(project("/chosen", serde_json::json!({})));
        opened.see(project("/labels", serde_json::json!({"web": {}})));
        let Remembered { opened, seen } = opened.all();
        assert!(seen.is_empty());
        assert_eq!(
            (opened[0].folder.as_deref(), opened[0].services.len()),
            (Some("/chosen"), 1)
        );
    }
}
