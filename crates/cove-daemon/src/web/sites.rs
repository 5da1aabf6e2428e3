//! Which container a name means, and which of its ports speaks HTTP, from the engine's list of containers.

use crate::machine::{MOST_LENDERS, lender};
use serde_json::Value;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Most containers of the list that are looked at. The list is the guest's to write; no engine runs so many.
const MAX_CONTAINERS: usize = 4096;

/// The label that says which port to use, where the guess is wrong.
const PORT_LABEL: &str = "cove.port";
const SERVICE_LABEL: &str = "com.docker.compose.service";
const PROJECT_LABEL: &str = "com.docker.compose.project";

/// Where web servers usually listen, the likeliest first; other ports follow in order.
const USUAL: [u16; 8] = [80, 8080, 3000, 8000, 5000, 5173, 4200, 8888];
/// Ports of protocols that are not HTTP, or that are HTTP within TLS.
const OTHER: [u16; 24] = [
    21, 22, 25, 53, 110, 143, 389, 443, 465, 587, 636, 993, 995, 1433, 1521, 1883, 3306, 5432, 5671, 5672,
    6379, 9042, 11211, 27017,
];

/// A container that can be reached by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// The shortest name that means it.
    pub(crate) name: String,
    /// Its web server, as seen from within its network.
    pub(crate) server: SocketAddr,
}

/// The web server that a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// The id of its container.
    pub(crate) container: String,
    /// The id of the container that has the network which it is in, the same or another one; nothing for the machine's
    /// own network.
    pub(crate) network: Option<String>,
    /// As seen from within that network. From anywhere else it may be a stranger's: the addresses of some drivers'
    /// networks are the engine's to give and not the machine's to reach.
    pub(crate) address: SocketAddr,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSite {
    #[error("no running container and no compose service is called `{0}`")]
    Unknown(String),
    #[error("several compose projects have a service `{service}`; say which one: {}", .names.join(", "))]
    Ambiguous { service: String, names: Vec<String> },
    #[error(
        "the container `{0}` has no address in the machine, since it has no network, or that of a container which does \
         not run"
    )]
    NoAddress(String),
    #[error(
        "the container `{0}` does not say where its web server listens; start it with --label {PORT_LABEL}=PORT"
    )]
    NoPort(String),
}

/// What the list says of one container.
struct Container<'a> {
    id: &'a str,
    name: &'a str,
    service: Option<&'a str>,
    project: Option<&'a str>,
    place: Option<Place<'a>>,
    /// The container whose network it has instead of one of its own, by id or name; nobody once `place` is there.
    lender: Option<&'a str>,
    port: Option<u16>,
}

/// Where a container's programs listen: see [`Server`].
#[derive(Clone, Copy)]
struct Place<'a> {
    network: Option<&'a str>,
    address: IpAddr,
}

impl<'a> Container<'a> {
    fn read(value: &'a Value) -> Option<Self> {
        let label = |name| value["Labels"][name].as_str();
        let id = value["Id"].as_str()?;
        let networks = value["NetworkSettings"]["Networks"].as_object();
        // Each of its addresses will do from within its network, whichever driver that has.
        let place = networks.into_iter().flatten().find_map(|(name, network)| {
            if name == "host" {
                return Some(Place {
                    network: None,
                    address: Ipv4Addr::LOCALHOST.into(),
                });
            }
            let address = ["IPAddress", "GlobalIPv6Address"]
                .into_iter()
                .find_map(|key| network[key].as_str()?.parse().ok())?;
            Some(Place {
                network: Some(id),
                address,
            })
        });
        Some(Self {
            id,
            name: value["Names"][0].as_str()?.trim_start_matches('/'),
            service: label(SERVICE_LABEL),
            project: label(PROJECT_LABEL),
            place,
            lender: lender(value),
            port: label(PORT_LABEL)
                .and_then(|port| port.parse().ok())
                .or_else(|| likeliest(&value["Ports"])),
        })
    }

    fn server(&self) -> Result<Server, NoSite> {
        let place = self
            .place
            .ok_or_else(|| NoSite::NoAddress(self.name.to_owned()))?;
        let port = self.port.ok_or_else(|| NoSite::NoPort(self.name.to_owned()))?;
        Ok(Server {
            container: self.id.to_owned(),
            network: place.network.map(str::to_owned),
            address: (place.address, port).into(),
        })
    }
}

/// Of the TCP ports that a container exposes, the one that is likeliest to speak HTTP.
fn likeliest(ports: &Value) -> Option<u16> {
    let exposed = ports.as_array()?.iter().filter(|port| port["Type"] == "tcp");
    exposed
        .filter_map(|port| u16::try_from(port["PrivatePort"].as_u64()?).ok())
        .filter(|port| !OTHER.contains(port))
        .min_by_key(|port| {
            let rank = USUAL.iter().position(|usual| usual == port);
            (rank.unwrap_or(USUAL.len()), *port)
        })
}

fn containers(list: &Value) -> Vec<Container<'_>> {
    let listed = list.as_array().into_iter().flatten().take(MAX_CONTAINERS);
    let mut containers: Vec<Container<'_>> = listed.filter_map(Container::read).collect();
    let known: HashMap<&str, (Option<Place<'_>>, Option<&str>)> = containers
        .iter()
        .flat_map(|container| {
            [container.name, container.id].map(|key| (key, (container.place, container.lender)))
        })
        .collect();
    for container in &mut containers {
        for _ in 0..MOST_LENDERS {
            let Some(lender) = container.lender else { break };
            // Of one that does not run nothing is known.
            (container.place, container.lender) = known.get(lender).copied().unwrap_or_default();
        }
        if container.lender.is_some() {
            container.place = None;
        }
    }
    containers
}

/// Where `name` leads: a container, a compose service, or `SERVICE.PROJECT`. Names are compared as in DNS, without
/// case.
pub(crate) fn find(list: &Value, name: &str) -> Result<Server, NoSite> {
    let same = |known: &str| known.eq_ignore_ascii_case(name);
    let containers = containers(list);
    if let Some(container) = containers.iter().find(|container| same(container.name)) {
        return container.server();
    }
    // The engine lists the newest first; of a service's containers the oldest has seen most.
    let mut replicas: Vec<&Container<'_>> = containers
        .iter()
        .filter(|container| container.service.is_some_and(same))
        .collect();
    let mut projects: Vec<&str> = replicas
        .iter()
        .filter_map(|container| container.project)
        .collect();
    projects.sort_unstable();
    projects.dedup();
    if projects.len() > 1 {
        return Err(NoSite::Ambiguous {
            service: name.to_owned(),
            names: projects
                .iter()
                .map(|project| format!("{name}.{project}"))
                .collect(),
        });
    }
    let in_project = || {
        let (service, project) = name.rsplit_once('.')?;
        containers.iter().rfind(|container| {
            container
                .project
                .is_some_and(|known| known.eq_ignore_ascii_case(project))
                && container
                    .service
                    .is_some_and(|known| known.eq_ignore_ascii_case(service))
        })
    };
    match replicas.pop().or_else(in_project) {
        Some(container) => container.server(),
        None => Err(NoSite::Unknown(name.to_owned())),
    }
}

/// The names of a list, for what would be too much to look for one by one. It means by each name what [`find`] means.
struct Index<'a> {
    containers: HashMap<String, &'a Container<'a>>,
    services: HashMap<String, Service<'a>>,
}

struct Service<'a> {
    oldest: &'a Container<'a>,
    project: Option<&'a str>,
    ambiguous: bool,
}

impl<'a> Index<'a> {
    fn of(list: &'a [Container<'a>]) -> Self {
        let (mut containers, mut services) = (HashMap::new(), HashMap::new());
        for container in list {
            containers
                .entry(container.name.to_ascii_lowercase())
                .or_insert(container);
            if let Some(service) = container.service {
                let known = services.entry(service.to_ascii_lowercase()).or_insert(Service {
                    oldest: container,
                    project: container.project,
                    ambiguous: false,
                });
                known.oldest = container;
                known.ambiguous |= matches!((known.project, container.project), (Some(a), Some(b)) if a != b);
                known.project = known.project.or(container.project);
            }
        }
        Self { containers, services }
    }

    /// Where the name of a service leads.
    fn server(&self, service: &str) -> Option<Server> {
        let name = service.to_ascii_lowercase();
        if let Some(container) = self.containers.get(&name) {
            return container.server().ok();
        }
        let service = self.services.get(&name).filter(|service| !service.ambiguous)?;
        service.oldest.server().ok()
    }
}

/// Everything that can be reached by name, by name.
pub(crate) fn sites(list: &Value) -> Vec<Site> {
    let containers = containers(list);
    let index = Index::of(&containers);
    let mut sites: Vec<Site> = containers
        .iter()
        .filter_map(|container| {
            let server = container.server().ok()?;
            let by_service = container
                .service
                .filter(|service| index.server(service).as_ref() == Some(&server))
                .unwrap_or(container.name);
            Some(Site {
                name: crate::machine::clean(by_service).to_lowercase(),
                server: server.address,
            })
        })
        .collect();
    sites.sort_by(|one, other| one.name.cmp(&other.name));
    sites
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn container(name: &str, address: &str, ports: &[u16], labels: &Value) -> Value {
        let ports: Vec<Value> = ports
            .iter()
            .map(|port| json!({"PrivatePort": port, "Type": "tcp"}))
            .collect();
        json!({
            "Id": format!("id of {name}"),
            "Names": [format!("/{name}")],
            "Labels": labels,
            "Ports": ports,
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address}}},
        })
    }

    fn service(project: &str, service: &str, number: u8) -> Value {
        let labels = json!({PROJECT_LABEL: project, SERVICE_LABEL: service});
        let address = format!("172.20.0.{number}");
        container(
            &format!("{project}-{service}-{number}"),
            &address,
            &[3000],
            &labels,
        )
    }

    #[test]
    fn a_container_is_found_by_its_name_and_a_service_by_its_own() {
        let list = json!([
            service("shop", "web", 3),
            service("shop", "web", 2),
            container("Wiki", "172.17.0.2", &[5432, 8443, 8080], &json!({})),
            container("odd", "172.17.0.3", &[22], &json!({PORT_LABEL: "9999"})),
        ]);
        let found = |name| find(&list, name).map(|server| server.address.to_string());
        assert_eq!(found("wiki").as_deref(), Ok("172.17.0.2:8080"));
        assert_eq!(found("odd").as_deref(), Ok("172.17.0.3:9999"));
        assert_eq!(found("web").as_deref(), Ok("172.20.0.2:3000"));
        assert_eq!(found("shop-web-3").as_deref(), Ok("172.20.0.3:3000"));
        assert_eq!(found("web.shop").as_deref(), Ok("172.20.0.2:3000"));
        assert_eq!(found("nothing"), Err(NoSite::Unknown("nothing".into())));
        let names: Vec<String> = sites(&list).into_iter().map(|site| site.name).collect();
        assert_eq!(names, ["odd", "shop-web-3", "web", "wiki"]);
    }

    #[test]
    fn a_service_of_several_projects_needs_its_project() {
        let list = json!([service("shop", "web", 2), service("blog", "web", 3)]);
        let told = find(&list, "web").unwrap_err().to_string();
        assert!(told.ends_with("web.blog, web.shop"), "{told}");
        assert_eq!(
            find(&list, "web.blog")
                .map(|server| server.address.to_string())
                .as_deref(),
            Ok("172.20.0.3:3000")
        );
    }

    #[test]
    fn what_cannot_be_reached_says_why() {
        let alone = container("alone", "", &[80], &json!({}));
        let database = container("db", "172.17.0.2", &[5432], &json!({}));
        assert_eq!(
            find(&json!([alone]), "alone"),
            Err(NoSite::NoAddress("alone".into()))
        );
        assert_eq!(find(&json!([database]), "db"), Err(NoSite::NoPort("db".into())));
    }

    #[test]
    fn an_address_counts_in_the_network_that_the_container_has() {
        let own = container("own", "10.77.0.10", &[80], &json!({}));
        let mut host = container("host", "", &[80], &json!({}));
        host["NetworkSettings"]["Networks"] = json!({"host": {"IPAddress": ""}});
        let lodging = |name: &str, lender: &str| {
            let mut lodger = container(name, "", &[], &json!({PORT_LABEL: "8080"}));
            lodger["NetworkSettings"]["Networks"] = json!({});
            lodger["HostConfig"]["NetworkMode"] = format!("container:{lender}").into();
            lodger
        };
        let (by_id, by_name) = (lodging("by-id", "id of own"), lodging("by-name", "own"));
        // Of one that has another's network the engine gives the network on, too.
        let (second, third) = (lodging("second", "id of by-id"), lodging("third", "second"));
        let lost = [
            lodging("homeless", "gone"),
            lodging("lost", "homeless"),
            lodging("circle", "arc"),
            lodging("arc", "circle"),
        ];
        let mut list = vec![third, second, by_id, by_name, own, host];
        list.extend(lost);
        let list = Value::from(list);
        for (name, network, address) in [
            ("own", Some("id of own"), "10.77.0.10:80"),
            ("by-id", Some("id of own"), "10.77.0.10:8080"),
            ("by-name", Some("id of own"), "10.77.0.10:8080"),
            ("second", Some("id of own"), "10.77.0.10:8080"),
            ("third", Some("id of own"), "10.77.0.10:8080"),
            ("host", None, "127.0.0.1:80"),
        ] {
            let server = find(&list, name).unwrap();
            assert_eq!(server.container, format!("id of {name}"));
            assert_eq!(server.network.as_deref(), network, "{name}");
            assert_eq!(server.address.to_string(), address, "{name}");
        }
        for name in ["homeless", "lost", "circle", "arc"] {
            assert_eq!(find(&list, name), Err(NoSite::NoAddress(name.into())));
        }
    }

    #[test]
    fn a_list_as_long_as_an_answer_may_be_is_worked_through_in_time_that_grows_with_it() {
        let labels = json!({SERVICE_LABEL: "web", PROJECT_LABEL: "shop"});
        let one = json!({"Id": "x", "Names": ["/x"], "Labels": labels, "Ports": [{"PrivatePort": 80, "Type": "tcp"}],
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "172.17.0.2"}}}});
        let list = Value::Array(vec![one; 40_000]);
        assert_eq!(sites(&list).len(), MAX_CONTAINERS);
    }

    proptest! {
        #[test]
        fn the_list_of_sites_and_a_search_mean_the_same(
            containers in proptest::collection::vec((0..3u8, 0..3u8, 0..3u8, any::<bool>()), 0..8)
        ) {
            let list: Vec<Value> = containers
                .iter()
                .enumerate()
                .map(|(number, (name, project, service, reachable))| {
                    let labels = json!({PROJECT_LABEL: format!("P{project}"), SERVICE_LABEL: format!("S{service}")});
                    let name = if *name == 0 { format!("s{service}") } else { format!("c{number}") };
                    let address = if *reachable { format!("172.17.0.{}", number + 2) } else { String::new() };
                    container(&name, &address, &[80], &labels)
                })
                .collect();
            let list = Value::Array(list);
            for site in sites(&list) {
                let found = find(&list, &site.name).map(|server| server.address);
                prop_assert!(found == Ok(site.server) || list.as_array().unwrap().iter().filter(|container| {
                    container["Names"][0] == format!("/{}", site.name)
                }).count() > 1, "{site:?} is {found:?}");
            }
        }

        #[test]
        fn no_list_makes_it_panic(name in ".{0,12}", port in any::<i64>(), address in ".{0,12}") {
            let list = json!([
                {"Id": "1", "Names": [name.clone()], "Ports": [{"PrivatePort": port, "Type": "tcp"}],
                 "HostConfig": {"NetworkMode": format!("container:{name}")},
                 "NetworkSettings": {"Networks": {"n": {"IPAddress": address}}}},
                {"Id": "2", "Names": []}, 7, null,
            ]);
            let _ = find(&list, &name);
            let _ = sites(&list);
        }
    }
}
