//! QEMU's control protocol, QMP: commands, their answers, and events, one JSON value a line.
//!
//! QEMU has met the guest, so that what it says is checked like the guest's own words: lines are bounded, and whatever
//! is not understood is passed over.

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
};
use tokio_util::codec::{Framed, LinesCodec};

/// Longest line that is taken, in bytes. What the commands here are answered is far shorter.
const MAX_LINE: usize = 64 << 10;

/// Commands that may wait to be sent, and events that may wait to be taken.
const MAX_WAITING: usize = 64;

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum QmpError {
    /// QEMU refused it.
    #[error("QEMU refused {command}: {why}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What QEMU said.
        why: String,
    },
    /// QEMU hung up, or never was there.
    #[error("QEMU does not answer")]
    Gone,
}

/// What happened within QEMU, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The vCPUs stopped.
    Stop,
    /// The vCPUs go on.
    Resume,
    /// The machine was reset.
    Reset,
    /// The guest ended, or wants to restart, or QEMU is about to end.
    Shutdown {
        /// One of QEMU's `ShutdownCause`s, such as `guest-reset`.
        reason: String,
    },
}

/// A line from QEMU.
#[derive(Debug, Clone, PartialEq)]
enum Message {
    Event(Event),
    Answer { id: u64, result: Result<(), String> },
    Other,
}

/// A line as it is written. Answers come with the id of their command.
#[derive(Debug, Deserialize)]
struct Raw {
    event: Option<String>,
    #[serde(default)]
    data: Value,
    id: Option<u64>,
    error: Option<RawError>,
}

#[derive(Debug, Deserialize)]
struct RawError {
    desc: String,
}

fn parse(line: &str) -> Message {
    let Ok(raw) = serde_json::from_str::<Raw>(line) else {
        return Message::Other;
    };
    if let Some(name) = raw.event {
        return match &*name {
            "STOP" => Message::Event(Event::Stop),
            "RESUME" => Message::Event(Event::Resume),
            "RESET" => Message::Event(Event::Reset),
            "SHUTDOWN" => Message::Event(Event::Shutdown {
                reason: raw.data["reason"].as_str().unwrap_or_default().to_owned(),
            }),
            _ => Message::Other,
        };
    }
    match raw.id {
        Some(id) => Message::Answer {
            id,
            result: raw.error.map_or(Ok(()), |error| Err(error.desc)),
        },
        None => Message::Other,
    }
}

struct Command {
    name: &'static str,
    arguments: Value,
    answer: oneshot::Sender<Result<(), QmpError>>,
}

/// Gives QEMU commands; a clone gives them to the same one.
#[derive(Clone)]
pub(super) struct Qmp(mpsc::Sender<Command>);

impl Qmp {
    /// Speaks QMP on `stream`, from a task of its own that ends with the connection. Commands can be given at once;
    /// events come from the second part.
    pub(super) fn open(stream: UnixStream) -> (Self, mpsc::Receiver<Event>) {
        let (commands, commands_receiver) = mpsc::channel(MAX_WAITING);
        let (events_sender, events) = mpsc::channel(MAX_WAITING);
        tokio::spawn(async move {
            let line = Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE));
            if let Err(error) = converse(line, commands_receiver, events_sender).await {
                tracing::warn!(%error, "the connection to QEMU broke");
            }
        });
        (Self(commands), events)
    }

    /// Carries out a command.
    pub(super) async fn execute(&self, name: &'static str, arguments: Value) -> Result<(), QmpError> {
        let (answer, result) = oneshot::channel();
        let command = Command {
            name,
            arguments,
            answer,
        };
        self.0.send(command).await.map_err(|_| QmpError::Gone)?;
        result.await.map_err(|_| QmpError::Gone)?
    }
}

async fn converse(
    mut line: Framed<UnixStream, LinesCodec>,
    mut commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
) -> Result<(), tokio_util::codec::LinesCodecError> {
    // The greeting; QEMU takes nothing but this command before it.
    let Some(_) = line.next().await.transpose()? else {
        return Ok(());
    };
    line.send(json!({"execute": "qmp_capabilities"}).to_string())
        .await?;
    let mut waiting = HashMap::new();
    let mut last = 0u64;
    loop {
        tokio::select! {
            Some(command) = commands.recv() => {
                last += 1;
                let request = json!({"execute": command.name, "arguments": command.arguments, "id": last});
                waiting.insert(last, (command.name, command.answer));
                line.send(request.to_string()).await?;
            }
            text = line.next() => {
                let Some(text) = text.transpose()? else {
                    return Ok(());
                };
                tracing::trace!(%text, "QMP");
                match parse(&text) {
                    // Nobody who watches is nobody who acts on it.
                    Message::Event(event) => { let _ = events.send(event).await; }
                    Message::Answer { id, result } => if let Some((command, answer)) = waiting.remove(&id) {
                        // Whoever asked may have lost interest.
                        let _ = answer.send(result.map_err(|why| QmpError::Refused { command, why }));
                    }
                    Message::Other => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_a_real_qemu_are_understood() {
        for (line, message) in [
            (
                r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
                Message::Event(Event::Shutdown {
                    reason: "guest-reset".into(),
                }),
            ),
            (
                r#"{"timestamp": {}, "event": "STOP"}"#,
                Message::Event(Event::Stop),
            ),
            (
                r#"{"return": {}, "id": 3}"#,
                Message::Answer {
                    id: 3,
                    result: Ok(()),
                },
            ),
            (
                r#"{"id": 4, "error": {"class": "GenericError", "desc": "no such device"}}"#,
                Message::Answer {
                    id: 4,
                    result: Err("no such device".into()),
                },
            ),
            (
                r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#,
                Message::Other,
            ),
            (
                r#"{"event": "RTC_CHANGE", "data": {"offset": 1}}"#,
                Message::Other,
            ),
            (
                r#"{"event": "SHUTDOWN", "data": 7}"#,
                Message::Event(Event::Shutdown {
                    reason: String::new(),
                }),
            ),
        ] {
            assert_eq!(parse(line), message, "{line}");
        }
    }

    /// A QEMU that greets, takes the capabilities and answers the first command with `answer`.
    async fn qemu(stream: UnixStream, answer: &str) {
        let mut line = Framed::new(stream, LinesCodec::new());
        line.send(r#"{"QMP": {}}"#.to_owned()).await.unwrap();
        assert!(line.next().await.unwrap().unwrap().contains("qmp_capabilities"));
        line.send(r#"{"return": {}}"#.to_owned()).await.unwrap();
        assert!(
            line.next()
                .await
                .unwrap()
                .unwrap()
                .contains(r#""execute":"stop""#)
        );
        line.send(r#"{"event": "STOP"}"#.to_owned()).await.unwrap();
        line.send(answer.to_owned()).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_is_answered_and_events_are_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (qmp, mut events) = Qmp::open(ours);
        let peer = tokio::spawn(qemu(theirs, r#"{"return": {}, "id": 1}"#));
        qmp.execute("stop", json!({})).await.unwrap();
        assert_eq!(events.recv().await, Some(Event::Stop));
        peer.await.unwrap();
        assert_eq!(events.recv().await, None, "the connection's end ends the events");
        assert_eq!(qmp.execute("cont", json!({})).await, Err(QmpError::Gone));
    }

    #[tokio::test]
    async fn a_refusal_says_what_was_refused_and_why() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (qmp, _events) = Qmp::open(ours);
        let peer = tokio::spawn(qemu(theirs, r#"{"error": {"desc": "busy"}, "id": 1}"#));
        let error = qmp.execute("stop", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused stop: busy");
        peer.await.unwrap();
    }

    #[tokio::test]
    async fn a_qemu_that_dies_fails_the_commands_in_flight() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (qmp, _events) = Qmp::open(ours);
        drop(theirs);
        assert_eq!(qmp.execute("stop", json!({})).await, Err(QmpError::Gone));
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in ".*") {
            let _ = parse(&line);
        }
    }
}
