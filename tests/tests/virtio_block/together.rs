//! Many requests at once: each moves its own bytes and is answered once, whatever comes between.

use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::os::unix::fs::chown;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use cove_tests::driver::block::{Status, buffer, op, range};
use cove_tests::driver::rig;
use cove_tests::driver::vsock::PATIENCE;
use cove_tests::rings;
use cove_virtio::block::{Access, Block};
use rustix::process::{Resource, Rlimit, Uid, getuid, setrlimit};
use rustix::thread::set_thread_res_uid;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use crate::disk::{DISK, Rig, SECTOR, SECTORS, WAYS, Way, content, done};

/// A request with a place of its own in guest memory, so that many can be in flight.
struct Asked {
    header: u64,
    status: u64,
    data: u64,
    len: usize,
    /// The device writes the data.
    wanted: bool,
}

impl Asked {
    /// A request for `len` bytes of data, either way.
    fn new(rig: &mut Rig, operation: u32, sector: u64, len: usize) -> Result<Self> {
        let memory = &mut rig.guest.memory;
        let (header, status) = (memory.allocate(16)?, memory.allocate(1)?);
        let data = memory.allocate(len as u64)?;
        let asked = Self {
            header,
            status,
            data,
            len,
            wanted: operation == op::READ,
        };
        asked.say(rig, operation, sector)?;
        Ok(asked)
    }

    /// Writes the header, and takes the answer away.
    fn say(&self, rig: &Rig, operation: u32, sector: u64) -> Result<()> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&operation.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let memory = &rig.guest.memory.memory;
        memory.write_slice(&header, GuestAddress(self.header))?;
        memory.write_slice(&[0xaa], GuestAddress(self.status))?;
        Ok(())
    }

    /// Puts it into the queue. Returns the first descriptor of its chain, none if the queue is full.
    fn offer(&self, rig: &mut Rig) -> Result<Option<u16>> {
        let mut chain = vec![buffer(self.header, 16, false)];
        if self.len > 0 {
            chain.push(buffer(self.data, u32::try_from(self.len)?, self.wanted));
        }
        chain.push(buffer(self.status, 1, true));
        rig.guest.requests.add(&chain)
    }

    /// The status byte and the data.
    fn answer(&self, rig: &Rig) -> Result<(u8, Vec<u8>)> {
        let memory = &rig.guest.memory.memory;
        let mut data = vec![0; self.len];
        memory.read_slice(&mut data, GuestAddress(self.data))?;
        Ok((memory.read_obj(GuestAddress(self.status))?, data))
    }
}

#[test]
fn many_requests_at_once_each_move_their_own_bytes() -> Result<()> {
    /// Bytes of a request.
    const LEN: usize = 8 * SECTOR;
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let place = |number: u64| number * (LEN / SECTOR) as u64;
        let mut asked = Vec::new();
        // Reads and writes in turn, each of a range of its own.
        for number in 0..20_u64 {
            let operation = if number.is_multiple_of(2) {
                op::READ
            } else {
                op::WRITE
            };
            asked.push((
                operation,
                place(number),
                Asked::new(&mut rig, operation, place(number), LEN)?,
            ));
        }
        for round in 0u8..100 {
            let mut heads = BTreeSet::new();
            for (operation, sector, request) in &asked {
                request.say(&rig, *operation, *sector)?;
                let memory = &rig.guest.memory.memory;
                let before = if request.wanted {
                    vec![0; LEN]
                } else {
                    vec![round; LEN]
                };
                memory.write_slice(&before, GuestAddress(request.data))?;
                heads.insert(request.offer(&mut rig)?.context("the queue is full")?);
            }
            rig.guest.requests.publish()?;
            for _ in &asked {
                let used = rig.guest.requests.next_used()?;
                ensure!(heads.remove(&used.head), "{way:?}: {used:?} came back twice");
            }
            for (_, sector, request) in &asked {
                let (status, data) = request.answer(&rig)?;
                ensure!(status == 0, "{way:?}: {status} of sector {sector}");
                let expected = if request.wanted {
                    content(*sector, LEN)
                } else {
                    vec![round; LEN]
                };
                ensure!(data == expected, "{way:?}: the data of sector {sector}");
                ensure!(
                    rig.file(*sector, LEN)? == expected,
                    "{way:?}: the file at {sector}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_read_overtakes_a_flush_where_requests_are_in_flight_together() -> Result<()> {
    for device in [rig::Way::InProcess, rig::Way::VhostUser] {
        let way = Way::new(device, true);
        if !way.disk(tempfile::tempfile()?, Access::ReadWrite)?.has_rings() {
            println!("this computer has no rings, so that nothing can be overtaken");
            return Ok(());
        }
        let mut rig = Rig::new(way)?;
        let write = Asked::new(&mut rig, op::WRITE, 0, 64 * SECTOR)?;
        let flush = Asked::new(&mut rig, op::FLUSH, 0, 0)?;
        let read = Asked::new(&mut rig, op::READ, 1024, SECTOR)?;
        let mut overtaken = false;
        // Which is first is the kernel's affair: a flush takes a thread of its own, which nearly always comes too late.
        for _ in 0..200 {
            write.offer(&mut rig)?;
            rig.guest.requests.publish()?;
            rig.guest.requests.next_used()?;
            let first = flush.offer(&mut rig)?;
            read.offer(&mut rig)?;
            rig.guest.requests.publish()?;
            overtaken |= Some(rig.guest.requests.next_used()?.head) != first;
            rig.guest.requests.next_used()?;
            ensure!(flush.answer(&rig)?.0 == 0, "{way:?}: the flush failed");
            ensure!(read.answer(&rig)? == (0, content(1024, SECTOR)), "{way:?}");
        }
        ensure!(overtaken, "{way:?}: requests are served one at a time");
    }
    Ok(())
}

#[test]
fn after_a_reset_with_requests_in_flight_nothing_writes_to_the_guests_memory() -> Result<()> {
    const LEN: usize = 64 * 1024;
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (header, status) = rig.guest.frame(op::READ, 0)?;
        let data = buffer(rig.guest.data, u32::try_from(LEN)?, true);
        let (memory, place) = (rig.guest.memory.memory.clone(), GuestAddress(rig.guest.data));
        for _ in 0..50 {
            for _ in 0..20 {
                rig.guest.requests.add(&[header, data, status])?;
            }
            rig.guest.requests.publish()?;
            rig.guest.reboot()?;
            memory.write_slice(&vec![0xbb; LEN], place)?;
            // Something goes through the same ring, and still nothing of before it comes.
            ensure!(rig.guest.ask(op::FLUSH, 0, &[], 0)? == done(vec![]), "{way:?}");
            let mut now = vec![0; LEN];
            memory.read_slice(&mut now, place)?;
            ensure!(now.iter().all(|byte| *byte == 0xbb), "{way:?}: it was written to");
            rig.guest.frame(op::READ, 0)?;
        }
        rig.check_untouched()?;
    }
    Ok(())
}

#[test]
fn requests_in_flight_survive_a_pause_and_each_is_answered_once() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (header, status) = rig.guest.frame(op::READ, 0)?;
        let data = buffer(rig.guest.data, 64 * 1024, true);
        for _ in 0..50 {
            for _ in 0..20 {
                rig.guest.requests.add(&[header, data, status])?;
            }
            rig.guest.requests.publish()?;
            let taken = rig.guest.pause()?;
            let answered = rig.guest.requests.used_index()?;
            ensure!(
                taken == answered,
                "{way:?}: {taken} taken, but {answered} answered"
            );
            rig.guest.resume()?;
            for _ in 0..20 {
                ensure!(
                    rig.guest.requests.next_used()?.written == 64 * 1024 + 1,
                    "{way:?}"
                );
            }
            ensure!(rig.guest.requests.take_used()?.is_none(), "{way:?}");
        }
    }
    Ok(())
}

/// On a file system of one mebibyte, in a namespace in which an ordinary user may mount one: the test calls itself
/// there.
#[test]
fn a_write_waits_while_the_host_has_no_space_and_is_whole_afterwards() -> Result<()> {
    const SMALL: &str = "COVE_TEST_SMALL_FILE_SYSTEM";
    const WRITTEN: usize = 512 * 1024;
    let Some(small) = env::var_os(SMALL) else {
        let place = tempfile::tempdir()?;
        let mount = r#"mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@""#;
        let inside = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", mount])
            .arg(place.path())
            .arg(env::current_exe()?)
            .arg("together::a_write_waits_while_the_host_has_no_space_and_is_whole_afterwards")
            .args(["--exact", "--nocapture"])
            .env(SMALL, place.path())
            .output()?;
        let said = String::from_utf8_lossy(&inside.stdout);
        ensure!(
            inside.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&inside.stderr)
        );
        ensure!(said.contains("1 passed"), "it did not find itself: {said}");
        return Ok(());
    };
    for way in WAYS {
        let dir = tempfile::tempdir_in(&small)?;
        let ballast = dir.path().join("ballast");
        std::fs::write(&ballast, vec![1; 768 * 1024])?;
        let path = dir.path().join("disk");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.set_len(DISK as u64)?;
        let mut device = way.disk(file.try_clone()?, Access::ReadWrite)?;
        let (tell, full) = mpsc::channel();
        device.on_full(move || {
            let _ = tell.send(());
        });
        let mut rig = Rig::before(way, device, file, dir, 0)?;

        let data = content(0, WRITTEN);
        rig.guest
            .memory
            .memory
            .write_slice(&data, GuestAddress(rig.guest.data))?;
        let (header, status) = rig.guest.frame(op::WRITE, 0)?;
        let body = buffer(rig.guest.data, u32::try_from(WRITTEN)?, false);
        ensure!(rig.guest.requests.add(&[header, body, status])?.is_some());
        // What comes after it waits with it, and is not lost.
        let later = Asked::new(&mut rig, op::READ, SECTORS - 1, SECTOR)?;
        ensure!(later.offer(&mut rig)?.is_some());
        rig.guest.requests.publish()?;
        full.recv_timeout(PATIENCE)?;
        ensure!(
            rig.guest.status()?.is_none(),
            "{way:?}: the guest was told something"
        );
        ensure!(
            rig.guest.pause()? == 0,
            "{way:?}: the request is not in the queue"
        );
        rig.guest.resume()?;
        full.recv_timeout(PATIENCE)?;

        std::fs::remove_file(ballast)?;
        for _ in 0..2 {
            rig.guest.requests.next_used()?;
        }
        ensure!(rig.guest.status()? == Some(Status::Ok), "{way:?}");
        ensure!(later.answer(&rig)? == (0, vec![0; SECTOR]), "{way:?}");
        ensure!(rig.file(0, WRITTEN)? == data, "{way:?}");
        // A ring lets go of its file only a while after its end, and the next one needs the space.
        File::options().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

/// As where the system, or the list of calls of a container around it, forbids rings.
#[test]
fn a_disk_that_may_have_no_ring_serves_one_request_after_the_other() -> Result<()> {
    for errno in [rustix::io::Errno::PERM, rustix::io::Errno::NOSYS] {
        // Only this thread and those that it starts are bound by it.
        let thread = std::thread::spawn(move || -> Result<()> {
            rings::forbid(errno)?;
            let way = Way::new(rig::Way::InProcess, true);
            let disk = way.disk(tempfile::tempfile()?, Access::ReadWrite)?;
            ensure!(!disk.has_rings(), "it got one");
            Rig::new(way)?.check_untouched()
        });
        thread.join().map_err(|_| anyhow!("it panicked"))??;
    }
    Ok(())
}

/// The kernel cannot make a worker for the ring either then, and cancels what would take one.
#[test]
fn a_disk_does_all_it_is_asked_where_there_may_be_no_further_thread() -> Result<()> {
    const ALONE: &str = "COVE_TEST_DISK_WITHOUT_THREADS";
    /// Some user who is not root.
    const NOBODY: u32 = 65534;
    let way = Way::new(rig::Way::InProcess, true);
    if !way.disk(tempfile::tempfile()?, Access::ReadWrite)?.has_rings() {
        println!("this computer has no rings, and so no workers");
        return Ok(());
    }
    let is_root = getuid().is_root();
    // There are user namespaces that have no user but root.
    if is_root && chown(tempfile::tempdir()?.path(), Some(NOBODY), None).is_err() {
        eprintln!("skipped: root has no limit of threads, and there is nobody else to be");
        return Ok(());
    }
    if env::var_os(ALONE).is_none() {
        // By itself, since the limit is the whole process's.
        return by_itself(
            "together::a_disk_does_all_it_is_asked_where_there_may_be_no_further_thread",
            ALONE,
        );
    }
    let dir = tempfile::tempdir()?;
    let (file, device) = on_file(way, &dir)?;
    // Root has no limit, so that this thread, and those that it starts, are somebody else's for a while.
    if is_root {
        let nobody = Uid::from_raw(NOBODY);
        set_thread_res_uid(nobody, nobody, None::<Uid>).context("cannot become another user")?;
    }
    let mut rig = Rig::before(way, device, file, dir, 0)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Nproc, none)?;
    let another = std::thread::Builder::new().spawn(|| {});
    ensure!(another.is_err(), "there may be another thread");
    for round in 1..=3_u8 {
        let data = vec![round; 3 * SECTOR];
        ensure!(rig.guest.ask(op::WRITE, 64, &data, 0)? == done(vec![]));
        ensure!(
            rig.guest.ask(op::FLUSH, 0, &[], 0)? == done(vec![]),
            "round {round}"
        );
        ensure!(rig.guest.ask(op::READ, 64, &[], 3 * 512)? == done(data));
        let discarded = rig.guest.ask(op::DISCARD, 0, &range(64, 8, 0), 0)?;
        ensure!(discarded == done(vec![]), "round {round}");
    }
    if is_root {
        // To take away what root has made.
        set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>)?;
    }
    Ok(())
}

/// A disk of the usual content in `dir`, with its file.
fn on_file(way: Way, dir: &TempDir) -> Result<(File, Block)> {
    let path = dir.path().join("disk");
    std::fs::write(&path, content(0, DISK))?;
    let file = File::options().read(true).write(true).open(path)?;
    let device = way.disk(file.try_clone()?, Access::ReadWrite)?;
    Ok((file, device))
}

/// Whatever comes just while the thread in the ring ends is for the next one.
#[test]
fn nothing_is_lost_that_comes_while_the_ring_comes_to_rest() -> Result<()> {
    /// For how long the ring's thread has nothing to do, and by how much what comes then is too early or too late.
    const REST: Duration = Duration::from_millis(20);
    /// What comes is spread over the time around that.
    const EARLY: Duration = Duration::from_millis(15);
    const SPREAD: Duration = Duration::from_millis(10);
    const ROUNDS: u32 = 60;
    for device in [rig::Way::InProcess, rig::Way::VhostUser] {
        let way = Way::new(device, true);
        let dir = tempfile::tempdir()?;
        let (file, device) = on_file(way, &dir)?;
        if !device.has_rings() {
            println!("this computer has no rings, so that none comes to rest");
            return Ok(());
        }
        let mut rig = Rig::before(way, device.with_rest(REST), file, dir, 0)?;
        for round in 0..ROUNDS {
            let data = vec![u8::try_from(round)?; SECTOR];
            std::thread::sleep(EARLY + SPREAD * round / ROUNDS);
            match round % 3 {
                0 => {}
                1 => {
                    let taken = rig.guest.pause()?;
                    let answered = rig.guest.requests.used_index()?;
                    ensure!(taken == answered, "{way:?}: {taken} taken, {answered} answered");
                    rig.guest.resume()?;
                }
                _ => rig.guest.reboot()?,
            }
            let sector = u64::from(round);
            let written = rig.guest.ask(op::WRITE, sector, &data, 0);
            let written = written.with_context(|| format!("{way:?}: round {round}"))?;
            ensure!(written == done(vec![]), "{way:?}: round {round}: {written:?}");
            ensure!(rig.file(sector, SECTOR)? == data, "{way:?}: round {round}");
        }
        let answer = rig.guest.ask(op::READ, u64::from(ROUNDS), &[], 512)?;
        ensure!(answer == done(content(u64::from(ROUNDS), SECTOR)), "{way:?}");
    }
    Ok(())
}

/// Has a process of its own run one test, which is told by a variable that it is the only one.
fn by_itself(test: &str, variable: &str) -> Result<()> {
    let alone = Command::new(env::current_exe()?)
        .args([test, "--exact", "--nocapture"])
        .env(variable, "")
        .output()?;
    let said = String::from_utf8_lossy(&alone.stdout);
    ensure!(
        alone.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&alone.stderr)
    );
    Ok(())
}

/// What the kernel does for a ring is done by workers that stay with the thread which entered it, and wake every five
/// seconds for as long as that lives.
#[test]
fn a_disk_at_rest_has_no_thread_in_its_ring_and_serves_the_next_request() -> Result<()> {
    const ALONE: &str = "COVE_TEST_DISK_AT_REST";
    let way = Way::new(rig::Way::InProcess, true);
    if !way.disk(tempfile::tempfile()?, Access::ReadWrite)?.has_rings() {
        return Ok(());
    }
    if env::var_os(ALONE).is_none() {
        // By itself, without the threads of other tests.
        return by_itself(
            "together::a_disk_at_rest_has_no_thread_in_its_ring_and_serves_the_next_request",
            ALONE,
        );
    }
    let in_ring = || -> Result<bool> {
        let mut found = false;
        for thread in std::fs::read_dir("/proc/self/task")? {
            // One that has ended meanwhile has no name.
            let name = std::fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
            found |= name.starts_with("disk-ring") || name.starts_with("iou-wrk");
        }
        Ok(found)
    };
    let mut rig = Rig::new(way)?;
    for round in 0..2 {
        rig.check_untouched()?;
        ensure!(in_ring()?, "round {round}: nobody serves the ring");
        let deadline = Instant::now() + PATIENCE;
        while in_ring()? {
            ensure!(
                Instant::now() < deadline,
                "round {round}: somebody stays in the ring"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    rig.check_untouched()
}
