//! What the front end may call: one module a family. Each asks the daemon or the engine and hands on the answer.

#![expect(
    clippy::needless_pass_by_value,
    reason = "Tauri hands a command its arguments by value"
)]

pub(crate) mod containers;
mod folders;
mod lists;
mod machine;
mod run;
mod streams;

use tauri::{Wry, ipc::Invoke};

/// All of them. `build.rs` lists them once more, and the capability says which a window may call.
pub(crate) fn handler() -> impl Fn(Invoke<Wry>) -> bool + Send + Sync + 'static {
    tauri::generate_handler![
        containers::act,
        containers::inspect,
        containers::mounts,
        containers::open_port,
        containers::processes,
        folders::look_at,
        folders::share_folder,
        lists::images,
        lists::networks,
        lists::volumes,
        machine::checks,
        machine::start_machine,
        machine::stop_machine,
        machine::watch_machine,
        run::run,
        streams::close_terminal,
        streams::follow_log,
        streams::open_terminal,
        streams::resize_terminal,
        streams::taken,
        streams::type_in_terminal,
        streams::unwatch,
        streams::watch_containers,
        streams::watch_usage,
    ]
}
