//! The way from a container.

use super::{
    ENGINE_DNS, Stop, Walk, Walker, container::Container, idle, listening, nonsense, subnet::Subnet,
    target::Target,
};
use crate::machine::ask_engine;
use cove_api::{ApiError, ErrorCode, Station, Verdict};
use cove_wire::{Attempt, NameSource, Seen, Sight, network};
use std::net::{IpAddr, SocketAddr};

impl Walk {
    pub(super) async fn begin_in(&mut self, from: &Container, target: &Target) -> Result<Verdict, ApiError> {
        if let Some(stop) = idle(from) {
            return Ok(self.stop(Station::Container, stop));
        }
        let name = format!("`{}`", from.name);
        self.pass(
            Station::Container,
            format!("{name} runs, with {}", from.whereabouts()),
        );
        // Of a container that is meant by its name, the port need not be said where it has only one.
        let other = self.container(&target.host).await;
        let only = other.as_ref().and_then(|other| match other.exposed.as_slice() {
            [port] => Some(*port),
            _ => None,
        });
        let port = target.port.or(only).ok_or_else(|| {
            let message = format!("it has to be said which port of `{}` is meant", target.host);
            ApiError::new(ErrorCode::InvalidRequest, message, "write HOST:PORT")
        })?;
        let address = match target.host.parse() {
            Ok(address) => address,
            Err(_) => match self.name_in(from, &target.host, other.as_ref()).await? {
                Ok(address) => address,
                Err(stop) => return Ok(self.stop(Station::Name, stop)),
            },
        };
        let walker = Walker {
            namespace: from.namespace.as_deref(),
            name: &name,
        };
        self.reach_address(&walker, SocketAddr::new(address, port)).await
    }

    /// What the name means in the container.
    async fn name_in(
        &mut self,
        from: &Container,
        name: &str,
        other: Option<&Container>,
    ) -> Result<Result<IpAddr, Stop>, ApiError> {
        let sight = Sight::Name {
            name: name.to_owned(),
            hosts: from.hosts.clone(),
            resolvers: from.resolvers.clone(),
        };
        let Seen::Name { addresses, source } = self.look(from.namespace.as_deref(), sight).await? else {
            return Err(nonsense());
        };
        // As programs do where the container's IPv6 leads nowhere.
        let first = addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or(addresses.first());
        Ok(match first {
            Some(address) => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                self.pass(
                    Station::Name,
                    format!("`{name}` is {}, says {}", all.join(" and "), teller(source)),
                );
                Ok(*address)
            }
            None => Err(unknown(from, name, other, source)),
        })
    }

    /// To an address, whatever it is the address of.
    pub(super) async fn reach_address(
        &mut self,
        walker: &Walker<'_>,
        address: SocketAddr,
    ) -> Result<Verdict, ApiError> {
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            return self.reach_itself(walker, address).await;
        }
        if let Some(container) = self.container_at(address.ip()).await {
            return self.reach_container(walker, address, &container).await;
        }
        if address.ip() == IpAddr::from(network::GUEST_V4) || address.ip() == IpAddr::from(network::GUEST_V6)
        {
            return self.reach_machine(walker, address).await;
        }
        let networks = ask_engine(&*self.around.machine, "/networks").await;
        match networks.and_then(|list| Subnet::with(&list, address.ip())) {
            Some(subnet) if subnet.is_gateway => self.reach_machine(walker, address).await,
            Some(subnet) => self.reach_into(walker, address, &subnet).await,
            None => self.reach_outside(walker, address).await,
        }
    }

    /// To the machine, by an address of its own. Where containers have no machine around them, that is the computer.
    async fn reach_machine(&mut self, walker: &Walker<'_>, address: SocketAddr) -> Result<Verdict, ApiError> {
        let tried = self.attempt(walker, address).await?;
        let machine = "the machine itself";
        if tried.attempt == Attempt::Taken {
            self.pass(Station::Server, format!("a program of {machine} answers"));
            return Ok(Verdict::Reachable);
        }
        let listeners = self.listeners(None).await?;
        let mut stop = listening::judge(&tried.attempt, address, &listeners, machine);
        if stop.verdict == Verdict::NothingListens {
            stop.advice = format!(
                "{} is the machine that containers run in; a program of this computer is at host.docker.internal:{}",
                address.ip(),
                address.port()
            );
        }
        Ok(self.stop(Station::Server, stop))
    }

    /// To an address of a network of the engine's that no container has.
    async fn reach_into(
        &mut self,
        walker: &Walker<'_>,
        address: SocketAddr,
        subnet: &Subnet,
    ) -> Result<Verdict, ApiError> {
        let Subnet { network, range, .. } = subnet;
        let tried = self.attempt(walker, address).await?;
        if tried.attempt == Attempt::Taken {
            self.pass(
                Station::Server,
                format!("a program answers at {address}, within the network `{network}`"),
            );
            return Ok(Verdict::Reachable);
        }
        let stop = Stop::new(
            Verdict::NoRoute,
            format!(
                "{} is within the engine's network `{network}` ({range}), where no container has it",
                address.ip()
            ),
            "what is sent there stays in the machine; if something beyond it is meant, as in a VPN, give the network \
             other addresses: docker network create --subnet RANGE NET, or the settings engine.bip for `bridge` and \
             engine.default-address-pools for networks to come",
        );
        Ok(self.stop(Station::Route, stop))
    }

    async fn reach_itself(&mut self, walker: &Walker<'_>, address: SocketAddr) -> Result<Verdict, ApiError> {
        let tried = self.attempt(walker, address).await?;
        if tried.attempt == Attempt::Taken {
            self.pass(
                Station::Server,
                format!("a program of {} itself answers at {address}", walker.name),
            );
            return Ok(Verdict::Reachable);
        }
        let listeners = self.listeners(walker.namespace).await?;
        let mut stop = listening::judge(&tried.attempt, address, &listeners, walker.name);
        stop.advice = format!(
            "localhost in a container is the container itself; a program of this computer is at \
             host.docker.internal:{}",
            address.port()
        );
        Ok(self.stop(Station::Server, stop))
    }
}

fn teller(source: NameSource) -> String {
    match source {
        NameSource::Hosts => "the container's hosts file".to_owned(),
        NameSource::Server(server) if server == ENGINE_DNS => "the engine's DNS".to_owned(),
        NameSource::Server(server) if server == IpAddr::from(network::RESOLVER) => {
            "Cove's resolver, which asks this computer's".to_owned()
        }
        NameSource::Server(server) | NameSource::Failed(server) => format!("the name server {server}"),
        NameSource::Silence | NameSource::Nobody => "nobody".to_owned(),
    }
}

/// Why a name means nothing in the container.
fn unknown(from: &Container, name: &str, other: Option<&Container>, source: NameSource) -> Stop {
    if let Some(other) = other {
        if let Some(stop) = idle(other).filter(|_| !other.running) {
            return stop;
        }
        let (mine, theirs) = (&from.name, &other.name);
        return if from.meets(other) {
            Stop::new(
                Verdict::NoName,
                format!(
                    "`{theirs}` is on a network with `{mine}`, whose containers do not know each other's names"
                ),
                format!(
                    "give both a network of their own: docker network create NET, docker network connect NET {mine}, \
                     docker network connect NET {theirs}"
                ),
            )
        } else {
            let theirs_network = other.networks.first().map_or("NET", |(network, _)| network);
            Stop::new(
                Verdict::NoName,
                format!(
                    "`{mine}` shares no network with `{theirs}`, which has {}",
                    other.whereabouts()
                ),
                format!("docker network connect {theirs_network} {mine}"),
            )
        };
    }
    let teller = teller(source);
    match source {
        NameSource::Silence => Stop::new(
            Verdict::NoName,
            format!("no name server answers `{}`", from.name),
            "its networks may be internal, or --dns names a server that it cannot reach",
        ),
        NameSource::Nobody => Stop::new(
            Verdict::NoName,
            format!("`{}` has no name server to ask", from.name),
            "containers without a network know only the names in their hosts file (--add-host)",
        ),
        NameSource::Failed(_) => Stop::new(
            Verdict::NoName,
            format!("{teller} cannot tell what `{name}` is: this computer's name servers do not answer"),
            "is this computer online? Its VPN's name servers answer only while the VPN is up",
        ),
        NameSource::Hosts | NameSource::Server(_) => Stop::new(
            Verdict::NoName,
            format!("there is no `{name}`, says {teller}"),
            "no container on its networks is called that, and this computer does not know the name either",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &str, network: &str, running: bool) -> Container {
        Container {
            name: name.into(),
            running,
            networks: vec![(network.into(), vec![])],
            ..Container::default()
        }
    }

    #[test]
    fn a_containers_name_that_means_nothing_says_what_lacks() {
        let told = |other: Option<&Container>, source| {
            let stop = unknown(&on("app", "bridge", true), "db", other, source);
            format!("{:?} {} / {}", stop.verdict, stop.evidence, stop.advice)
        };
        let server = NameSource::Server(ENGINE_DNS);
        assert!(told(Some(&on("db", "bridge", true)), server).contains("do not know each other's names"));
        assert!(told(Some(&on("db", "own", true)), server).contains("docker network connect own app"));
        assert!(told(Some(&on("db", "own", false)), server).contains("docker start db"));
        assert!(told(None, server).contains("the engine's DNS"));
        assert!(told(None, NameSource::Silence).contains("no name server answers"));
    }
}
