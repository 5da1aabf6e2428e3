//! What the API says of the way to something: hop by hop, and where it stops.

use serde::{Deserialize, Serialize};

/// The way from somewhere to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked for.
    pub target: String,
    /// Where the way begins: `this computer`, or a container's name.
    pub from: String,
    /// How it ends.
    pub verdict: Verdict,
    /// The hops in their order. The last one is where it stops, unless the target is reached.
    pub hops: Vec<Hop>,
}

/// One hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// What is looked at.
    pub station: Station,
    /// Whether the way goes on from here.
    pub passed: bool,
    /// What was seen, for a person.
    pub evidence: String,
    /// What to do; nothing where there is nothing to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What a hop looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Station {
    /// What the name means, and who says so.
    Name,
    /// The way to the address.
    Route,
    /// This computer's port, which leads to a container.
    Published,
    /// The reverse proxy that finds containers by their names.
    Web,
    /// Whether the container runs.
    Container,
    /// The program in the container.
    Server,
    /// The machine's way out.
    Nat,
    /// This computer: its own servers, its firewall.
    Host,
    /// What is beyond this computer.
    Beyond,
}

impl Station {
    /// Its name, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Route => "route",
            Self::Published => "published port",
            Self::Web => "reverse proxy",
            Self::Container => "container",
            Self::Server => "server",
            Self::Nat => "way out",
            Self::Host => "this computer",
            Self::Beyond => "beyond",
        }
    }
}

/// How the way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A server answers.
    Reachable,
    /// The name means nothing there.
    NoName,
    /// There is no route to the address.
    NoRoute,
    /// The machine has no way out, as where passt is missing.
    NoWayOut,
    /// No container publishes the port.
    NotPublished,
    /// The container does not run, or is paused.
    NotRunning,
    /// Nothing listens on the port.
    NothingListens,
    /// The program listens on its own loopback only.
    LoopbackOnly,
    /// The attempt was refused although there is a server, as a firewall does.
    Refused,
    /// There was no answer.
    Silence,
}
