//! The desktop shell: a window, a tray, and the commands that the front end may call.
//!
//! It is thin. What is shown is made in `cove-view`, what a machine does is decided in the daemon, and this program
//! carries between them: calls as typed commands ([`commands`]), what changes by itself over channels ([`stream`]).
//!
//! ```text
//!  daemon ──events──▶ follow ──▶ news: what the machine does ──┬──▶ window (channels)
//!  engine ──events──▶ follow ──▶ rows: its containers ─────────┼──▶ tray
//!                           └──▶ lost: why it does not answer ─┘
//! ```
//!
//! The two followers own `news`, `rows` and `lost`; everybody else watches them. The window may be closed at any time,
//! and the program with it where no tray shows its icon: machines belong to the daemon and go on.

mod alive;
mod archives;
mod autostart;
mod closing;
mod commands;
mod cove;
mod drops;
mod failure;
mod follow;
mod guest;
mod helper;
mod history;
mod instance;
mod layers;
mod local;
mod logs;
mod pieces;
mod place;
mod stream;
mod task;
mod terminal;
#[cfg(all(test, target_os = "linux"))]
mod test_bus;
mod tray;
mod usage;
mod volume;
#[cfg(target_os = "linux")]
mod web_view;
mod window;
mod words;

use cove::Cove;
use std::{env, process::ExitCode, sync::Arc};
use tauri::{Manager as _, webview::PageLoadEvent};

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    web_view::begin_anew_if_needed();
    let hidden = env::args_os().skip(1).any(|word| word == autostart::HIDDEN);
    let cove = match Cove::from_environment() {
        Ok(cove) => Arc::new(cove),
        Err(failure) => {
            eprintln!("error: {}\nhint: {}", failure.0.message, failure.0.hint);
            return ExitCode::FAILURE;
        }
    };
    let claim = tauri::async_runtime::block_on(instance::claim(&cove.dirs));
    let instance = match claim {
        instance::Claim::First(instance) => Some(instance),
        instance::Claim::Second => return ExitCode::SUCCESS,
        instance::Claim::Unknown(error) => {
            // A second window is a smaller harm than none.
            eprintln!("cannot find out whether a window is open already: {error}");
            None
        }
    };
    let app = tauri::Builder::default()
        .plugin(window::state_plugin())
        .plugin(tauri_plugin_dialog::init())
        .invoke_handler(commands::handler())
        .on_page_load(|webview, load| {
            // When it has finished loading, a page may have begun streams and tasks of its own.
            if load.event() == PageLoadEvent::Started {
                webview.state::<stream::Streams>().clear();
                webview.state::<task::Tasks>().clear();
                webview.state::<terminal::Terminals>().clear();
            }
        })
        .on_window_event(drops::remember)
        .on_window_event(window::stay)
        .manage(Arc::clone(&cove))
        .manage(closing::Closing::default())
        .manage(drops::Drops::default())
        .manage(Arc::new(history::History::of(cove.dirs.clone())))
        .manage(commands::compose::Opened::default())
        .manage(layers::Layers::default())
        .manage(place::Places::watch())
        .manage(stream::Streams::default())
        .manage(task::Tasks::default())
        .manage(terminal::Terminals::default())
        .setup(move |app| {
            let handle = app.handle();
            tauri::async_runtime::spawn(follow::machine(Arc::clone(&cove)));
            tauri::async_runtime::spawn(follow::containers(Arc::clone(&cove)));
            // Without a tray there would be nothing to open it from.
            window::open(handle, &cove, !hidden || !tray::is_possible())?;
            tauri::async_runtime::spawn(tray::start(handle.clone(), Arc::clone(&cove)));
            if hidden {
                tauri::async_runtime::spawn(tray::show_without(handle.clone()));
            }
            if let Some(instance) = instance {
                tauri::async_runtime::spawn(instance.serve(handle.clone()));
            }
            Ok(())
        })
        .build(tauri::generate_context!());
    match app {
        Ok(app) => {
            app.run(|_, _| {});
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: the window cannot be opened: {error}");
            ExitCode::FAILURE
        }
    }
}
