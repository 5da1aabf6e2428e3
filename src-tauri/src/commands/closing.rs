//! Whether the window may close, and with it the program.

use crate::{closing::Closing, stream::Streams, window};
use tauri::{AppHandle, State, ipc::Channel};

/// Tells whenever somebody closes the window, where that would end the program. The page is to answer.
#[tauri::command]
pub(crate) fn watch_closing(
    closing: State<'_, Closing>,
    streams: State<'_, Streams>,
    seen: Channel<()>,
) -> u32 {
    let mut asked = closing.heard();
    streams.start(0, |_| async move {
        while asked.changed().await.is_ok() {
            if seen.send(()).is_err() {
                return;
            }
        }
    })
}

/// Answers that: it closes at once, or a person is asked, who has to see it for that, and whose yes closes it.
#[tauri::command]
pub(crate) fn answer_closing(app: AppHandle, closing: State<'_, Closing>, closes: bool) {
    closing.answer();
    if closes {
        window::close(&app);
    } else {
        window::show(&app);
    }
}
