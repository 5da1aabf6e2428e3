//! Asking the host: one connection to the daemon, on which many questions are under way.
//!
//! ```text
//!               a question            connected
//!  Disconnected ──────────▶ Connecting ────────▶ Connected ⟲ questions and answers
//!       ▲                       │ failed             │ hung up: what was under way is answered with a failure
//!       └───────────────────────┴────────────────────┘
//! ```
//!
//! A task of its own owns the connection and the questions under way, each under a number that is unique on the
//! connection. While it sends it does not read, and so does the daemon: a question that the daemon does not take within
//! [`PATIENCE`] ends the connection, lest both wait for each other.

use super::{PATIENCE, framing};
use crate::{socket::Socket, vsock};
use bytes::Bytes;
use cove_wire::{dns, port};
use futures_util::{SinkExt, StreamExt};
use std::{collections::HashMap, io};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Questions that wait to be sent, and that wait for their answers.
const MOST_WAITING: usize = 64;
const MOST_ASKED: usize = 1024;

/// There is no answer, because the daemon cannot be asked, hung up, or has too many questions already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon on the host does not answer")]
pub(super) struct Away;

struct Question {
    message: Vec<u8>,
    answer: oneshot::Sender<Vec<u8>>,
}

/// The way to ask the host; clones share it.
#[derive(Clone)]
pub(super) struct Upstream(mpsc::Sender<Question>);

type Connection = Framed<Socket, LengthDelimitedCodec>;

impl Upstream {
    /// Connects with the first question.
    pub(super) fn new() -> Self {
        let (sender, questions) = mpsc::channel(MOST_WAITING);
        tokio::spawn(run(questions));
        Self(sender)
    }

    /// One that nobody answers, for as long as what comes with it is there.
    #[cfg(test)]
    pub(super) fn silent() -> (Self, impl Sized) {
        let (sender, questions) = mpsc::channel(MOST_WAITING);
        (Self(sender), questions)
    }

    /// Asks the host; the answer has the question's own number. Many at once wait for one another, as long as their
    /// askers do.
    pub(super) async fn ask(&self, message: &[u8]) -> Result<Vec<u8>, Away> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            message: message.to_vec(),
            answer,
        };
        self.0.send(question).await.map_err(|_| Away)?;
        answered.await.map_err(|_| Away)
    }
}

async fn run(mut questions: mpsc::Receiver<Question>) {
    while let Some(first) = questions.recv().await {
        // Connecting to a host that does not answer takes a while, in which those give up who wait behind it.
        if first.answer.is_closed() {
            continue;
        }
        match connect().await {
            Ok(connection) => {
                if let Err(error) = converse(connection, first, &mut questions).await {
                    tracing::debug!("the connection for names ended: {error}");
                }
            }
            // The question goes, and who asked it learns so.
            Err(error) => tracing::debug!("connecting to the daemon for names failed: {error}"),
        }
    }
}

async fn connect() -> io::Result<Connection> {
    let connecting = tokio::task::spawn_blocking(|| {
        let socket = vsock::connect_to_host(port::NAMES)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok::<_, io::Error>(socket)
    });
    let socket = connecting.await.map_err(io::Error::other)??;
    Ok(framing().new_framed(Socket::new(socket)?))
}

/// Asks and answers until the connection ends; what is under way then goes, and who asked learns so.
async fn converse(
    mut connection: Connection,
    first: Question,
    questions: &mut mpsc::Receiver<Question>,
) -> io::Result<()> {
    let mut asked = Asked::default();
    if let Some(message) = asked.enter(first) {
        timeout(PATIENCE, connection.send(message)).await??;
    }
    loop {
        tokio::select! {
            question = questions.recv() => match question {
                Some(question) => if let Some(message) = asked.enter(question) {
                    timeout(PATIENCE, connection.send(message)).await??;
                },
                None => return Ok(()),
            },
            answer = connection.next() => match answer {
                Some(answer) => asked.settle(&answer?),
                None => return Ok(()),
            },
        }
    }
}

/// The questions under way.
#[derive(Default)]
struct Asked {
    waiting: HashMap<u16, (u16, oneshot::Sender<Vec<u8>>)>,
    next: u16,
}

impl Asked {
    /// The message to send for a question; nothing when there are too many.
    fn enter(&mut self, question: Question) -> Option<Bytes> {
        // Whoever has given up frees its place.
        if self.waiting.len() >= MOST_ASKED {
            self.waiting.retain(|_, (_, answer)| !answer.is_closed());
        }
        if self.waiting.len() >= MOST_ASKED {
            return None;
        }
        while self.waiting.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let Question { mut message, answer } = question;
        let own = dns::id(&message)?;
        dns::set_id(&mut message, number);
        self.waiting.insert(number, (own, answer));
        Some(message.into())
    }

    /// Hands an answer to whoever asked.
    fn settle(&mut self, answer: &[u8]) {
        let asker = dns::id(answer).and_then(|number| self.waiting.remove(&number));
        if let Some((own, asker)) = asker {
            let mut answer = answer.to_vec();
            dns::set_id(&mut answer, own);
            // It may have given up.
            let _ = asker.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: u16) -> (Question, oneshot::Receiver<Vec<u8>>) {
        let (answer, answered) = oneshot::channel();
        let message = id.to_be_bytes().to_vec();
        (Question { message, answer }, answered)
    }

    #[tokio::test]
    async fn questions_with_the_same_number_get_their_own_answers() {
        let mut asked = Asked::default();
        let (first, first_answered) = question(7);
        let (second, second_answered) = question(7);
        let first = asked.enter(first).unwrap();
        let second = asked.enter(second).unwrap();
        assert_ne!(first, second);
        for (sent, text) in [(&second, b"two"), (&first, b"one")] {
            let mut answer = sent.to_vec();
            answer.extend_from_slice(text);
            asked.settle(&answer);
        }
        assert_eq!(first_answered.await.unwrap(), b"\x00\x07one");
        assert_eq!(second_answered.await.unwrap(), b"\x00\x07two");
        asked.settle(b"\xff\xffnobody");
        asked.settle(b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_takes_no_questions_is_left() {
        let (ours, _theirs) = Socket::pair();
        let (sender, mut questions) = mpsc::channel(MOST_WAITING);
        let large = || Question {
            message: vec![0; 60_000],
            answer: oneshot::channel().0,
        };
        // More than the sockets hold.
        for _ in 0..MOST_WAITING {
            assert!(sender.try_send(large()).is_ok());
        }
        let ended = converse(framing().new_framed(ours), large(), &mut questions).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn more_questions_at_once_than_wait_are_all_asked() {
        let (sender, mut questions) = mpsc::channel(1);
        let upstream = Upstream(sender);
        let answering = async {
            for _ in 0..3 {
                let Question { message, answer } = questions.recv().await.unwrap();
                answer.send(message).unwrap();
            }
        };
        let asking = async {
            tokio::join!(
                upstream.ask(b"1"),
                upstream.ask(b"2"),
                upstream.ask(b"3"),
                answering
            )
        };
        let (one, two, three, ()) = timeout(PATIENCE, asking).await.unwrap();
        assert_eq!((one, two), (Ok(b"1".to_vec()), Ok(b"2".to_vec())));
        assert_eq!(three, Ok(b"3".to_vec()));
    }

    #[tokio::test]
    async fn askers_that_gave_up_make_room() {
        let mut asked = Asked::default();
        let kept: Vec<_> = (0..MOST_ASKED)
            .map(|_| question(1))
            .map(|(question, answered)| {
                assert!(asked.enter(question).is_some());
                answered
            })
            .collect();
        let (further, _answered) = question(1);
        assert!(asked.enter(further).is_none());
        drop(kept);
        let (further, _answered) = question(1);
        assert!(asked.enter(further).is_some());
    }
}
