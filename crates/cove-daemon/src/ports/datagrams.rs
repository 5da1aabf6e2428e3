//! Datagrams to a published UDP port. Each client gets a stream of its own, so that answers find their way back.

use super::PAUSE;
use crate::machine::agent::open_stream;
use bytes::Bytes;
use cove_machine::Machine;
use cove_wire::{Dial, Open};
use futures_util::{SinkExt, StreamExt};
use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::codec::LengthDelimitedCodec;

/// The largest datagram: its length is a 16-bit number on the wire.
const LARGEST: usize = u16::MAX as usize;
/// Clients of one port at once; datagrams of further ones are lost.
const MAX_CLIENTS: usize = 1024;
/// Datagrams of one client that wait for the guest; further ones are lost, as they are in any network.
const WAITING: usize = 128;
/// A client that has been silent for so long, and to which nothing was said, is forgotten.
const IDLE: Duration = Duration::from_secs(90);

/// Serves the port, for ever.
pub(super) async fn serve(socket: UdpSocket, machine: Arc<dyn Machine>, container: SocketAddr) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let (datagram, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => (Bytes::copy_from_slice(&buffer[..length]), from),
                Err(error) => {
                    // Among others, that an answer to some client came back.
                    tracing::debug!("receiving on a published port failed: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            },
            Some(forgotten) = tasks.join_next() => {
                if let Ok(client) = forgotten
                    && clients.get(&client).is_some_and(mpsc::Sender::is_closed)
                {
                    clients.remove(&client);
                }
                continue;
            }
        };
        let queue = clients.get(&from).filter(|queue| !queue.is_closed()).cloned();
        let queue = match queue {
            Some(queue) => queue,
            None if tasks.len() >= MAX_CLIENTS => continue,
            None => {
                let (sender, queue) = mpsc::channel(WAITING);
                let (socket, machine) = (Arc::clone(&socket), Arc::clone(&machine));
                tasks.spawn(async move {
                    if let Err(error) = carry(&socket, from, queue, &*machine, container).await {
                        tracing::debug!(%from, "datagrams were not carried: {error}");
                    }
                    from
                });
                clients.insert(from, sender.clone());
                sender
            }
        };
        // A full queue loses it.
        let _ = queue.try_send(datagram);
    }
}

async fn carry(
    socket: &UdpSocket,
    client: SocketAddr,
    mut queue: mpsc::Receiver<Bytes>,
    machine: &dyn Machine,
    container: SocketAddr,
) -> io::Result<()> {
    let open = Open::Datagrams(Dial {
        address: container,
        namespace: None,
    });
    let stream = open_stream(machine, &open).await.map_err(io::Error::other)?;
    let (mut to_guest, mut from_guest) = LengthDelimitedCodec::builder()
        .length_field_length(2)
        .max_frame_length(LARGEST)
        .new_framed(stream)
        .split();
    let (spoke, mut speaks) = mpsc::channel::<()>(1);
    let inward = async {
        while let Some(datagram) = queue.recv().await {
            to_guest.send(datagram).await?;
            let _ = spoke.try_send(());
        }
        Ok(())
    };
    let outward = async {
        while let Some(datagram) = from_guest.next().await {
            // One that cannot be sent is lost.
            let _ = socket.send_to(&datagram?, client).await;
            let _ = spoke.try_send(());
        }
        Ok(())
    };
    let silence = async { while timeout(IDLE, speaks.recv()).await.is_ok() {} };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
        () = silence => Ok(()),
    }
}
