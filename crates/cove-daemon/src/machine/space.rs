//! What a machine uses, and how the space that its data disk takes on the host comes back: the guest discards what it
//! does not use any more. It does so by itself as files go; what was missed, such as while it ended, stays until it is
//! asked.

use super::{Command, Handle, agent::CallError};
use crate::host;
use cove_api::{ApiError, CpuTime, ErrorCode, Event, MachineUsage, Reclaimed};
use cove_wire::{Call, Reply};
use std::time::Duration;

/// How long the agent may take to say how it is.
const SHORT: Duration = Duration::from_secs(10);
/// How long it may take to discard what is unused of a large disk, where it is emulated.
const LONG: Duration = Duration::from_mins(10);

impl Handle {
    /// What the data disk takes on the host, and the guest uses of it, of its memory and of its processors.
    pub(crate) async fn usage(&self) -> Result<MachineUsage, ApiError> {
        match self.ask_agent(Call::Status, SHORT).await? {
            Reply::Status(status) => Ok(MachineUsage {
                disk_on_host: self.disk_on_host(),
                disk_used: status.data_used,
                memory_used: status.memory.total.saturating_sub(status.memory.available),
                cpu: status.cpu.map(|time| CpuTime {
                    busy: time.busy,
                    all: time.all,
                }),
            }),
            Reply::Done | Reply::Trimmed { .. } => Err(nonsense()),
        }
    }

    /// Has the guest discard what it does not use, so that the host has it back.
    pub(crate) async fn reclaim(&self) -> Result<Reclaimed, ApiError> {
        let before = self.disk_on_host();
        match self.ask_agent(Call::TrimData, LONG).await? {
            Reply::Trimmed { .. } => {}
            Reply::Done | Reply::Status(_) => return Err(nonsense()),
        }
        let after = self.disk_on_host();
        tracing::info!(before, after, "the guest discarded what it does not use");
        // Whoever follows the machine shows what it took before.
        self.context.emit(Event::Machine {
            status: Box::new(self.status()),
        });
        Ok(Reclaimed { before, after })
    }

    fn disk_on_host(&self) -> u64 {
        host::allocated(&self.place.data_disk())
    }

    async fn ask_agent(&self, call: Call, patience: Duration) -> Result<Reply, ApiError> {
        let link = self.ask(Command::Agent).await??;
        link.call(call, patience).await.map_err(|error| {
            let code = match error {
                CallError::Fault(_) | CallError::Lost => ErrorCode::MachineFailed,
                CallError::Timeout(_) => ErrorCode::Timeout,
            };
            ApiError::new(code, error.to_string(), "`cove logs agent` says more")
        })
    }
}

fn nonsense() -> ApiError {
    ApiError::new(
        ErrorCode::MachineFailed,
        "the guest's agent gave an answer to another question",
        "restart the machine",
    )
}
