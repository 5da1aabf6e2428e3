//! Processors that the kernel was told to leave until the devices are there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the kernel lists its processors.
const PROCESSORS: &str = "/sys/devices/system/cpu";

/// Has the kernel use every processor. One that cannot be started is done without: gives back why.
pub(super) fn start_all() -> Vec<String> {
    start_all_in(Path::new(PROCESSORS))
}

fn start_all_in(list: &Path) -> Vec<String> {
    let waiting = match waiting(list) {
        Ok(waiting) => waiting,
        Err(error) => return vec![format!("the list of processors could not be read: {error}")],
    };
    let started = waiting.iter().map(|switch| (switch, fs::write(switch, "1")));
    let failed = started.filter_map(|(switch, result)| Some((switch, result.err()?)));
    failed
        .map(|(switch, error)| {
            let processor = switch.parent().unwrap_or(switch);
            format!("starting the processor {} failed: {error}", processor.display())
        })
        .collect()
}

/// The switches of those that are not used yet.
fn waiting(list: &Path) -> io::Result<Vec<PathBuf>> {
    let mut waiting = Vec::new();
    for entry in fs::read_dir(list)? {
        // The first one has none, and what is no processor neither.
        let switch = entry?.path().join("online");
        if fs::read_to_string(&switch).is_ok_and(|state| state.trim() == "0") {
            waiting.push(switch);
        }
    }
    waiting.sort();
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_wait_are_started_and_one_that_cannot_be_is_told_of() {
        let list = tempfile::tempdir().unwrap();
        let switch = |processor: &str| list.path().join(processor).join("online");
        for (processor, state) in [("cpu1", Some("1\n")), ("cpu2", Some("0\n")), ("cpu0", None)] {
            fs::create_dir(list.path().join(processor)).unwrap();
            if let Some(state) = state {
                fs::write(switch(processor), state).unwrap();
            }
        }
        fs::write(list.path().join("online"), "0-1\n").unwrap();
        assert_eq!(start_all_in(list.path()), Vec::<String>::new());
        assert_eq!(fs::read_to_string(switch("cpu2")).unwrap(), "1");
        assert_eq!(
            fs::read_to_string(switch("cpu1")).unwrap(),
            "1\n",
            "it is left alone"
        );
        assert!(!switch("cpu0").exists());
        let failed = start_all_in(&list.path().join("none"));
        assert!(failed[0].contains("list of processors"), "{failed:?}");
    }
}
