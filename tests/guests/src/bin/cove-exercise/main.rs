//! What monitors are measured with, as a machine's first and only program: `cargo xtask bench vmm` boots it beside the
//! image's own initramfs, with `rdinit=/cove-exercise`, in Cove's monitor and in QEMU.
//!
//! It does the same in every machine, and says on the console what it is at, a line each that begins with `@exercise`.
//! How long something takes is for whoever reads the console to measure: the clocks of two guests are two clocks.
//!
//! | line | what it means |
//! | --- | --- |
//! | `init` | the kernel has started it |
//! | `begin NAME` | it reads or writes the disk `data` from now on |
//! | `end NAME: BYTES REQUESTS INTERRUPTS` | it has, so many bytes by so many requests, and was interrupted so often |
//! | `held: BYTES` | it has that much memory, and touched each page of it; for five seconds |
//! | `freed` | it has given that back, and does nothing for a while |
//! | `idle: SECONDS` | it has done nothing for so long; what the guest woke for meanwhile follows |
//! | `woke: COUNT NAME` | so often by that: threads of that name, or an interrupt of that kind; the most frequent come first |
//! | `done` | it does nothing any more |
//! | `failed: WHY` | it does nothing any more |
//!
//! With `exercise=rest` on the kernel's command line, which the kernel hands on in its environment, the disk is passed
//! over: there are monitors that do not get past it. With `exercise=network` it works with the network and with nothing
//! else (`net.rs`).

#[cfg(target_os = "linux")]
mod net;

/// The work with the network and nothing else.
#[cfg(target_os = "linux")]
const NETWORK: &str = "network";

#[cfg(target_os = "linux")]
fn main() {
    let outcome = if std::env::var_os(machine::TASK).is_some_and(|task| task == NETWORK) {
        net::exercise()
    } else {
        machine::exercise()
    };
    if let Err(error) = outcome {
        machine::say(format_args!("failed: {error}"));
    }
    // A kernel whose first program ends panics. Whoever measures ends the machine.
    loop {
        std::thread::park();
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod machine {
    use rustix::{
        fs::OFlags,
        io::Errno,
        mount::{MountFlags, mount},
        termios::tcdrain,
    };
    use std::{
        cmp::Reverse,
        collections::BTreeMap,
        env,
        fmt::Arguments,
        fs::{self, File, OpenOptions},
        hint::black_box,
        io,
        os::unix::fs::{FileExt as _, OpenOptionsExt as _},
        path::Path,
        sync::atomic::{AtomicU64, Ordering},
        thread::{self, sleep},
        time::{Duration, Instant},
    };

    /// Begins a line that is meant for the host.
    const MARK: &str = "@exercise ";
    /// From the image's initramfs; neither needs another one.
    const MODULES: [&str; 2] = ["virtio_blk", "virtio_balloon"];
    /// What the disk calls itself that may be written to: which name it gets depends on who made the machine.
    const DISK: &str = "data";
    /// How long the disk may take to appear.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Bytes at the disk's beginning that are worked in.
    const AREA: u64 = 128 << 20;
    /// How long each kind of work is done.
    const SPAN: Duration = Duration::from_secs(2);
    /// How many requests are on their way at a time.
    const DEPTHS: [u64; 2] = [1, 8];
    /// Bytes that are taken and given back.
    const HELD: usize = 512 << 20;
    /// For so long they are kept, so that whoever measures has the time to look.
    const HOLD: Duration = Duration::from_secs(5);
    /// How long what was freed has for its way back before wake-ups are counted.
    const SETTLE: Duration = Duration::from_secs(5);
    /// For how long they are counted: until after whoever measures has watched the machine do nothing.
    const IDLE: Duration = Duration::from_secs(80);
    /// So many reasons to wake up are told.
    const REASONS: usize = 12;
    const PAGE: usize = 4096;
    /// What the environment says of what is to be done.
    pub(super) const TASK: &str = "exercise";
    /// Everything but the disk.
    const REST: &str = "rest";

    /// One kind of work.
    #[derive(Clone, Copy)]
    struct Work {
        name: &'static str,
        write: bool,
        /// Anywhere, and not one after the other.
        random: bool,
        /// Bytes of a request.
        size: usize,
    }

    const WORKS: [Work; 4] = [
        Work {
            name: "sequential-read",
            write: false,
            random: false,
            size: 256 << 10,
        },
        Work {
            name: "sequential-write",
            write: true,
            random: false,
            size: 256 << 10,
        },
        Work {
            name: "random-read",
            write: false,
            random: true,
            size: 4 << 10,
        },
        Work {
            name: "random-write",
            write: true,
            random: true,
            size: 4 << 10,
        },
    ];

    /// Says a line, and waits until it has left the machine.
    pub(super) fn say(line: Arguments<'_>) {
        println!("{MARK}{line}");
        // What is no terminal has nothing to wait for.
        let _ = tcdrain(io::stdout());
    }

    /// Says that it runs, and mounts what the kernel tells of itself by.
    pub(super) fn begin() -> io::Result<()> {
        say(format_args!("init"));
        mount("sysfs", "/sys", "sysfs", MountFlags::empty(), c"")?;
        mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), c"")?;
        fs::create_dir_all("/proc")?;
        mount("proc", "/proc", "proc", MountFlags::empty(), c"")?;
        Ok(())
    }

    /// Loads the kernel's module at `path`, if it is not loaded yet.
    pub(super) fn load(path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Does everything once.
    pub(super) fn exercise() -> io::Result<()> {
        begin()?;
        for module in MODULES {
            load(Path::new(&format!("/modules/{module}.ko")))?;
        }
        if env::var_os(TASK).is_none_or(|task| task != REST) {
            work_with_disk()?;
        }

        let mut memory = vec![0u8; HELD];
        for page in memory.chunks_mut(PAGE) {
            page[0] = 1;
        }
        black_box(&mut memory);
        say(format_args!("held: {HELD}"));
        sleep(HOLD);
        drop(memory);
        say(format_args!("freed"));
        sleep(SETTLE);
        idle()
    }

    /// Reads and writes the disk in every way.
    fn work_with_disk() -> io::Result<()> {
        let (disk, device) = disk()?;
        fill(&disk)?;
        for depth in DEPTHS {
            for work in WORKS {
                let before = interrupts(&device)?;
                say(format_args!("begin {}-{depth}", work.name));
                let bytes = work.run(&disk, depth)?;
                let requests = bytes / work.size as u64;
                let raised = interrupts(&device)? - before;
                say(format_args!(
                    "end {}-{depth}: {bytes} {requests} {raised}",
                    work.name
                ));
            }
        }
        Ok(())
    }

    /// Does nothing, and tells what woke the guest up meanwhile.
    fn idle() -> io::Result<()> {
        let (began, before) = (Instant::now(), wakes()?);
        sleep(IDLE);
        let (after, seconds) = (wakes()?, began.elapsed().as_secs_f64());
        let more = |(name, count): (String, u64)| {
            let count = count.saturating_sub(before.get(&name).copied().unwrap_or(0));
            (count > 0).then_some((count, name))
        };
        let mut woke: Vec<(u64, String)> = after.into_iter().filter_map(more).collect();
        woke.sort_by_key(|(count, _)| Reverse(*count));
        say(format_args!("idle: {seconds}"));
        for (count, name) in woke.iter().take(REASONS) {
            say(format_args!("woke: {count} {name}"));
        }
        say(format_args!("done"));
        Ok(())
    }

    /// How often threads have waited so far, by their names without numbers, and how often each kind of interrupt was
    /// taken.
    fn wakes() -> io::Result<BTreeMap<String, u64>> {
        let mut wakes = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            // Others, such as `self`, are no process, or one that has a number as well.
            if !entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
            {
                continue;
            }
            // One without has ended.
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
                continue;
            };
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
            let count = field("voluntary_ctxt_switches:").and_then(|count| count.trim().parse::<u64>().ok());
            if let (Some(name), Some(count)) = (field("Name:"), count) {
                // Such as kworker/0:1-events.
                let name = name.trim().split(['/', ':']).next().unwrap_or_default();
                *wakes.entry(format!("thread {name}")).or_default() += count;
            }
        }
        for (path, kind) in [("/proc/interrupts", "interrupt"), ("/proc/softirqs", "softirq")] {
            for line in fs::read_to_string(path)?.lines() {
                // The first line names the processors.
                if let Some((name, counts)) = line.split_once(':') {
                    let counts = counts.split_whitespace();
                    let count = counts.map_while(|count| count.parse::<u64>().ok()).sum::<u64>();
                    *wakes.entry(format!("{kind} {}", name.trim())).or_default() += count;
                }
            }
        }
        Ok(wakes)
    }

    /// The disk to work on, past the page cache, and what its device is called.
    fn disk() -> io::Result<(File, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for entry in fs::read_dir("/sys/block")? {
                let entry = entry?;
                // What is no virtio disk has none.
                let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
                if serial.trim_end() == DISK {
                    let device = fs::canonicalize(entry.path().join("device"))?;
                    let device = device.file_name().unwrap_or_default();
                    let disk = OpenOptions::new()
                        .read(true)
                        .write(true)
                        .custom_flags(OFlags::DIRECT.bits().cast_signed())
                        .open(Path::new("/dev").join(entry.file_name()))?;
                    return Ok((disk, device.to_string_lossy().into_owned()));
                }
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "there is no disk that calls itself {DISK}"
                )));
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// How often a device has interrupted so far. Its line has a number for each processor, and the device's name last.
    fn interrupts(device: &str) -> io::Result<u64> {
        let lines = fs::read_to_string("/proc/interrupts")?;
        let line = lines
            .lines()
            .find(|line| line.split_whitespace().next_back() == Some(device));
        let line = line.ok_or_else(|| io::Error::other(format!("{device} has no interrupt")))?;
        // A line begins with the interrupt's number; a count for each processor follows, and then words.
        let counts = line.split_whitespace().skip(1);
        Ok(counts.map_while(|count| count.parse::<u64>().ok()).sum())
    }

    /// Writes the area once, so that there is something to read, and nothing is written for the first time any more.
    fn fill(disk: &File) -> io::Result<()> {
        let mut buffer = Buffer::new(1 << 20);
        let bytes = buffer.bytes();
        for offset in (0..AREA).step_by(bytes.len()) {
            disk.write_all_at(bytes, offset)?;
        }
        Ok(())
    }

    impl Work {
        /// Works for [`SPAN`] with `depth` requests at a time; bytes that were moved.
        fn run(self, disk: &File, depth: u64) -> io::Result<u64> {
            let next = AtomicU64::new(0);
            let deadline = Instant::now() + SPAN;
            thread::scope(|scope| {
                let next = &next;
                let workers: Vec<_> = (0..depth)
                    .map(|number| scope.spawn(move || self.work(disk, next, number, deadline)))
                    .collect();
                let moved = workers.into_iter().map(|worker| {
                    let panicked = |_| Err(io::Error::other("a thread panicked"));
                    worker.join().unwrap_or_else(panicked)
                });
                moved.sum()
            })
        }

        /// What one thread does. `next` counts what all of them did.
        fn work(self, disk: &File, next: &AtomicU64, number: u64, deadline: Instant) -> io::Result<u64> {
            let mut buffer = Buffer::new(self.size);
            let bytes = buffer.bytes();
            let size = bytes.len() as u64;
            let mut random = Random(number + 1);
            let mut moved = 0;
            while Instant::now() < deadline {
                let place = if self.random {
                    random.next()
                } else {
                    next.fetch_add(1, Ordering::Relaxed)
                };
                let offset = place % (AREA / size) * size;
                if self.write {
                    disk.write_all_at(bytes, offset)?;
                } else {
                    disk.read_exact_at(bytes, offset)?;
                }
                moved += size;
            }
            Ok(moved)
        }
    }

    /// Memory that begins at a page, as what goes past the page cache must.
    struct Buffer {
        memory: Vec<u8>,
        size: usize,
    }

    impl Buffer {
        fn new(size: usize) -> Self {
            Self {
                // Nothing that anybody would take for a hole.
                memory: vec![0xa5; size + PAGE],
                size,
            }
        }

        fn bytes(&mut self) -> &mut [u8] {
            let start = self.memory.as_ptr().align_offset(PAGE);
            &mut self.memory[start..start + self.size]
        }
    }

    /// Marsaglia's xorshift of 64 bits: the same places in every machine.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }
}
