//! The file system device through its queues, called directly and over vhost-user.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cove_fs::abi::{self, InHeader, OpenOut, op};
use cove_fs::{Answer, Config, Server, ShareOptions};
use cove_tests::driver::fs::FsGuest;
use cove_tests::driver::queue::Buffer;
use cove_tests::driver::rig::{WAYS, Way};
use cove_tests::driver::transport::{InProcess, VhostUser};
use cove_tests::driver::vsock::PATIENCE;
use cove_virtio::device::{Activation, Device, DeviceError, DeviceType, QueueSpec};
use cove_virtio::fs::{Files, Fs};
use cove_virtio::queue::DeviceQueue;
use cove_virtio::vhost_user;
use rustix::io::Errno;
use tempfile::TempDir;
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

/// A guest before its device, a server, and a folder named `share`. Fields are dropped in order.
struct Rig {
    guest: FsGuest,
    _service: Option<vhost_user::Server>,
    server: Arc<Server>,
    dir: TempDir,
}

impl Rig {
    fn new(way: Way) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = serve(&dir)?;
        let device = Fs::new("cove", Arc::clone(&server), 5)?;
        let (guest, service) = match way {
            Way::InProcess => (FsGuest::boot(InProcess::new(device))?, None),
            Way::VhostUser => {
                let socket = dir.path().join("vhost-user");
                let service = vhost_user::serve(device, &socket)?;
                (FsGuest::boot(VhostUser::connect(&socket, 2)?)?, Some(service))
            }
        };
        Ok(Self {
            guest,
            _service: service,
            server,
            dir,
        })
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        Ok(std::fs::write(self.dir.path().join("share").join(name), content)?)
    }

    /// Opens a file for reading and writing: its node and handle.
    fn open(&mut self, path: &str) -> Result<(u64, u64)> {
        open(&mut self.guest, path)
    }
}

/// A server with a folder of `dir` that is named `share`.
fn serve(dir: &TempDir) -> Result<Arc<Server>> {
    std::fs::create_dir(dir.path().join("share"))?;
    let config = Config {
        watch: false,
        ..Config::default()
    };
    let server = Arc::new(Server::new(config)?);
    let options = ShareOptions {
        name: "share".into(),
        read_only: false,
    };
    server.add_share(&dir.path().join("share"), options)?;
    Ok(server)
}

fn open(guest: &mut FsGuest, path: &str) -> Result<(u64, u64)> {
    let node = guest
        .walk(path)?
        .map_err(|errno| anyhow::anyhow!("error {errno}"))?;
    let request = abi::OpenIn {
        flags: 2,
        open_flags: 0,
    };
    let reply = guest.ask(op::OPEN, node, &[request.as_bytes()])?;
    let data = reply.map_err(|errno| anyhow::anyhow!("OPEN failed with {errno}"))?;
    let Ok((open, _)) = OpenOut::read_from_prefix(&data) else {
        anyhow::bail!("OPEN answered too little");
    };
    Ok((node, open.fh))
}

fn read_in(fh: u64, size: u32) -> abi::ReadIn {
    abi::ReadIn {
        fh,
        size,
        ..abi::ReadIn::default()
    }
}

#[test]
fn a_guest_reads_what_the_host_wrote_and_the_host_what_the_guest_wrote() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.write("file", "from the host")?;
        let (node, fh) = rig.open("share/file")?;
        let reply = rig.guest.ask(op::READ, node, &[read_in(fh, 100).as_bytes()])?;
        ensure!(reply == Ok(b"from the host".to_vec()), "{way:?}: {reply:?}");
        let write = abi::WriteIn {
            fh,
            size: 5,
            ..abi::WriteIn::default()
        };
        let reply = rig.guest.ask(op::WRITE, node, &[write.as_bytes(), b"FROM "])?;
        ensure!(reply.is_ok(), "{way:?}: {reply:?}");
        let content = std::fs::read_to_string(rig.dir.path().join("share/file"))?;
        ensure!(content == "FROM the host", "{way:?}: {content}");
    }
    Ok(())
}

#[test]
fn a_share_that_is_added_or_removed_shows_at_once() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let missing = Err(Errno::NOENT.raw_os_error());
        ensure!(rig.guest.walk("later")? == missing);
        let later = rig.dir.path().join("later");
        std::fs::create_dir(&later)?;
        let options = ShareOptions {
            name: "later".into(),
            read_only: true,
        };
        rig.server.add_share(&later, options)?;
        ensure!(rig.guest.walk("later")?.is_ok(), "{way:?}");
        rig.server.remove_share("later")?;
        ensure!(rig.guest.walk("later")? == missing, "{way:?}");
    }
    Ok(())
}

#[test]
fn many_requests_in_flight_are_each_answered_once() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.write("file", &"x".repeat(4096))?;
        let (node, fh) = rig.open("share/file")?;
        for _ in 0..50 {
            for _ in 0..32 {
                rig.guest
                    .submit(op::READ, node, &[read_in(fh, 4096).as_bytes()])?;
            }
            while rig.guest.in_flight() > 0 {
                let (_, reply) = rig.guest.next_answer()?;
                ensure!(reply.is_ok_and(|data| data.len() == 4096), "{way:?}");
            }
        }
    }
    Ok(())
}

/// How much there is to copy in what is slow.
const LARGE: u64 = 64 << 20;

/// A file of that size, open.
fn large_file(rig: &mut Rig) -> Result<(u64, u64)> {
    std::fs::write(
        rig.dir.path().join("share/from"),
        vec![7; usize::try_from(LARGE)?],
    )?;
    rig.open("share/from")
}

/// A request to copy the large file to a new one.
fn slow_copy(rig: &mut Rig, fh_in: u64, name: &str) -> Result<abi::CopyFileRangeIn> {
    rig.write(name, "")?;
    let (node_out, fh_out) = rig.open(&format!("share/{name}"))?;
    Ok(abi::CopyFileRangeIn {
        fh_in,
        node_out,
        fh_out,
        // Not from a block's beginning, or some file systems would only share the blocks.
        off_in: 1,
        len: LARGE - 1,
        ..abi::CopyFileRangeIn::default()
    })
}

#[test]
fn a_request_behind_a_slow_one_is_answered_first_however_brisk_those_before_were() -> Result<()> {
    let mut rig = Rig::new(Way::InProcess)?;
    let (from, fh_in) = large_file(&mut rig)?;
    let copy = slow_copy(&mut rig, fh_in, "to")?;
    let look = abi::GetattrIn::default();
    // Which thread wakes first is up to the computer, so that once in a while is enough. One that is stuck behind is
    // never the first.
    for _ in 0..20 {
        for _ in 0..50 {
            let reply = rig.guest.ask(op::GETATTR, from, &[look.as_bytes()])?;
            ensure!(reply.is_ok(), "{reply:?}");
        }
        rig.guest.submit(op::COPY_FILE_RANGE, from, &[copy.as_bytes()])?;
        let second = rig.guest.submit(op::GETATTR, from, &[look.as_bytes()])?;
        let answers = [rig.guest.next_answer()?, rig.guest.next_answer()?];
        ensure!(answers.iter().all(|(_, reply)| reply.is_ok()), "{answers:?}");
        if answers[0].0 == second {
            return Ok(());
        }
    }
    anyhow::bail!("whoever asks waits for what another program does")
}

#[test]
fn a_request_behind_more_slow_ones_than_are_answered_at_once_does_not_wait_for_them() -> Result<()> {
    const SLOW: usize = 4;
    let mut rig = Rig::new(Way::InProcess)?;
    let (from, fh_in) = large_file(&mut rig)?;
    let copies = (0..SLOW)
        .map(|number| slow_copy(&mut rig, fh_in, &format!("to{number}")))
        .collect::<Result<Vec<_>>>()?;
    let look = abi::GetattrIn::default();
    for round in 0..20 {
        for copy in &copies {
            rig.guest.submit(op::COPY_FILE_RANGE, from, &[copy.as_bytes()])?;
        }
        if round % 2 == 1 {
            // Once all are stuck, and the one that guarded them has asked for notifications.
            std::thread::sleep(Duration::from_millis(4));
        }
        let last = rig.guest.submit(op::GETATTR, from, &[look.as_bytes()])?;
        let answers = (0..=SLOW)
            .map(|_| rig.guest.next_answer())
            .collect::<Result<Vec<_>>>()?;
        ensure!(answers.iter().all(|(_, reply)| reply.is_ok()), "{answers:?}");
        if answers[0].0 == last {
            return Ok(());
        }
    }
    anyhow::bail!("whoever asks waits for what other programs do")
}

/// Whether anybody looks, is about to sleep or does, and whether the device has asked for a notification by then.
#[test]
fn a_request_is_answered_however_long_after_brisk_ones_it_comes() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let share = rig.guest.walk("share")?;
        let share = share.map_err(|errno| anyhow::anyhow!("error {errno}"))?;
        let look = abi::GetattrIn::default();
        // Past the time for which a thread looks, and that after which another looks after it.
        for gap in (0..300).chain((300..3000).step_by(20)).map(Duration::from_micros) {
            for _ in 0..5 {
                let reply = rig.guest.ask(op::GETATTR, share, &[look.as_bytes()])?;
                ensure!(reply.is_ok(), "{way:?}: {reply:?}");
            }
            // Sleeping takes longer than most of these.
            let answered = Instant::now();
            while answered.elapsed() < gap {
                std::hint::spin_loop();
            }
            let reply = rig.guest.ask(op::GETATTR, share, &[look.as_bytes()]);
            let reply = reply.with_context(|| format!("{way:?}: {gap:?} after the last one"))?;
            ensure!(reply.is_ok(), "{way:?}: {reply:?}");
        }
    }
    Ok(())
}

#[test]
fn open_files_survive_a_pause_and_end_with_a_reboot() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.write("file", "content")?;
        let (node, fh) = rig.open("share/file")?;
        rig.guest.pause()?;
        rig.guest.resume()?;
        let reply = rig.guest.ask(op::READ, node, &[read_in(fh, 100).as_bytes()])?;
        ensure!(reply == Ok(b"content".to_vec()), "{way:?}: {reply:?}");
        rig.guest.reboot()?;
        ensure!(
            rig.server.health().open <= 1,
            "{way:?}: {:?}",
            rig.server.health()
        );
        let reply = rig.guest.ask(op::READ, node, &[read_in(fh, 100).as_bytes()])?;
        ensure!(reply.is_err(), "{way:?}: a handle of the guest before");
    }
    Ok(())
}

/// A request that waits for the whole of a file, as one of its open files.
fn lock(fh: u64) -> abi::LkIn {
    abi::LkIn {
        fh,
        owner: fh,
        lock: abi::FileLock {
            start: 0,
            end: i64::MAX.cast_unsigned(),
            kind: 1,
            pid: 7,
        },
        flags: abi::LK_FLOCK,
        padding: 0,
    }
}

/// Until so many requests wait for locks.
fn until_waiting(server: &Server, many: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while server.waiting().len() != many {
        ensure!(
            Instant::now() < deadline,
            "{} requests wait",
            server.waiting().len()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// It ended with `EINTR`, of which the guest's kernel made error 512 for the program, which had got no signal.
#[test]
fn a_request_that_waits_for_a_lock_waits_on_when_the_machine_has_been_paused() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.write("file", "content")?;
        let (node, fh) = rig.open("share/file")?;
        let host = std::fs::File::open(rig.dir.path().join("share/file"))?;
        for released_while_paused in [true, false] {
            host.lock()?;
            let waits = rig.guest.submit(op::SETLKW, node, &[lock(fh).as_bytes()])?;
            // A request that the device has not taken yet would stay in the queue.
            until_waiting(&rig.server, 1).with_context(|| format!("{way:?}"))?;
            rig.guest.pause()?;
            if released_while_paused {
                host.unlock()?;
                until_waiting(&rig.server, 0).with_context(|| format!("{way:?}"))?;
                rig.guest.resume()?;
            } else {
                rig.guest.resume()?;
                // Others are answered meanwhile, and this is not.
                ensure!(rig.guest.walk("share/file")?.is_ok(), "{way:?}");
                rig.guest.pause()?;
                rig.guest.resume()?;
                until_waiting(&rig.server, 1).with_context(|| format!("{way:?}"))?;
                host.unlock()?;
            }
            let (answered, reply) = rig.guest.next_answer()?;
            ensure!(answered == waits && reply.is_ok(), "{way:?}: {reply:?}");
            ensure!(rig.guest.walk("share/file")?.is_ok(), "{way:?}");
            let mut release = lock(fh);
            release.lock.kind = 2;
            let released = rig.guest.ask(op::SETLK, node, &[release.as_bytes()])?;
            ensure!(released.is_ok(), "{way:?}: {released:?}");
        }
    }
    Ok(())
}

#[test]
fn a_request_that_waits_for_a_lock_ends_with_its_guest() -> Result<()> {
    for way in WAYS {
        for (paused, granted) in [(false, false), (true, false), (true, true)] {
            let mut rig = Rig::new(way)?;
            rig.write("file", "content")?;
            let (node, fh) = rig.open("share/file")?;
            let host = std::fs::File::open(rig.dir.path().join("share/file"))?;
            host.lock()?;
            rig.guest.submit(op::SETLKW, node, &[lock(fh).as_bytes()])?;
            until_waiting(&rig.server, 1).with_context(|| format!("{way:?}"))?;
            if paused {
                rig.guest.pause()?;
            }
            if granted {
                host.unlock()?;
                until_waiting(&rig.server, 0).with_context(|| format!("{way:?}"))?;
            }
            // Its next guest gets no answer to what it did not ask.
            rig.guest.reboot()?;
            until_waiting(&rig.server, 0).with_context(|| format!("{way:?}"))?;
            ensure!(rig.guest.walk("share/file")?.is_ok(), "{way:?}");
            if !granted {
                host.unlock()?;
            }
            host.try_lock()
                .with_context(|| format!("{way:?}: the lock outlived its guest"))?;
        }
    }
    Ok(())
}

#[test]
fn malformed_chains_come_back_empty_and_the_device_goes_on() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let start = cove_tests::driver::memory::START;
        let buffer = |address, len, writable| Buffer {
            address,
            len,
            writable,
        };
        let end = rig.guest.memory.end();
        for chain in [
            vec![buffer(end, 64, false), buffer(start, 64, true)],
            vec![buffer(end - 8, 64, false)],
            vec![buffer(u64::MAX - 8, 64, false)],
            vec![buffer(start, 64, true), buffer(start, 64, false)],
            vec![buffer(start, 3, false), buffer(start, 64, true)],
            vec![buffer(start, 64, false)],
            vec![buffer(start, 0, false), buffer(start, 0, true)],
        ] {
            rig.guest.requests.add(&chain)?;
            rig.guest.requests.publish()?;
            let used = rig.guest.requests.next_used()?;
            ensure!(used.written <= 16, "{way:?}: {used:?} for {chain:?}");
        }
        ensure!(rig.guest.walk("share")?.is_ok(), "{way:?}");
    }
    Ok(())
}

#[test]
fn a_broken_queue_is_signalled_and_a_reset_repairs_it() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let index = rig.guest.requests.available_index();
        rig.guest
            .requests
            .forge_available_index(index.wrapping_add(1000))?;
        rig.guest.requests.kick.ring()?;
        let told = cove_tests::driver::event::wait(&[&rig.guest.requests.broken], PATIENCE)?;
        ensure!(told, "{way:?}: nobody says that the queue is broken");
        rig.guest.reboot()?;
        ensure!(rig.guest.walk("share")?.is_ok(), "{way:?}");
    }
    Ok(())
}

/// A server on which files cannot be read while something that it depends on is away.
struct Away {
    server: Arc<Server>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    away: bool,
    stuck: usize,
}

impl Away {
    fn come_back(&self) {
        held(&self.state).away = false;
        self.changed.notify_all();
    }

    fn until_stuck(&self) -> Result<()> {
        let waited = self
            .changed
            .wait_timeout_while(held(&self.state), PATIENCE, |state| state.stuck == 0);
        let stuck = waited.unwrap_or_else(PoisonError::into_inner).0.stuck;
        ensure!(stuck == 1, "{stuck} requests are stuck");
        Ok(())
    }
}

impl Files for Away {
    fn serve(&self, readable: &[VolatileSlice<'_>], writable: &[VolatileSlice<'_>]) -> Answer {
        let mut header = InHeader::default();
        if let Some(first) = readable.first() {
            first.copy_to(header.as_mut_bytes());
        }
        if header.opcode == op::READ {
            let mut state = held(&self.state);
            state.stuck += 1;
            self.changed.notify_all();
            while state.away {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.stuck -= 1;
        }
        self.server.serve(readable, writable)
    }

    fn waiting(&self) -> Vec<(u64, u32)> {
        self.server.waiting()
    }

    fn interrupt(&self, unique: u64) {
        self.server.interrupt(unique);
    }

    fn reset(&self) {
        self.server.reset();
    }
}

/// A device that one machine has after the other.
#[derive(Clone)]
struct Lent(Arc<Mutex<Fs>>);

impl Device for Lent {
    fn device_type(&self) -> DeviceType {
        held(&self.0).device_type()
    }

    fn features(&self) -> u64 {
        held(&self.0).features()
    }

    fn queues(&self) -> &'static [QueueSpec] {
        held(&self.0).queues()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        held(&self.0).read_config(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        held(&self.0).activate(activation)
    }

    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        held(&self.0).suspend()
    }

    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        held(&self.0).reset()
    }

    fn leave(&mut self) {
        held(&self.0).leave();
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A guest that reads a file, while what that is on is away. Fields are dropped in order.
struct StuckRig {
    guest: FsGuest,
    read: u64,
    device: Lent,
    away: Arc<Away>,
    _dir: TempDir,
}

impl StuckRig {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let away = Arc::new(Away {
            server: serve(&dir)?,
            state: Mutex::new(State { away: true, stuck: 0 }),
            changed: Condvar::new(),
        });
        std::fs::write(dir.path().join("share/file"), "content")?;
        // A clone of its own, since it becomes one of another type.
        let files = Arc::clone(&away);
        let device = Lent(Arc::new(Mutex::new(Fs::with_files("cove", files, 5)?)));
        let mut guest = FsGuest::boot(InProcess::new(device.clone()))?;
        let (node, fh) = open(&mut guest, "share/file")?;
        let read = guest.submit(op::READ, node, &[read_in(fh, 100).as_bytes()])?;
        away.until_stuck()?;
        Ok(Self {
            guest,
            read,
            device,
            away,
            _dir: dir,
        })
    }
}

/// What is bounded by a few seconds has to be over by then, on a computer that is busy as well.
const BOUNDED: Duration = Duration::from_secs(15);

/// It waited for ever, and with it whoever wanted the machine to pause.
#[test]
fn a_pause_with_a_request_that_is_stuck_fails_in_time_and_the_device_goes_on() -> Result<()> {
    let mut rig = StuckRig::new()?;
    for _ in 0..2 {
        let began = Instant::now();
        let Err(error) = rig.guest.pause() else {
            anyhow::bail!("a request is under way in a guest that is paused");
        };
        ensure!(began.elapsed() < BOUNDED, "it took {:?}", began.elapsed());
        ensure!(error.to_string().contains("1 of its requests"), "{error}");
        for _ in 0..20 {
            ensure!(rig.guest.walk("share/file")?.is_ok());
        }
    }
    rig.away.come_back();
    let (answered, reply) = rig.guest.next_answer()?;
    ensure!(
        answered == rig.read && reply == Ok(b"content".to_vec()),
        "{reply:?}"
    );
    rig.guest.pause()?;
    rig.guest.resume()?;
    ensure!(rig.guest.walk("share/file")?.is_ok());
    Ok(())
}

/// A guest that restarts resets its devices on its way down.
#[test]
fn a_reset_with_a_request_that_is_stuck_is_not_over_and_takes_no_other() -> Result<()> {
    let mut rig = StuckRig::new()?;
    let began = Instant::now();
    ensure!(
        rig.guest.reboot().is_err(),
        "the next driver's memory would be written to"
    );
    ensure!(began.elapsed() < BOUNDED, "it took {:?}", began.elapsed());
    let taken = rig.guest.requests.used_index()?;
    rig.guest.submit(op::STATFS, abi::ROOT_ID, &[])?;
    std::thread::sleep(Duration::from_millis(50));
    ensure!(
        rig.guest.requests.used_index()? == taken,
        "it serves a driver that has gone"
    );
    rig.away.come_back();
    rig.guest.reboot()?;
    ensure!(rig.guest.walk("share/file")?.is_ok());
    Ok(())
}

#[test]
fn a_machine_that_is_no_more_leaves_what_is_stuck_behind_with_its_memory() -> Result<()> {
    let mut rig = StuckRig::new()?;
    let began = Instant::now();
    rig.device.leave();
    ensure!(began.elapsed() < BOUNDED, "it took {:?}", began.elapsed());
    let mut next = FsGuest::boot(InProcess::new(rig.device.clone()))?;
    ensure!(next.walk("share/file")?.is_ok());
    let used = rig.guest.requests.used_index()?;
    rig.away.come_back();
    let deadline = Instant::now() + PATIENCE;
    while rig.guest.requests.used_index()? == used {
        ensure!(Instant::now() < deadline, "the request is lost");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Whatever it left in the server, the next guest has its own answers and no others.
    for _ in 0..20 {
        ensure!(next.walk("share/file")?.is_ok());
    }
    ensure!(
        next.requests.take_used()?.is_none(),
        "an answer to what it did not ask"
    );
    Ok(())
}
