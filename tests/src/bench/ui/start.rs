//! From the start of the process to a list that can be used.
//!
//! Both ends are the host's: the process's start is what the kernel says of it, in hundredths of a second, and the rows
//! and the answer are there when the page's driver says so, so that its own ways, a few milliseconds each, are counted.

use super::{CONTAINERS, container};
use crate::harness::{
    Cove, stat,
    webdriver::{SOON, Window},
};
use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::{thread::sleep, time::Duration};

/// How often the page is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The kernel's clock ticks in a second, in which it tells times to programs (`USER_HZ`, time(7)): these on every
/// processor that Cove runs on.
const TICKS: u64 = 100;
/// The place of a process's start in `/proc/PID/stat`, proc(5): in ticks since the computer's start.
const STARTED: usize = 22;

/// How long a start took.
pub(super) struct Start {
    /// Until all rows are on the page.
    pub(super) rows: Duration,
    /// Until a click on one of them has opened its details.
    pub(super) answer: Duration,
}

impl Start {
    pub(super) fn to_json(&self) -> Value {
        json!({ "rows_s": self.rows.as_secs_f64(), "answer_s": self.answer.as_secs_f64() })
    }
}

/// Starts the application once, and leaves its window open at the list.
pub(super) fn measure(cove: &Cove) -> Result<(Window, Start)> {
    let window = Window::open(cove);
    let rows = "return document.querySelectorAll('.item').length";
    let rows = wait(&window, rows, &[], CONTAINERS)?;
    let name = container(0);
    window.click(&window.find(&format!("//a[.//span[normalize-space()='{name}']]")));
    let open = "const titles = [...document.querySelectorAll('h2')];\
                return titles.filter((title) => title.textContent === arguments[0]).length";
    let answer = wait(&window, open, &[name.into()], 1)?;
    window.script("location.hash = '#/containers'", &[]);
    let ticks = stat(process(cove)?, STARTED).context("the application's process says nothing of itself")?;
    let began = Duration::from_millis(ticks.saturating_mul(1000 / TICKS));
    let start = Start {
        rows: rows.saturating_sub(began),
        answer: answer.saturating_sub(began),
    };
    Ok((window, start))
}

/// The application's process.
pub(super) fn process(cove: &Cove) -> Result<i32> {
    let processes = cove.processes_named("cove-desktop");
    ensure!(
        processes.len() == 1,
        "{} processes of the application run",
        processes.len()
    );
    processes.first().copied().context("there is none")
}

/// Looks at the page until a script counts as many elements as are wanted; when that was.
fn wait(window: &Window, script: &str, arguments: &[Value], wanted: u64) -> Result<Duration> {
    let began = uptime();
    loop {
        // There is no page at first.
        let count = window.try_script(script, arguments);
        let now = uptime();
        if count.is_ok_and(|count| count.as_u64() == Some(wanted)) {
            return Ok(now);
        }
        ensure!(
            now.saturating_sub(began) < SOON,
            "`{script}` comes to nothing; picture: {}",
            window.picture("bench")
        );
        sleep(LOOK_EVERY);
    }
}

/// The time since the computer's start, sleep included, which the starts of processes are told in.
fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}
