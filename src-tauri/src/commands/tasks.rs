//! What can be done to a task, whatever it does.

use crate::task::Tasks;
use tauri::State;

/// Ends a task: its request is dropped, and its command answers that it was cancelled.
#[tauri::command]
pub(crate) fn cancel_task(tasks: State<'_, Tasks>, task: u32) {
    tasks.cancel(task);
}
