//! What one machine is measured for, from its start on.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::subject::Subject;

/// What one machine showed, by name.
pub(super) type Figures = BTreeMap<String, f64>;

/// From the start of the first process to the guest's init, in seconds.
pub(super) const START: &str = "start";
/// From there until the guest's first instruction is on its way, in seconds.
pub(super) const FIRST_INSTRUCTION: &str = "first instruction";
/// What is resident of the monitor but the guest's memory, in MiB.
pub(super) const BEYOND: &str = "beyond";
/// Of that, what no file has: heap, stacks, and pages of files that were written to.
pub(super) const ANONYMOUS: &str = "beyond, anonymous";
/// Of that, pages of the program's file.
pub(super) const PROGRAM: &str = "beyond, program";
/// Of that, all else: pages of libraries, and what is shared with the kernel.
pub(super) const SHARED: &str = "beyond, shared";
/// What is resident of all processes of the machine but the guest's memory.
pub(super) const BEYOND_OF_ALL: &str = "beyond, all processes";
/// How much of what the guest freed is this computer's again, in per cent.
pub(super) const GIVEN_BACK: &str = "given back";
/// Time on a processor while the guest does nothing, in per cent of one.
pub(super) const IDLE_CPU: &str = "idle";
/// Of that, the time of vCPUs: of the guest, and of KVM for it.
pub(super) const IDLE_VCPU_CPU: &str = "idle, vcpus";
/// Wake-ups of all threads but vCPUs meanwhile, in a second.
pub(super) const IDLE_WAKES: &str = "idle wakes";
/// Begins the names of wake-ups that are those of threads of one name.
pub(super) const IDLE_WAKES_OF: &str = "idle wakes of ";
/// Begins the names of what the guest woke for, in a second, as it counts it itself.
pub(super) const GUEST_WAKES_OF: &str = "guest wakes of ";
/// Wake-ups of vCPUs.
pub(super) const IDLE_VCPU_WAKES: &str = "idle vcpu wakes";
/// What the guest does with its disk, in the order in which it does it; bytes in a second. [`super`] says what it is.
pub(super) const DISK: [&str; 8] = [
    "sequential-read-1",
    "sequential-write-1",
    "random-read-1",
    "random-write-1",
    "sequential-read-8",
    "sequential-write-8",
    "random-read-8",
    "random-write-8",
];
/// How often the disk interrupted the guest meanwhile, for each of the guest's requests, in the same order.
pub(super) const INTERRUPTS: [&str; 8] = [
    "sequential-read-1 interrupts",
    "sequential-write-1 interrupts",
    "random-read-1 interrupts",
    "random-write-1 interrupts",
    "sequential-read-8 interrupts",
    "sequential-write-8 interrupts",
    "random-read-8 interrupts",
    "random-write-8 interrupts",
];

/// For the guest's next word. Where processors are emulated one in the other, touching memory takes half a minute.
const PATIENCE: Duration = Duration::from_mins(4);
/// After so long, what the guest freed should be this computer's again.
const GIVE_BACK: Duration = Duration::from_secs(10);
/// How long a machine is watched doing nothing: times are told in hundredths of a second.
const IDLE: Duration = Duration::from_mins(1);

/// Waits for the guest's init, for no longer than `patience`.
pub(super) fn start(subject: &mut Subject<'_>, patience: Duration) -> Result<Figures> {
    let (at, _) = subject.expect("init", patience)?;
    let mut figures = Figures::new();
    let since = |at: Instant| at.duration_since(subject.began).as_secs_f64();
    figures.insert(START.to_owned(), since(at));
    if let Some(told) = subject.told {
        figures.insert(FIRST_INSTRUCTION.to_owned(), since(told));
    }
    Ok(figures)
}

/// Follows the guest through its work with the disk.
pub(super) fn disk(subject: &mut Subject<'_>, figures: &mut Figures) -> Result<()> {
    for (name, interrupts) in DISK.into_iter().zip(INTERRUPTS) {
        let (began, _) = subject.expect(&format!("begin {name}"), PATIENCE)?;
        let (ended, told) = subject.expect(&format!("end {name}: "), PATIENCE)?;
        let numbers: Vec<f64> = told
            .split(' ')
            .map(str::parse::<f64>)
            .collect::<Result<_, _>>()
            .context("what the guest tells of its work is no numbers")?;
        let [bytes, requests, raised] = numbers[..] else {
            bail!("the guest tells {} numbers of its work", numbers.len());
        };
        ensure!(requests > 0.0, "the guest made no request of its disk");
        figures.insert(name.to_owned(), bytes / ended.duration_since(began).as_secs_f64());
        figures.insert(interrupts.to_owned(), raised / requests);
    }
    Ok(())
}

/// Follows it while it takes memory, gives it back and does nothing.
pub(super) fn rest(subject: &mut Subject<'_>, figures: &mut Figures) -> Result<()> {
    let (_, held) = subject.expect("held: ", PATIENCE)?;
    let held: f64 = held.parse().context("the guest tells no number of bytes")?;
    let with = subject.memory()?;
    ensure!(
        !subject.has_said_more()?,
        "looking at the monitor's memory took longer than the guest kept it"
    );
    subject.expect("freed", PATIENCE)?;
    sleep(GIVE_BACK);
    let without = subject.memory()?;
    if let (Some(with), Some(without)) = (with, without) {
        let given_back = count(with.guest) - count(without.guest);
        figures.insert(GIVEN_BACK.to_owned(), 100.0 * given_back / held);
    }

    let (began, before) = (Instant::now(), subject.usage()?);
    sleep(IDLE);
    let after = subject.usage()?;
    let seconds = began.elapsed().as_secs_f64();
    let wakes = after.wakes_since(&before);
    let rate = |wakes: u64| count(wakes) / seconds;
    let share = |before: f64, after: f64| 100.0 * (after - before) / seconds;
    figures.insert(IDLE_CPU.to_owned(), share(before.cpu, after.cpu));
    figures.insert(IDLE_VCPU_CPU.to_owned(), share(before.vcpu_cpu, after.vcpu_cpu));
    figures.insert(IDLE_WAKES.to_owned(), rate(wakes.others));
    figures.insert(IDLE_VCPU_WAKES.to_owned(), rate(wakes.vcpus));
    for (name, wakes) in wakes.by_name {
        figures.insert(format!("{IDLE_WAKES_OF}{name}"), rate(wakes));
    }
    if let Some(memory) = subject.memory()? {
        let others = subject.memory_of_others()?;
        for (name, bytes) in [
            (BEYOND, memory.beyond),
            (ANONYMOUS, memory.anonymous),
            (PROGRAM, memory.program),
            (SHARED, memory.shared()),
        ] {
            figures.insert(name.to_owned(), mebibytes(bytes));
        }
        figures.insert(BEYOND_OF_ALL.to_owned(), mebibytes(memory.beyond + others));
    }
    guest_wakes(subject, figures)
}

/// What the guest says that it woke for.
fn guest_wakes(subject: &mut Subject<'_>, figures: &mut Figures) -> Result<()> {
    let (_, seconds) = subject.expect("idle: ", PATIENCE)?;
    let seconds: f64 = seconds.parse().context("the guest tells no time")?;
    ensure!(seconds > 0.0, "the guest was idle for no time");
    loop {
        let (_, told) = subject.expect("", PATIENCE)?;
        if told == "done" {
            return Ok(());
        }
        let woke = told.strip_prefix("woke: ").and_then(|woke| woke.split_once(' '));
        let (count, name) = woke.with_context(|| format!("the guest said {told:?} of its wake-ups"))?;
        let count: f64 = count.parse().context("the guest tells no number of wake-ups")?;
        figures.insert(format!("{GUEST_WAKES_OF}{name}"), count / seconds);
    }
}

fn mebibytes(bytes: u64) -> f64 {
    count(bytes) / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes are far below 2⁵²")]
fn count(value: u64) -> f64 {
    value as f64
}
