//! Names for the guest: whatever its resolver cannot answer is asked of this computer's own.
//!
//! ```text
//!  guest's resolver ── vsock ──▶ question ─┬▶ hosts file ─────────────── has it ──▶ answer
//!                                          ├▶ the system's resolver ──── has it ──▶ answer   (single words, .local)
//!                                          └▶ the computer's name servers ────────▶ their answer as it is
//!                                               └▶ no such name: with each search domain behind it ──▶ answer
//! ```
//!
//! A hosts file often says that a name is this computer itself, by an address of its loopback. In the guest that would
//! be the guest, so that it is told the address by which it reaches this computer's loopback instead.
//!
//! The guest is hostile: it can ask for names, so many at a time, and nothing else. Every question is answered within
//! [`PATIENCE`].

mod hosts;
mod search;
mod servers;
mod system;

use crate::machine::chain;
use bytes::Bytes;
use cove_machine::{Connection, Machine};
use cove_wire::{
    dns::{self, Code, Malformed, Query},
    network, port,
};
use futures_util::{SinkExt, StreamExt};
use hosts::Hosts;
use servers::Servers;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use system::System;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::codec::LengthDelimitedCodec;

/// Connections of a guest at once: its resolver has one, and another one when that has ended.
const MOST_CONNECTIONS: usize = 2;
/// Less than the guest's own, for which that of its clients is the measure.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is left of that for the answer itself.
const MOMENT: Duration = Duration::from_millis(100);
/// The pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// For how many seconds answers hold whose sources do not say. A change in a hosts file is seen after that.
const BRIEF: u32 = 2;

/// Answers a running machine's questions. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct Names(JoinHandle<()>);

impl Names {
    /// Answers the machine's questions as this computer would.
    pub(crate) fn of(machine: Arc<dyn Machine>) -> Self {
        Self(tokio::spawn(serve(machine)))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(machine: Arc<dyn Machine>) {
    let listener = match machine.listen(port::NAMES).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("the machine cannot ask for names: {}", chain(&error));
            return;
        }
    };
    let resolver = Arc::new(Resolver::of_this_computer());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok(connection) => {
                    connections.spawn(converse(connection, Arc::clone(&resolver)));
                }
                Err(error) => {
                    tracing::warn!("accepting the guest's connection failed: {error}");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(connection: Connection, resolver: Arc<Resolver>) {
    let (mut to_guest, mut from_guest) = LengthDelimitedCodec::builder()
        .length_field_length(2)
        .max_frame_length(dns::MAX_MESSAGE)
        .new_framed(connection)
        .split();
    let (answered, mut answers) = mpsc::channel::<Bytes>(dns::MOST_QUESTIONS);
    let mut questions = JoinSet::new();
    loop {
        tokio::select! {
            message = from_guest.next(), if questions.len() < dns::MOST_QUESTIONS => {
                let Some(Ok(message)) = message else { return };
                let (resolver, answered) = (Arc::clone(&resolver), answered.clone());
                questions.spawn(async move {
                    if let Some(answer) = resolver.answer(&message).await {
                        // The connection may have ended.
                        let _ = answered.send(answer.into()).await;
                    }
                });
            }
            Some(answer) = answers.recv() => match timeout(PATIENCE, to_guest.send(answer)).await {
                Ok(Ok(())) => {}
                // A guest that asks and takes no answers would wait for this for ever, as this would for it.
                Ok(Err(_)) | Err(_) => return,
            },
            Some(_) = questions.join_next() => {}
        }
    }
}

/// This computer's resolver.
#[derive(Debug)]
struct Resolver {
    hosts: Mutex<Hosts>,
    servers: Mutex<Servers>,
    system: System,
    /// Places for completed names that are asked for.
    completing: Semaphore,
}

impl Resolver {
    fn of_this_computer() -> Self {
        Self::new(Hosts::of_this_computer(), Servers::of_this_computer())
    }

    fn new(hosts: Hosts, servers: Servers) -> Self {
        Self {
            hosts: Mutex::new(hosts),
            servers: Mutex::new(servers),
            system: System::of_this_computer(),
            completing: Semaphore::new(search::MOST_ASKED),
        }
    }

    /// Answers a request; what is none gets no answer.
    async fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Malformed::NoRequest) => return None,
            Err(Malformed::Bad(code)) => return Some(dns::refuse(message, code)),
        };
        let answer = timeout(PATIENCE, self.resolve(&query)).await;
        Some(answer.unwrap_or_else(|_| {
            tracing::debug!(name = query.name, "nobody answered");
            query.failure(Code::ServerFailure)
        }))
    }

    async fn resolve(&self, query: &Query<'_>) -> Vec<u8> {
        let began = tokio::time::Instant::now();
        if query.asks_for_address() {
            let found = self.hosts().find(&query.name);
            if !found.is_empty() {
                return query.answer(&as_seen_by_the_guest(&found), BRIEF);
            }
            if is_for_the_system(&query.name)
                && let Some(found) = self.system.find(&query.name).await
            {
                return query.answer(&as_seen_by_the_guest(&found), BRIEF);
            }
        }
        // In the guest the addresses of a loopback are the guest's.
        if let Some(address) = query.asks_for_name().filter(|address| !address.is_loopback())
            && let Some(name) = self.hosts().name_of(address)
            && let Some(answer) = query.answer_name(&name, BRIEF)
        {
            return answer;
        }
        let listed = self
            .servers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .current();
        match servers::ask(&listed.servers, query).await {
            Ok(answer) if dns::is_no_such_name(&answer) => {
                // Whatever comes of it, there is time left to say that there is no such name.
                let left = PATIENCE.saturating_sub(began.elapsed() + MOMENT);
                let completed = search::complete(query, &listed, &self.completing, left).await;
                completed.unwrap_or(answer)
            }
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(name = query.name, "no name server answered: {}", chain(&error));
                query.failure(Code::ServerFailure)
            }
        }
    }

    fn hosts(&self) -> std::sync::MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the system's resolver may know more than the name servers: it completes single words with its search
/// domains and asks the neighbourhood for `.local`. Where there is no list of name servers, it is all there is.
fn is_for_the_system(name: &str) -> bool {
    let special = !name.contains('.')
        || std::path::Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "local");
    is_plain(name) && (special || cfg!(not(target_os = "linux")))
}

/// Whether it is a name that hosts have, with no byte of it escaped.
fn is_plain(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.bytes().all(usual)
}

/// The addresses by which the guest reaches what this computer knows as `found`.
fn as_seen_by_the_guest(found: &[IpAddr]) -> Vec<IpAddr> {
    let mut seen: Vec<IpAddr> = found
        .iter()
        .copied()
        .filter(|address| !address.is_loopback())
        .collect();
    if found
        .iter()
        .any(|address| address.is_loopback() && address.is_ipv4())
    {
        seen.push(network::GATEWAY_V4.into());
    } else if found.iter().any(IpAddr::is_loopback) {
        seen.push(network::GATEWAY_V6.into());
    }
    seen
}

#[cfg(test)]
mod tests;
