//! A reaper for testcontainers: removes the containers of those whose connection has ended.
//!
//! It stands in for Ryuk, whose image has to come from a registry, and speaks its protocol: at port 8080 a client sends
//! lines of filters, `label=KEY=VALUE`, each answered `ACK`. When no client is connected any more, and none comes
//! within [`PATIENCE`], everything that the filters name is removed, and the program ends.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    reaper::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the reaper runs in a container, which is Linux");
}

#[cfg(target_os = "linux")]
mod reaper {
    use serde_json::{Value, json};
    use std::{
        collections::BTreeSet,
        fmt::Write as _,
        io::{self, BufRead as _, BufReader, Read as _, Write as _},
        net::{Ipv4Addr, TcpListener, TcpStream},
        os::unix::net::UnixStream,
        sync::mpsc,
        thread,
        time::Duration,
    };

    const PORT: u16 = 8080;
    const ENGINE: &str = "/var/run/docker.sock";
    /// How long a client may take to come back.
    const PATIENCE: Duration = Duration::from_secs(2);
    /// Longest answer of the engine that is read, in bytes.
    const MAX_ANSWER: u64 = 8 << 20;

    enum Happened {
        Came,
        Named(String),
        Left,
    }

    pub(super) fn run() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        let (sender, happenings) = mpsc::channel();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let sender = sender.clone();
                thread::spawn(move || {
                    // The reaper has ended when nobody receives this.
                    let _ = sender.send(Happened::Came);
                    let _ = listen(&client, &sender);
                    let _ = sender.send(Happened::Left);
                });
            }
        });
        println!("{PORT} Started!");
        let mut filters = BTreeSet::new();
        let mut connected = 0_u32;
        loop {
            let alone = connected == 0 && !filters.is_empty();
            let happened = if alone {
                match happenings.recv_timeout(PATIENCE) {
                    Ok(happened) => happened,
                    Err(_) => break,
                }
            } else {
                happenings.recv().map_err(io::Error::other)?
            };
            match happened {
                Happened::Came => connected += 1,
                Happened::Left => connected -= 1,
                Happened::Named(filter) => {
                    filters.insert(filter);
                }
            }
        }
        filters.iter().try_for_each(|label| reap(label))
    }

    fn listen(client: &TcpStream, sender: &mpsc::Sender<Happened>) -> io::Result<()> {
        let mut answers = client;
        for line in BufReader::new(client).lines() {
            for filter in line?.split('&') {
                if let Some(label) = filter.trim().strip_prefix("label=") {
                    let _ = sender.send(Happened::Named(label.to_owned()));
                }
            }
            answers.write_all(b"ACK\n")?;
        }
        Ok(())
    }

    fn reap(label: &str) -> io::Result<()> {
        let filters = json!({ "label": [label] }).to_string();
        let path = format!("/containers/json?all=1&filters={}", encoded(&filters));
        let containers = ask("GET", &path)?;
        let containers: Value = serde_json::from_str(&containers).map_err(io::Error::other)?;
        for container in containers.as_array().into_iter().flatten() {
            if let Some(id) = container["Id"].as_str() {
                ask("DELETE", &format!("/containers/{id}?force=1&v=1"))?;
                println!("removed {id}");
            }
        }
        Ok(())
    }

    /// Percent-encoded, as a query has to be (RFC 3986, section 2.1).
    fn encoded(text: &str) -> String {
        let mut encoded = String::new();
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() {
                encoded.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    }

    /// Asks the engine, without reuse of the connection, and gives the answer's body.
    fn ask(method: &str, path: &str) -> io::Result<String> {
        let mut engine = UnixStream::connect(ENGINE)?;
        // HTTP/1.0, so that the answer comes in one piece and ends with the connection.
        write!(engine, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = String::new();
        engine.take(MAX_ANSWER).read_to_string(&mut answer)?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| io::Error::other("the engine's answer has no end"))?;
        Ok(body.to_owned())
    }
}
