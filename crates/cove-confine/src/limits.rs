//! What a cell gives up besides.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::error::os;
use crate::{ConfineError, Layer};

/// Gives up every capability, the right to gain one by a program, core dumps, locked memory and message queues, and
/// that others of the same user may trace it or look at its memory. To be called with one thread.
pub fn give_up() -> Result<Vec<Layer>, ConfineError> {
    set_no_new_privs(true).map_err(os("renounce new privileges"))?;
    clear_ambient_capability_set().map_err(os("clear the ambient capabilities"))?;
    let mut kept = 0;
    for capability in CapabilitySet::all().iter() {
        // One that this kernel does not know is not there. Without CAP_SETPCAP, which an ordinary user has none of, the
        // set stays, and means nothing: no program that is started can gain from it any more.
        if matches!(capability_is_in_bounding_set(capability), Ok(true))
            && remove_capability_from_bounding_set(capability).is_err()
        {
            kept += 1;
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(os("give up the capabilities"))?;
    for (resource, name) in [
        (Resource::Core, "bound core dumps"),
        (Resource::Memlock, "bound locked memory"),
        (Resource::Msgqueue, "bound message queues"),
    ] {
        let nothing = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(resource, nothing).map_err(os(name))?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(os("be not dumpable"))?;
    let bounding = if kept == 0 { "" } else { "; the bounding set stays" };
    Ok(vec![
        Layer::whole("no new privileges", "no program can give it any"),
        Layer::whole("capabilities", format!("none{bounding}")),
        Layer::whole(
            "limits",
            "no core dump, not to be traced, no locked memory, no message queue",
        ),
    ])
}
