//! What is said of each trial by the program that runs them all.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use cove_tests::harness::Kit;
use cove_tests::nested::{MARK, outer};

/// For all trials together. Whoever runs this suite has less patience; it is for those who run it by hand.
const LIMIT: Duration = Duration::from_mins(40);

/// What was said of each trial, and everything else that was said.
pub(crate) struct Outcomes {
    trials: HashMap<String, Result<(), String>>,
    console: String,
}

impl Outcomes {
    /// How a trial went.
    pub(crate) fn of(&self, trial: &str) -> Result<(), String> {
        match self.trials.get(trial) {
            Some(outcome) => outcome.clone(),
            None => Err(format!(
                "it was not run; the outer machine said:\n{}",
                self.console
            )),
        }
    }

    /// Takes a line of the program's, or of the outer machine's console.
    fn hear(&mut self, line: &str) {
        if let Some((_, report)) = line.split_once(MARK) {
            let (outcome, rest) = report.split_once(' ').unwrap_or((report, ""));
            let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
            let outcome = if outcome == "ok" {
                Ok(())
            } else {
                Err(why.to_owned())
            };
            self.trials.insert(name.to_owned(), outcome);
        }
        // Shown as it comes, for it takes minutes.
        eprintln!("{line}");
        self.console.push_str(line);
        self.console.push('\n');
    }
}

/// Runs all trials, and reads what is said of them.
pub(crate) fn run(program: &Path) -> Result<Outcomes> {
    let image = Kit::from_env().image;
    let mut outcomes = Outcomes {
        trials: HashMap::new(),
        console: String::new(),
    };
    outer::run(&image, program, &["run".into()], LIMIT, |line| {
        outcomes.hear(line);
    })?;
    Ok(outcomes)
}
