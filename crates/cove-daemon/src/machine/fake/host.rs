//! The host: a backend, and the machines that it starts.

use super::{Crash, Guest, Script};
use crate::{machine::Platform, settings};
use async_trait::async_trait;
use cove_machine::{
    Availability, Backend, BackendKind, Choice, Connection, Disk, Exit, ExitCause, Features, Listener,
    Machine, MachineError, MachineEvent, MachineSpec, Share,
};
use cove_wire::port;
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::UnixStream, sync::broadcast, time::timeout};

/// A host that runs at most one guest at a time, as its lock would have it.
#[derive(Clone)]
pub(crate) struct FakeHost {
    pub(crate) script: Arc<Mutex<Script>>,
    guest: Arc<Mutex<Option<Arc<Guest>>>>,
    /// How often it was to start one.
    starts: Arc<AtomicUsize>,
}

impl FakeHost {
    pub(super) fn new(script: Script) -> Self {
        Self {
            script: Arc::new(Mutex::new(script)),
            guest: Arc::default(),
            starts: Arc::default(),
        }
    }

    /// The guest that was started last.
    pub(crate) fn guest(&self) -> Arc<Guest> {
        self.guest.lock().unwrap().clone().expect("no guest was started")
    }

    /// The machine of the guest that was started last.
    pub(crate) fn machine(&self) -> impl Machine + use<> {
        FakeMachine(self.guest())
    }

    /// How often it was to start a guest.
    pub(crate) fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    fn running(&self) -> Option<Arc<Guest>> {
        let guest = self.guest.lock().unwrap().clone();
        guest.filter(|guest| guest.exit.borrow().is_none())
    }
}

impl Platform for FakeHost {
    fn choose(&self, _: settings::Backend) -> Choice {
        Choice {
            backend: Arc::new(self.clone()),
            reason: "for a test".into(),
            considered: vec![(BackendKind::Emulated, self.probe())],
        }
    }
    fn backend(&self, _: BackendKind) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Backend for FakeHost {
    fn kind(&self) -> BackendKind {
        BackendKind::Emulated
    }
    fn probe(&self) -> Availability {
        Availability::available("a test")
    }
    fn features(&self) -> Features {
        Features::default()
    }
    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, MachineError> {
        if self.running().is_some() {
            return Err(MachineError::Locked {
                directory: spec.directory.clone(),
            });
        }
        self.starts.fetch_add(1, Ordering::SeqCst);
        let (script, crash) = {
            let mut script = self.script.lock().unwrap();
            let crash = (!script.crashes.is_empty()).then(|| script.crashes.remove(0));
            (script.clone(), crash)
        };
        if let Some(Crash::AtOnce) = crash {
            let why = format!("QEMU ended ({}): {}", Crash::STATUS, Crash::SAID);
            return Err(MachineError::Crashed { why });
        }
        let guest = Guest::new(&spec.directory, script);
        if let Some(Crash::Soon) = crash {
            guest.end(Crash::cause());
        }
        *self.guest.lock().unwrap() = Some(Arc::clone(&guest));
        Ok(Box::new(FakeMachine(guest)))
    }
    async fn adopt(&self, spec: &MachineSpec) -> Result<Option<Box<dyn Machine>>, MachineError> {
        let running = self.running().filter(|guest| guest.directory == spec.directory);
        if running.as_ref().is_some_and(|guest| guest.script().foreign) {
            return Err(MachineError::Foreign {
                why: "process 4711".into(),
            });
        }
        Ok(running.map(|guest| Box::new(FakeMachine(guest)) as Box<dyn Machine>))
    }
    async fn evict(&self, _: &Path, _: &Path) -> Result<(), MachineError> {
        self.running().map_or(Ok(()), |guest| {
            guest.end(ExitCause::Killed);
            Ok(())
        })
    }
    fn last_exit(&self, _: &MachineSpec) -> Option<Exit> {
        self.guest.lock().unwrap().as_ref()?.exit.borrow().clone()
    }
}

struct FakeMachine(Arc<Guest>);

#[async_trait]
impl Machine for FakeMachine {
    fn kind(&self) -> BackendKind {
        BackendKind::Emulated
    }
    fn features(&self) -> Features {
        Features {
            pause: true,
            online_grow: true,
            shares: true,
            ..Features::default()
        }
    }
    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }
    fn notices(&self) -> Vec<String> {
        vec!["one virtual CPU only".into()]
    }
    fn paused(&self) -> bool {
        *self.0.paused.lock().unwrap()
    }
    fn held(&self) -> bool {
        self.0.held.load(Ordering::SeqCst)
    }
    async fn pause(&self) -> Result<(), MachineError> {
        *self.0.paused.lock().unwrap() = true;
        self.0.held.store(false, Ordering::SeqCst);
        Ok(())
    }
    async fn resume(&self) -> Result<(), MachineError> {
        if self.0.stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        *self.0.paused.lock().unwrap() = false;
        self.0.held.store(false, Ordering::SeqCst);
        Ok(())
    }
    async fn stop(&self, grace: Duration) -> Result<Exit, MachineError> {
        match timeout(grace, self.wait()).await {
            Ok(exit) => Ok(exit),
            Err(_) => self.kill().await,
        }
    }
    async fn kill(&self) -> Result<Exit, MachineError> {
        self.0.end(ExitCause::Killed);
        Ok(self.wait().await)
    }
    async fn grow_disk(&self, _: Disk, _: u64) -> Result<(), MachineError> {
        Ok(())
    }
    fn shares(&self) -> Vec<Share> {
        self.0.shares.lock().unwrap().clone()
    }
    async fn add_share(&self, share: &Share) -> Result<(), MachineError> {
        let mut shares = self.0.shares.lock().unwrap();
        shares.retain(|other| other.name != share.name);
        shares.push(share.clone());
        Ok(())
    }
    async fn remove_share(&self, name: &str) -> Result<(), MachineError> {
        self.0.shares.lock().unwrap().retain(|share| share.name != name);
        Ok(())
    }
    fn console(&self) -> &Path {
        Path::new("/nonexistent")
    }
    async fn connect(&self, port: u32) -> Result<Connection, MachineError> {
        if self.0.exit.borrow().is_some() {
            return Err(MachineError::Ended);
        }
        {
            let mut script = self.0.script.lock().unwrap();
            if script.refusals > 0 {
                script.refusals -= 1;
                return Err(MachineError::Refused { port });
            }
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guest = Arc::clone(&self.0);
        match port {
            port::CONTROL => drop(tokio::spawn(guest.agent(theirs))),
            _ => drop(tokio::spawn(guest.stream(theirs))),
        }
        Ok(ours.into())
    }
    async fn listen(&self, _: u32) -> Result<Listener, MachineError> {
        Err(MachineError::Ended)
    }
    fn events(&self) -> broadcast::Receiver<MachineEvent> {
        self.0.machine_events.subscribe()
    }
    async fn wait(&self) -> Exit {
        let mut exit = self.0.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.unwrap();
        ended.clone().unwrap()
    }
}
