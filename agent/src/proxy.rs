//! The engine's userland proxy: the agent under the name `docker-proxy`, one process for each published port.
//!
//! ```text
//!  started by dockerd ─▶ Asking ── bound ──▶ Holding ── connection lost ──▶ Asking again
//!                          │ refused             │ killed by dockerd
//!                          ▼                     ▼
//!                 dockerd gets the reason     the host releases the port
//! ```
//!
//! It moves no data of this computer's: connections come over the agent's stream port. What it holds is the lease, a
//! connection to the host that lives exactly as long as this process, so that however dockerd, this process or the whole
//! machine ends, the host learns of it and lets go of the port. A daemon that starts anew has lost its leases, and is
//! asked again. Clients within the machine are carried by this process itself ([`inside`]).
//!
//! dockerd waits for two bytes on descriptor 3: `0` and a newline, or `1`, a newline and the reason.

mod inside;

use crate::vsock;
use cove_wire::{HEADER_LEN, Protocol, Publish, Published, body_len, decode, encode, port};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

/// The name under which the engine starts it.
const NAME: &str = "docker-proxy";

/// Where dockerd waits for the outcome.
const OUTCOME: &str = "/proc/self/fd/3";

/// How long the daemon may be away at first. dockerd waits for 16 s.
const TIMEOUT: Duration = Duration::from_secs(12);

/// The pause between attempts to reach the daemon, at first and at most. Ports should be back soon after it.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a daemon that could be asked has refused.
const LONGEST_REFUSED: Duration = Duration::from_secs(10);

/// Why a port was not published.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("{0}")]
    Arguments(String),
    #[error("{0}")]
    Refused(cove_wire::Fault),
    #[error("Cove's daemon on the host cannot be asked for the port: {0}")]
    Away(#[from] io::Error),
    #[error("Cove's daemon on the host gave no answer: {0}")]
    Wire(#[from] cove_wire::WireError),
}

/// Whether this process was started as the engine's proxy.
pub(crate) fn is_wanted() -> bool {
    crate::is_called(NAME)
}

/// Publishes the port that the arguments name, until it is killed.
pub(crate) fn run() -> ExitCode {
    let began = Instant::now();
    // The first is the name that it was started under.
    let asked = parse(std::env::args_os().skip(1)).and_then(|publish| {
        loop {
            match ask(publish) {
                Ok(lease) => return Ok((publish, lease)),
                Err(ProxyError::Away(_) | ProxyError::Wire(_)) if began.elapsed() < TIMEOUT => sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
    });
    if let Ok((publish, _)) = &asked
        && let Err(error) = inside::serve(*publish)
    {
        eprintln!(
            "{NAME}: {} is not to be had within the machine: {error}",
            publish.host
        );
    }
    let outcome = match &asked {
        Ok(_) => "0\n".to_owned(),
        Err(error) => format!("1\n{error}"),
    };
    let told = OpenOptions::new()
        .write(true)
        .open(OUTCOME)
        .and_then(|mut pipe| pipe.write_all(outcome.as_bytes()));
    match (asked, told) {
        (Ok((publish, lease)), Ok(())) => hold(publish, lease),
        (Err(error), Ok(())) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
        (_, Err(error)) => {
            eprintln!("{NAME} is started by the engine only: telling it the outcome failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps the port for as long as this process lives.
fn hold(publish: Publish, mut lease: File) -> ! {
    // The engine has promised the port: there is nobody left to be told that it was taken meanwhile.
    let publish = Publish {
        patient: true,
        ..publish
    };
    loop {
        // The host says nothing more; this returns when the connection ends.
        let _ = lease.read(&mut [0; 1]);
        let (mut pause, mut said) = (PAUSE, String::new());
        lease = loop {
            sleep(pause);
            match ask(publish) {
                Ok(lease) => break lease,
                Err(error) => {
                    pause = longer(pause, &error);
                    let error = error.to_string();
                    if error != said {
                        eprintln!("{NAME}: {error}");
                        said = error;
                    }
                }
            }
        };
    }
}

/// The pause before the next attempt, after one that followed a pause of `pause`.
fn longer(pause: Duration, error: &ProxyError) -> Duration {
    let longest = match error {
        ProxyError::Away(_) | ProxyError::Wire(_) => LONGEST_PAUSE,
        ProxyError::Refused(_) | ProxyError::Arguments(_) => LONGEST_REFUSED,
    };
    (pause * 2).min(longest)
}

/// Asks the host for the port. The connection is the lease.
fn ask(publish: Publish) -> Result<File, ProxyError> {
    let mut connection = File::from(vsock::connect_to_host(port::HOST)?);
    connection.write_all(&encode(&publish)?)?;
    let mut header = [0; HEADER_LEN];
    connection.read_exact(&mut header)?;
    let mut body = vec![0; body_len(header)?];
    connection.read_exact(&mut body)?;
    let Published { result } = decode(&body)?;
    result.map_err(ProxyError::Refused)?;
    Ok(connection)
}

/// Reads the arguments that dockerd gives its proxy: `-proto tcp -host-ip … -host-port … -container-ip …
/// -container-port …`.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Publish, ProxyError> {
    let wrong = |what: &str| ProxyError::Arguments(format!("{NAME} does not understand {what}"));
    let mut arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
    let mut protocol = None;
    let (mut host_ip, mut container_ip) = (None::<IpAddr>, None::<IpAddr>);
    let (mut host_port, mut container_port) = (None::<u16>, None::<u16>);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| wrong(&name))?;
        let bad = || wrong(&format!("{name} {value}"));
        match name.trim_start_matches('-') {
            "proto" => protocol = Some(self::protocol(&value)?),
            "host-ip" => host_ip = Some(value.parse().map_err(|_| bad())?),
            "host-port" => host_port = Some(value.parse().map_err(|_| bad())?),
            "container-ip" => container_ip = Some(value.parse().map_err(|_| bad())?),
            "container-port" => container_port = Some(value.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        }
    }
    match (protocol, host_ip, host_port, container_ip, container_port) {
        (Some(protocol), Some(host_ip), Some(host_port), Some(container_ip), Some(container_port)) => {
            Ok(Publish {
                protocol,
                host: SocketAddr::new(host_ip, host_port),
                container: SocketAddr::new(container_ip, container_port),
                patient: false,
            })
        }
        _ => Err(wrong("fewer arguments than the engine gives")),
    }
}

fn protocol(name: &str) -> Result<Protocol, ProxyError> {
    match name {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(ProxyError::Arguments(format!(
            "Cove publishes TCP and UDP ports, not {other}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Result<Publish, ProxyError> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_engines_arguments_are_understood() {
        let publish =
            parsed("-proto udp -host-ip :: -host-port 53 -container-ip 172.17.0.2 -container-port 5353")
                .unwrap();
        assert_eq!(publish.protocol, Protocol::Udp);
        assert_eq!(publish.host, "[::]:53".parse().unwrap());
        assert_eq!(publish.container, "172.17.0.2:5353".parse().unwrap());
    }

    #[test]
    fn a_protocol_that_cannot_be_published_is_named() {
        let error = parsed("-proto sctp").unwrap_err().to_string();
        assert!(error.contains("sctp"), "{error}");
    }

    #[test]
    fn missing_and_odd_arguments_are_refused() {
        for line in ["-proto tcp", "-proto", "-x y", "-host-port 70000"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_daemon_that_is_away_is_asked_again_soon_and_one_that_refuses_seldom() {
        let last = |error: &ProxyError| (0..20).fold(PAUSE, |pause, _| longer(pause, error));
        let away = ProxyError::Away(io::ErrorKind::ConnectionReset.into());
        assert_eq!(last(&away), LONGEST_PAUSE);
        let refused = ProxyError::Refused(cove_wire::Fault::new(cove_wire::FaultCode::Invalid, "port 0"));
        assert_eq!(last(&refused), LONGEST_REFUSED);
    }

    proptest! {
        #[test]
        fn no_arguments_make_the_parser_panic(words in proptest::collection::vec(".*", 0..8)) {
            let _ = parse(words.into_iter().map(OsString::from));
        }
    }
}
