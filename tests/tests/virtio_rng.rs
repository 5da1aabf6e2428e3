//! The entropy device through its queue, called directly and over vhost-user. The disk's driver does for it: that, too,
//! has one queue of requests.

use anyhow::{Result, ensure};
use cove_tests::driver::block::{BlockGuest, buffer};
use cove_tests::driver::rig::{WAYS, Way};
use cove_tests::driver::transport::{InProcess, VhostUser};
use cove_virtio::rng::{MAX_REQUEST, Rng};
use cove_virtio::vhost_user::{self, Server};
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

/// A guest before its device. Fields are dropped in order.
struct Rig {
    guest: BlockGuest,
    _service: Option<Server>,
    _dir: TempDir,
}

impl Rig {
    fn new(way: Way) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (guest, service) = match way {
            Way::InProcess => (BlockGuest::boot(InProcess::new(Rng::new()), 0)?, None),
            Way::VhostUser => {
                let socket = dir.path().join("vhost-user");
                let service = vhost_user::serve(Rng::new(), &socket)?;
                let guest = BlockGuest::boot(VhostUser::connect(&socket, 1)?, 0)?;
                (guest, Some(service))
            }
        };
        Ok(Self {
            guest,
            _service: service,
            _dir: dir,
        })
    }

    /// The first bytes of the place for data.
    fn data(&self, len: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; len];
        let place = GuestAddress(self.guest.data);
        self.guest.memory.memory.read_slice(&mut data, place)?;
        Ok(data)
    }

    /// Asks for 64 bytes.
    fn ask(&mut self) -> Result<Vec<u8>> {
        let used = self.guest.submit(&[buffer(self.guest.data, 64, true)])?;
        ensure!(used.written == 64, "{used:?}");
        self.data(64)
    }
}

#[test]
fn every_request_gets_other_bytes_over_all_its_buffers() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (first, second) = (rig.ask()?, rig.ask()?);
        ensure!(first != second && first != [0; 64], "{way:?}");
        let at = rig.guest.data;
        let used = rig
            .guest
            .submit(&[buffer(at, 32, true), buffer(at + 64, 32, true)])?;
        ensure!(used.written == 64, "{used:?}");
        let now = rig.data(96)?;
        ensure!(now[..32] != second[..32], "the first buffer was not filled");
        ensure!(
            now[32..64] == second[32..],
            "bytes between the buffers were written"
        );
        ensure!(now[64..] != [0; 32], "the second buffer was not filled");
    }
    Ok(())
}

#[test]
fn no_request_gets_more_than_the_bound() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let used = rig.guest.submit(&[buffer(rig.guest.data, 1 << 20, true)])?;
        ensure!(used.written as usize == MAX_REQUEST, "{used:?}");
        let data = rig.data(MAX_REQUEST + 64)?;
        ensure!(data[MAX_REQUEST..] == [0; 64], "more was written than said");
        ensure!(
            data[MAX_REQUEST - 64..MAX_REQUEST] != [0; 64],
            "less was written than said"
        );
    }
    Ok(())
}

#[test]
fn a_broken_request_gets_nothing_and_the_device_goes_on() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let at = rig.guest.data;
        let outside = rig.guest.memory.end() - 8;
        for chain in [
            vec![buffer(at, 64, false)],
            vec![buffer(at, 64, true), buffer(at, 64, false)],
            vec![buffer(outside, 64, true)],
            vec![buffer(u64::MAX - 8, 64, true)],
            vec![buffer(at, 0, true)],
        ] {
            let used = rig.guest.submit(&chain)?;
            ensure!(used.written == 0, "{chain:?} got {used:?}");
        }
        ensure!(rig.data(64)? == [0; 64], "a broken request was answered");
        rig.ask()?;
    }
    Ok(())
}

#[test]
fn a_pause_and_a_reboot_leave_it_working() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.ask()?;
        ensure!(rig.guest.pause()? == 1, "it took more than it was given");
        rig.guest.resume()?;
        rig.ask()?;
        rig.guest.reboot()?;
        rig.ask()?;
    }
    Ok(())
}
