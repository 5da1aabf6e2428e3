//! Compose projects: which there are, by the labels that compose writes on containers, and what compose says while it
//! brings one up or down.

use crate::{ContainerRow, LogLine, TaskStep, time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use ts_rs::TS;

/// Compose writes these on what it creates.
const PROJECT: &str = "com.docker.compose.project";
const FOLDER: &str = "com.docker.compose.project.working_dir";
const FILES: &str = "com.docker.compose.project.config_files";
const SERVICE: &str = "com.docker.compose.service";
/// Most files of a project, and most services that a file names.
const MAX_ITEMS: usize = 512;
/// Longest line of compose's that is shown, in characters.
const LONGEST: usize = 2000;
/// Lines that are kept to say why something failed.
const WORDS: usize = 20;

/// A project of compose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ProjectRow {
    /// Its name.
    pub name: String,
    /// The folder that its paths are relative to, an absolute path; absent where its containers do not say.
    pub folder: Option<String>,
    /// Its files, absolute paths, in the order in which each changes what those before it say.
    pub files: Vec<String>,
    /// Its services by name.
    pub services: Vec<ServiceRow>,
}

/// A service of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// The image that it runs; empty where it is built and was not yet.
    pub image: String,
    /// Its containers; none until it was brought up.
    pub containers: Vec<ContainerRow>,
}

/// What is done to a whole project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum ComposeAction {
    /// Creates what is missing or has changed, and starts all of it.
    Up,
    /// Stops its containers.
    Stop,
    /// Stops and starts its containers.
    Restart,
    /// Stops and removes its containers, and removes its networks. Volumes stay.
    Down,
}

impl ProjectRow {
    /// The projects of the engine's list of containers, by name, those that a person `opened`, and those that were
    /// `seen` when they had containers. The folder and files of an opened project are those that the person chose.
    ///
    /// Labels are what somebody wrote, and an image can carry them. So folder and files are only told where all
    /// containers that say something say the same, and where no path leads upwards.
    pub fn read_all(containers: &[Value], opened: &[Self], seen: &[Self]) -> Vec<Self> {
        let mut projects: BTreeMap<String, Self> = opened
            .iter()
            .map(|project| (project.name.clone(), project.clone()))
            .collect();
        let mut said: BTreeMap<String, Vec<Labelled>> = BTreeMap::new();
        for container in containers {
            let label = |name: &str| container["Labels"][name].as_str().filter(|text| !text.is_empty());
            let (Some(name), Some(row)) = (label(PROJECT), ContainerRow::read(container)) else {
                continue;
            };
            let project = projects.entry(name.to_owned()).or_insert_with(|| Self {
                name: name.to_owned(),
                folder: None,
                files: Vec::new(),
                services: Vec::new(),
            });
            if label(FOLDER).is_some() || label(FILES).is_some() {
                let labelled = Labelled::read(label(FOLDER), label(FILES));
                let said = said.entry(name.to_owned()).or_default();
                if !said.contains(&labelled) {
                    said.push(labelled);
                }
            }
            let service = label(SERVICE).unwrap_or(&row.name).to_owned();
            match project.services.iter_mut().find(|known| known.name == service) {
                Some(known) => {
                    if known.containers.is_empty() {
                        known.image.clone_from(&row.image);
                    }
                    known.containers.push(row);
                }
                None => project.services.push(ServiceRow {
                    name: service,
                    image: row.image.clone(),
                    containers: vec![row],
                }),
            }
        }
        for project in projects.values_mut() {
            let is_opened = opened.iter().any(|known| known.name == project.name);
            let said = said.get(&project.name).map(Vec::as_slice);
            if let (false, Some([labelled])) = (is_opened, said) {
                project.folder.clone_from(&labelled.folder);
                project.files.clone_from(&labelled.files);
            }
        }
        for before in seen {
            match projects.get_mut(&before.name) {
                None => {
                    projects.insert(before.name.clone(), before.clone());
                }
                Some(now) if now.folder == before.folder && now.files == before.files => {
                    now.add_services(&before.services);
                }
                Some(_) => {}
            }
        }
        let mut projects: Vec<_> = projects.into_values().collect();
        for project in &mut projects {
            project.services.sort_by(|one, other| one.name.cmp(&other.name));
            for service in &mut project.services {
                service.containers.sort_by(|one, other| one.name.cmp(&other.name));
            }
        }
        projects
    }

    /// Adds those of these services that it has not, without their containers.
    fn add_services(&mut self, services: &[ServiceRow]) {
        for service in services {
            if self.services.iter().all(|known| known.name != service.name) {
                self.services.push(ServiceRow {
                    containers: Vec::new(),
                    ..service.clone()
                });
            }
        }
    }

    /// A project that was opened, from what `docker compose config --format json` says of it.
    pub fn of_config(config: &Value, folder: &str, files: Vec<String>) -> Option<Self> {
        let services = config["services"]
            .as_object()
            .into_iter()
            .flatten()
            .take(MAX_ITEMS);
        let services = services.map(|(name, service)| ServiceRow {
            name: name.clone(),
            image: service["image"].as_str().unwrap_or_default().to_owned(),
            containers: Vec::new(),
        });
        Some(Self {
            name: config["name"]
                .as_str()
                .filter(|name| !name.is_empty())?
                .to_owned(),
            folder: Some(folder.to_owned()),
            files,
            services: services.collect(),
        })
    }

    /// The words of `docker` that name this project, behind which a command stands. In place of `replaced`, if it is
    /// one of its files, standard input is read.
    pub fn words(&self, replaced: Option<&str>) -> Vec<String> {
        let mut words = self.words_of_name();
        // Without files, compose would look for some in the folder.
        let folder = self.folder.as_deref().filter(|_| !self.files.is_empty());
        words.extend(words_of_files(folder, &self.files, replaced));
        words
    }

    /// The words of `docker` that name this project alone, whatever became of its files.
    pub fn words_of_name(&self) -> Vec<String> {
        let mut words: Vec<String> = ["compose", "--ansi=never", "--progress=plain"]
            .map(str::to_owned)
            .to_vec();
        words.push(format!("--project-name={}", self.name));
        words
    }
}

/// The words of compose that name a project's folder and files.
pub fn words_of_files(folder: Option<&str>, files: &[String], replaced: Option<&str>) -> Vec<String> {
    let folder = folder.map(|folder| format!("--project-directory={folder}"));
    let files = files.iter().map(|file| {
        let file = if replaced == Some(file) { "-" } else { file };
        format!("--file={file}")
    });
    folder.into_iter().chain(files).collect()
}

/// Whether compose takes this for a project's name.
pub fn is_project_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.bytes().next().is_some_and(is_plain)
        && name
            .bytes()
            .all(|byte| is_plain(byte) || matches!(byte, b'-' | b'_'))
}

impl ComposeAction {
    /// Its words behind those of the project.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Up => &["up", "--detach"],
            Self::Stop => &["stop"],
            Self::Restart => &["restart"],
            Self::Down => &["down"],
        }
    }
}

/// Where the labels of one container say that its project is.
#[derive(Debug, PartialEq, Eq)]
struct Labelled {
    folder: Option<String>,
    files: Vec<String>,
}

impl Labelled {
    fn read(folder: Option<&str>, named: Option<&str>) -> Self {
        let folder = folder.filter(|path| is_plain_path(path));
        Self {
            // With some of its files a project would be another one.
            files: files(named.unwrap_or_default(), folder).unwrap_or_default(),
            folder: folder.map(str::to_owned),
        }
    }
}

/// The files of a label, which separates them by commas; nothing if one of them cannot be meant. Old versions of
/// compose wrote them relative to the folder.
fn files(label: &str, folder: Option<&str>) -> Option<Vec<String>> {
    let named = label.split(',').filter(|file| !file.is_empty()).take(MAX_ITEMS);
    let absolute = named.map(|file| {
        let path = match folder {
            _ if file.starts_with('/') => file.to_owned(),
            Some(folder) => format!("{}/{file}", folder.trim_end_matches('/')),
            None => return None,
        };
        is_plain_path(&path).then_some(path)
    });
    absolute.collect()
}

/// Whether this is an absolute path that leads nowhere upwards and stays on its line.
fn is_plain_path(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part != "..") && !path.contains(char::is_control)
}

/// What compose says while it brings a project up or down: `Container shop-db-1  Started`, a line for each change.
#[derive(Debug, Default)]
pub struct ComposeProgress {
    /// The beginning of a line whose end is still to come.
    open: Vec<u8>,
    words: Vec<String>,
}

impl ComposeProgress {
    /// Takes what it wrote, however it is cut, and says what that tells.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<TaskStep> {
        let mut told = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                self.line(&mut told);
            } else if self.open.len() < LONGEST * 4 {
                self.open.push(byte);
            }
        }
        told
    }

    /// Why it failed, in compose's words.
    pub fn failure(&self) -> String {
        let lines = self.words.iter().rev().take(3).rev();
        let lines: Vec<_> = lines.map(String::as_str).collect();
        lines.join("\n")
    }

    fn line(&mut self, told: &mut Vec<TaskStep>) {
        let line = std::mem::take(&mut self.open);
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim_end().chars().take(LONGEST).collect();
        if text.trim().is_empty() {
            return;
        }
        if let Some((kind, name, note)) = part(&text) {
            told.push(TaskStep::Part {
                id: format!("{kind} {name}"),
                label: name.to_owned(),
                note: note.to_owned(),
                fraction: ENDS.contains(&note).then_some(1.0),
            });
        } else {
            self.words.push(text.clone());
            if self.words.len() > WORDS {
                self.words.remove(0);
            }
        }
        told.push(TaskStep::Line { text });
    }
}

/// A line of a project's log: compose writes the container's name, a bar, and the line with its time.
pub fn line_of_project(line: LogLine) -> LogLine {
    let Some((container, rest)) = line.text.split_once(" | ") else {
        return line;
    };
    let (stamp, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match time::read_ms(stamp) {
        Some(at_ms) => LogLine {
            at_ms,
            text: format!("{container} | {text}"),
            ..line
        },
        None => line,
    }
}

/// What compose says last of a thing.
const ENDS: [&str; 8] = [
    "Created",
    "Started",
    "Running",
    "Healthy",
    "Stopped",
    "Removed",
    "Exited",
    "Restarted",
];

/// A line that says how far one thing is: its kind, its name and the words.
fn part(line: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = line.trim_start().split_once(' ')?;
    let known = matches!(kind, "Container" | "Network" | "Volume" | "Image");
    let (name, note) = rest.trim_start().split_once(' ').filter(|_| known)?;
    let name = name.trim_matches('"');
    Some((kind, name, note.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContainerState;
    use proptest::prelude::*;
    use serde_json::json;

    fn container(name: &str, project: &str, service: &str, folder: &str, files: &str) -> Value {
        json!({
            "Id": name, "Names": [format!("/{name}")], "Image": "nginx", "State": "running",
            "Labels": {PROJECT: project, SERVICE: service, FOLDER: folder, FILES: files},
        })
    }

    #[test]
    fn projects_are_found_by_their_containers_labels_with_services_and_files() {
        let list = [
            container(
                "shop-web-2",
                "shop",
                "web",
                "/home/u/shop",
                "/home/u/shop/compose.yaml,extra.yaml",
            ),
            container(
                "shop-web-1",
                "shop",
                "web",
                "/home/u/shop",
                "/home/u/shop/compose.yaml,/home/u/shop/extra.yaml",
            ),
            container("shop-db-1", "shop", "db", "", ""),
            json!({"Id": "alone", "Names": ["/alone"], "Labels": {}}),
        ];
        let projects = ProjectRow::read_all(&list, &[], &[]);
        assert_eq!(projects.len(), 1);
        let shop = &projects[0];
        assert_eq!(shop.folder.as_deref(), Some("/home/u/shop"));
        assert_eq!(
            shop.files,
            ["/home/u/shop/compose.yaml", "/home/u/shop/extra.yaml"]
        );
        let services: Vec<_> = shop
            .services
            .iter()
            .map(|service| (service.name.as_str(), service.containers.len()))
            .collect();
        assert_eq!(services, [("db", 1), ("web", 2)]);
        assert_eq!(shop.services[1].containers[0].name, "shop-web-1");
        assert_eq!(shop.services[0].containers[0].state, ContainerState::Running);
    }

    #[test]
    fn what_was_opened_is_there_without_containers_and_its_files_are_not_the_labels() {
        let config = json!({"name": "shop", "services": {"web": {"image": "nginx"}, "job": {"build": {}}}});
        let opened = ProjectRow::of_config(&config, "/home/u/shop", vec!["/home/u/shop/compose.yaml".into()]);
        let opened = opened.expect("it has a name");
        let list = [container("shop-web-1", "shop", "web", "/etc", "/etc/shadow")];
        let projects = ProjectRow::read_all(&list, &[opened], &[]);
        assert_eq!(projects[0].files, ["/home/u/shop/compose.yaml"]);
        let services: Vec<_> = projects[0]
            .services
            .iter()
            .map(|service| (service.name.as_str(), service.containers.len()))
            .collect();
        assert_eq!(services, [("job", 0), ("web", 1)]);
        assert_eq!(ProjectRow::of_config(&json!([]), "/x", Vec::new()), None);
    }

    #[test]
    fn labels_that_disagree_or_lead_upwards_say_nothing_of_where_a_project_is() {
        let place = |list: &[Value]| {
            let project = ProjectRow::read_all(list, &[], &[]).remove(0);
            (project.folder, project.files)
        };
        let ours = container("shop-web-1", "shop", "web", "/home/u/shop", "/home/u/shop/a.yaml");
        let found = (
            Some("/home/u/shop".to_owned()),
            vec!["/home/u/shop/a.yaml".to_owned()],
        );
        assert_eq!(place(std::slice::from_ref(&ours)), found);
        let image = container("x", "shop", "web", "/home/u/shop", "/home/u/shop/b.yaml");
        assert_eq!(place(&[image, ours]), (None, Vec::new()));
        let upwards = container("x", "shop", "web", "/home/u/../../var", "a.yaml");
        assert_eq!(place(&[upwards]), (None, Vec::new()));
        let upwards = container("x", "shop", "web", "/home/u", "a.yaml,../b.yaml");
        assert_eq!(place(&[upwards]), (Some("/home/u".to_owned()), Vec::new()));
    }

    #[test]
    fn what_was_seen_is_there_without_containers_and_labels_override_it() {
        let seen = |folder: &str| {
            let config = json!({"name": "shop", "services": {"job": {}, "web": {}}});
            let files = vec![format!("{folder}/a.yaml")];
            ProjectRow::of_config(&config, folder, files).expect("it has a name")
        };
        let services = |project: &ProjectRow| project.services.len();
        let projects = ProjectRow::read_all(&[], &[], &[seen("/s")]);
        assert_eq!(projects, [seen("/s")]);
        let list = [container("shop-web-1", "shop", "web", "/s", "a.yaml")];
        let projects = ProjectRow::read_all(&list, &[], &[seen("/s")]);
        assert_eq!(
            (projects[0].folder.as_deref(), services(&projects[0])),
            (Some("/s"), 2)
        );
        let projects = ProjectRow::read_all(&list, &[], &[seen("/moved")]);
        assert_eq!(
            (projects[0].folder.as_deref(), services(&projects[0])),
            (Some("/s"), 1)
        );
    }

    #[test]
    fn names_are_those_that_compose_takes() {
        assert!(is_project_name("shop-2_b"));
        for name in ["", "-shop", "Shop", "shop web", "../shop"] {
            assert!(!is_project_name(name), "{name}");
        }
    }

    #[test]
    fn a_project_without_files_is_named_and_one_with_files_may_have_one_replaced() {
        let mut project = ProjectRow {
            name: "shop".into(),
            folder: Some("/s".into()),
            files: Vec::new(),
            services: Vec::new(),
        };
        assert_eq!(project.words(None)[3..], ["--project-name=shop"]);
        project.files = vec!["/s/a".into(), "/s/b".into()];
        assert_eq!(
            project.words(Some("/s/b"))[3..],
            [
                "--project-name=shop",
                "--project-directory=/s",
                "--file=/s/a",
                "--file=-"
            ]
        );
        project.folder = None;
        assert_eq!(project.words(Some("/s/b"))[4..], ["--file=/s/a", "--file=-"]);
    }

    #[test]
    fn each_thing_is_told_with_how_far_it_is_and_a_failure_with_composes_words() {
        let mut progress = ComposeProgress::default();
        let told: Vec<_> = [
            " Network shop_default  Creating\n Container shop-web-1  Start",
            "ed\n Volume \"shop_data\"  Created\n",
            "Error response from daemon: driver failed\n",
        ]
        .iter()
        .flat_map(|piece| progress.take(piece.as_bytes()))
        .filter_map(|step| match step {
            TaskStep::Part {
                label,
                note,
                fraction,
                ..
            } => Some((label, note, fraction.is_some())),
            _ => None,
        })
        .collect();
        assert_eq!(
            told,
            [
                ("shop_default".to_owned(), "Creating".to_owned(), false),
                ("shop-web-1".to_owned(), "Started".to_owned(), true),
                ("shop_data".to_owned(), "Created".to_owned(), true),
            ]
        );
        assert_eq!(progress.failure(), "Error response from daemon: driver failed");
    }

    #[test]
    fn a_line_of_a_projects_log_keeps_its_containers_name_and_gives_up_its_time() {
        let line = |text: &str| {
            line_of_project(LogLine {
                at_ms: 0,
                stream: crate::LogStream::Stdout,
                text: text.to_owned(),
            })
        };
        let read = line("web-1  | 2026-03-01T12:00:00.250000000Z GET / | 200");
        assert_eq!(
            (read.at_ms, read.text.as_str()),
            (1_772_366_400_250, "web-1  | GET / | 200")
        );
        assert_eq!(line("db-1 | 2026-03-01T12:00:00Z").text, "db-1 | ");
        assert_eq!(line("a | b c").text, "a | b c");
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic_and_are_bounded(text in "(Container |Image )?[a-z é\"\n]{0,60}", times in 1usize..40) {
            let mut progress = ComposeProgress::default();
            for _ in 0..times {
                let _ = progress.take(text.as_bytes());
            }
            prop_assert!(progress.words.len() <= WORDS);
        }
    }
}
