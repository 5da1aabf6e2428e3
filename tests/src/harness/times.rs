//! How long a suite's tests took.

use std::{
    cmp::Reverse,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many are named.
const NAMED: usize = 5;

/// How long each test took that has run.
#[derive(Debug, Default)]
pub struct Times(Mutex<Vec<(&'static str, Duration)>>);

impl Times {
    /// Runs the test of this name, and notes how long it took.
    pub fn measure<T>(&self, name: &'static str, test: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let outcome = test();
        self.all().push((name, began.elapsed()));
        outcome
    }

    /// Prints a line that names the slowest, if any test has run.
    pub fn print_slowest(&self) {
        if let Some(line) = self.slowest() {
            println!("{line}");
        }
    }

    fn slowest(&self) -> Option<String> {
        let mut times = self.all().clone();
        times.sort_by_key(|&(_, took)| Reverse(took));
        times.truncate(NAMED);
        let named: Vec<_> = times
            .iter()
            .map(|(name, took)| format!("{name} {:.1} s", took.as_secs_f32()))
            .collect();
        (!named.is_empty()).then(|| format!("slowest: {}", named.join(", ")))
    }

    fn all(&self) -> MutexGuard<'_, Vec<(&'static str, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_slowest_are_named_and_the_slowest_first() {
        let times = Times::default();
        assert_eq!(times.slowest(), None);
        assert_eq!(times.measure("quick", || 7), 7);
        assert!(times.slowest().unwrap().starts_with("slowest: quick "));
        for (name, seconds) in [("c", 70), ("e", 50), ("a", 90), ("d", 60), ("f", 40), ("b", 80)] {
            times.all().push((name, Duration::from_secs(seconds)));
        }
        assert_eq!(
            times.slowest().unwrap(),
            "slowest: a 90.0 s, b 80.0 s, c 70.0 s, d 60.0 s, e 50.0 s"
        );
    }
}
