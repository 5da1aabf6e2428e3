//! From an event of the engine to what it changes in the list.
//!
//! Another client of the forwarded socket ends and starts a container. The engine dates the event by the guest's clock,
//! the page notes when the row has changed by the host's, in whole milliseconds, and [`Distance`] joins the two.

use super::{clock::Distance, container};
use crate::harness::{
    Cove, Wire,
    webdriver::{SOON, Window},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc::{Receiver, channel},
    thread::{self, sleep},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often a container is ended and started.
const ROUNDS: usize = 20;
/// Before each change, so that nothing of the one before is under way.
const PAUSE: Duration = Duration::from_millis(500);
/// The page is left alone for this long, since whoever looks at it keeps it from its work.
const ALONE: Duration = Duration::from_millis(400);
/// Events by which the clocks are compared before each change.
const DATED: usize = 10;
/// Notes when the row of a container shows a state, as the page gets it.
const WATCH: &str = "\
const [name, wanted] = arguments;
window.coveSeen = null;
const look = () => {
  const rows = [...document.querySelectorAll('.item')];
  const row = rows.find((row) => row.querySelector('.name')?.textContent === name);
  if (row?.querySelector('.status')?.textContent.startsWith(wanted) !== true) return;
  window.coveSeen = Date.now();
  observer.disconnect();
};
const observer = new MutationObserver(look);
observer.observe(document.querySelector('.rows'), { subtree: true, childList: true, characterData: true });
";

/// All in milliseconds.
#[derive(Default)]
pub(super) struct Latency {
    /// From the event of a start to its row.
    pub(super) starts: Vec<f64>,
    /// From the event of an end to its row.
    pub(super) ends: Vec<f64>,
    /// From either to another client of the same socket.
    pub(super) heard: Vec<f64>,
    /// How far a figure may be off, because the clocks are not known to be closer.
    pub(super) doubt: f64,
    /// Changes that do not count, since a clock was set while they were made.
    lost: usize,
}

impl Latency {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "starts_ms": self.starts,
            "ends_ms": self.ends,
            "heard_ms": self.heard,
            "doubt_ms": self.doubt,
            "lost": self.lost,
        })
    }
}

/// Measures in a window that shows the list.
pub(super) fn measure(cove: &Cove, window: &Window) -> Result<Latency> {
    let socket = cove.docker_socket();
    let events = Events::follow(&socket)?;
    let mut client = Wire::connect(&socket);
    let mut latency = Latency::default();
    let changed = container(0);
    for _ in 0..ROUNDS {
        for (call, action, shown) in [("kill", "die", "Exited"), ("start", "start", "Up ")] {
            sleep(PAUSE);
            let mut distance = Distance::UNKNOWN;
            for _ in 0..DATED {
                // Hardly any work for the engine, and nothing that the list shows.
                let create = format!("/containers/{}/exec", container(1));
                let sent = post(&mut client, &create, r#"{"Cmd":["true"]}"#)?;
                let event = events.next("exec_create", &container(1))?;
                distance.learn(sent, event.dated, event.heard);
            }
            window.script(WATCH, &[changed.as_str().into(), shown.into()]);
            post(&mut client, &format!("/containers/{changed}/{call}"), "")?;
            let event = events.next(action, &changed)?;
            sleep(ALONE);
            let seen = seen(window)?;
            let Some((apart, doubt)) = distance.known() else {
                latency.lost += 1;
                continue;
            };
            let happened = event.dated - apart;
            let times = if action == "die" {
                &mut latency.ends
            } else {
                &mut latency.starts
            };
            times.push(seen - millis(happened));
            latency.heard.push(millis(event.heard - happened));
            latency.doubt = latency.doubt.max(millis(doubt));
        }
    }
    ensure!(
        latency.lost < ROUNDS,
        "the guest's clock was set {} times while it was compared with",
        latency.lost
    );
    Ok(latency)
}

/// Sends a request; when that was. The answer has come by then.
fn post(client: &mut Wire, path: &str, body: &str) -> Result<i64> {
    let sent = now();
    client.send("POST", path, "", body);
    let answer = client.response();
    ensure!(
        answer.status < 300,
        "POST {path} is answered with {}: {}",
        answer.status,
        answer.body
    );
    Ok(sent)
}

/// When the row showed what was waited for, in milliseconds since 1970.
fn seen(window: &Window) -> Result<f64> {
    let began = Instant::now();
    loop {
        if let Some(seen) = window.script("return window.coveSeen", &[]).as_f64() {
            return Ok(seen);
        }
        ensure!(
            began.elapsed() < SOON,
            "the row does not change; picture: {}",
            window.picture("bench")
        );
        sleep(ALONE / 8);
    }
}

/// An event, as another client hears of it.
struct Event {
    action: String,
    /// Its container's name.
    name: String,
    /// By the guest's clock, in nanoseconds since 1970.
    dated: i64,
    /// By the host's, likewise.
    heard: i64,
}

impl Event {
    /// An event in a line of the engine's answer, whose other lines are its head and the sizes of its chunks.
    fn read(line: &str, heard: i64) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            action: event["Action"].as_str()?.to_owned(),
            name: event["Actor"]["Attributes"]["name"].as_str()?.to_owned(),
            dated: event["timeNano"].as_i64()?,
            heard,
        })
    }
}

/// The events of containers.
struct Events {
    heard: Receiver<Event>,
    stream: UnixStream,
}

impl Events {
    fn follow(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).context("the engine cannot be reached")?;
        // {"type":["container"]}
        stream.write_all(
            b"GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D HTTP/1.1\r\nHost: docker\r\n\r\n",
        )?;
        let lines = BufReader::new(stream.try_clone()?).lines();
        let (tell, heard) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let heard = now();
                if let Some(event) = Event::read(&line, heard)
                    && tell.send(event).is_err()
                {
                    break;
                }
            }
        });
        // The engine begins to listen for this client at some moment after the request came, and says nothing of it.
        sleep(Duration::from_secs(1));
        Ok(Self { heard, stream })
    }

    /// The next event of that action and container.
    fn next(&self, action: &str, name: &str) -> Result<Event> {
        loop {
            let event = self.heard.recv_timeout(SOON);
            let event = event.with_context(|| format!("there is no event `{action}` of {name}"))?;
            if event.name == name && event.action.starts_with(action) {
                return Ok(event);
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Ends the reading; the engine may have done so before.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The host's clock in nanoseconds since 1970, by which the page's is set as well.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a quarter of a microsecond at most, in a table of milliseconds"
)]
fn millis(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_from_what_is_around_them() {
        let line = r#"{"Action":"die","Actor":{"Attributes":{"name":"web"}},"timeNano":1700000000000000001}"#;
        let event = Event::read(line, 7).unwrap();
        assert_eq!((event.action.as_str(), event.name.as_str()), ("die", "web"));
        assert_eq!((event.dated, event.heard), (1_700_000_000_000_000_001, 7));
        for other in ["HTTP/1.1 200 OK", "", "112", "1a2", "{}"] {
            assert!(Event::read(other, 7).is_none(), "{other}");
        }
    }
}
