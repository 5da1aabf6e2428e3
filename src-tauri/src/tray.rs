//! The tray: a menu that says how the machine is and what runs, and does the few things that one does without a window.
//!
//! It is a menu first, since trays on Linux tell of no clicks. It is made anew whenever the machine or the containers
//! change; the desktop draws it, so that nothing here knows how it looks.

use crate::{
    commands::containers::{self, Action},
    cove::{Cove, Missed},
    failure::Refusal,
    place::{Place, Places},
    window,
    words::{Words, words},
};
use cove_api::{ClientError, JsonLines, Progress};
use cove_view::{ContainerRow, ContainerState, Failure, FailureKind, MachineNews, MachinePhase, PortBinding};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tauri::{
    AppHandle, Manager as _, Wry,
    menu::{IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu},
    tray::{TrayIcon, TrayIconBuilder},
};

/// Its name within the program.
const ID: &str = "cove";
/// Containers that the menu lists at most; a menu that scrolls is a bad list.
const MOST: usize = 12;
/// Changes that come within this time make one new menu.
const GATHER: Duration = Duration::from_millis(250);
/// How long a desktop may take, from where a session begins, to have a place for icons.
const SETTLING: Duration = Duration::from_secs(15);
/// How often it is looked, at most, whether the page was told what the machine begins with, which comes another way.
const LOOKS: u32 = 10;
/// How long between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Shows the tray's icon, where this desktop could show one, and keeps its menu true.
pub(crate) async fn start(app: AppHandle, cove: Arc<Cove>) {
    if !is_possible() {
        return;
    }
    let mut places = app.state::<Places>().heard();
    let asked = places.wait_for(|place| *place != Place::Unasked).await;
    // Without a bus no icon can be shown. Its library would say so again and again.
    if asked.is_ok_and(|place| *place == Place::NoBus) {
        return;
    }
    let handle = app.clone();
    let built = app.run_on_main_thread(move || build(&handle, cove));
    if let Err(error) = built {
        do_without(&app, &error);
    }
}

fn build(app: &AppHandle, cove: Arc<Cove>) {
    let for_events = Arc::clone(&cove);
    let built = TrayIconBuilder::with_id(ID)
        .icon(tauri::include_image!("icons/32x32.png"))
        .tooltip("Cove")
        .on_menu_event(move |app, event| choose(app, &for_events, event.id().as_ref()))
        .build(app);
    match built {
        Ok(tray) => drop(tauri::async_runtime::spawn(keep(app.clone(), cove, tray))),
        Err(error) => do_without(app, &error),
    }
}

/// Shows a window that was opened hidden, where there can be no icon whatever the desktop has a place for: the window
/// does everything that the tray does.
fn do_without(app: &AppHandle, error: &tauri::Error) {
    eprintln!("there is no icon in the tray: {error}");
    if !window::is_shown(app) {
        window::show(app);
    }
}

/// Shows a window that was opened hidden, where the desktop turns out to have no place for the icon: nobody could open
/// it from there.
pub(crate) async fn show_without(app: AppHandle) {
    let mut places = app.state::<Places>().heard();
    let settled = places.wait_for(|place| matches!(place, Place::NoBus | Place::There));
    let settled = tokio::time::timeout(SETTLING, settled).await;
    let there = settled.is_ok_and(|place| place.is_ok_and(|place| *place == Place::There));
    // It may have been shown otherwise, and somebody be at something else by now.
    if !there && !window::is_shown(&app) {
        window::show(&app);
    }
}

/// Whether its icon can be seen, so that the window can be shown from there. It waits for nothing: the window's thread
/// asks.
pub(crate) fn is_shown(app: &AppHandle) -> bool {
    app.tray_by_id(ID).is_some() && app.state::<Places>().now() == Place::There
}

/// On Linux the library that draws the icon is loaded when it is needed, and asking for it in vain ends the program.
pub(crate) fn is_possible() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let names = ["libayatana-appindicator3.so.1", "libappindicator3.so.1"];
    let arch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    ["/usr/lib", "/usr/lib64", &arch].iter().any(|place| {
        names
            .iter()
            .any(|name| std::path::Path::new(place).join(name).exists())
    })
}

async fn keep(app: AppHandle, cove: Arc<Cove>, tray: TrayIcon) {
    let mut news = cove.news.subscribe();
    let mut rows = cove.rows.subscribe();
    let mut lost = cove.lost.subscribe();
    let words = words();
    let mut shown = None;
    loop {
        let now = Contents::of(
            news.borrow_and_update().as_ref(),
            rows.borrow_and_update().as_deref(),
            lost.borrow_and_update().as_ref(),
            words,
        );
        if shown.as_ref() != Some(&now) {
            let made = now.menu(&app, words).and_then(|menu| tray.set_menu(Some(menu)));
            if let Err(error) = made {
                // One without a menu leads nowhere. It is the window's thread that icons may be dropped on.
                let handle = app.clone();
                let removed = app.run_on_main_thread(move || drop((tray, handle.remove_tray_by_id(ID))));
                do_without(&app, &removed.err().unwrap_or(error));
                return;
            }
            shown = Some(now);
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            changed = rows.changed() => if changed.is_err() { return },
            changed = lost.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// What the menu says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    headline: String,
    /// The label and the id of what can be done to the machine.
    machine: Option<(&'static str, &'static str)>,
    /// Why the containers are what was last known, and nothing can be done to them; nothing while the engine answers.
    lost: Option<&'static str>,
    containers: Vec<Entry>,
    /// Running containers that the list leaves out.
    more: usize,
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: String,
    name: String,
    /// What a browser calls the pages on its ports.
    pages: Vec<String>,
}

/// Something that the menu of a container offers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    id: String,
    label: String,
    enabled: bool,
}

impl Entry {
    /// What can be chosen of it. While its engine is lost that is what can be looked at.
    fn choices(&self, lost: bool, words: &Words) -> Vec<Choice> {
        let pages = self.pages.iter().map(|page| Choice {
            id: format!("page {page}"),
            label: format!("{} {page}", words.open),
            enabled: true,
        });
        let actions = [
            ("logs", words.logs, true),
            ("restart", words.restart, !lost),
            ("halt", words.halt, !lost),
        ];
        let actions = actions.into_iter().map(|(word, label, enabled)| Choice {
            id: format!("{word} {}", self.id),
            label: label.to_owned(),
            enabled,
        });
        pages.chain(actions).collect()
    }
}

impl Contents {
    fn of(
        news: Option<&MachineNews>,
        rows: Option<&[ContainerRow]>,
        lost: Option<&Failure>,
        words: &Words,
    ) -> Self {
        let (headline, machine) = match news {
            None => (words.looking.to_owned(), None),
            Some(MachineNews::Away { .. }) => (words.away.to_owned(), Some((words.start, "start"))),
            Some(MachineNews::Seen { machine }) => {
                let (phase, action) = match machine.phase {
                    MachinePhase::Stopped => (words.stopped, Some((words.start, "start"))),
                    MachinePhase::Failed => (words.failed, Some((words.start, "start"))),
                    MachinePhase::Starting => (words.starting, None),
                    MachinePhase::Running => (words.running, Some((words.stop, "stop"))),
                    MachinePhase::Paused => (words.paused, Some((words.resume, "resume"))),
                    MachinePhase::Stopping => (words.stopping, None),
                };
                (format!("{} {phase}", machine.name), action)
            }
        };
        let running = rows
            .unwrap_or_default()
            .iter()
            .filter(|row| row.state == ContainerState::Running);
        let containers: Vec<Entry> = running
            .clone()
            .take(MOST)
            .map(|row| Entry {
                id: row.id.clone(),
                name: row.name.clone(),
                pages: row.ports.iter().filter_map(PortBinding::page).collect(),
            })
            .collect();
        let lost = lost.map(|why| match why.kind {
            // It answers, if only to refuse.
            Some(FailureKind::EngineRefused) => words.refused,
            _ => words.lost,
        });
        Self {
            headline,
            machine,
            lost,
            more: running.count() - containers.len(),
            containers,
        }
    }

    /// The label and the id of what can be done to the machine. A stop says what stops with it: nothing asks after that.
    fn machine_choice(&self, words: &Words) -> Option<(String, &'static str)> {
        let running = self.containers.len() + self.more;
        self.machine.map(|(label, id)| match id {
            "stop" if running > 0 => (format!("{label} ({}: {running})", words.stops_with_it), id),
            _ => (label.to_owned(), id),
        })
    }

    fn menu(&self, app: &AppHandle, words: &Words) -> tauri::Result<Menu<Wry>> {
        let item = |id: &str, text: &str, enabled| MenuItem::with_id(app, id, text, enabled, None::<&str>);
        let line = || PredefinedMenuItem::separator(app);
        let menu = Menu::with_items(app, &[&item("headline", &self.headline, false)?])?;
        if let Some((label, id)) = self.machine_choice(words) {
            menu.append(&item(id, &label, true)?)?;
        }
        if self.lost.is_some() || !self.containers.is_empty() {
            menu.append(&line()?)?;
        }
        if let Some(why) = self.lost {
            menu.append(&item("lost", why, false)?)?;
        }
        for container in &self.containers {
            let choices = container.choices(self.lost.is_some(), words);
            let items: Vec<MenuItem<Wry>> = choices
                .iter()
                .map(|choice| item(&choice.id, &choice.label, choice.enabled))
                .collect::<tauri::Result<_>>()?;
            let items: Vec<&dyn IsMenuItem<Wry>> =
                items.iter().map(|item| item as &dyn IsMenuItem<Wry>).collect();
            menu.append(&Submenu::with_items(app, &container.name, true, &items)?)?;
        }
        if self.more > 0 {
            menu.append(&item("window", &format!("{} {}", self.more, words.more), true)?)?;
        }
        menu.append_items(&[
            &line()?,
            &item("window", words.window, true)?,
            &item("quit", words.quit, true)?,
        ])?;
        Ok(menu)
    }
}

/// Does what was chosen. The id is a word and what it is about.
fn choose(app: &AppHandle, cove: &Arc<Cove>, chosen: &str) {
    let (word, about) = chosen.split_once(' ').unwrap_or((chosen, ""));
    let about = about.to_owned();
    let cove = Arc::clone(cove);
    match word {
        "window" => window::show(app),
        "quit" => app.exit(0),
        "logs" => window::go(app, &format!("/containers/{about}/logs")),
        _ => {
            let (app, word) = (app.clone(), word.to_owned());
            tauri::async_runtime::spawn(async move {
                let done = match word.as_str() {
                    "start" | "resume" => start_machine(&cove).await,
                    "stop" => stop_machine(&cove).await,
                    "restart" => containers::apply(&cove, Action::Restart, &about)
                        .await
                        .map_err(Some),
                    "halt" => containers::apply(&cove, Action::Stop, &about).await.map_err(Some),
                    "page" => containers::open(&about).map_err(Some),
                    _ => Ok(()),
                };
                // A menu has no room for a reason; the window has.
                if let Err(untold) = done {
                    if let Some(Refusal(failure)) = untold {
                        let title = title_of(&word, &about, cove.rows.borrow().as_deref(), words());
                        // Where no page hears it there is no window either.
                        let _ = cove.missed.send(Missed { title, failure });
                    }
                    window::show(&app);
                }
            });
        }
    }
}

/// What was chosen, as the menu says it.
fn title_of(word: &str, about: &str, rows: Option<&[ContainerRow]>, words: &Words) -> String {
    let row = rows.unwrap_or_default().iter().find(|row| row.id == about);
    let name = row.map_or(about, |row| row.name.as_str());
    match word {
        "start" => words.start.to_owned(),
        "resume" => words.resume.to_owned(),
        "stop" => words.stop.to_owned(),
        "restart" => format!("{}: {name}", words.restart),
        "halt" => format!("{}: {name}", words.halt),
        _ => format!("{} {about}", words.open),
    }
}

/// Why the machine did not do what was asked of it, where that is to be told: the window has a task of what it saw the
/// machine begin with, which tells it by itself.
type Untold = Option<Refusal>;

async fn start_machine(cove: &Cove) -> Result<(), Untold> {
    let tasks = cove.tasks.load(Ordering::Relaxed);
    let client = cove.daemon().await?;
    ends(cove, tasks, client.start(&cove.machine()).await).await
}

async fn stop_machine(cove: &Cove) -> Result<(), Untold> {
    let tasks = cove.tasks.load(Ordering::Relaxed);
    ends(cove, tasks, cove.client().stop(&cove.machine()).await).await
}

/// Waits for the end of what the daemon was asked when the page had been told of so many tasks.
async fn ends(
    cove: &Cove,
    tasks: usize,
    asked: Result<JsonLines<Progress>, ClientError>,
) -> Result<(), Untold> {
    let mut begun = false;
    let progress = asked.map_err(Refusal::from)?;
    let ended = progress
        .finish(|step| begun |= matches!(step, Progress::Stage { .. }))
        .await;
    match ended {
        Ok(_) => Ok(()),
        Err(error) => Err(untold(cove, tasks, begun, error.into()).await),
    }
}

/// What is to be told of a failure. What fails as soon as it has begun, or with a daemon that was started for it, the page
/// may never have seen begin.
async fn untold(cove: &Cove, tasks: usize, begun: bool, refusal: Refusal) -> Untold {
    if begun {
        for _ in 0..LOOKS {
            if cove.tasks.load(Ordering::Relaxed) != tasks {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Some(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cove::tests::running, words::ENGLISH};
    use cove_api::Dirs;
    use serde_json::json;

    fn rows(count: usize) -> Vec<ContainerRow> {
        (0..count)
            .filter_map(|index| {
                ContainerRow::read(&json!({
                    "Id": format!("id{index}"), "Names": [format!("/web-{index}")], "State": "running",
                    "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"PrivatePort": 9000},
                              {"PrivatePort": 53, "PublicPort": 5353, "Type": "udp"},
                              {"IP": "192.168.1.5", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"}],
                }))
            })
            .collect()
    }

    fn failure(kind: Option<FailureKind>) -> Failure {
        Failure {
            message: String::new(),
            hint: String::new(),
            registry: None,
            kind,
        }
    }

    #[test]
    fn a_long_list_of_containers_ends_with_how_many_more_there_are() {
        let contents = Contents::of(None, Some(&rows(MOST + 3)), None, &ENGLISH);
        assert_eq!((contents.containers.len(), contents.more), (MOST, 3));
        assert_eq!(
            contents.containers[0].pages,
            ["localhost:8080", "192.168.1.5:8081"]
        );
    }

    #[test]
    fn a_stop_of_the_machine_says_how_many_containers_stop_with_it() {
        let label = |containers: &[ContainerRow]| {
            let contents = Contents::of(Some(&running("default")), Some(containers), None, &ENGLISH);
            contents.machine_choice(&ENGLISH)
        };
        assert_eq!(label(&[]), Some(("Stop the machine".to_owned(), "stop")));
        assert_eq!(
            label(&rows(MOST + 3)),
            Some(("Stop the machine (running containers: 15)".to_owned(), "stop"))
        );
    }

    #[test]
    fn what_did_not_work_is_told_by_the_words_of_the_menu() {
        let rows = rows(2);
        let title = |word, about| title_of(word, about, Some(&rows), &ENGLISH);
        assert_eq!(title("stop", ""), "Stop the machine");
        assert_eq!(title("resume", ""), "Resume the machine");
        assert_eq!(title("halt", "id1"), "Stop: web-1");
        assert_eq!(title("restart", "gone"), "Restart: gone");
        assert_eq!(title("page", "localhost:8080"), "Open localhost:8080");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_unless_the_page_has_seen_begin_what_failed() {
        let directory = tempfile::tempdir().unwrap();
        let cove = Cove::of(Dirs::below(directory.path()), "default".to_owned());
        let told = async |begun| untold(&cove, 0, begun, Refusal::new("no", "")).await.is_some();
        assert!(told(false).await, "what was refused at once");
        assert!(told(true).await, "what was over before the page heard of it");
        // The page hears of it a little later than the menu.
        let (told, ()) = tokio::join!(told(true), async {
            tokio::time::sleep(LOOK * 3).await;
            cove.tasks.fetch_add(1, Ordering::Relaxed);
        });
        assert!(!told, "what the page has a task of");
    }

    #[test]
    fn without_a_daemon_the_machine_can_still_be_started() {
        let failure = failure(None);
        let contents = Contents::of(Some(&MachineNews::Away { failure }), None, None, &ENGLISH);
        assert_eq!(contents.machine, Some(("Start the machine", "start")));
    }

    #[test]
    fn of_a_lost_engines_containers_only_what_can_be_looked_at_can_be_chosen() {
        let (away, refused) = (FailureKind::EngineAway, FailureKind::EngineRefused);
        for (lost, said) in [
            (None, None),
            (Some(failure(None)), Some("The engine does not answer")),
            (Some(failure(Some(away))), Some("The engine does not answer")),
            (
                Some(failure(Some(refused))),
                Some("The engine does not list its containers"),
            ),
        ] {
            let contents = Contents::of(None, Some(&rows(1)), lost.as_ref(), &ENGLISH);
            assert_eq!(contents.lost, said);
            let choices = contents.containers[0].choices(contents.lost.is_some(), &ENGLISH);
            let enabled: Vec<_> = choices.iter().map(|one| (one.id.as_str(), one.enabled)).collect();
            let acts = lost.is_none();
            assert_eq!(
                enabled,
                [
                    ("page localhost:8080", true),
                    ("page 192.168.1.5:8081", true),
                    ("logs id0", true),
                    ("restart id0", acts),
                    ("halt id0", acts)
                ]
            );
        }
    }
}
