//! Which backend runs the machines of this computer, and why.

use crate::{Availability, Backend, BackendKind};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc};

/// Which backend the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// The fastest that this computer can run.
    #[default]
    Auto,
    /// Hardware virtualisation or nothing.
    Kvm,
    /// Emulation, even where hardware virtualisation would do.
    Emulated,
}

/// The backend that was chosen.
#[derive(Clone)]
pub struct Choice {
    /// The backend. It may be unavailable, in which case starting a machine fails and says why.
    pub backend: Arc<dyn Backend>,
    /// Why this one, in a sentence for `cove status` and `cove doctor`.
    pub reason: String,
    /// Everything that was looked at, the fastest first.
    pub considered: Vec<(BackendKind, Availability)>,
}

/// Chooses the backend for this computer. `program` is the executable that has the hidden subcommand
/// `machine-process`; the running one when absent. Takes milliseconds.
pub fn choose(preference: Preference, program: Option<PathBuf>) -> Choice {
    choose_from(preference, &backends(program))
}

/// The backends of this platform, the fastest first. The last one is emulation.
fn backends(program: Option<PathBuf>) -> Vec<Arc<dyn Backend>> {
    #[cfg(target_os = "linux")]
    {
        vec![
            Arc::new(crate::kvm::Kvm::new(program.clone())),
            Arc::new(crate::emulated::Emulated::new(program)),
        ]
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = program;
        vec![
            #[cfg(target_os = "macos")]
            Arc::new(crate::absent::Absent::VZ),
            #[cfg(windows)]
            Arc::new(crate::absent::Absent::HYPER_V),
            Arc::new(crate::absent::Absent::EMULATED),
        ]
    }
}

fn choose_from(preference: Preference, backends: &[Arc<dyn Backend>]) -> Choice {
    let considered: Vec<_> = backends
        .iter()
        .map(|backend| (backend.kind(), backend.probe()))
        .collect();
    let named = match preference {
        Preference::Auto => None,
        Preference::Kvm => Some(BackendKind::Kvm),
        Preference::Emulated => Some(BackendKind::Emulated),
    };
    let by_name = named.and_then(|kind| considered.iter().position(|(considered, _)| *considered == kind));
    let first_available = considered
        .iter()
        .position(|(_, availability)| matches!(availability, Availability::Available { .. }));
    // With nothing available, emulation is the one whose absence a person can do something about.
    let index = by_name.or(first_available).unwrap_or(considered.len() - 1);
    let (kind, availability) = &considered[index];
    let reason = match (availability, named) {
        (Availability::Unavailable { why, .. }, _) => format!("{kind} machines cannot run here: {why}"),
        (Availability::Available { evidence, .. }, Some(wanted)) if wanted == *kind => {
            format!("{kind} ({evidence}), as the settings ask for")
        }
        (Availability::Available { evidence, .. }, _) => {
            let passed: Vec<_> = considered[..index]
                .iter()
                .filter_map(|(_, availability)| match availability {
                    Availability::Unavailable { why, .. } => Some(why.as_str()),
                    Availability::Available { .. } => None,
                })
                .collect();
            if passed.is_empty() {
                format!("{kind} ({evidence})")
            } else {
                format!("{kind} ({evidence}), because {}", passed.join("; "))
            }
        }
    };
    Choice {
        backend: Arc::clone(&backends[index]),
        reason,
        considered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Features, Machine, MachineError, MachineSpec};

    struct Fake(BackendKind, Result<&'static str, &'static str>);

    #[async_trait::async_trait]
    impl Backend for Fake {
        fn kind(&self) -> BackendKind {
            self.0
        }
        fn probe(&self) -> Availability {
            match self.1 {
                Ok(evidence) => Availability::available(evidence),
                Err(why) => Availability::unavailable(why, ""),
            }
        }
        fn features(&self) -> Features {
            Features::default()
        }
        async fn start(&self, _: &MachineSpec) -> Result<Box<dyn Machine>, MachineError> {
            Err(MachineError::Ended)
        }
        async fn adopt(&self, _: &MachineSpec) -> Result<Option<Box<dyn Machine>>, MachineError> {
            Ok(None)
        }
    }

    fn pair(kvm: Result<&'static str, &'static str>) -> Vec<Arc<dyn Backend>> {
        vec![
            Arc::new(Fake(BackendKind::Kvm, kvm)),
            Arc::new(Fake(BackendKind::Emulated, Ok("QEMU 10.0.2"))),
        ]
    }

    #[test]
    fn auto_takes_the_fastest_that_is_available() {
        let choice = choose_from(Preference::Auto, &pair(Ok("SVM")));
        assert_eq!(choice.backend.kind(), BackendKind::Kvm);
        assert_eq!(choice.reason, "kvm (SVM)");
        assert_eq!(choice.considered.len(), 2);
    }

    #[test]
    fn auto_says_why_it_emulates() {
        let choice = choose_from(Preference::Auto, &pair(Err("there is no /dev/kvm")));
        assert_eq!(choice.backend.kind(), BackendKind::Emulated);
        assert_eq!(
            choice.reason,
            "emulated (QEMU 10.0.2), because there is no /dev/kvm"
        );
    }

    #[test]
    fn a_backend_asked_for_by_name_is_not_replaced() {
        let choice = choose_from(Preference::Kvm, &pair(Err("there is no /dev/kvm")));
        assert_eq!(choice.backend.kind(), BackendKind::Kvm);
        assert!(choice.reason.contains("cannot run here: there is no /dev/kvm"));
        let choice = choose_from(Preference::Emulated, &pair(Ok("SVM")));
        assert_eq!(choice.backend.kind(), BackendKind::Emulated);
    }
}
