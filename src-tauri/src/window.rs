//! The one window.

use crate::{
    closing::{Asked, Closing},
    cove::Cove,
    tray,
};
use tauri::{
    AppHandle, Manager as _, Runtime, Url, WebviewUrl, WebviewWindowBuilder, Window, WindowEvent,
    plugin::TauriPlugin,
};
use tauri_plugin_window_state::StateFlags;

/// Its name within the program; `capabilities/main.json` speaks of it.
const LABEL: &str = "main";

/// Remembers size and place from one start to the next.
pub(crate) fn state_plugin<R: Runtime>() -> TauriPlugin<R> {
    tauri_plugin_window_state::Builder::new()
        .with_state_flags(StateFlags::SIZE | StateFlags::POSITION | StateFlags::MAXIMIZED)
        .build()
}

/// Opens it, so that it is seen or can be shown.
pub(crate) fn open(app: &AppHandle, cove: &Cove, visible: bool) -> tauri::Result<()> {
    WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App("index.html".into()))
        .title("Cove")
        .inner_size(1180.0, 760.0)
        .min_inner_size(760.0, 480.0)
        .visible(visible)
        // What the web view keeps goes with the rest of what can be fetched again.
        .data_directory(cove.dirs.cache().join("window"))
        .on_navigation(is_ours)
        .build()?;
    Ok(())
}

/// Hides it when it is closed and the tray has an icon, which would go with the program: from there it is shown again,
/// or ended. Where there is no such icon, closing it ends the program, and the page is asked before.
pub(crate) fn stay(window: &Window, event: &WindowEvent) {
    let WindowEvent::CloseRequested { api, .. } = event else {
        return;
    };
    let app = window.app_handle();
    if tray::is_shown(app) && window.hide().is_ok() {
        api.prevent_close();
    } else if let Some(asked) = app.state::<Closing>().ask() {
        api.prevent_close();
        tauri::async_runtime::spawn(close_if_silent(app.clone(), asked));
    }
}

/// Closes it where the page says nothing to that.
async fn close_if_silent(app: AppHandle, asked: Asked) {
    if asked.stays_silent().await {
        close(&app);
    }
}

/// Closes it, and asks nobody any more.
pub(crate) fn close(app: &AppHandle) {
    if let Some(window) = app.get_webview_window(LABEL) {
        // It fails where the program ends already.
        let _ = window.destroy();
    }
}

/// Brings it to the front, from wherever it is.
pub(crate) fn show(app: &AppHandle) {
    if let Some(window) = app.get_webview_window(LABEL) {
        // What the desktop does not grant is not for us to insist on.
        let _ = window.unminimize();
        let _ = window.show();
        let _ = window.set_focus();
    }
}

/// Whether it can be seen, where that is known.
pub(crate) fn is_shown(app: &AppHandle) -> bool {
    app.get_webview_window(LABEL)
        .is_some_and(|window| window.is_visible().unwrap_or(false))
}

/// Leads the window to a place within the front end, such as `#/containers/ID/logs`, and shows it.
pub(crate) fn go(app: &AppHandle, place: &str) {
    if let Some(window) = app.get_webview_window(LABEL)
        && let Ok(mut address) = window.url()
    {
        address.set_fragment(Some(place.trim_start_matches('#')));
        // The page stays as it is when the window cannot be led anywhere.
        let _ = window.navigate(address);
    }
    show(app);
}

/// The window shows the front end and nothing else; pages of containers open in the browser.
fn is_ours(address: &Url) -> bool {
    match address.scheme() {
        "tauri" => true,
        "http" | "https" => address.host_str() == Some("tauri.localhost"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_leads_nowhere_else() {
        for (address, ours) in [
            ("tauri://localhost/index.html", true),
            ("http://tauri.localhost/", true),
            ("http://localhost:8080/", false),
            ("https://tauri.localhost.example.com/", false),
            ("file:///etc/passwd", false),
            ("data:text/html,x", false),
        ] {
            assert_eq!(is_ours(&address.parse().unwrap()), ours, "{address}");
        }
    }
}
