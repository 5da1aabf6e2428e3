//! The API over a real socket, asked by the real client.

mod daemon;
mod machines;
mod requests;
mod settings;
mod streams;

use super::{Server, serve};
use crate::{
    instance::Instance,
    machine::{
        Context,
        fake::{Fixture, Script},
    },
    machines::Machines,
};
use cove_api::{Client, ClientError, ErrorCode, MachineState};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(20);

/// A daemon without its process.
struct Daemon {
    fixture: Fixture,
    machines: Arc<Machines>,
    client: Client,
    end: CancellationToken,
}

impl Daemon {
    fn begin() -> Self {
        Self::over(Fixture::new(Script::default()))
    }

    fn over(fixture: Fixture) -> Self {
        let context: Arc<Context> = Arc::clone(&fixture.context);
        let instance = Instance::claim(&context.dirs).unwrap();
        let machines = Arc::new(Machines::open(Arc::clone(&context), instance).unwrap());
        let listener = machines.listen_for_clients().unwrap();
        let end = CancellationToken::new();
        let server = Arc::new(Server {
            context: Arc::clone(&context),
            machines: Arc::clone(&machines),
            web_port: tokio::sync::watch::channel(None).1,
            end: end.clone(),
        });
        tokio::spawn(serve(listener, server, end.clone()));
        Self {
            client: Client::of(&context.dirs),
            fixture,
            machines,
            end,
        }
    }

    async fn start(&self) {
        let progress = self.client.start("default").await.unwrap();
        let status = timeout(LONG, progress.finish(|_| {})).await.unwrap().unwrap();
        assert_eq!(status.state, MachineState::Running);
    }

    fn settings_path(&self) -> std::path::PathBuf {
        self.fixture.context.dirs.settings()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    let error = result.unwrap_err();
    error.code().unwrap_or_else(|| panic!("{error:?}"))
}
