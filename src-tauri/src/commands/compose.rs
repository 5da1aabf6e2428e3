//! Compose projects: found by their containers' labels or opened by a person, brought up and down by the machine's own
//! compose, their logs followed, their files edited.
//!
//! The page names projects and never a path: which folder and which files a project has is what a person opened, or
//! what the labels say. Files are read and written in the machine. So nothing that labels or links may name leads to
//! what is not shared.

use crate::{
    commands::folders,
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
    guest::{self, Program, Said},
    stream::{Allowance, Streams},
    task::{Report, Tasks},
};
use cove_engine::Place;
use cove_view::{
    ComposeAction, ComposeProgress, ContainerState, FileText, LogLine, LogReader, ProjectRow, Saved,
    TaskStep, line_of_project,
};
use serde_json::Value;
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tauri::{State, ipc::Channel};
use tokio::time::sleep;

/// The largest file that is shown and edited, in bytes.
const LARGEST: usize = 1 << 20;
/// Projects that are remembered without containers.
const OPENED: usize = 50;
/// Batches of a log that may be under way to the page.
const BATCHES: usize = 8;
/// So many of the last lines of each container's log are read.
const TAIL: &str = "2000";
/// How long between the end of a project's log and the next look.
const AGAIN: Duration = Duration::from_millis(500);

/// Projects that a person opened, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<Vec<ProjectRow>>);

impl Opened {
    fn all(&self) -> Vec<ProjectRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, project: ProjectRow) {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|known| known.name != project.name);
        opened.push(project);
        let more = opened.len().saturating_sub(OPENED);
        opened.drain(..more);
    }
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
    Ok(ProjectRow::read_all(&containers, &opened.all()))
}

async fn find(cove: &Cove, opened: &Opened, name: &str) -> Answer<ProjectRow> {
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
    folders::in_machine(&cove, &folder).await?;
    let (Some(file), Some(path)) = (folders::compose_file(&folder).await, folder.to_str()) else {
        return Err(Refusal::new(
            format!("there is no compose file in {}", folder.display()),
            "Choose a folder that holds a compose.yaml.",
        ));
    };
    let mut files = vec![format!("{}/{file}", path.trim_end_matches('/'))];
    files.extend(folders::override_of(&folder, &file).await);
    let words = ["compose", "--ansi=never", "config", "--format=json"].map(str::to_owned);
    let exec = guest::docker(words.to_vec(), Some(path));
    let said = guest::finished(&cove, &exec, &[]).await?;
    if said.code != 0 {
        return Err(invalid(&file, &said.complaint));
    }
    let config: Value = serde_json::from_slice(&said.out).unwrap_or_default();
    let project = ProjectRow::of_config(&config, path, files)
        .ok_or_else(|| Refusal::new("compose said nothing of this project", "Try again."))?;
    let name = project.name.clone();
    opened.add(project);
    Ok(name)
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
    let project = find(&cove, &opened, &name).await?;
    // What is brought down stays in the list, so that it can be brought up again.
    if project.folder.is_some() {
        opened.add(without_containers(project.clone()));
    }
    tasks
        .run(task, steps, |report| async move {
            act(&cove, &project, action, &report).await
        })
        .await
}

fn without_containers(mut project: ProjectRow) -> ProjectRow {
    for service in &mut project.services {
        service.containers.clear();
    }
    project
}

async fn act(cove: &Cove, project: &ProjectRow, action: ComposeAction, report: &Report) -> Answer<()> {
    let folder = match &project.folder {
        Some(folder) => match folders::in_machine(cove, Path::new(folder)).await {
            Ok(()) => Some(folder.as_str()),
            Err(refusal) if action == ComposeAction::Up => return Err(refusal),
            Err(_) => None,
        },
        None => None,
    };
    if action == ComposeAction::Up && (folder.is_none() || project.files.is_empty()) {
        return Err(Refusal::new(
            format!(
                "the containers of {} do not say where its files are",
                project.name
            ),
            "Open the folder that holds its compose file.",
        ));
    }
    let mut words = match folder {
        Some(_) => project.words(None),
        // What is there can be stopped and removed by the project's name alone.
        None => ProjectRow {
            files: Vec::new(),
            ..project.clone()
        }
        .words(None),
    };
    words.extend(action.words().iter().map(|&word| word.to_owned()));
    let mut program = Program::start(cove, &guest::docker(words, folder), &[]).await?;
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
        let mut since = None;
        // A break is followed by another try once a container runs; what it wrote in between is kept for us.
        while let Ok(true) | Err(_) = read_log(&cove, &name, &mut since, &seen, &allowance).await {
            sleep(AGAIN).await;
            let mut rows = cove.rows.subscribe();
            let runs = rows.wait_for(|rows| {
                rows.iter()
                    .flatten()
                    .any(|row| row.project.as_deref() == Some(&name) && row.state == ContainerState::Running)
            });
            if runs.await.is_err() {
                return;
            }
        }
    })
}

/// Reads it until it ends; whether somebody still wants it.
async fn read_log(
    cove: &Cove,
    name: &str,
    since: &mut Option<i64>,
    seen: &Channel<Vec<LogLine>>,
    allowance: &Allowance,
) -> Answer<bool> {
    let mut words: Vec<String> = ["compose", "--ansi=never"].map(str::to_owned).to_vec();
    words.push(format!("--project-name={name}"));
    words.extend(["logs", "--follow", "--timestamps", "--no-color"].map(str::to_owned));
    words.push(match since {
        Some(at_ms) => format!("--since={}.{:03}", *at_ms / 1000, *at_ms % 1000),
        None => format!("--tail={TAIL}"),
    });
    let mut program = Program::start(cove, &guest::docker(words, None), &[]).await?;
    let mut reader = LogReader::new(false);
    let mut ended = false;
    while !ended {
        let mut lines = Vec::new();
        match program.next().await? {
            Said::Out(data) => reader.take(&data, &mut lines),
            // Compose's own words, such as that a container has ended.
            Said::Err(_) => {}
            Said::Ended(_) => {
                reader.finish(&mut lines);
                ended = true;
            }
        }
        let lines: Vec<LogLine> = lines.into_iter().map(line_of_project).collect();
        if lines.is_empty() {
            continue;
        }
        if let Some(last) = lines.iter().map(|line| line.at_ms).max().filter(|&at| at > 0) {
            *since = Some(last + 1);
        }
        allowance.spend(1).await;
        if seen.send(lines).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The text of one of a project's files.
#[tauri::command]
pub(crate) async fn read_project_file(
    cove: State<'_, Arc<Cove>>,
    opened: State<'_, Opened>,
    name: String,
    file: String,
) -> Answer<FileText> {
    let project = find(&cove, &opened, &name).await?;
    read(&cove, file_of(&project, &file)?).await
}

/// Writes one of a project's files anew, in one step and with its mode and owner, once compose finds the project valid
/// with it, and unless it changed since it was read at `revision`. Without one it is written whatever happened to it.
#[tauri::command]
pub(crate) async fn write_project_file(
    cove: State<'_, Arc<Cove>>,
    opened: State<'_, Opened>,
    name: String,
    file: String,
    text: String,
    revision: Option<String>,
) -> Answer<Saved> {
    let project = find(&cove, &opened, &name).await?;
    let file = file_of(&project, &file)?;
    if text.len() > LARGEST {
        return Err(too_large(file));
    }
    check(&cove, &project, file, &text).await?;
    if revision.is_some() && revision != Some(read(&cove, file).await?.revision) {
        return Ok(Saved::Conflict);
    }
    write(&cove, file, &text).await?;
    let found = read(&cove, file).await?;
    if found.text != text {
        return Ok(Saved::Conflict);
    }
    Ok(Saved::Done {
        revision: found.revision,
    })
}

/// A file that the project really has.
fn file_of<'a>(project: &'a ProjectRow, file: &str) -> Answer<&'a str> {
    let known = project.files.iter().find(|known| *known == file);
    known.map(String::as_str).ok_or_else(|| {
        Refusal::new(
            format!("{file} is no file of the project {}", project.name),
            "Open its folder again.",
        )
    })
}

/// Has compose read the project with this text in place of a file.
async fn check(cove: &Cove, project: &ProjectRow, file: &str, text: &str) -> Answer<()> {
    let mut words = project.words(Some(file));
    words.extend(["config", "--quiet"].map(str::to_owned));
    let exec = guest::docker(words, project.folder.as_deref());
    let said = guest::finished(cove, &exec, text.as_bytes()).await?;
    if said.code == 0 {
        Ok(())
    } else {
        Err(invalid(file, &said.complaint))
    }
}

fn invalid(file: &str, complaint: &str) -> Refusal {
    let name = file.rsplit('/').next().unwrap_or(file);
    Refusal::new(
        format!("{name} is not valid: {complaint}"),
        "Nothing was changed. Correct what compose names.",
    )
}

async fn read(cove: &Cove, file: &str) -> Answer<FileText> {
    let most = (LARGEST + 1).to_string();
    let out = run(cove, &["head", "-c", &most, "--", file], &[], "read", file).await?;
    if out.len() > LARGEST {
        return Err(too_large(file));
    }
    let mut hasher = DefaultHasher::new();
    out.hash(&mut hasher);
    let revision = format!("{}-{:016x}", out.len(), hasher.finish());
    match String::from_utf8(out) {
        Ok(text) if !text.contains('\0') => Ok(FileText { text, revision }),
        _ => Err(Refusal::new(format!("{file} is no text"), "")),
    }
}

/// A copy with the file's mode and owner gets the text and then the file's name; a link is followed to the file first.
async fn write(cove: &Cove, file: &str, text: &str) -> Answer<()> {
    let place = run(cove, &["readlink", "-f", "--", file], &[], "write", file).await?;
    let place = String::from_utf8_lossy(&place);
    let place = place.trim_end_matches('\n');
    let beside = format!("{place}.cove-{}", std::process::id());
    let into = format!("of={beside}");
    let steps: [(&[&str], &[u8]); 3] = [
        (&["cp", "-p", "--", place, &beside], &[]),
        (&["dd", &into, "conv=fsync"], text.as_bytes()),
        (&["mv", "-f", "--", &beside, place], &[]),
    ];
    for (command, input) in steps {
        if let Err(refusal) = run(cove, command, input, "write", file).await {
            // What failed is told; that it could not be cleared away as well would only hide it.
            let _ = run(cove, &["rm", "-f", "--", &beside], &[], "remove", &beside).await;
            return Err(refusal);
        }
    }
    Ok(())
}

async fn run(cove: &Cove, command: &[&str], input: &[u8], what: &str, file: &str) -> Answer<Vec<u8>> {
    let said = guest::finished(cove, &guest::program(command), input).await?;
    if said.code == 0 {
        return Ok(said.out);
    }
    Err(Refusal::new(
        format!("cannot {what} {file}: {}", said.complaint),
        "See that its folder is shared with the machine, and for writing if it is to be changed.",
    ))
}

fn too_large(file: &str) -> Refusal {
    Refusal::new(format!("{file} is larger than 1 MiB"), "Open it elsewhere.")
}
