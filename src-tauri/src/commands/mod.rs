//! What the front end may call: one module a family. Each asks the daemon or the engine and hands on the answer.

#![expect(
    clippy::needless_pass_by_value,
    reason = "Tauri hands a command its arguments by value"
)]

mod builds;
mod closing;
pub(crate) mod compose;
pub(crate) mod containers;
mod files;
mod folders;
pub(crate) mod images;
mod layers;
mod lists;
mod machine;
mod machines;
mod networks;
mod pages;
mod ports;
mod project_files;
mod registries;
mod run;
mod settings;
mod streams;
mod tasks;
mod transfer;
mod volumes;

use tauri::{Wry, ipc::Invoke};

/// All of them. `build.rs` lists them once more, and the capability says which a window may call.
pub(crate) fn handler() -> impl Fn(Invoke<Wry>) -> bool + Send + Sync + 'static {
    tauri::generate_handler![
        builds::build_details,
        builds::build_image,
        builds::builds,
        builds::forget_builds,
        closing::answer_closing,
        closing::watch_closing,
        compose::compose,
        compose::follow_project_log,
        compose::open_project,
        compose::projects,
        containers::act,
        containers::commit_container,
        containers::inspect,
        containers::mounts,
        containers::open_port,
        containers::processes,
        containers::removals,
        containers::rename_container,
        containers::run_line,
        files::files_at,
        files::make_folder,
        files::read_file,
        files::remove_file,
        files::rename_file,
        files::write_file,
        folders::choose_folder,
        folders::look_at,
        folders::share_folder,
        images::image_details,
        images::import_image,
        images::load_images,
        images::prune_images,
        images::pull_image,
        images::push_image,
        images::remove_image,
        images::save_images,
        images::tag_image,
        layers::layer_files,
        layers::read_layers,
        lists::images,
        lists::networks,
        lists::volumes,
        machine::checks,
        machine::diagnostics,
        machine::machine_usage,
        machine::reclaim_disk,
        machine::restart_machine,
        machine::start_machine,
        machine::stop_machine,
        machine::watch_machine,
        machines::choose_machine,
        machines::create_machine,
        machines::delete_machine,
        machines::machines,
        networks::connect_network,
        networks::create_network,
        networks::disconnect_network,
        networks::network_details,
        networks::prune_networks,
        networks::remove_network,
        pages::wait_for_page,
        ports::ports_free,
        project_files::read_project_file,
        project_files::write_project_file,
        registries::registries,
        registries::sign_in,
        registries::sign_out,
        run::run,
        settings::autostart,
        settings::change_settings,
        settings::distrust,
        settings::set_autostart,
        settings::settings,
        settings::share_chosen,
        settings::shares,
        settings::trust_chosen,
        settings::trusted,
        settings::unshare,
        streams::close_terminal,
        streams::follow_log,
        streams::follow_machine_log,
        streams::open_debug_shell,
        streams::open_machine_shell,
        streams::open_terminal,
        streams::resize_terminal,
        streams::save_text,
        streams::taken,
        streams::type_in_terminal,
        streams::unwatch,
        streams::watch_changes,
        streams::watch_containers,
        streams::watch_engine,
        streams::watch_tray,
        streams::watch_usage,
        tasks::cancel_task,
        transfer::choose_files,
        transfer::download_file,
        transfer::send_files,
        volumes::back_up_volume,
        volumes::clone_volume,
        volumes::create_volume,
        volumes::empty_volume,
        volumes::remove_volume,
        volumes::restore_volume,
        volumes::volume_sizes,
    ]
}

#[cfg(test)]
mod tests {
    /// The names in double quotes that begin the lines of a text, one a line, without what stands before them.
    fn names(text: &str, before: &str) -> Vec<String> {
        let lines = text.lines().map(|line| line.trim().trim_end_matches(','));
        lines
            .filter_map(|line| line.strip_prefix('"')?.strip_prefix(before)?.strip_suffix('"'))
            .map(|name| name.replace('-', "_"))
            .collect()
    }

    #[test]
    fn the_lists_of_commands_are_the_same_and_in_order() {
        let listed = names(include_str!("../../build.rs"), "");
        assert!(listed.len() > 50 && listed.is_sorted(), "{listed:?}");
        assert_eq!(
            names(include_str!("../../capabilities/main.json"), "allow-"),
            listed
        );
        let handled = include_str!("mod.rs").lines().filter_map(|line| {
            let name = line.strip_prefix("        ")?.strip_suffix(',')?;
            Some(name.split_once("::")?.1.to_owned())
        });
        let mut handled: Vec<String> = handled.collect();
        handled.sort();
        assert_eq!(handled, listed);
    }
}
