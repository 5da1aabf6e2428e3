//! The file system device through its queues, called directly and over vhost-user.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cove_fs::abi::{self, OpenOut, op};
use cove_fs::{Config, Server, ShareOptions};
use cove_tests::driver::fs::FsGuest;
use cove_tests::driver::queue::Buffer;
use cove_tests::driver::rig::{WAYS, Way};
use cove_tests::driver::transport::{InProcess, VhostUser};
use cove_tests::driver::vsock::PATIENCE;
use cove_virtio::fs::Fs;
use cove_virtio::vhost_user;
use rustix::io::Errno;
use tempfile::TempDir;
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
        let node = self
            .guest
            .walk(path)?
            .map_err(|errno| anyhow::anyhow!("error {errno}"))?;
        let request = abi::OpenIn {
            flags: 2,
            open_flags: 0,
        };
        let reply = self.guest.ask(op::OPEN, node, &[request.as_bytes()])?;
        let data = reply.map_err(|errno| anyhow::anyhow!("OPEN failed with {errno}"))?;
        let Ok((open, _)) = OpenOut::read_from_prefix(&data) else {
            anyhow::bail!("OPEN answered too little");
        };
        Ok((node, open.fh))
    }
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
