//! The way from this computer.

use super::{Stop, Walk, Walker, container::Container, here, idle, refused_or_silent, target::Target};
use crate::{machine::clean, web};
use cove_api::{ApiError, Station, Verdict};
use cove_wire::{Attempt, Protocol, Publish, network};
use std::net::{IpAddr, SocketAddr};

/// The machine itself, which connections to published ports come from.
const MACHINE: Walker<'static> = Walker {
    namespace: None,
    name: "the machine",
};
/// Names that only containers know this computer by.
const FOR_CONTAINERS: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];

impl Walk {
    pub(super) async fn begin_here(&mut self, target: &Target) -> Result<Verdict, ApiError> {
        let host = target.host.as_str();
        let below = host
            .strip_suffix(web::DOMAIN)
            .and_then(|rest| rest.strip_suffix('.'));
        if let Some(name) = below {
            return self.by_name(name, target.port).await;
        }
        if FOR_CONTAINERS.contains(&host) {
            self.pass(
                Station::Name,
                format!(
                    "`{host}` is {} in containers, where the way begins",
                    network::GATEWAY_V4
                ),
            );
            let address = SocketAddr::new(network::GATEWAY_V4.into(), target.port.unwrap_or(80));
            return self.reach_outside(&MACHINE, address).await;
        }
        // A single word is rather a container's name than a computer's.
        if !host.contains('.')
            && host != "localhost"
            && let Some(container) = self.container(host).await
        {
            return self.container_by_name(&container, target.port).await;
        }
        let addresses = match here::resolve(host).await {
            Ok(addresses) => addresses,
            Err(why) => {
                let stop = Stop::new(
                    Verdict::NoName,
                    format!("this computer does not know `{}`: {why}", clean(host)),
                    "is it a container's name? `cove docker ps` lists them",
                );
                return Ok(self.stop(Station::Name, stop));
            }
        };
        let port = target.port.unwrap_or(80);
        let Some(first) = here::answering(&addresses, port).await else {
            let stop = Stop::new(Verdict::NoName, format!("`{}` has no address", clean(host)), "");
            return Ok(self.stop(Station::Name, stop));
        };
        if host.parse::<IpAddr>().is_err() {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            self.pass(
                Station::Name,
                format!("`{}` is {}", clean(host), all.join(" and ")),
            );
        }
        let address = SocketAddr::new(first, port);
        if here::is_own(first) {
            return self.reach_port(address).await;
        }
        if let Some(container) = self.container_at(first).await {
            self.pass(
                Station::Name,
                format!(
                    "{first} is an address within the machine, of `{}`",
                    container.name
                ),
            );
            return self.container_by_name(&container, target.port).await;
        }
        let own = here::attempt(address).await;
        if own == Attempt::Taken {
            self.pass(Station::Beyond, format!("a program answers at {address}"));
            return Ok(Verdict::Reachable);
        }
        Ok(self.not_answered(address, own).await)
    }

    /// To a port of this computer, which may lead to a container.
    async fn reach_port(&mut self, address: SocketAddr) -> Result<Verdict, ApiError> {
        let port = address.port();
        let on_port: Vec<Publish> = self
            .around
            .published
            .iter()
            .copied()
            .filter(|publish| publish.host.port() == port)
            .collect();
        let leads = |publish: &Publish| {
            publish.protocol == Protocol::Tcp
                && (publish.host.ip() == address.ip()
                    || (publish.host.ip().is_unspecified() && publish.host.is_ipv4() == address.is_ipv4()))
        };
        if let Some(publish) = on_port.iter().copied().find(leads) {
            return self.through(address, publish).await;
        }
        let mut refused = self.around.refused.iter();
        let refused = refused.find(|(publish, _)| publish.host.port() == port && leads(publish));
        match refused.cloned() {
            Some((publish, why)) => Ok(self.waited_for(publish, &why).await),
            None => self.unpublished(address, &on_port).await,
        }
    }

    /// To a port that cannot be had, whoever answers there instead.
    async fn waited_for(&mut self, publish: Publish, why: &str) -> Verdict {
        let container = self.container_at(publish.container.ip()).await;
        let whose = container.map_or_else(|| "a container".to_owned(), |found| format!("`{}`", found.name));
        let stop = Stop::new(
            Verdict::NotPublished,
            format!(
                "{} should lead to {whose}, port {}, but Cove cannot have it: {why}",
                publish.host,
                publish.container.port()
            ),
            "end the program that has it, and Cove takes it by itself within seconds; or publish another port",
        );
        self.stop(Station::Published, stop)
    }

    /// Through a port that is published.
    async fn through(&mut self, address: SocketAddr, publish: Publish) -> Result<Verdict, ApiError> {
        let container = self.container_at(publish.container.ip()).await;
        let whose = container
            .as_ref()
            .map_or_else(|| "a container".to_owned(), |found| format!("`{}`", found.name));
        self.pass(
            Station::Published,
            format!(
                "Cove listens on {} for {whose}, port {}",
                publish.host,
                publish.container.port()
            ),
        );
        let own = here::attempt(address).await;
        if own != Attempt::Taken {
            let stop = Stop::new(
                refused_or_silent(&own),
                format!("connections of this computer to {address} do not get through to it"),
                "look for a firewall's rule on this computer",
            );
            return Ok(self.stop(Station::Host, stop));
        }
        if let Some(container) = container {
            return self
                .reach_container(&MACHINE, publish.container, &container)
                .await;
        }
        // Of a service, for one, whose port leads to no container in particular.
        let tried = self.attempt(&MACHINE, publish.container).await?;
        if tried.attempt == Attempt::Taken {
            self.pass(
                Station::Server,
                format!("{} takes connections in the machine", publish.container),
            );
            return Ok(Verdict::Reachable);
        }
        let stop = Stop::new(
            refused_or_silent(&tried.attempt),
            format!("{} takes no connections in the machine", publish.container),
            "see that the container or service behind it runs",
        );
        Ok(self.stop(Station::Server, stop))
    }

    /// A port of this computer that no container publishes at that address.
    async fn unpublished(&mut self, address: SocketAddr, on_port: &[Publish]) -> Result<Verdict, ApiError> {
        let port = address.port();
        if self.around.web_port == Some(port) && address.ip().is_loopback() {
            self.pass(
                Station::Web,
                format!(
                    "Cove's reverse proxy listens here; it needs a container's name: http://NAME.{}:{port}/",
                    web::DOMAIN
                ),
            );
            return Ok(Verdict::Reachable);
        }
        let own = here::attempt(address).await;
        let machine = clean(&self.around.name);
        if own == Attempt::Taken {
            self.pass(
                Station::Host,
                format!(
                    "another program of this computer answers at {address}; no container of machine `{machine}` \
                     publishes that port"
                ),
            );
            return Ok(Verdict::Reachable);
        }
        if let Attempt::Forbidden(_) = own {
            return Ok(self.not_answered(address, own).await);
        }
        let stop = match on_port {
            [] => {
                let having = self.exposing(port);
                let (evidence, advice) = match having.as_slice() {
                    [] => (
                        String::new(),
                        format!("publish it with: docker run -p {port}:CONTAINER_PORT …"),
                    ),
                    names => (
                        format!("; {} has that port and does not publish it", names.join(", ")),
                        format!(
                            "make the container again with -p {port}:{port}, or for now: cove net explain {} says \
                             where it is, and cove forward {port}:ADDRESS:{port} leads there",
                            names[0].trim_matches('`')
                        ),
                    ),
                };
                Stop::new(
                    Verdict::NotPublished,
                    format!("no container of machine `{machine}` publishes port {port}{evidence}"),
                    advice,
                )
            }
            others => {
                let told: Vec<String> = others
                    .iter()
                    .map(|publish| format!("{} ({})", publish.host, publish.protocol))
                    .collect();
                Stop::new(
                    Verdict::NotPublished,
                    format!(
                        "port {port} is published on {} only, not on {} (tcp)",
                        told.join(", "),
                        address.ip()
                    ),
                    format!("use that address, or publish it with: docker run -p {port}:CONTAINER_PORT …"),
                )
            }
        };
        Ok(self.stop(Station::Published, stop))
    }

    /// The running containers that have a TCP port and do not publish it.
    fn exposing(&self, port: u16) -> Vec<String> {
        let has = |listed: &&serde_json::Value| {
            let ports = listed["Ports"].as_array().into_iter().flatten();
            ports
                .filter(|known| known["Type"] == "tcp" && known["PublicPort"].is_null())
                .any(|known| known["PrivatePort"].as_u64() == Some(port.into()))
        };
        let listed = self.list.as_array().into_iter().flatten().filter(has);
        listed
            .filter_map(|listed| listed["Names"][0].as_str())
            .map(|name| format!("`{}`", clean(name.trim_start_matches('/'))))
            .take(4)
            .collect()
    }

    /// To a container that is called by its name: by what it publishes.
    async fn container_by_name(
        &mut self,
        container: &Container,
        port: Option<u16>,
    ) -> Result<Verdict, ApiError> {
        if let Some(stop) = idle(container) {
            return Ok(self.stop(Station::Container, stop));
        }
        let own: Vec<IpAddr> = container.addresses().collect();
        let leading = self.around.published.iter().copied().filter(|publish| {
            publish.protocol == Protocol::Tcp
                && own.contains(&publish.container.ip())
                && port.is_none_or(|port| [publish.host.port(), publish.container.port()].contains(&port))
        });
        if let Some(publish) = leading.min_by_key(|publish| publish.container.port()) {
            let ip = match publish.host.ip() {
                ip if !ip.is_unspecified() => ip,
                IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            return self
                .through(SocketAddr::new(ip, publish.host.port()), publish)
                .await;
        }
        let name = &container.name;
        let which = port.map_or_else(|| "no port".to_owned(), |port| format!("not port {port}"));
        let at = own
            .first()
            .map_or_else(|| "ADDRESS".to_owned(), ToString::to_string);
        let port = port.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
        let advice = match self.around.web_port {
            Some(web_port) => format!(
                "a web server is at http://{name}.{}:{web_port}/; for everything else: cove forward {port}:{at}:{port}",
                web::DOMAIN
            ),
            None => format!("make it again with -p, or for now: cove forward {port}:{at}:{port}"),
        };
        let stop = Stop::new(
            Verdict::NotPublished,
            format!("`{name}` runs and publishes {which} on this computer"),
            advice,
        );
        Ok(self.stop(Station::Published, stop))
    }

    /// `NAME.cove.localhost`: through the reverse proxy.
    async fn by_name(&mut self, name: &str, port: Option<u16>) -> Result<Verdict, ApiError> {
        let domain = web::DOMAIN;
        self.pass(
            Station::Name,
            format!("`{name}.{domain}` is this computer's loopback, as all names below localhost"),
        );
        let stop = match (self.around.web_port, self.around.web_wanted) {
            (Some(listens), _) => port.filter(|port| *port != listens).map(|port| {
                Stop::new(
                    Verdict::NotPublished,
                    format!("Cove's reverse proxy listens on port {listens}, not on {port}"),
                    format!("use http://{name}.{domain}:{listens}/"),
                )
            }),
            (None, 0) => Some(Stop::new(
                Verdict::NotPublished,
                "containers are not reached by name: the setting `web.port` is 0",
                "cove config set web.port 2683",
            )),
            (None, wanted) => Some(Stop::new(
                Verdict::NotPublished,
                format!(
                    "Cove's reverse proxy cannot listen on port {wanted}: {}",
                    unavailable(wanted)
                ),
                "set another one: cove config set web.port PORT",
            )),
        };
        if let Some(stop) = stop {
            return Ok(self.stop(Station::Web, stop));
        }
        let server = match web::find(&self.list, name) {
            Ok(server) => server,
            Err(why) => {
                // It may be there and not run.
                let found = self.container(name).await;
                let stop = found.as_ref().and_then(idle).unwrap_or_else(|| {
                    Stop::new(
                        Verdict::NoName,
                        clean(&why.to_string()),
                        "`cove ports` lists the names that lead somewhere",
                    )
                });
                return Ok(self.stop(Station::Web, stop));
            }
        };
        let address = server.address;
        self.pass(
            Station::Web,
            format!("Cove's reverse proxy leads `{name}` to {address}"),
        );
        if server.network.is_none() {
            return self.reach_address(&MACHINE, address).await;
        }
        // The proxy connects from within the container's network, whichever driver that has.
        let found = self.container(&server.container).await;
        let place = found
            .as_ref()
            .and_then(|found| Some((found, found.namespace.as_deref()?)));
        let Some((container, namespace)) = place else {
            let stop = Stop::new(
                Verdict::NotRunning,
                format!("`{name}` has ended meanwhile, or the engine does not say where its network is"),
                "`cove ports` lists the names that lead somewhere",
            );
            return Ok(self.stop(Station::Container, stop));
        };
        let whose = format!("`{}`", container.name);
        let walker = Walker {
            namespace: Some(namespace),
            name: &whose,
        };
        self.reach_container(&walker, address, container).await
    }
}

/// Why a port of the loopback cannot be had, as far as its number tells.
fn unavailable(port: u16) -> &'static str {
    if cfg!(target_os = "linux") && port < 1024 {
        "another program has it, or users may not have ports below 1024 on this computer"
    } else {
        "another program has it"
    }
}
