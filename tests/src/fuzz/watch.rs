//! Sees to it that a fault ends the process with the input that brought it about.
//!
//! A panic on any thread does, since a device's own threads are where most of it runs, and so does an input that takes
//! too long. Several inputs may be under way, when tests run side by side; all of them are printed then.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long an input may take. Nearly all take milliseconds; one that has the host write its caches out waits for
/// whatever else is in them.
const MOST: Duration = Duration::from_mins(1);
/// How often it is looked whether one takes longer.
const OFTEN: Duration = Duration::from_millis(500);

/// An input under way.
struct Watched {
    number: u64,
    target: &'static str,
    input: Vec<u8>,
    began: Instant,
}

struct Watching {
    next: u64,
    inputs: Vec<Watched>,
}

static WATCHING: Mutex<Watching> = Mutex::new(Watching {
    next: 0,
    inputs: Vec::new(),
});

/// Does `play` with `input`, and ends the process when that says what is wrong.
pub(super) fn watched(target: &'static str, input: &[u8], play: impl FnOnce() -> Result<()>) {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(begin);
    let number = {
        let mut watching = watching();
        watching.next += 1;
        let number = watching.next;
        watching.inputs.push(Watched {
            number,
            target,
            input: input.to_vec(),
            began: Instant::now(),
        });
        number
    };
    if let Err(error) = play() {
        end(&format!("{target}: {error:#}"), &watching().inputs);
    }
    watching().inputs.retain(|watched| watched.number != number);
}

fn watching() -> MutexGuard<'static, Watching> {
    WATCHING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let watching = watching();
        if !watching.inputs.is_empty() {
            end(&panic.to_string(), &watching.inputs);
        }
    }));
    std::thread::spawn(|| {
        loop {
            sleep(OFTEN);
            let watching = watching();
            if watching
                .inputs
                .iter()
                .any(|watched| watched.began.elapsed() > MOST)
            {
                end("an input takes too long", &watching.inputs);
            }
        }
    });
}

/// Prints what is under way, past what captures a test's output, and ends the process.
fn end(why: &str, inputs: &[Watched]) -> ! {
    let mut out = std::io::stderr().lock();
    // There is nobody to tell if this fails.
    let _ = writeln!(out, "\n{why}");
    for watched in inputs {
        let mut hex = String::new();
        for byte in &watched.input {
            let _ = write!(hex, "{byte:02x}");
        }
        let _ = writeln!(
            out,
            "under way for {} ms in target {}: {hex}",
            watched.began.elapsed().as_millis(),
            watched.target
        );
    }
    std::process::abort()
}
