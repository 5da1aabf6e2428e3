//! A machine's engine, as the gateway sees it.

use super::{
    Handle,
    agent::{OpenError, open_stream},
    engine_api::ask_engine,
};
use crate::{
    gateway::{Engine, HostPaths, MountPolicy, Unavailable},
    settings::Proxy,
};
use async_trait::async_trait;
use cove_api::{MachineState, hint_for};
use cove_machine::Connection;
use cove_wire::Open;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, timeout};

/// How long a machine that is said to run may not be reachable.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between attempts.
const RETRY: Duration = Duration::from_millis(200);

/// The engine of the machine behind a handle.
pub(crate) struct MachineEngine {
    handle: Handle,
    /// Its clients are on the host.
    on_host: bool,
}

impl MachineEngine {
    /// As clients on the host have it.
    pub(crate) fn for_host(handle: Handle) -> Self {
        Self {
            handle,
            on_host: true,
        }
    }

    /// As clients in the guest itself have it.
    pub(crate) fn for_guest(handle: Handle) -> Self {
        Self {
            handle,
            on_host: false,
        }
    }
}

#[async_trait]
impl Engine for MachineEngine {
    async fn connect(&self) -> Result<Connection, Unavailable> {
        let name = self.handle.name();
        let unavailable =
            |message: String, hint: &str| Unavailable::new(message, hint_for(name.as_str(), hint));
        let mut snapshots = self.handle.watch();
        let give_up = Instant::now() + TIMEOUT;
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            match (&snapshot.state, &snapshot.machine) {
                (MachineState::Running, Some(machine)) => {
                    let error = match open_stream(&**machine, &Open::Engine).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => error,
                    };
                    // A guest that restarts itself is gone before that is known, and comes back.
                    let unknown = Instant::now() < give_up && !matches!(error, OpenError::Fault(_));
                    if unknown {
                        let _ = timeout(RETRY, snapshots.changed()).await;
                    } else if !snapshots.has_changed().unwrap_or(false) {
                        return Err(unavailable(
                            format!("the engine of machine `{name}` cannot be reached: {error}"),
                            "`cove status` shows how the machine is",
                        ));
                    }
                }
                (MachineState::Starting { .. } | MachineState::Running, _) => {
                    if snapshots.changed().await.is_err() {
                        return Err(ending());
                    }
                }
                // A restart: what is asked meanwhile waits for its start, as for any other.
                (MachineState::Stopping | MachineState::Stopped, _) if snapshot.start_follows => {
                    if snapshots.changed().await.is_err() {
                        return Err(ending());
                    }
                }
                (MachineState::Stopped, _) => {
                    return Err(unavailable(
                        format!("machine `{name}` is stopped"),
                        "start it with: cove start",
                    ));
                }
                (MachineState::Paused, _) => {
                    return Err(unavailable(
                        format!("machine `{name}` is paused"),
                        "let it go on with: cove start; `cove status` says why if nobody paused it",
                    ));
                }
                (MachineState::Stopping, _) => {
                    return Err(unavailable(
                        format!("machine `{name}` is stopping"),
                        "start it again with: cove start",
                    ));
                }
                (MachineState::Failed { error, .. }, _) => {
                    return Err(unavailable(
                        format!("machine `{name}` has failed: {}", error.message),
                        &error.hint,
                    ));
                }
            }
        }
    }

    fn mounts(&self) -> MountPolicy {
        let handle = &self.handle;
        let snapshot = handle.snapshot();
        let shares = match snapshot.state {
            // A share counts once the guest has it: an empty folder in its place would be worse than a refusal.
            MachineState::Running | MachineState::Paused => snapshot.shares.clone(),
            // The request waits for the machine, or fails with it.
            _ => {
                let settings = &handle.context.settings;
                settings.shares().unwrap_or_else(|| snapshot.given_shares())
            }
        };
        MountPolicy {
            machine: handle.name().to_string(),
            shares: shares.into_iter().map(|share| share.path).collect(),
            socket: handle.context.dirs.docker_socket(handle.name().as_str()),
            host: HostPaths::NATIVE,
            on_host: self.on_host,
        }
    }

    async fn container(&self, name: &str) -> Option<Value> {
        let machine = self.handle.snapshot().machine.clone()?;
        ask_engine(&*machine, &format!("/containers/{name}/json")).await
    }

    fn variables_of_containers(&self) -> BTreeMap<String, String> {
        let values = self.handle.context.settings.in_force().0;
        values.container_variables(&Proxy::from_environment())
    }

    fn variables_of_builds(&self) -> BTreeMap<String, String> {
        let values = self.handle.context.settings.in_force().0;
        values.proxies(&Proxy::from_environment()).variables()
    }
}

fn ending() -> Unavailable {
    Unavailable::new("the Cove daemon is ending", "try again")
}
