//! Lists the commands that the window may call. What does not stand here cannot be called, whatever is registered.

const COMMANDS: &[&str] = &[
    "act",
    "checks",
    "close_terminal",
    "follow_log",
    "images",
    "inspect",
    "look_at",
    "mounts",
    "networks",
    "open_port",
    "open_terminal",
    "processes",
    "resize_terminal",
    "run",
    "share_folder",
    "start_machine",
    "stop_machine",
    "taken",
    "type_in_terminal",
    "unwatch",
    "volumes",
    "watch_containers",
    "watch_machine",
    "watch_usage",
];

fn main() {
    let manifest = tauri_build::AppManifest::new().commands(COMMANDS);
    if let Err(error) = tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest)) {
        println!("cargo::error={error:#}");
    }
}
