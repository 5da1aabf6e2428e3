//! Datagrams to a published UDP port. Each client gets a stream of its own for each address of this computer that it
//! talks to, so that answers find their way back, and come from where they are expected.

use super::{
    PAUSE,
    endpoint::{Endpoint, Flow},
};
use crate::machine::agent::open_stream;
use bytes::Bytes;
use cove_machine::Machine;
use cove_wire::{Dial, Open};
use futures_util::{SinkExt, StreamExt};
use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::codec::LengthDelimitedCodec;

/// The largest datagram: its length is a 16-bit number on the wire.
const LARGEST: usize = u16::MAX as usize;
/// Clients of one port at once, each for every address that it talks to. A further one takes the place of the one that
/// has been silent longest, unless all are still being let in.
const MAX_FLOWS: usize = 1024;
/// Datagrams of one client that wait for the guest; further ones are lost, as they are in any network.
const WAITING: usize = 128;
/// Bytes of all clients of one port that wait: a machine that stands still takes none, while anybody may send more.
const WAITING_BYTES: usize = 16 << 20;
/// How long a flow keeps its place though nothing of it was carried yet: its stream is being opened.
const OPENING: Duration = Duration::from_secs(2);
/// A client that has been silent for so long, and to which nothing was said, is forgotten.
const IDLE: Duration = Duration::from_secs(90);

/// A datagram, and its part of [`WAITING_BYTES`] until it is on its way.
type Waiting = (Bytes, OwnedSemaphorePermit);

/// A flow under way.
struct Carried {
    queue: mpsc::Sender<Waiting>,
    /// When a datagram was last carried, either way.
    last: watch::Receiver<Instant>,
    task: AbortHandle,
}

/// Serves the port, for ever.
pub(super) async fn serve(endpoint: Endpoint, machine: Arc<dyn Machine>, container: SocketAddr) {
    serve_at_most(MAX_FLOWS, endpoint, machine, container).await;
}

async fn serve_at_most(most: usize, endpoint: Endpoint, machine: Arc<dyn Machine>, container: SocketAddr) {
    let endpoint = Arc::new(endpoint);
    let mut flows: HashMap<Flow, Carried> = HashMap::new();
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, flow) = tokio::select! {
            biased;
            // First, so that those that have ended never become many, however many clients come.
            Some(forgotten) = tasks.join_next() => {
                if let Ok(flow) = forgotten
                    && flows.get(&flow).is_some_and(|carried| carried.queue.is_closed())
                {
                    flows.remove(&flow);
                }
                continue;
            }
            received = endpoint.receive(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => {
                    // Among others, that an answer to some client came back.
                    tracing::debug!("receiving on a published port failed: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let carried = flows.get(&flow).filter(|carried| !carried.queue.is_closed());
        let queue = if let Some(carried) = carried {
            carried.queue.clone()
        } else {
            if flows.len() >= most && !end_the_quietest(&mut flows) {
                continue;
            }
            let (sender, queue) = mpsc::channel(WAITING);
            let (spoke, last) = watch::channel(Instant::now());
            let (endpoint, machine) = (Arc::clone(&endpoint), Arc::clone(&machine));
            let task = tasks.spawn(async move {
                if let Err(error) = carry(&endpoint, &flow, queue, &spoke, &*machine, container).await {
                    tracing::debug!(client = %flow.client, "datagrams were not carried: {error}");
                }
                flow
            });
            let queue = sender.clone();
            flows.insert(flow, Carried { queue, last, task });
            sender
        };
        // What there is no room for is lost, in a full queue as well.
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        if let Ok(part) = Arc::clone(&room).try_acquire_many_owned(bytes) {
            let _ = queue.try_send((Bytes::copy_from_slice(&buffer[..length]), part));
        }
    }
}

/// Ends the flow that has been silent longest, if there is one that may be ended. Its client is served anew when it
/// speaks again.
fn end_the_quietest(flows: &mut HashMap<Flow, Carried>) -> bool {
    // The first change of `last` is the first datagram that was carried; an error is the flow's end.
    let may_end = |carried: &Carried| {
        carried.last.has_changed().unwrap_or(true) || carried.last.borrow().elapsed() >= OPENING
    };
    let quietest = flows
        .iter()
        .filter(|(_, carried)| may_end(carried))
        .min_by_key(|(_, carried)| *carried.last.borrow())
        .map(|(flow, _)| *flow);
    let ended = quietest.and_then(|flow| flows.remove(&flow));
    ended.inspect(|carried| carried.task.abort()).is_some()
}

/// Carries a flow's datagrams until it has been silent for [`IDLE`]. `spoke` is told of each.
async fn carry(
    endpoint: &Endpoint,
    flow: &Flow,
    mut queue: mpsc::Receiver<Waiting>,
    spoke: &watch::Sender<Instant>,
    machine: &dyn Machine,
    container: SocketAddr,
) -> io::Result<()> {
    let open = Open::Datagrams(Dial {
        address: container,
        namespace: None,
    });
    // A machine that stands still answers when it goes on. The place is for somebody else by then.
    let opened = timeout(IDLE, open_stream(machine, &open)).await?;
    let stream = opened.map_err(io::Error::other)?;
    let (mut to_guest, mut from_guest) = LengthDelimitedCodec::builder()
        .length_field_length(2)
        .max_frame_length(LARGEST)
        .new_framed(stream)
        .split();
    let mut speaks = spoke.subscribe();
    let inward = async {
        while let Some((datagram, _part)) = queue.recv().await {
            to_guest.send(datagram).await?;
            spoke.send_replace(Instant::now());
        }
        Ok(())
    };
    let outward = async {
        while let Some(datagram) = from_guest.next().await {
            // One that cannot be sent is lost.
            let _ = endpoint.send(&datagram?, flow).await;
            spoke.send_replace(Instant::now());
        }
        Ok(())
    };
    let silence = async { while timeout(IDLE, speaks.changed()).await.is_ok() {} };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
        () = silence => Ok(()),
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::{
        machine::fake::{Fixture, Script},
        ports::bind::{Bound, bind},
    };
    use cove_wire::Protocol;
    use tokio::net::UdpSocket;

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(30);

    /// A published port, bound on every address.
    async fn published() -> (Endpoint, u16) {
        let free = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let every = SocketAddr::from(([0, 0, 0, 0], port));
        let Ok(Bound::Datagrams(endpoint)) = bind(Protocol::Udp, every).await else {
            panic!("port {port} cannot be had");
        };
        (endpoint, port)
    }

    /// A port that has many clients is deaf to none of them, and those that speak keep their places.
    #[tokio::test]
    async fn a_client_too_many_takes_the_place_of_the_one_that_was_silent_longest() {
        let fixture = Fixture::new(Script::default());
        let (machine, _handle) = fixture.running().await;
        let (endpoint, port) = published().await;
        let container = ([172, 17, 0, 2], 53).into();
        let serving = tokio::spawn(serve_at_most(2, endpoint, machine, container));
        let mut clients = Vec::new();
        for _ in 0..3 {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(("127.0.0.1", port)).await.unwrap();
            clients.push(client);
        }
        // Whose turn it is, and how many flows the guest has been asked for then.
        for (turn, (client, flows)) in [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)]
            .into_iter()
            .enumerate()
        {
            let said = [u8::try_from(turn).unwrap()];
            clients[client].send(&said).await.unwrap();
            let mut heard = [0; 8];
            let length = timeout(LONG, clients[client].recv(&mut heard))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(heard[..length], said);
            assert_eq!(
                fixture.host.guest().was_asked("datagrams"),
                flows,
                "in turn {turn}"
            );
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_client_hears_the_container_from_each_address_that_it_talks_to() {
        // Whatever goes to a container of this guest comes back.
        let fixture = Fixture::new(Script::default());
        let (machine, _handle) = fixture.running().await;
        let (endpoint, port) = published().await;
        let serving = tokio::spawn(serve(endpoint, machine, ([172, 17, 0, 2], 53).into()));
        let mut clients = Vec::new();
        for asked in [[127_u8, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client
                .connect((std::net::Ipv4Addr::from(asked), port))
                .await
                .unwrap();
            client.send(&asked).await.unwrap();
            clients.push((client, asked));
        }
        for (client, asked) in clients {
            let mut heard = [0; 8];
            let length = timeout(LONG, client.recv(&mut heard)).await.unwrap().unwrap();
            assert_eq!(heard[..length], asked);
        }
        serving.abort();
    }
}
