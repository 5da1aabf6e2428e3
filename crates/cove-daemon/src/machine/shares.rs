//! Host folders in a machine that runs: given to its file server, then mounted in its guest, each at its own path.
//!
//! ```text
//!  settings ─▶ wanted ─┬─ Machine::add_share ─▶ Call::MountShare ─────▶ served: containers may mount it
//!                      └─ Call::UnmountShare ─▶ Machine::remove_share ▶ gone
//! ```
//!
//! Who shares what is remembered by the machine process and by the guest. Everything here may be done twice, so that
//! a daemon that takes over a machine, or a guest that restarted, comes to the same by doing it again.

use super::{
    agent::{AgentLink, CallError},
    failure::chain,
};
use crate::settings::Share;
use cove_machine::{Machine, MachineError};
use cove_wire::Call;
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// How long the machine process may take for one folder. One on a server that is away takes for ever.
const FOLDER: Duration = Duration::from_secs(5);

/// Digits of a share's name, each of four bits of its hash.
const NAME_LENGTH: usize = 32;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The folders that the guest has.
    pub(super) served: Vec<Share>,
    /// The others, and those that it could not be rid of.
    pub(super) failures: Vec<FailedShare>,
}

/// A folder that is not shared as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedShare {
    /// The folder.
    pub(crate) path: PathBuf,
    /// Whether it is to be shared, and not to be taken away.
    pub(crate) wanted: bool,
    /// What went wrong.
    pub(crate) why: String,
}

impl FailedShare {
    /// As one notice.
    pub(super) fn notice(failures: &[Self]) -> String {
        let sentences = failures.iter().map(|Self { path, wanted, why }| {
            let state = if *wanted {
                "is not shared"
            } else {
                "is still shared"
            };
            format!("`{}` {state}: {why}", path.display())
        });
        sentences.collect::<Vec<_>>().join("; ")
    }
}

/// Brings a machine and its guest to share `wanted` and nothing else. `patience` is for each call of the agent. An
/// error means that it did not answer, which says nothing of any folder: it may be tried again.
pub(super) async fn apply(
    machine: &dyn Machine,
    link: &AgentLink,
    wanted: &[Share],
    patience: Duration,
) -> Result<Outcome, CallError> {
    let mut outcome = Outcome::default();
    if !machine.features().shares {
        return Ok(outcome);
    }
    let mut wanted: Vec<cove_machine::Share> = wanted.iter().map(for_machine).collect();
    // Outer folders first: what lies within is mounted over them.
    wanted.sort_by(|a, b| a.path.cmp(&b.path));
    for stale in machine.shares() {
        if wanted.contains(&stale) {
            continue;
        }
        if let Err(why) = withdraw(machine, link, &stale, patience).await? {
            let (path, wanted) = (stale.path, false);
            outcome.failures.push(FailedShare { path, wanted, why });
        }
    }
    for share in wanted {
        match provide(machine, link, &share, patience).await? {
            Ok(()) => outcome.served.push(for_settings(share)),
            Err(why) => {
                let (path, wanted) = (share.path, true);
                outcome.failures.push(FailedShare { path, wanted, why });
            }
        }
    }
    Ok(outcome)
}

/// The folders that a machine was given before, by an earlier daemon.
pub(super) fn given(machine: &dyn Machine) -> Vec<Share> {
    machine.shares().into_iter().map(for_settings).collect()
}

async fn provide(
    machine: &dyn Machine,
    link: &AgentLink,
    share: &cove_machine::Share,
    patience: Duration,
) -> Result<Result<(), String>, CallError> {
    if let Err(why) = bounded(machine.add_share(share)).await {
        return Ok(Err(why));
    }
    let call = Call::MountShare {
        name: share.name.clone(),
        path: text(&share.path),
    };
    told(link, call, patience).await
}

async fn withdraw(
    machine: &dyn Machine,
    link: &AgentLink,
    share: &cove_machine::Share,
    patience: Duration,
) -> Result<Result<(), String>, CallError> {
    let path = text(&share.path);
    let unmounted = told(link, Call::UnmountShare { path }, patience).await?;
    // Whatever the guest did about it, it loses the folder.
    Ok(bounded(machine.remove_share(&share.name)).await.and(unmounted))
}

async fn told(link: &AgentLink, call: Call, patience: Duration) -> Result<Result<(), String>, CallError> {
    match link.call(call, patience).await {
        Ok(_) => Ok(Ok(())),
        Err(CallError::Fault(fault)) => Ok(Err(CallError::Fault(fault).to_string())),
        Err(unanswered @ (CallError::Lost | CallError::Timeout(_))) => Err(unanswered),
    }
}

async fn bounded(call: impl Future<Output = Result<(), MachineError>>) -> Result<(), String> {
    match timeout(FOLDER, call).await {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(_) => Err(format!("it does not answer within {} seconds", FOLDER.as_secs())),
    }
}

/// Paths of shares come from a settings file, and so are text.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn for_machine(share: &Share) -> cove_machine::Share {
    cove_machine::Share {
        name: name(share),
        path: share.path.clone(),
        read_only: share.read_only,
    }
}

fn for_settings(share: cove_machine::Share) -> Share {
    Share {
        path: share.path,
        read_only: share.read_only,
    }
}

/// A name that fits into one component of a path, the same for the same share in every daemon, and another one when
/// the share is to be served in another way.
fn name(share: &Share) -> String {
    let mut hash = Sha256::new();
    hash.update([u8::from(share.read_only)]);
    hash.update(share.path.as_os_str().as_encoded_bytes());
    let mut name = format!("{:x}", hash.finalize());
    name.truncate(NAME_LENGTH);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_shares_apart_by_path_and_access_and_is_short() {
        let share = |path: &str, read_only| Share {
            path: path.into(),
            read_only,
        };
        let names = [share("/a", false), share("/a", true), share("/b", false)].map(|share| name(&share));
        assert!(names[0] != names[1] && names[0] != names[2]);
        assert_eq!(names[0], name(&share("/a", false)));
        assert!(names.iter().all(|name| name.len() == 32));
    }
}
