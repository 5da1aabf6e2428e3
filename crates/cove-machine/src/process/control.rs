//! The machine process's end of the control socket: daemons connect, ask, and are told what happens.

use super::{
    folders::Folders,
    protocol::{self, Call, Hello, Line, Order, Reply, Request, Said, Vcpus},
};
use crate::MachineEvent;
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc, oneshot, watch},
};

/// Requests of one connection that may be unanswered; further ones wait in the socket.
const MAX_IN_FLIGHT: usize = 16;

/// An order, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What is asked.
    pub(crate) order: Order,
    /// Takes the answer. Dropped, it tells that the machine is ending.
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// Answers a request.
pub(crate) fn reply(answer: oneshot::Sender<Result<(), String>>, result: Result<(), String>) {
    // The connection may have ended, and then nobody waits.
    let _ = answer.send(result);
}

/// Where the owner of the machine's state tells what happens.
#[derive(Debug)]
pub(crate) struct Audience {
    /// Whether the vCPUs run.
    pub(crate) vcpus: watch::Sender<Vcpus>,
    /// What happens, except for the end.
    pub(crate) events: broadcast::Sender<MachineEvent>,
}

impl Audience {
    /// Tells everybody who listens.
    pub(crate) fn tell(&self, event: MachineEvent) {
        self.vcpus.send_replace(Vcpus::after(&event));
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

/// What connections need of the machine.
#[derive(Debug)]
pub(crate) struct Desk {
    /// The greeting, as it was when the machine started.
    pub(crate) hello: Hello,
    /// Whether the vCPUs run.
    pub(crate) vcpus: watch::Receiver<Vcpus>,
    /// What happens.
    pub(crate) events: broadcast::Sender<MachineEvent>,
    /// Takes requests to whoever owns the machine's state.
    pub(crate) requests: mpsc::Sender<Asked>,
    /// What the guest may reach of the host, which is no part of the machine's state.
    pub(crate) folders: Arc<Folders>,
}

/// Serves every connection until the future is dropped.
pub(crate) async fn serve(listener: UnixListener, desk: Desk) {
    let desk = Arc::new(desk);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    if let Err(why) = converse(stream, &desk).await {
                        tracing::debug!(%why, "a control connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back when connections end.
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, desk: &Desk) -> Result<(), String> {
    // Before the greeting is made, so that nothing happens between the two unnoticed.
    let mut events = desk.events.subscribe();
    let mut line = protocol::line(stream);
    let vcpus = *desk.vcpus.borrow();
    let hello = Hello {
        paused: vcpus != Vcpus::Running,
        held: vcpus == Vcpus::Held,
        shares: desk.folders.list(),
        ..desk.hello.clone()
    };
    send(&mut line, protocol::encode(&hello)).await?;
    let (answered, mut answers) = mpsc::channel(MAX_IN_FLIGHT);
    loop {
        tokio::select! {
            call = line.next(), if answered.capacity() > 0 => match call {
                None => return Ok(()),
                Some(call) => forward(&call.map_err(|error| error.to_string())?, desk, &answered).await?,
            },
            Some(said) = answers.recv() => send(&mut line, protocol::encode(&said)).await?,
            event = events.recv() => {
                let event = event.map_err(|error| error.to_string())?;
                send(&mut line, protocol::encode(&Said::Event(event))).await?;
            }
        }
    }
}

/// Takes a request to the machine's owner, and its answer to `answered` once there is one.
async fn forward(call: &str, desk: &Desk, answered: &mpsc::Sender<Said>) -> Result<(), String> {
    let Call { id, request } = protocol::decode(call)?;
    let permit = answered
        .clone()
        .reserve_owned()
        .await
        .map_err(|error| error.to_string())?;
    let (answer, result) = oneshot::channel();
    match request {
        // Opening a folder can take long where it lies on a server that is away.
        Request::AddShare(share) => {
            let folders = Arc::clone(&desk.folders);
            tokio::spawn(async move { answer.send(folders.add(share).await) });
        }
        Request::RemoveShare { name } => {
            let folders = Arc::clone(&desk.folders);
            tokio::spawn(async move { answer.send(folders.remove(name).await) });
        }
        Request::FolderHealth => {
            let folders = Arc::clone(&desk.folders);
            tokio::spawn(async move {
                let result = folders.health().await.map(Reply::Folders);
                permit.send(Said::Answer { id, result });
            });
            return Ok(());
        }
        Request::Machine(order) => {
            let asked = Asked { order, answer };
            desk.requests
                .send(asked)
                .await
                .map_err(|error| error.to_string())?;
        }
    }
    tokio::spawn(async move {
        // Without an answer, the machine is ending, which the connection tells by its own end.
        if let Ok(result) = result.await {
            let result = result.map(|()| Reply::Done);
            permit.send(Said::Answer { id, result });
        }
    });
    Ok(())
}

async fn send(line: &mut Line, text: String) -> Result<(), String> {
    line.send(text).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BackendKind, Features,
        process::cell::{client::Handle, inside, words},
    };

    struct Machine {
        line: Line,
        requests: mpsc::Receiver<Asked>,
        events: broadcast::Sender<MachineEvent>,
    }

    async fn machine() -> Machine {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (requests_sender, requests) = mpsc::channel(1);
        let (events, _) = broadcast::channel(4);
        let (_, vcpus) = watch::channel(Vcpus::Held);
        let desk = Desk {
            hello: Hello {
                version: protocol::VERSION,
                processes: vec![1, 2],
                backend: BackendKind::Emulated,
                features: Features::default(),
                notices: Vec::new(),
                confinement: Vec::new(),
                paused: false,
                held: false,
                shares: Vec::new(),
            },
            vcpus,
            events: events.clone(),
            requests: requests_sender,
            folders: Arc::new(folders()),
        };
        tokio::spawn(async move { converse(theirs, &desk).await });
        let mut line = protocol::line(ours);
        let hello: Hello = protocol::decode(&line.next().await.unwrap().unwrap()).unwrap();
        assert!(
            hello.paused && hello.held,
            "the greeting tells the present state, and why"
        );
        Machine {
            line,
            requests,
            events,
        }
    }

    /// Folders with a cell that is not confined, and so has no slots.
    fn folders() -> Folders {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(inside::unconfined(theirs));
        Folders::new(Handle::to(words::line(ours)).0, None)
    }

    async fn said(line: &mut Line) -> Option<Said> {
        line.next()
            .await
            .map(|text| protocol::decode(&text.unwrap()).unwrap())
    }

    #[tokio::test]
    async fn answers_come_as_they_are_ready_and_events_in_between() {
        let mut machine = machine().await;
        for (id, order) in [(1, Order::Pause), (2, Order::Kill)] {
            let request = Request::Machine(order);
            let call = protocol::encode(&Call { id, request });
            machine.line.send(call).await.unwrap();
        }
        let pause = machine.requests.recv().await.unwrap();
        let kill = machine.requests.recv().await.unwrap();
        assert_eq!((pause.order, kill.order), (Order::Pause, Order::Kill));
        kill.answer.send(Ok(())).unwrap();
        assert_eq!(
            said(&mut machine.line).await,
            Some(Said::Answer {
                id: 2,
                result: Ok(Reply::Done)
            })
        );
        machine.events.send(MachineEvent::Rebooted).unwrap();
        assert_eq!(
            said(&mut machine.line).await,
            Some(Said::Event(MachineEvent::Rebooted))
        );
        pause.answer.send(Err("busy".into())).unwrap();
        assert!(matches!(
            said(&mut machine.line).await,
            Some(Said::Answer {
                id: 1,
                result: Err(_)
            })
        ));
    }

    #[tokio::test]
    async fn folders_are_shared_and_taken_away_without_the_machines_owner() {
        let mut machine = machine().await;
        let folder = tempfile::tempdir().unwrap();
        let share = |path: &std::path::Path| {
            Request::AddShare(crate::Share {
                name: "s".into(),
                path: path.into(),
                read_only: false,
            })
        };
        let requests = [
            (share(folder.path()), true),
            (share(folder.path()), true),
            // The name is taken.
            (share("/".as_ref()), false),
            (Request::RemoveShare { name: "s".into() }, true),
            (Request::RemoveShare { name: "s".into() }, true),
            (share(&folder.path().join("missing")), false),
        ];
        for (id, (request, works)) in (0..).zip(requests) {
            let call = protocol::encode(&Call { id, request });
            machine.line.send(call).await.unwrap();
            let Some(Said::Answer { id: answered, result }) = said(&mut machine.line).await else {
                panic!("no answer");
            };
            assert_eq!((answered, result.is_ok()), (id, works), "{result:?}");
        }
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection() {
        let mut machine = machine().await;
        machine.line.send("{\"id\":true}".to_owned()).await.unwrap();
        assert_eq!(said(&mut machine.line).await, None);
    }
}
