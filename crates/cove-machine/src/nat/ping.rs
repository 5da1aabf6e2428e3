//! Whether a program of this user may pass a guest's echo requests on. It does so through sockets that the kernel gives
//! to some groups only (icmp(7)); without them nobody answers a container's `ping`.

use crate::Caveat;
use rustix::process::{Gid, getegid, getgroups};
use std::fs;

/// The first and the last group that may, for both families.
const FILE: &str = "/proc/sys/net/ipv4/ping_group_range";

/// What lets all groups.
const PERMIT: &str = "sudo sysctl net.ipv4.ping_group_range='0 2147483647'";

/// What a person should know about it; nothing if one of the user's groups may, or where the system does not tell.
pub(super) fn caveat() -> Option<Caveat> {
    let range = fs::read_to_string(FILE).ok()?;
    let groups = getgroups().ok()?.into_iter().chain([getegid()]);
    let permitted = permits(&range, groups.map(Gid::as_raw))?;
    (!permitted).then(|| Caveat {
        what: "this computer lets your groups send no echo requests, so that nothing beyond the machine answers a \
               container's `ping`"
            .to_owned(),
        hint: format!("{PERMIT}, which is for IPv6 as well"),
        command: Some(PERMIT.to_owned()),
    })
}

/// Whether one of `groups` is in `range`; nothing if that is none.
fn permits(range: &str, mut groups: impl Iterator<Item = u32>) -> Option<bool> {
    let mut ends = range.split_whitespace().map(str::parse::<u32>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some(groups.any(|group| (first..=last).contains(&group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_group_of_the_range_is_enough_and_a_range_may_be_empty() {
        for (range, expected) in [
            ("0\t2147483647\n", Some(true)),
            ("27\t27\n", Some(true)),
            ("28\t999\n", Some(false)),
            // The kernel's own, where nobody set another one.
            ("1\t0\n", Some(false)),
            ("27\n", None),
            ("some all\n", None),
        ] {
            assert_eq!(permits(range, [1000, 27].into_iter()), expected, "{range:?}");
        }
    }
}
