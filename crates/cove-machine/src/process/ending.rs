//! The end of a machine whose process is told to end, as a system that shuts down tells every process of a session.
//!
//! ```text
//!  SIGTERM ──▶ the guest is asked to stop containers, engine and itself ──▶ it powers off, and the machine ends
//!                 │ it cannot be asked, it takes too long, or SIGTERM comes again
//!                 └─────────────────────────────────────────────────────▶ Order::Kill
//! ```
//!
//! The daemon is told at the same time and may be gone, so that the machine process asks the agent itself, on a control
//! connection of its own. What it has started, the cell and QEMU among them, leaves these signals to it
//! ([`super::spawn`]): the guest keeps its processors, its devices and its network until it has ended.
//!
//! Whoever wants the machine to end at once says so on the control socket ([`Order::Kill`]) or kills the process.

use super::{
    ansi,
    control::Asked,
    protocol::{Order, Vcpus},
};
use crate::{Connection, MachineError, sockets};
use cove_wire::{
    Call, Codec, FaultCode, FromGuest, FromHost, Hello, VersionMismatch, WireError, port, with_causes,
};
use futures_util::{SinkExt, StreamExt};
use std::{
    convert::Infallible,
    future::pending,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use tokio_util::codec::Framed;

/// How long the machine may take to end in order. systemd waits for 90 seconds, unless it is told otherwise, and then
/// kills.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How much of that its containers may take, in milliseconds. The rest is for the engine, the file systems and the
/// power-off.
const GRACE_MS: u64 = 40_000;

/// How long the agent may take to greet. An emulated guest is slow.
const GREETING: Duration = Duration::from_secs(10);

/// How often a guest that stands still on its way down is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The number of the one request.
const REQUEST: u64 = 1;

type Wire = Framed<Connection, Codec<FromGuest, FromHost>>;

/// Why the guest was not asked, or refused.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    #[error("its agent did not greet within {} seconds", GREETING.as_secs())]
    Silent,
    #[error("its agent does not begin with a greeting")]
    NoGreeting,
    #[error("its agent refuses: {0}")]
    Refused(String),
}

/// What it takes to end a machine.
#[derive(Debug)]
pub(super) struct Way {
    /// The directory of its sockets.
    pub(super) runtime: PathBuf,
    /// Whether its vCPUs run.
    pub(super) vcpus: watch::Receiver<Vcpus>,
    /// Takes orders to whoever owns its state.
    pub(super) orders: mpsc::Sender<Asked>,
}

/// Listens to SIGTERM from now on, and ends the machine when it comes. To be aborted once the machine has ended.
pub(super) fn begin(way: Way) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    // systemd sends this with SIGTERM to what belongs to a session, and by default it ends a process at once. Nobody
    // has to listen: tokio's handler stays.
    drop(signal(SignalKind::hangup())?);
    let (sender, told) = mpsc::channel(1);
    let hear = async move {
        while terminate.recv().await.is_some() {
            if sender.send(()).await.is_err() {
                return;
            }
        }
    };
    Ok(tokio::spawn(async move {
        tokio::join!(hear, obey(told, way));
    }))
}

/// Ends the machine once it is told to.
async fn obey(mut told: mpsc::Receiver<()>, way: Way) {
    if told.recv().await.is_none() {
        return;
    }
    tracing::info!("told to end: the guest is asked to stop");
    let why = tokio::select! {
        why = farewell(&way) => why,
        Some(()) = told.recv() => "told to end again".to_owned(),
    };
    tracing::warn!(why, "the machine's power is cut");
    if let Err(why) = way.order(Order::Kill).await {
        tracing::debug!(why, "there was nothing to end");
    }
}

/// Has the guest end. Its power-off is what ends the machine, so that this returns only why it is given up.
async fn farewell(way: &Way) -> String {
    let asked = async {
        let mut vcpus = way.vcpus.clone();
        // It answers nothing while it stands still. Whoever tells whether it does lives as long as the machine.
        let told = vcpus.wait_for(|vcpus| *vcpus == Vcpus::Running).await.is_ok();
        if !told {
            return pending().await;
        }
        let Err(error) = ask(&way.runtime).await else {
            return pending().await;
        };
        let why = with_causes(&error);
        format!("the guest cannot be asked: {}", ansi::plain(why.as_bytes()))
    };
    tokio::select! {
        why = asked => why,
        never = keep_going(way) => match never {},
        () = sleep(TIMEOUT) => format!("the guest did not end within {} seconds", TIMEOUT.as_secs()),
    }
}

/// Lets a guest go on that stands still, on request or since the host has no space for what it writes: what it has not
/// written would be lost.
async fn keep_going(way: &Way) -> Infallible {
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        let now = *way.vcpus.borrow();
        if now != Vcpus::Running
            && let Err(why) = way.order(Order::Resume).await
        {
            tracing::debug!(why, "the guest does not go on");
        }
    }
}

impl Way {
    /// Gives an order, and waits for what comes of it.
    async fn order(&self, order: Order) -> Result<(), String> {
        let gone = || "the machine has ended".to_owned();
        let (answer, result) = oneshot::channel();
        self.orders
            .send(Asked { order, answer })
            .await
            .map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

/// Asks the agent to stop containers, engine and guest. Returns when the engine has stopped, or the guest is on its way
/// down anyhow.
async fn ask(runtime: &Path) -> Result<(), AskError> {
    let mut wire = timeout(GREETING, greet(runtime))
        .await
        .map_err(|_| AskError::Silent)??;
    let call = Call::Shutdown {
        grace_ms: GRACE_MS,
        reboot: false,
    };
    wire.send(FromHost::Request { id: REQUEST, call }).await?;
    while let Some(Ok(frame)) = wire.next().await {
        if let FromGuest::Response { id: REQUEST, result } = frame {
            return match result {
                Ok(_) => Ok(()),
                // Somebody else asked before.
                Err(fault) if fault.code == FaultCode::ShuttingDown => Ok(()),
                Err(fault) => Err(AskError::Refused(fault.message)),
            };
        }
    }
    // Lost to the power-off, most likely. A guest that goes on is noticed by the time that it takes.
    Ok(())
}

async fn greet(runtime: &Path) -> Result<Wire, AskError> {
    let connection = sockets::connect_to_guest(runtime, port::CONTROL).await?;
    let mut wire: Wire = Framed::new(connection, Codec::default());
    let ours = Hello::new("cove-machine");
    wire.send(FromHost::Hello(ours.clone())).await?;
    match wire.next().await.transpose()? {
        Some(FromGuest::Hello(theirs)) => ours.accept(&theirs)?,
        _ => return Err(AskError::NoGreeting),
    }
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::{Fault, Reply};
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{UnixListener, UnixStream},
        time::Instant,
    };

    const LIMIT: Duration = Duration::from_secs(20);

    /// A machine without a guest, and all that its process would hear and say.
    struct Rig {
        runtime: TempDir,
        told: mpsc::Sender<()>,
        vcpus: watch::Sender<Vcpus>,
        orders: mpsc::Receiver<Asked>,
    }

    impl Rig {
        fn new(now: Vcpus) -> Self {
            let runtime = tempfile::tempdir().unwrap();
            let (told, hears) = mpsc::channel(1);
            let (vcpus, sees) = watch::channel(now);
            let (gives, orders) = mpsc::channel(1);
            let way = Way {
                runtime: runtime.path().to_owned(),
                vcpus: sees,
                orders: gives,
            };
            tokio::spawn(obey(hears, way));
            Self {
                runtime,
                told,
                vcpus,
                orders,
            }
        }

        fn guest(&self) -> UnixListener {
            sockets::bind(&sockets::vsock(self.runtime.path())).unwrap()
        }

        async fn order(&mut self) -> Asked {
            timeout(LIMIT, self.orders.recv()).await.unwrap().unwrap()
        }
    }

    type Agent = Framed<UnixStream, Codec<FromHost, FromGuest>>;

    /// Answers as the socket device and the agent do, until a request has come.
    async fn asked(guest: &UnixListener) -> (Agent, Call) {
        let (mut stream, _) = timeout(LIMIT, guest.accept()).await.unwrap().unwrap();
        let mut line = [0; 13];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"CONNECT 1024\n");
        stream.write_all(b"OK 1073741824\n").await.unwrap();
        let mut agent: Agent = Framed::new(stream, Codec::default());
        let greeting = agent.next().await.unwrap().unwrap();
        assert_eq!(greeting, FromHost::Hello(Hello::new("cove-machine")));
        let hello = Hello::new("cove-agent");
        agent.send(FromGuest::Hello(hello)).await.unwrap();
        let FromHost::Request { id: REQUEST, call } = agent.next().await.unwrap().unwrap() else {
            panic!("no request");
        };
        (agent, call)
    }

    async fn answer(agent: &mut Agent, result: Result<Reply, Fault>) {
        let response = FromGuest::Response { id: REQUEST, result };
        agent.send(response).await.unwrap();
    }

    #[tokio::test]
    async fn a_guest_is_asked_to_stop_and_is_let_be_until_the_second_word() {
        let mut rig = Rig::new(Vcpus::Running);
        let guest = rig.guest();
        rig.told.send(()).await.unwrap();
        let (mut agent, call) = asked(&guest).await;
        let shutdown = Call::Shutdown {
            grace_ms: GRACE_MS,
            reboot: false,
        };
        assert_eq!(call, shutdown);
        answer(&mut agent, Ok(Reply::Done)).await;
        drop(agent);
        let early = timeout(Duration::from_millis(50), rig.orders.recv()).await;
        assert!(early.is_err(), "{early:?}");
        rig.told.send(()).await.unwrap();
        assert_eq!(rig.order().await.order, Order::Kill);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_end_in_time_loses_its_power() {
        let mut rig = Rig::new(Vcpus::Running);
        let guest = rig.guest();
        let begun = Instant::now();
        rig.told.send(()).await.unwrap();
        // It never answers.
        let _agent = asked(&guest).await;
        tokio::time::pause();
        let order = rig.orders.recv().await.unwrap().order;
        assert_eq!(order, Order::Kill);
        let took = begun.elapsed();
        assert!((TIMEOUT..TIMEOUT + LIMIT).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn a_guest_that_is_on_its_way_down_already_has_its_time() {
        let mut rig = Rig::new(Vcpus::Running);
        let guest = rig.guest();
        rig.told.send(()).await.unwrap();
        let (mut agent, _) = asked(&guest).await;
        let fault = Fault::new(FaultCode::ShuttingDown, "the guest is shutting down");
        answer(&mut agent, Err(fault)).await;
        let early = timeout(Duration::from_millis(50), rig.orders.recv()).await;
        assert!(early.is_err(), "{early:?}");
    }

    #[tokio::test]
    async fn a_guest_that_refuses_or_cannot_be_asked_loses_its_power_at_once() {
        let mut rig = Rig::new(Vcpus::Running);
        let guest = rig.guest();
        rig.told.send(()).await.unwrap();
        let (mut agent, _) = asked(&guest).await;
        answer(&mut agent, Err(Fault::new(FaultCode::Failed, "no\u{1b}[2J"))).await;
        assert_eq!(rig.order().await.order, Order::Kill);

        let mut without_guest = Rig::new(Vcpus::Running);
        without_guest.told.send(()).await.unwrap();
        assert_eq!(without_guest.order().await.order, Order::Kill);
    }

    #[tokio::test]
    async fn a_guest_that_stands_still_is_let_go_on_before_it_is_asked() {
        for now in [Vcpus::Paused, Vcpus::Held] {
            let mut rig = Rig::new(now);
            let guest = rig.guest();
            rig.told.send(()).await.unwrap();
            let Asked { order, answer } = rig.order().await;
            assert_eq!(order, Order::Resume);
            rig.vcpus.send_replace(Vcpus::Running);
            answer.send(Ok(())).unwrap();
            let (_agent, call) = asked(&guest).await;
            assert!(matches!(call, Call::Shutdown { .. }), "{call:?}");
        }
    }
}
