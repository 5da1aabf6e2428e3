//! What a bench leaves: its figures, and the circumstances under which they were found.

use super::table::Line;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    thread::{self, sleep},
    time::Duration,
};

/// How long the processors are watched before anything is measured.
const WATCHED: Duration = Duration::from_secs(3);

/// A bench that was begun.
pub(super) struct Record {
    /// Where its results go.
    pub(super) out: PathBuf,
    pub(super) circumstances: Circumstances,
}

/// What was measured on, and when. Nothing of it tells whose computer it was: no path and no host's name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Circumstances {
    /// The day in UTC, such as `2026-03-01`.
    pub(super) date: String,
    /// What the programs were built from: a commit, followed by `-dirty` where files differed from it, or `unknown`.
    pub(super) commit: String,
    /// The processor's model.
    pub(super) processor: String,
    /// Logical processors that a program may use.
    pub(super) processors: usize,
    /// This computer's, such as `Linux 6.12.0`.
    pub(super) kernel: String,
    /// Load average of the minute before, in which programs may have been built for this.
    pub(super) load: f64,
    /// What others took of all processors just before, in per cent.
    pub(super) busy: f64,
}

/// What a bench says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    /// What machines ran on, if there were any.
    pub(super) backend: String,
    /// What it was measured beside, with versions.
    pub(super) peers: Vec<String>,
    /// What a reader of the figures has to know besides, in sentences without an end mark.
    pub(super) notes: Vec<String>,
    /// Samples, and whatever else is worth keeping.
    pub(super) details: Value,
}

/// All of it, as it is saved.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) circumstances: Circumstances,
    pub(super) about: About,
    pub(super) rows: Vec<Line>,
    /// Names of the rows whose goals were missed.
    pub(super) missed: Vec<String>,
    /// Names of the rows whose goals nobody could measure, since the peer was missing.
    pub(super) unmeasured: Vec<String>,
    /// Whether all goals were measured and met.
    pub(super) met: bool,
}

impl Record {
    /// Looks at this computer, which takes a few seconds, before anything is measured.
    pub(super) fn begin(out: &Path) -> Result<Self> {
        Ok(Self {
            out: out.to_owned(),
            circumstances: Circumstances::now()?,
        })
    }

    /// Puts the results where those of the last time are, which stay if that fails.
    pub(super) fn save(&self, results: &Results) -> Result<()> {
        let part = self.out.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(results)?)
            .and_then(|()| fs::rename(&part, &self.out))
            .with_context(|| format!("cannot write {}", self.out.display()))
    }
}

impl Circumstances {
    fn now() -> Result<Self> {
        let load = read("/proc/loadavg")?;
        let load = load.split_ascii_whitespace().next();
        let load = load.and_then(|load| load.parse::<f64>().ok());
        Ok(Self {
            date: variable("COVE_BENCH_DATE")?,
            commit: variable("COVE_BENCH_COMMIT")?,
            processor: processor_in(&read("/proc/cpuinfo")?).map_or_else(
                || format!("{} of a model that it does not tell", env::consts::ARCH),
                str::to_owned,
            ),
            processors: thread::available_parallelism().map_or(1, usize::from),
            kernel: version_in(&rustix::system::uname().release().to_string_lossy()),
            load: load.context("/proc/loadavg holds no load average")?,
            busy: busy_for(WATCHED)?,
        })
    }
}

/// What a kernel's release begins with. What follows the number is whoever built it.
fn version_in(release: &str) -> String {
    format!("Linux {}", release.split('-').next().unwrap_or(release))
}

/// The model of the first processor; those of ARM have a number instead, and no name.
fn processor_in(cpuinfo: &str) -> Option<&str> {
    let models = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let mut models = models.filter(|(key, _)| key.trim_end() == "model name");
    models.next().map(|(_, model)| model.trim())
}

/// What is taken of all processors while this program does nothing, in per cent.
fn busy_for(watched: Duration) -> Result<f64> {
    let now = || -> Result<(u64, u64)> {
        ticks_in(&read("/proc/stat")?).context("/proc/stat says nothing of the processors")
    };
    let before = now()?;
    sleep(watched);
    Ok(share(before, now()?))
}

/// What all processors have done since this computer's start, in ticks of its clock: how many they were busy, and all.
fn ticks_in(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user, nice, system, idle, iowait, irq, softirq and steal, proc_stat(5). The guests' follow, which count as user.
    let words = line.split_ascii_whitespace().take(8);
    let ticks: Vec<u64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [user, nice, system, idle, waiting, others @ ..] = &ticks[..] else {
        return None;
    };
    let busy = user + nice + system + others.iter().sum::<u64>();
    Some((busy, busy + idle + waiting))
}

#[expect(clippy::cast_precision_loss, reason = "ticks of a few seconds")]
fn share(before: (u64, u64), after: (u64, u64)) -> f64 {
    let busy = after.0.saturating_sub(before.0);
    let all = after.1.saturating_sub(before.1).max(1);
    // The kernel may take back some of what it counted as waiting.
    (100.0 * busy as f64 / all as f64).min(100.0)
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
}

/// What `cargo xtask bench` says by a variable.
fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; run this by: cargo xtask bench"))
}

#[cfg(test)]
pub(super) fn sample() -> Circumstances {
    Circumstances {
        date: "2026-03-01".into(),
        commit: "0123456789ab".into(),
        processor: "Example 9000".into(),
        processors: 4,
        kernel: "Linux 6.12.0".into(),
        load: 0.25,
        busy: 1.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_called_what_the_kernel_calls_it() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Example 9000\n\nmodel name\t: Other\n";
        assert_eq!(processor_in(cpuinfo), Some("Example 9000"));
        assert_eq!(processor_in("processor\t: 0\nCPU part\t: 0xd0c\n"), None);
    }

    #[test]
    fn processors_are_busy_with_everything_but_waiting() {
        let stat = "cpu  10 20 30 400 50 1 2 3 7 7\ncpu0 10 20 30 400 50 1 2 3 7 7\nintr 1\n";
        assert_eq!(ticks_in(stat), Some((66, 516)));
        assert_eq!(ticks_in("cpu  1 2 3\n"), None);
        assert_eq!(ticks_in("cpu0 1 2 3 4 5 6 7 8\n"), None);
        assert!((share((66, 516), (91, 616)) - 25.0).abs() < 1e-9);
        assert!(share((66, 516), (66, 516)).abs() < 1e-9);
    }

    #[test]
    fn this_computer_says_how_busy_it_is() {
        let busy = busy_for(Duration::from_millis(50)).unwrap();
        assert!((0.0..=100.0).contains(&busy), "{busy}");
    }
}
