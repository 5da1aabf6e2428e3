//! The daemon as this command finds it; what finds and starts it is [`cove_api::launch`], shared with the window.

use anyhow::Context as _;
use cove_api::{Client, Dirs, LaunchError, launch};

pub(crate) use cove_api::launch::{running, running_within};

/// Whether a machine process has outlived its daemon: then the machine runs although no daemon does.
pub(crate) async fn machine_outlived_daemon(dirs: &Dirs, machine: &str) -> bool {
    let control = dirs.machine_runtime(machine).join("control.sock");
    cove_api::transport::connect(&control).await.is_ok()
}

/// A client of the daemon, which is started if it does not run yet: it is this very program. `starting` is called
/// before that.
pub(crate) async fn ensure(dirs: &Dirs, starting: impl FnOnce()) -> anyhow::Result<Client> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    launch::ensure(dirs, &program, starting)
        .await
        .map_err(|error| match error {
            // What the daemon itself says has an exit code of its own.
            LaunchError::Client(error) => error.into(),
            error => error.into(),
        })
}
