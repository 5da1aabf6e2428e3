//! This computer's name servers, asked as a program on it would ask them.

use cove_wire::{
    dns::{self, Query},
    etc,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// Where unix systems list them (resolv.conf(5)).
const FILE: &str = "/etc/resolv.conf";
/// The name server of a computer whose list names none.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
/// How often each is asked, in turn, and how long one may be silent before the next one is asked as well.
const ROUNDS: usize = 2;
const TURN: Duration = Duration::from_secs(1);

/// Why no name server answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("this computer has no name server")]
    None,
    #[error("asking the name server {0} failed")]
    Failed(SocketAddr, #[source] io::Error),
}

/// What the list says.
#[derive(Debug, Clone, Default)]
pub(super) struct Listed {
    pub(super) servers: Vec<SocketAddr>,
    /// The domains by which names are completed that are none as they are.
    pub(super) search: Vec<String>,
}

/// The list, read again when its file has changed.
#[derive(Debug)]
pub(super) struct Servers {
    file: Option<PathBuf>,
    /// When the file was changed, and its length, as it was read: part of a file that is being written may have the
    /// time of the whole.
    read: Option<(SystemTime, u64)>,
    listed: Listed,
}

impl Servers {
    pub(super) fn of_this_computer() -> Self {
        Self {
            file: cfg!(unix).then(|| FILE.into()),
            read: None,
            listed: Listed::default(),
        }
    }

    /// Always these.
    #[cfg(test)]
    pub(super) fn fixed(listed: Listed) -> Self {
        Self {
            file: None,
            read: None,
            listed,
        }
    }

    /// What holds now: a computer that joins a network or a VPN gets other servers.
    pub(super) fn current(&mut self) -> Listed {
        if let Some(file) = &self.file {
            let changed = std::fs::metadata(file)
                .and_then(|metadata| Ok((metadata.modified()?, metadata.len())))
                .ok();
            if changed.is_none() || changed != self.read {
                self.read = changed;
                let text = std::fs::read_to_string(file).unwrap_or_default();
                self.listed = Listed {
                    servers: etc::name_servers(&text, number_of).collect(),
                    search: etc::search_domains(&text).map(str::to_owned).collect(),
                };
                if self.listed.servers.is_empty() {
                    // As resolv.conf(5) has it, of a file that names none and of a missing one.
                    self.listed.servers.push(LOCAL);
                }
            }
        }
        self.listed.clone()
    }
}

/// The number of a device of this computer.
#[cfg(target_os = "linux")]
fn number_of(device: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(device).ok()
}

/// Elsewhere the system's resolver is asked first, which knows.
#[cfg(not(target_os = "linux"))]
fn number_of(_: &str) -> Option<u32> {
    None
}

/// Asks the servers in turn until one knows. It is for the caller to bound how long those are waited for that say
/// nothing.
pub(super) async fn ask(servers: &[SocketAddr], query: &Query<'_>) -> Result<Vec<u8>, AskError> {
    let mut turns = servers.iter().copied().cycle().take(servers.len() * ROUNDS);
    let mut asked = FuturesUnordered::new();
    let mut last = Err(AskError::None);
    loop {
        let answered = if let Some(server) = turns.next() {
            asked.push(async move { (server, ask_one(server, query).await) });
            // One that is only slow is still listened to while the next one is asked.
            let Ok(answered) = timeout(TURN, asked.next()).await else {
                continue;
            };
            answered
        } else {
            asked.next().await
        };
        match answered {
            Some((_, Ok(answer))) if dns::is_conclusive(&answer) => return Ok(answer),
            // Another one may know better.
            Some((_, Ok(answer))) => last = Ok(answer),
            Some((server, Err(error))) => {
                if last.is_err() {
                    last = Err(AskError::Failed(server, error));
                }
            }
            None => return last,
        }
    }
}

async fn ask_one(server: SocketAddr, query: &Query<'_>) -> io::Result<Vec<u8>> {
    // A number that nobody off the path can guess, beside a port of the kernel's choice.
    let message = query.anew(random());
    let asked = Query::parse(&message).map_err(io::Error::other)?;
    let mut answer = by_datagram(server, &asked, &message).await?;
    if dns::is_truncated(&answer) {
        answer = by_stream(server, &asked, &message).await?;
    }
    dns::set_id(&mut answer, query.id());
    Ok(answer)
}

async fn by_datagram(server: SocketAddr, asked: &Query<'_>, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From now on the kernel takes datagrams of the server only.
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; dns::MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        if asked.is_answered_by(answer) {
            return Ok(answer.to_vec());
        }
    }
}

async fn by_stream(server: SocketAddr, asked: &Query<'_>, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    if asked.is_answered_by(&answer) {
        Ok(answer)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is to another question",
        ))
    }
}

/// Sixteen bits of the standard library's keyed hash, whose keys come from the system.
fn random() -> u16 {
    let bits = RandomState::new().build_hasher().finish();
    u16::try_from(bits & 0xffff).unwrap_or_default()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn listed_in(file: &tempfile::NamedTempFile) -> Servers {
        Servers {
            file: Some(file.path().to_owned()),
            read: None,
            listed: Listed::default(),
        }
    }

    #[test]
    fn a_file_that_was_read_before_it_was_whole_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut servers = listed_in(&file);
        assert_eq!(servers.current().servers, [LOCAL], "a list without a name server");
        let begun = file.as_file().metadata().unwrap().modified().unwrap();
        std::fs::write(file.path(), "nameserver 192.0.2.1\nsearch corp.test\n").unwrap();
        // The clock of a filesystem moves on every few milliseconds.
        file.as_file().set_modified(begun).unwrap();
        let Listed { servers, search } = servers.current();
        assert_eq!(servers, [SocketAddr::from(([192, 0, 2, 1], 53))]);
        assert_eq!(search, ["corp.test"]);
    }

    #[test]
    fn where_no_name_server_is_listed_there_is_one_on_this_computer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# nameserver 192.0.2.1\noptions edns0\n").unwrap();
        assert_eq!(listed_in(&file).current().servers, [LOCAL]);
        let mut missing = listed_in(&file);
        file.close().unwrap();
        assert_eq!(missing.current().servers, [LOCAL]);
    }

    #[test]
    fn a_name_server_with_a_link_local_address_is_asked_by_its_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver fe80::1%lo\nnameserver fe80::1%none\n").unwrap();
        let mut servers = listed_in(&file);
        let loopback = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        let expected = [
            format!("[fe80::1%{}]:53", loopback.trim()),
            "[fe80::1]:53".to_owned(),
        ];
        let current = servers.current().servers;
        let current: Vec<String> = current.iter().map(ToString::to_string).collect();
        assert_eq!(current, expected);
    }
}
