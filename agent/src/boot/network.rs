//! The guest's network. For now the loopback device only: the machine has no other one yet.

use std::{fs, io};

/// `IFF_UP | IFF_LOOPBACK` of linux/if.h.
const UP: &str = "0x9";

/// Brings up what the guest itself needs. The kernel adds the loopback's addresses by itself.
pub(crate) fn bring_up() -> io::Result<()> {
    fs::write("/sys/class/net/lo/flags", UP)
}
