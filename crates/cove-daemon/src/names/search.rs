//! Names that are none as they are: completed by this computer's search domains, as its own programs find them.
//!
//! Single words are completed by the system's resolver, which was asked for them before. Here it is done for names with
//! a dot in them, such as `db.prod` for `db.prod.corp.example`, and in the order of C libraries for these: first as they
//! are, then with each domain (resolv.conf(5)). Whoever asked is told that the name is an alias of the completed one.
//! That a name ends in a dot cannot be seen in a question, and neither `ndots` nor the domain of this computer's own name
//! counts.

use super::{
    BRIEF, is_for_the_system, is_plain,
    servers::{self, Listed},
};
use cove_wire::dns::{self, Query};
use futures_util::{StreamExt, stream::FuturesOrdered};
use std::{net::SocketAddr, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// Completed names that are asked for at once, of all questions of a machine together. Each takes two descriptors at
/// most while its servers say nothing, and a question has several: without a bound a guest that asks for unknown names
/// could take all that this process has.
pub(super) const MOST_ASKED: usize = 64;
/// How long the servers may take for all domains together, of the time that one question has. They have just answered.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// What a completed name is.
struct Completed {
    answer: Vec<u8>,
    /// Whether it has addresses of the family asked for.
    found: bool,
}

/// The answer to a question for an address that the servers know no such name of, if it is a name with one of the search
/// domains behind it. The first domain in which it has an address counts, else the first in which it is there at all.
/// The servers have at most `patience` for it, in which each name waits for one of `places`, too.
pub(super) async fn complete(
    query: &Query<'_>,
    listed: &Listed,
    places: &Semaphore,
    patience: Duration,
) -> Option<Vec<u8>> {
    if !query.asks_for_address() || !is_plain(&query.name) || is_for_the_system(&query.name) {
        return None;
    }
    let mut asked = FuturesOrdered::new();
    for domain in &listed.search {
        let name = format!("{}.{domain}", query.name);
        // Each for itself: one whose servers say nothing keeps no other from counting.
        let asking = ask(query, name, &listed.servers, places);
        asked.push_back(timeout(TIMEOUT.min(patience), asking));
    }
    let mut without = None;
    while let Some(completed) = asked.next().await {
        match completed.ok().flatten() {
            Some(Completed { answer, found: true }) => return Some(answer),
            Some(Completed { answer, found: false }) => {
                without.get_or_insert(answer);
            }
            None => {}
        }
    }
    without
}

/// What `query` is answered with if `name` is meant; nothing if there is no such name, or nobody says.
async fn ask(
    query: &Query<'_>,
    name: String,
    servers: &[SocketAddr],
    places: &Semaphore,
) -> Option<Completed> {
    let message = dns::question(query.id(), &name, query.kind)?;
    let completed = Query::parse(&message).ok()?;
    let _place = places.acquire().await.ok()?;
    let answer = servers::ask(servers, &completed).await.ok()?;
    if !dns::is_conclusive(&answer) || dns::is_no_such_name(&answer) {
        return None;
    }
    let addresses = dns::addresses(&answer);
    let found = !addresses.is_empty();
    let lifetime = dns::lifetime(&answer).filter(|_| found).unwrap_or(BRIEF);
    let answer = query.answer_alias(&name, &addresses, lifetime)?;
    Some(Completed { answer, found })
}

/// Elsewhere the system's resolver completes all names.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use crate::names::{
        Resolver,
        hosts::Hosts,
        servers::{Listed, Servers},
    };
    use cove_wire::dns::{self, A, AAAA, Code, Query};
    use std::{
        net::{IpAddr, SocketAddr},
        time::Duration,
    };
    use tokio::{net::UdpSocket, sync::Semaphore};

    /// The one name that a server knows here, and its address.
    const KNOWN: &str = "db.prod.corp.test";
    const ADDRESS: [u8; 4] = [192, 0, 2, 9];
    const TXT: u16 = 16;

    /// A name server that leaves without an answer what ends in `silent_of`.
    async fn name_server(silent_of: &'static str) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let query = Query::parse(&buffer[..length]).unwrap();
                let answer = match query.name.as_str() {
                    KNOWN => query.answer(&[IpAddr::from(ADDRESS)], 60),
                    silent if silent.ends_with(silent_of) => continue,
                    _ => query.failure(Code::NoSuchName),
                };
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        address
    }

    async fn listed(silent_of: &'static str) -> Listed {
        Listed {
            servers: vec![name_server(silent_of).await],
            search: vec!["lab.test".to_owned(), "corp.test".to_owned()],
        }
    }

    async fn resolver(silent_of: &'static str) -> Resolver {
        let listed = listed(silent_of).await;
        Resolver::new(Hosts::new("/nonexistent".into()), Servers::fixed(listed))
    }

    /// The code, the addresses and the lifetime of the answer to a question.
    async fn asked(resolver: &Resolver, name: &str, kind: u16) -> (u8, Vec<IpAddr>, Option<u32>) {
        let message = dns::question(7, name, kind).unwrap();
        let answer = resolver.answer(&message).await.unwrap();
        (answer[3] & 15, dns::addresses(&answer), dns::lifetime(&answer))
    }

    #[tokio::test]
    async fn a_name_with_a_dot_is_found_relative_to_the_search_domains() {
        let resolver = resolver("nobody.test").await;
        let found = (0, vec![IpAddr::from(ADDRESS)], Some(60));
        assert_eq!(asked(&resolver, "DB.prod", A).await, found);
        assert_eq!(
            asked(&resolver, KNOWN, A).await,
            found,
            "a whole name is one as it is"
        );
        // It is there and has no such address: whoever asks for both families is not to take it for none.
        let (code, addresses, _) = asked(&resolver, "db.prod", AAAA).await;
        assert_eq!((code, addresses), (0, Vec::new()));
        let unknown = Code::NoSuchName as u8;
        assert_eq!(asked(&resolver, "db.dev", A).await.0, unknown);
        assert_eq!(
            asked(&resolver, "db.prod", TXT).await.0,
            unknown,
            "it is no host that is asked for"
        );
    }

    #[tokio::test]
    async fn a_domain_whose_servers_say_nothing_leaves_an_unknown_name_unknown() {
        let resolver = resolver("lab.test").await;
        assert_eq!(asked(&resolver, "db.dev", A).await.0, Code::NoSuchName as u8);
        // Nor does it hide what the next one has.
        let found = asked(&resolver, "db.prod", A).await.1;
        assert_eq!(found, [IpAddr::from(ADDRESS)]);
    }

    #[tokio::test]
    async fn no_more_is_asked_at_once_than_there_are_places() {
        let listed = listed("nobody.test").await;
        let message = dns::question(7, "db.prod", A).unwrap();
        let query = Query::parse(&message).unwrap();
        let places = Semaphore::new(0);
        let moment = Duration::from_millis(20);
        assert_eq!(super::complete(&query, &listed, &places, moment).await, None);
        // One domain after the other has the only place, and leaves it.
        places.add_permits(1);
        for _ in 0..2 {
            let found = super::complete(&query, &listed, &places, super::TIMEOUT).await;
            assert_eq!(dns::addresses(&found.unwrap()), [IpAddr::from(ADDRESS)]);
        }
        // Nor does one that nobody waits for any more keep it.
        let silent = Listed {
            servers: vec![name_server("test").await],
            ..listed
        };
        let unknown = dns::question(7, "db.dev", A).unwrap();
        let unknown = Query::parse(&unknown).unwrap();
        assert_eq!(super::complete(&unknown, &silent, &places, moment).await, None);
        assert_eq!(places.available_permits(), 1);
    }
}
