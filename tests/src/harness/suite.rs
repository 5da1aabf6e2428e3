//! A suite: one machine, many tests, and an end that leaves nothing running.

use super::{Cove, Times};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Arc,
};

/// A test: its name, and what it does with the suite's machine.
pub type Test = (&'static str, fn(&Cove));

/// Set by `cargo xtask test --all`, which runs what takes long as well.
const ALL: &str = "COVE_TEST_ALL";

/// Whether the tests that take long are wanted, too.
pub fn all() -> bool {
    std::env::var_os(ALL).is_some()
}

/// `slow`, if the tests that take long are wanted.
pub fn if_all(slow: &[Test]) -> &[Test] {
    if all() { slow } else { &[] }
}

/// Whether tests may run beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As many at a time as there are processors.
    Together,
    /// One after the other, because they change what the others see.
    InTurn,
}

/// Runs `tests` on one [`Cove`], which is prepared by `prepare` and ended when they are through. Understands the
/// arguments of Rust's own test harness.
pub fn run(name: &str, pace: Pace, prepare: fn(&Cove), tests: &[Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if pace == Pace::InTurn {
        arguments.test_threads = Some(1);
    }
    if arguments.list || !tests.iter().any(|(test, _)| selected(&arguments, test)) {
        let nothing = tests
            .iter()
            .map(|(test, _)| Trial::test(*test, || Ok(())))
            .collect();
        return libtest_mimic::run(&arguments, nothing).exit_code();
    }
    let cove = Arc::new(Cove::new(name));
    if let Err(why) = attempt(&cove, prepare) {
        let trial = Trial::test(format!("{name} is prepared"), move || Err(Failed::from(why)));
        let unfiltered = Arguments::default();
        return libtest_mimic::run(&unfiltered, vec![trial]).exit_code();
    }
    let times = Arc::new(Times::default());
    let trials = tests
        .iter()
        .map(|&(test, body)| {
            let (cove, times) = (Arc::clone(&cove), Arc::clone(&times));
            Trial::test(test, move || {
                times.measure(test, || attempt(&cove, body)).map_err(Failed::from)
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    times.print_slowest();
    drop(cove);
    conclusion.exit_code()
}

fn selected(arguments: &Arguments, test: &str) -> bool {
    match &arguments.filter {
        Some(filter) if arguments.exact => test == filter,
        Some(filter) => test.contains(filter.as_str()),
        None => true,
    }
}

fn attempt(cove: &Cove, body: fn(&Cove)) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| body(cove))).map_err(|panic| {
        cove.mark_failed();
        words_of(&*panic)
    })
}

/// What a test that panicked has said.
pub fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().cloned();
    words
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "it panicked without words".into())
}

/// A suite's tests from the paths of their functions, whose last part is the test's name. They are given a [`Cove`], or
/// what stands before `=>`.
#[macro_export]
macro_rules! tests {
    ($given:ty => $($module:ident :: $test:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($test)), $module::$test as fn(&$given))),*]
    };
    ($($module:ident :: $test:ident),* $(,)?) => {
        $crate::tests![$crate::harness::Cove => $($module::$test),*]
    };
}
