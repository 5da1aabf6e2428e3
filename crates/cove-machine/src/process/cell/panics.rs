//! What a panic in the cell leads to: the end of the cell, and with it of the machine, for which it is the cause.
//!
//! A guest whose device has lost its thread would wait for it for ever, and nobody would be told. What a device was in
//! the middle of is not known either, so that nothing of the cell goes on.

use std::{
    io::{self, Write},
    process, thread,
};

/// Begins the line that a panic leaves in the log.
const MARK: &str = "panic in ";

/// Has a panic of any thread end this process, with its words last in the log.
pub(super) fn end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("a thread without a name");
        let line = format!("{MARK}{name}: {panic}").replace('\n', " ") + "\n";
        // Not by `tracing`, which may be what panicked; and there is nowhere else to tell of a failure.
        let _ = io::stderr().write_all(line.as_bytes());
        process::abort();
    }));
}

/// The words of a panic in the log that a cell left: which thread it was, where, and why.
pub(super) fn words(log: &str) -> Option<&str> {
    log.lines().rev().find_map(|line| line.strip_prefix(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, process::Command};

    fn fail() {
        panic!("one line\nand another");
    }

    #[test]
    fn a_panic_ends_the_process_and_says_which_thread_it_was_and_why() {
        const INNER: &str = "COVE_TEST_OF_PANICS";
        if std::env::var_os(INNER).is_some() {
            end_the_process();
            let thread = thread::Builder::new().name("fs0".to_owned());
            let _ = thread.spawn(fail).unwrap().join();
            return;
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!("{module}::a_panic_ends_the_process_and_says_which_thread_it_was_and_why");
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(INNER, "")
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(6), "{output:?}");
        let log = String::from_utf8_lossy(&output.stderr);
        let words = words(&log).unwrap();
        assert!(words.starts_with("fs0: panicked at "), "{words}");
        assert!(words.ends_with("one line and another"), "{words}");
    }

    #[test]
    fn a_log_without_a_panic_has_no_words_of_one() {
        assert_eq!(words("a panic in sight\n"), None);
        let log = "first\npanic in disk: why\nthe process that faced the guest ended badly";
        assert_eq!(words(log), Some("disk: why"));
    }
}
