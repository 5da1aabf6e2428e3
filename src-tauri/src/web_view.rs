//! What the web view has to find in its environment, so that the window is seen.
//!
//! `WebKitGTK` hands its pictures over in DMA buffers. With NVIDIA's own driver the window often stays empty then, or
//! the display ends the program. A variable has it draw without. Rust has no safe way for a process to change its own
//! environment, which its threads read at any time; so the program begins anew, with the variable set.

use std::{env, os::unix::process::CommandExt as _, path::Path, process::Command};

/// Set to `1`, it has `WebKitGTK` do without DMA buffers.
const WITHOUT_BUFFERS: &str = "WEBKIT_DISABLE_DMABUF_RENDERER";
/// There while NVIDIA's own driver is loaded, whichever licence its modules have.
const DRIVER: &str = "/proc/driver/nvidia/version";

/// Begins the program anew where the web view needs another environment, and does not come back then.
pub(crate) fn begin_anew_if_needed() {
    if !is_needed(env::var_os(WITHOUT_BUFFERS).is_some(), Path::new(DRIVER)) {
        return;
    }
    let begun = env::current_exe().map(|program| {
        let arguments = env::args_os().skip(1);
        Command::new(program)
            .args(arguments)
            .env(WITHOUT_BUFFERS, "1")
            .exec()
    });
    // Not every such window stays empty.
    let (Ok(error) | Err(error)) = begun;
    eprintln!("the window may stay empty, since {WITHOUT_BUFFERS} cannot be set: {error}");
}

/// Who has set the variable, to whatever, has decided.
fn is_needed(decided: bool, driver: &Path) -> bool {
    !decided && driver.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_with_the_driver_and_where_nobody_has_decided() {
        let directory = tempfile::tempdir().unwrap();
        let (there, not) = (directory.path(), directory.path().join("version"));
        assert!(is_needed(false, there));
        assert!(!is_needed(true, there));
        assert!(!is_needed(false, &not));
    }
}
