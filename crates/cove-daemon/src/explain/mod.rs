//! Why something cannot be reached: the way to it, walked hop by hop until it stops.
//!
//! ```text
//!  from this computer:  name ─▶ published port ─▶ this computer's firewall ─▶ container ─▶ server
//!                            └▶ reverse proxy ──────────────────────────────────┘
//!  from a container:    container ─▶ name ─▶ route ─▶ container ─▶ server
//!                                                 └▶ way out ─▶ this computer, or beyond
//! ```
//!
//! Each hop is looked at as whoever takes the way would meet it: names and routes from within the container's network
//! namespace ([`cove_wire::Look`]), attempts to connect by connecting. Nothing is changed, and what the guest says is
//! cleaned before it is shown.

mod container;
mod from_container;
mod from_here;
mod here;
mod listening;
mod subnet;
mod target;

use crate::machine::{agent, chain, clean, running_containers};
use container::Container;
use cove_api::{ApiError, ErrorCode, Explanation, Hop, Station, Verdict};
use cove_machine::{Availability, Machine};
use cove_wire::{Attempt, Look, Publish, Seen, Sight, network};
use serde_json::Value;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use target::Target;
use tokio::time::timeout;

/// The engine's own DNS, in containers on networks of their own.
const ENGINE_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// How long one look into the guest may take: its own bounds, and what an emulated guest needs beyond them.
const LOOKING: Duration = Duration::from_secs(40);

/// What is known of the machine before anything is looked at.
pub(crate) struct Surroundings {
    pub(crate) name: String,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) outbound: Availability,
    pub(crate) published: Vec<Publish>,
    /// The ports that are waited for, and why they cannot be had.
    pub(crate) refused: Vec<(Publish, String)>,
    /// `web.port`, 0 for none, and the port that there is.
    pub(crate) web_wanted: u16,
    pub(crate) web_port: Option<u16>,
}

/// Walks the way to `target`, from a container or from this computer.
pub(crate) async fn explain(
    surroundings: Surroundings,
    target: &str,
    from: Option<&str>,
) -> Result<Explanation, ApiError> {
    let wanted = Target::parse(target).map_err(|why| ApiError::new(ErrorCode::InvalidRequest, why, USAGE))?;
    let list = running_containers(&*surroundings.machine).await;
    // Without it, whatever leads to a container would seem to lead to none.
    let list = list.filter(Value::is_array).ok_or_else(|| {
        ApiError::new(
            ErrorCode::MachineFailed,
            format!("the engine of machine `{}` does not answer", surroundings.name),
            "without its list of containers no way can be told; `cove status` shows how it is",
        )
    })?;
    let mut walk = Walk {
        around: surroundings,
        list,
        hops: Vec::new(),
    };
    let (from, verdict) = match from {
        Some(name) => {
            let container = walk.container(name).await.ok_or_else(|| {
                ApiError::new(
                    ErrorCode::NotFound,
                    format!("there is no container `{}`", clean(name)),
                    "`cove docker ps --all` lists them",
                )
            })?;
            (container.name.clone(), walk.begin_in(&container, &wanted).await?)
        }
        None => ("this computer".to_owned(), walk.begin_here(&wanted).await?),
    };
    Ok(Explanation {
        target: target.to_owned(),
        from,
        verdict,
        hops: walk.hops,
    })
}

const USAGE: &str = "such as localhost:8080, http://web.cove.localhost:2683/, or a container's name";

/// Where a way stops, why, and what to do.
#[derive(Debug)]
struct Stop {
    verdict: Verdict,
    evidence: String,
    advice: String,
}

impl Stop {
    fn new(verdict: Verdict, evidence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict,
            evidence: evidence.into(),
            advice: advice.into(),
        }
    }
}

/// Somebody in the machine who wants to get somewhere.
struct Walker<'w> {
    /// Where its sockets are made; nothing for the machine itself.
    namespace: Option<&'w str>,
    /// For people.
    name: &'w str,
}

/// An attempt from within the machine.
struct Tried {
    route: Option<IpAddr>,
    attempt: Attempt,
    /// Whether the machine's way out has a network at its end.
    outward: bool,
}

struct Walk {
    around: Surroundings,
    /// The running containers, as the engine lists them.
    list: Value,
    hops: Vec<Hop>,
}

impl Walk {
    fn pass(&mut self, station: Station, evidence: impl Into<String>) {
        self.hops.push(Hop {
            station,
            passed: true,
            evidence: evidence.into(),
            advice: None,
        });
    }

    fn stop(&mut self, station: Station, stop: Stop) -> Verdict {
        self.hops.push(Hop {
            station,
            passed: false,
            evidence: stop.evidence,
            advice: (!stop.advice.is_empty()).then_some(stop.advice),
        });
        stop.verdict
    }

    async fn container(&self, name: &str) -> Option<Container> {
        // An address or a path is no name, and the engine need not be asked.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(plain) {
            return None;
        }
        Container::find(&*self.around.machine, name).await
    }

    /// The running container that has the address.
    async fn container_at(&self, address: IpAddr) -> Option<Container> {
        for listed in self.list.as_array().into_iter().flatten() {
            let networks = listed["NetworkSettings"]["Networks"].as_object();
            let has = networks
                .into_iter()
                .flat_map(|networks| networks.values())
                .flat_map(|network| [&network["IPAddress"], &network["GlobalIPv6Address"]])
                .any(|known| known.as_str().and_then(|known| known.parse().ok()) == Some(address));
            if let (true, Some(id)) = (has, listed["Id"].as_str()) {
                return self.container(id).await;
            }
        }
        None
    }

    async fn look(&self, namespace: Option<&str>, sight: Sight) -> Result<Seen, ApiError> {
        let look = Look {
            namespace: namespace.map(str::to_owned),
            sight,
        };
        let failed = |code, why: String| {
            let message = format!("looking into machine `{}` failed: {why}", self.around.name);
            ApiError::new(code, message, "`cove status` shows how it is")
        };
        match timeout(LOOKING, agent::look(&*self.around.machine, look)).await {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(error)) => Err(failed(ErrorCode::MachineFailed, chain(&error))),
            Err(_) => Err(failed(
                ErrorCode::Timeout,
                format!("no answer in {} s", LOOKING.as_secs()),
            )),
        }
    }

    async fn listeners(&self, namespace: Option<&str>) -> Result<Vec<SocketAddr>, ApiError> {
        match self.look(namespace, Sight::Listeners).await? {
            Seen::Listeners(listeners) => Ok(listeners),
            _ => Err(nonsense()),
        }
    }

    async fn attempt(&self, walker: &Walker<'_>, address: SocketAddr) -> Result<Tried, ApiError> {
        match self.look(walker.namespace, Sight::Address(address)).await? {
            Seen::Address {
                route,
                attempt,
                outward,
            } => Ok(Tried {
                route,
                attempt,
                outward: outward.unwrap_or_default(),
            }),
            _ => Err(nonsense()),
        }
    }

    /// From inside the machine to a container's own address: does it run, is there a way, does a program answer?
    async fn reach_container(
        &mut self,
        walker: &Walker<'_>,
        address: SocketAddr,
        container: &Container,
    ) -> Result<Verdict, ApiError> {
        let name = &container.name;
        if let Some(stop) = idle(container) {
            return Ok(self.stop(Station::Container, stop));
        }
        self.pass(
            Station::Container,
            format!("`{name}` runs, with {}", container.whereabouts()),
        );
        let tried = self.attempt(walker, address).await?;
        if tried.attempt == Attempt::Taken {
            self.pass(Station::Server, format!("a program answers at {address}"));
            return Ok(Verdict::Reachable);
        }
        let Some(route) = tried.route else {
            let stop = Stop::new(
                Verdict::NoRoute,
                format!("{} has no route to {address}", walker.name),
                format!("put both on one network: docker network connect NETWORK {name}"),
            );
            return Ok(self.stop(Station::Route, stop));
        };
        self.pass(Station::Route, format!("from {route} to {}", address.ip()));
        let listeners = self.listeners(container.namespace.as_deref()).await?;
        let place = format!("`{name}`");
        let stop = listening::judge(&tried.attempt, address, &listeners, &place);
        Ok(self.stop(Station::Server, stop))
    }

    /// To this computer, whose loopback answers at the gateway's address, or to what is beyond it.
    async fn reach_outside(&mut self, walker: &Walker<'_>, address: SocketAddr) -> Result<Verdict, ApiError> {
        let tried = self.attempt(walker, address).await?;
        let Some(route) = tried.route.filter(|_| tried.outward) else {
            let (station, stop) = no_way_out(&self.around.outbound, walker.name, address, tried.outward);
            return Ok(self.stop(station, stop));
        };
        self.pass(Station::Route, format!("from {route} to {}", address.ip()));
        let by = match &self.around.outbound {
            Availability::Available { evidence, .. } => evidence.clone(),
            Availability::Unavailable { why, .. } => why.clone(),
        };
        self.pass(Station::Nat, by);
        let local = [IpAddr::from(network::GATEWAY_V4), network::GATEWAY_V6.into()].contains(&address.ip());
        let real = if local { loopback_of(address) } else { address };
        let ours = local || here::is_own(real.ip());
        let place = if ours { Station::Host } else { Station::Beyond };
        if tried.attempt == Attempt::Taken {
            let whose = if ours { "this computer" } else { "the other side" };
            self.pass(place, format!("a program of {whose} answers at {real}"));
            return Ok(Verdict::Reachable);
        }
        let own = here::attempt(real).await;
        if own == Attempt::Taken {
            let stop = Stop::new(
                refused_or_silent(&tried.attempt),
                format!("a program answers to this computer itself at {real}, but not to the machine"),
                "look for a firewall's rule on this computer that keeps passt, or your other programs, from connecting",
            );
            return Ok(self.stop(Station::Host, stop));
        }
        Ok(self.not_answered(real, own).await)
    }

    /// This computer's own attempt at an address failed, too.
    async fn not_answered(&mut self, address: SocketAddr, own: Attempt) -> Verdict {
        let ours = here::is_own(address.ip());
        let (station, stop) = match &own {
            Attempt::Forbidden(why) => (
                Station::Host,
                Stop::new(
                    Verdict::Refused,
                    format!("this computer forbids connections to {address}: {why}"),
                    "look for a rule of its firewall, or a route that prohibits it (`ip route get`)",
                ),
            ),
            _ if ours => match here::listeners().await {
                Some(listeners) => (
                    Station::Host,
                    listening::judge(&own, address, &listeners, "this computer"),
                ),
                None => (
                    Station::Host,
                    Stop::new(
                        refused_or_silent(&own),
                        format!("nothing answers at {address} on this computer"),
                        "start the program, and have it listen on loopback",
                    ),
                ),
            },
            Attempt::NoWay(why) | Attempt::Failed(why) => (
                Station::Beyond,
                Stop::new(
                    Verdict::NoRoute,
                    format!("this computer itself cannot reach {address}: {why}"),
                    "see to its network or VPN; containers reach what it reaches",
                ),
            ),
            Attempt::Silence => (
                Station::Beyond,
                Stop::new(
                    Verdict::Silence,
                    format!("{address} answers neither the machine nor this computer itself"),
                    "it is down, or a firewall on the way swallows what is sent",
                ),
            ),
            Attempt::Refused | Attempt::Taken => (
                Station::Beyond,
                Stop::new(
                    Verdict::Refused,
                    format!("{address} refuses this computer itself, too"),
                    "nothing listens on that port there, or a firewall refuses it",
                ),
            ),
        };
        self.stop(station, stop)
    }
}

/// Why somebody in the machine cannot get out of it at all. `outward` says whether the machine's cable is in.
fn no_way_out(outbound: &Availability, who: &str, address: SocketAddr, outward: bool) -> (Station, Stop) {
    if outward {
        let stop = Stop::new(
            Verdict::NoRoute,
            format!("{who} has no route to {}", address.ip()),
            "its networks are internal, or it has none: docker network connect bridge CONTAINER gives it one that leads \
             out",
        );
        return (Station::Route, stop);
    }
    let stop = match outbound {
        Availability::Unavailable { why, hint, .. } => {
            Stop::new(Verdict::NoWayOut, why.clone(), hint.clone())
        }
        Availability::Available { evidence, .. } => Stop::new(
            Verdict::NoWayOut,
            format!("the machine's network is down, although {evidence}"),
            "it comes back by itself within seconds; if not, `cove logs machine` says why",
        ),
    };
    (Station::Nat, stop)
}

/// Why a container that is not busy can serve nobody.
fn idle(container: &Container) -> Option<Stop> {
    let name = &container.name;
    if !container.running {
        return Some(Stop::new(
            Verdict::NotRunning,
            format!("`{name}` does not run"),
            format!("docker start {name}; why it ended: docker logs {name}"),
        ));
    }
    container.paused.then(|| {
        Stop::new(
            Verdict::NotRunning,
            format!("`{name}` is paused: it takes connections and never answers"),
            format!("docker unpause {name}"),
        )
    })
}

/// What an address of the gateway means on this computer.
fn loopback_of(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(_) => IpAddr::from(std::net::Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn refused_or_silent(attempt: &Attempt) -> Verdict {
    match attempt {
        Attempt::Silence => Verdict::Silence,
        _ => Verdict::Refused,
    }
}

fn nonsense() -> ApiError {
    ApiError::new(
        ErrorCode::MachineFailed,
        "the guest's agent answered something else than it was asked",
        "restart the machine with `cove restart`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::machine::fake::{Fixture, Script};

    #[cfg(unix)]
    fn around(machine: Arc<dyn Machine>) -> Surroundings {
        Surroundings {
            name: "work".into(),
            machine,
            outbound: Availability::available("a test"),
            published: Vec::new(),
            refused: Vec::new(),
            web_wanted: 2683,
            web_port: Some(2683),
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn an_engine_that_does_not_answer_is_not_one_without_the_container() {
        let fixture = Fixture::new(Script::default());
        let (machine, _handle) = fixture.running().await;
        let walk = || explain(around(Arc::clone(&machine)), "db:5432", Some("app"));
        // What it says is no list.
        let silent = walk().await.unwrap_err();
        assert_eq!(silent.code, ErrorCode::MachineFailed);
        assert!(
            silent.message.contains("`work` does not answer"),
            "{}",
            silent.message
        );
        assert!(silent.hint.contains("cove status"), "{}", silent.hint);
        let guest = fixture.host.guest();
        guest.engine_says("/containers/json", &serde_json::json!([]));
        let missing = walk().await.unwrap_err();
        assert_eq!(missing.code, ErrorCode::NotFound);
    }

    #[test]
    fn without_passt_the_way_stops_there_with_how_to_install_it() {
        let missing = Availability::unavailable("passt is missing", "apt install passt");
        let there = Availability::available("/usr/bin/passt connects machines to the network");
        let address = ([192, 0, 2, 1], 80).into();
        let (station, stop) = no_way_out(&missing, "`app`", address, false);
        assert_eq!((station, stop.verdict), (Station::Nat, Verdict::NoWayOut));
        assert_eq!(
            (&*stop.evidence, &*stop.advice),
            ("passt is missing", "apt install passt")
        );
        let (station, stop) = no_way_out(&there, "`app`", address, false);
        assert_eq!((station, stop.verdict), (Station::Nat, Verdict::NoWayOut));
        let (station, stop) = no_way_out(&there, "`app`", address, true);
        assert_eq!((station, stop.verdict), (Station::Route, Verdict::NoRoute));
        assert!(stop.evidence.contains("`app`"), "{}", stop.evidence);
    }
}
