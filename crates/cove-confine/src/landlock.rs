//! Landlock: what the kernel lets a process do with files and sockets, whatever its user may.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::io::Errno;
use std::path::Path;

use crate::view::{Access, Item, SHARES};
use crate::{ConfineError, Layer, sys};

const NAME: &str = "Landlock";

/// What is asked for: everything that Linux 6.12 knows.
const ASKED: ABI = ABI::V6;
const ASKED_NUMBER: u32 = 6;

/// The oldest that will do. The first version forbids every rename from one directory to another (Linux 5.13 to 5.18).
const OLDEST: u32 = 2;

/// Where folders may be that are shared later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folders {
    /// In the slots of a [`crate::view::View`].
    Slots,
    /// Anywhere, since there is no view of its own: only executing and making devices is forbidden there.
    Anywhere,
}

/// Restricts this thread, and those that it starts, to `items` and folders. Connections by TCP are forbidden, and so
/// are abstract sockets and signals to processes outside.
pub fn restrict(items: &[Item], folders: Folders) -> Result<Layer, ConfineError> {
    let abi = match sys::landlock_abi() {
        Ok(abi) => abi,
        Err(Errno::NOSYS) => {
            return Ok(Layer::absent(
                NAME,
                "this kernel has none (it came with Linux 5.13)",
            ));
        }
        Err(Errno::OPNOTSUPP) => {
            return Ok(Layer::absent(
                NAME,
                "it is switched off: add `landlock` to the kernel's `lsm=`",
            ));
        }
        Err(error) => return Ok(Layer::absent(NAME, format!("the kernel refuses it: {error}"))),
    };
    if abi < OLDEST {
        return Ok(Layer::absent(
            NAME,
            format!("version {abi} forbids renames between directories; Linux 5.19 has a newer one"),
        ));
    }
    let refused = |error: &dyn std::fmt::Display| ConfineError::Os {
        operation: "restrict the process by Landlock",
        source: std::io::Error::other(error.to_string()),
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ASKED))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ASKED)))
        .and_then(|rules| rules.scope(Scope::from_all(ASKED)))
        .and_then(Ruleset::create)
        .map_err(|error| refused(&error))?;
    let shares = match folders {
        Folders::Slots => SHARES,
        Folders::Anywhere => "/",
    };
    let items = items
        .iter()
        .map(|item| (item.path.as_path(), of_item(item.access)));
    for (path, access) in items.chain([(Path::new(shares), of_folder())]) {
        let file = PathFd::new(path).map_err(|error| refused(&error))?;
        rules = rules
            .add_rule(PathBeneath::new(file, access))
            .map_err(|error| refused(&error))?;
    }
    let status = rules.restrict_self().map_err(|error| refused(&error))?;
    let version = format!("version {abi}");
    Ok(match (status.ruleset, folders) {
        (RulesetStatus::NotEnforced, _) => Layer::absent(NAME, "the kernel does not enforce it"),
        (_, Folders::Anywhere) => Layer::partial(
            NAME,
            format!("{version}; any file that the user may open can be, for want of a mount namespace"),
        ),
        _ if abi < ASKED_NUMBER => Layer::partial(
            NAME,
            format!("{version}; Linux 6.12 has version {ASKED_NUMBER}, which covers sockets and devices too"),
        ),
        _ => Layer::whole(NAME, version),
    })
}

fn of_item(access: Access) -> BitFlags<AccessFs> {
    match access {
        Access::Read => AccessFs::ReadFile.into(),
        Access::Write => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate,
        Access::Sockets => AccessFs::ReadDir | AccessFs::MakeSock | AccessFs::RemoveFile,
        Access::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
    }
}

/// Everything that a guest may do in a folder.
fn of_folder() -> BitFlags<AccessFs> {
    AccessFs::from_all(ASKED)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev)
}
