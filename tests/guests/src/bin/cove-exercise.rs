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
//! | `freed` | it has given that back, and does nothing any more |
//! | `failed: WHY` | it does nothing any more |

#[cfg(target_os = "linux")]
fn main() {
    if let Err(error) = machine::exercise() {
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
    const PAGE: usize = 4096;

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

    /// Does everything once.
    pub(super) fn exercise() -> io::Result<()> {
        say(format_args!("init"));
        mount("sysfs", "/sys", "sysfs", MountFlags::empty(), c"")?;
        mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), c"")?;
        fs::create_dir_all("/proc")?;
        mount("proc", "/proc", "proc", MountFlags::empty(), c"")?;
        for module in MODULES {
            let file = File::open(format!("/modules/{module}.ko"))?;
            match rustix::system::finit_module(&file, c"", 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
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
        drop(disk);

        let mut memory = vec![0u8; HELD];
        for page in memory.chunks_mut(PAGE) {
            page[0] = 1;
        }
        black_box(&mut memory);
        say(format_args!("held: {HELD}"));
        sleep(HOLD);
        drop(memory);
        say(format_args!("freed"));
        Ok(())
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
