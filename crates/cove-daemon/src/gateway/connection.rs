//! One client connection from its first byte to its last: the loop over its requests.

use super::{
    Engine, buildkit,
    exchange::{Exchange, ExchangeError, Outcome},
    framing::{Body, Framing},
    head::{RequestHead, rewrite_length, rewrite_target},
    mounts::{self, MountPolicy, Verdict},
    proxies,
    reply::Reply,
    route::{self, Checked},
    stream::{Peer, READ_SIZE, ReadHeadError, Transfer},
};
use cove_api::carry_halves;
use cove_machine::Connection;
use futures_util::future::BoxFuture;
use std::{error::Error, future::pending, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tracing::debug;

/// How long a head may take from its first byte to its last. Between requests a client may be silent for ever.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Largest body of a request that is checked for bind mounts; the only bodies that are held.
const MAX_CHECKED_BODY: usize = 8 * 1024 * 1024;

/// How long looking for bind mounts may take. It follows links, and a file system whose server is away does not
/// answer.
const EXAMINED_WITHIN: Duration = Duration::from_secs(5);

/// Requests that are looked through at once, each on a thread of a pool that others use as well.
const MAX_EXAMINED: usize = 8;

/// The places for requests that are looked through. The connections of one gateway share them; one whose request is not
/// waited for any more keeps its place until the file system answers.
#[derive(Debug, Clone)]
pub(super) struct Examinations(Arc<Semaphore>);

impl Examinations {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_EXAMINED)))
    }

    /// Has `look` find out about mounts on a thread that may wait for the host's file systems, though not for ever.
    async fn examine<T: Send + 'static>(
        &self,
        policy: MountPolicy,
        look: impl FnOnce(&MountPolicy) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let places = Arc::clone(&self.0);
        let examining = async move {
            let place = places.acquire_owned().await.ok()?;
            let examined = spawn_blocking(move || {
                let found = look(&policy);
                drop(place);
                found
            });
            examined.await.ok()
        };
        let failed = |message: &str| Refusal::Tell(Reply::new(500, message));
        timeout(EXAMINED_WITHIN, examining)
            .await
            .map_err(|_elapsed| failed("the folder does not answer; the server that it lies on may be away"))?
            .ok_or_else(|| failed("cannot look for the bind mounts of this request"))
    }
}

/// How long a client is listened to after the last word was said to it. Closing while it still sends would make its
/// kernel throw away what it has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// How much it may say meanwhile; `yes | docker run -i …` would go on for as long as it is listened to.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// How long an engine is waited for when the client has ended its input. One that runs is there in milliseconds; a
/// client that would wait for one that starts has more likely left, and what it asked for must not be done behind its
/// back.
const HALF_CLOSED: Duration = Duration::from_secs(2);

/// Serves one client until either side has had enough.
pub(super) async fn serve<S: AsyncRead + AsyncWrite>(
    stream: S,
    engine: &dyn Engine,
    examinations: Examinations,
) {
    let mut conversation = Conversation {
        client: Peer::new(stream),
        link: None,
        engine,
        examinations,
    };
    let ending = conversation.run().await;
    let Conversation { client, link, .. } = conversation;
    // Whatever follows is courtesy towards the client, for which nothing in the engine shall wait.
    drop(link);
    match ending {
        Ending::Closed => {}
        Ending::Abrupt(error) => debug!(error = &error as &dyn Error, "connection dropped"),
        Ending::Said => take_leave(client).await,
    }
}

/// Closes a connection in such a way that the client can read everything that was said.
async fn take_leave<S: AsyncRead + AsyncWrite>(mut client: Peer<S>) {
    if client.outbound.finish().await.is_ok() {
        let drain = async {
            let mut heard = 0;
            while heard < LINGER_BYTES && matches!(client.inbound.discard().await, Ok(true)) {
                heard += client.inbound.buffer.len();
            }
        };
        let _ = timeout(LINGER, drain).await;
    }
}

/// How a connection is given up.
enum Ending {
    /// The client has left, or was idle when the engine did.
    Closed,
    /// It failed; the sooner both sides see it, the better.
    Abrupt(io::Error),
    /// The client has been told everything, and may still be sending.
    Said,
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        Self::Abrupt(error)
    }
}

/// Why a request is not passed on.
enum Refusal {
    /// The client is told, and the connection ends.
    Tell(Reply),
    /// The client is told, the request having been taken off the connection, which may go on.
    TellAndGoOn(Reply),
    /// There is nobody to tell.
    End(Ending),
}

impl<E: Into<Ending>> From<E> for Refusal {
    fn from(ending: E) -> Self {
        Self::End(ending.into())
    }
}

struct Conversation<'a, S> {
    client: Peer<S>,
    /// The engine's end, once a request has asked for it.
    link: Option<Peer<Connection>>,
    engine: &'a dyn Engine,
    examinations: Examinations,
}

impl<S: AsyncRead + AsyncWrite> Conversation<'_, S> {
    async fn run(&mut self) -> Ending {
        loop {
            let request = match self.next_request().await {
                Ok(request) => request,
                Err(Refusal::Tell(reply) | Refusal::TellAndGoOn(reply)) => {
                    debug!(status = reply.status, "malformed request");
                    let said = self.say(&reply.encode(true, false)).await;
                    return said.map_or_else(|ending| ending, |()| Ending::Said);
                }
                Err(Refusal::End(ending)) => return ending,
            };
            let started = Instant::now();
            let mut status = None;
            let done = self.answer(&request, &mut status).await;
            let (method, path, elapsed) = (&request.method, request.path(), started.elapsed());
            debug!(method, path, status, ?elapsed, "request");
            if let Err(ending) = done {
                return ending;
            }
        }
    }

    /// Waits for the client's next request, the engine's connection being idle meanwhile.
    async fn next_request(&mut self) -> Result<RequestHead, Refusal> {
        let client = &mut self.client.inbound;
        if client.buffer.is_empty() {
            let engine_speaks = async {
                match &mut self.link {
                    Some(link) => link.inbound.fill().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                // It closes. If it says something then nobody asked, and nobody could tell what it belongs to.
                _ = engine_speaks => return Err(Ending::Closed.into()),
                arrived = client.fill() => if !arrived? { return Err(Ending::Closed.into()) },
            }
        }
        let head = match timeout(HEAD_TIME, client.head()).await {
            Ok(Ok(length)) => RequestHead::parse(&client.buffer[..length]),
            Ok(Err(ReadHeadError::Malformed(error))) => Err(error),
            Ok(Err(ReadHeadError::Ended)) => return Err(Ending::Closed.into()),
            Ok(Err(ReadHeadError::Failed(error))) => return Err(error.into()),
            Err(_elapsed) => {
                let message = "the request's head was begun and not finished in time";
                return Err(Refusal::Tell(Reply::new(408, message)));
            }
        };
        head.map_err(|error| Refusal::Tell(error.into()))
    }

    /// Answers one request, or has the engine answer it. An error ends the connection.
    async fn answer(&mut self, request: &RequestHead, status: &mut Option<u16>) -> Result<(), Ending> {
        let (reply, goes_on) = match self.pass_on(request, status).await {
            Ok(()) => return Ok(()),
            Err(Refusal::End(ending)) => return Err(ending),
            Err(Refusal::Tell(reply)) => (reply, false),
            Err(Refusal::TellAndGoOn(reply)) => (reply, !request.last),
        };
        *status = Some(reply.status);
        self.say(&reply.encode(!goes_on, request.method == "HEAD"))
            .await?;
        if goes_on { Ok(()) } else { Err(Ending::Said) }
    }

    async fn pass_on(&mut self, request: &RequestHead, status: &mut Option<u16>) -> Result<(), Refusal> {
        // Kept for the next request only if this one comes to a proper end.
        let (mut link, fresh) = match self.link.take() {
            Some(link) => (link, false),
            None => (self.connect(request).await?, true),
        };
        let (upload, told_to_continue) = match Checked::of(&request.method, &request.target) {
            None => (Transfer::new(request.length, request.framing), false),
            Some(Checked::Build) => (self.tell_build(request), false),
            Some(Checked::Start) => (self.check_start(request).await?, request.expects_continue),
            Some(kind) => (self.check(kind, request).await?, request.expects_continue),
        };
        let mut exchange = Exchange {
            request,
            upload,
            told_to_continue,
            status: None,
        };
        let outcome = exchange.run(&mut self.client, &mut link).await;
        *status = exchange.status;
        let error = match outcome {
            Ok(Outcome::Complete) if link.inbound.buffer.is_empty() => {
                self.link = Some(link);
                return Ok(());
            }
            // It goes on after the end of its answer, which nobody asked for.
            Ok(Outcome::Complete) => return Err(Ending::Said.into()),
            Ok(Outcome::Tunnel) => {
                debug!(path = request.path(), status, "raw stream");
                let variables = self.engine.variables_of_builds();
                if !variables.is_empty() && exchange.status == Some(101) && buildkit::is_meant(request.path())
                {
                    self.carry_builds(link, variables).await?;
                    return Err(Ending::Said.into());
                }
                if let Err(error) = carry_halves(self.client.halves(), link.halves()).await {
                    debug!(error = &error as &dyn Error, "raw stream broke");
                }
                return Err(Ending::Said.into());
            }
            Err(ExchangeError::Client(error)) => return Err(error.into()),
            Err(error) => error,
        };
        debug!(error = &error as &dyn Error, "exchange failed");
        // A connection that was used before may close just so, and the client knows to try again on a fresh one.
        let tell = status.is_none() && (fresh || !matches!(error, ExchangeError::EngineSilent));
        Err(match error.reply().filter(|_| tell) {
            Some(reply) => Refusal::Tell(reply),
            None => Ending::Said.into(),
        })
    }

    /// Connects to the engine, for as long as the client waits for it.
    async fn connect(&mut self, request: &RequestHead) -> Result<Peer<Connection>, Refusal> {
        let mut connecting = std::pin::pin!(self.engine.connect());
        let connected = tokio::select! {
            biased;
            connected = &mut connecting => connected,
            ended = self.client.inbound.end(request.length + READ_SIZE) => {
                ended?;
                // The end of its input may be that of its request only, or that of the client; nothing tells which.
                let Ok(connected) = timeout(HALF_CLOSED, connecting).await else {
                    debug!("the client left while it waited for the machine");
                    return Err(Ending::Closed.into());
                };
                connected
            }
        };
        connected
            .map(Peer::new)
            .map_err(|unavailable| Refusal::Tell(unavailable.into()))
    }

    /// Reads a request that may ask for a bind mount as a whole, and checks it. What is to be sent is in the client's
    /// buffer then.
    async fn check(&mut self, kind: Checked, request: &RequestHead) -> Result<Transfer, Refusal> {
        let (content, length) = self.read_body(request).await?;
        let look = move |policy: &MountPolicy| (mounts::examine(kind, &content, policy), content);
        let (verdict, content) = self.examinations.examine(self.engine.mounts(), look).await?;
        let told = |body: &[u8]| proxies::amend_body(kind, body, &self.engine.variables_of_containers());
        let verdict = match verdict {
            Verdict::Forward => told(&content).map_or(Verdict::Forward, Verdict::Rewrite),
            Verdict::Rewrite(body) => Verdict::Rewrite(told(&body).unwrap_or(body)),
            refusal @ Verdict::Refuse(_) => refusal,
        };
        match verdict {
            Verdict::Forward => Ok(Transfer::whole(length)),
            Verdict::Rewrite(body) => {
                let client = &mut self.client.inbound;
                let head = rewrite_length(&client.buffer[..request.length], body.len());
                let message = [head, body].concat();
                client.replace(length, &message);
                Ok(Transfer::whole(message.len()))
            }
            Verdict::Refuse(message) => {
                self.client.inbound.skip(length);
                Err(Refusal::TellAndGoOn(Reply::new(400, message)))
            }
        }
    }

    /// Looks at what the container that is to be started was made with: a folder may have ceased to be shared since.
    /// Where the engine says nothing of it, it has the same to say to the client.
    async fn check_start(&mut self, request: &RequestHead) -> Result<Transfer, Refusal> {
        let (_, length) = self.read_body(request).await?;
        let container = match route::container(&request.target) {
            Some(name) => self.engine.container(&name).await.filter(mounts::has_mounts),
            None => None,
        };
        if let Some(container) = container {
            let look = move |policy: &MountPolicy| mounts::obstacle(&container.to_string(), policy);
            let obstacle = self.examinations.examine(self.engine.mounts(), look).await?;
            if let Some(message) = obstacle {
                self.client.inbound.skip(length);
                return Err(Refusal::TellAndGoOn(Reply::new(400, message)));
            }
        }
        Ok(Transfer::whole(length))
    }

    /// Puts the arguments that a build lacks into its request's head; its context follows unseen.
    fn tell_build(&mut self, request: &RequestHead) -> Transfer {
        let client = &mut self.client.inbound;
        let head = proxies::amend_target(&request.target, &self.engine.variables_of_builds())
            .and_then(|target| rewrite_target(&client.buffer[..request.length], &request.target, &target));
        let length = match head {
            Some(head) => {
                client.replace(request.length, &head);
                head.len()
            }
            None => request.length,
        };
        Transfer::new(length, request.framing)
    }

    /// Carries a connection of the builder's, whose builds are told of proxies.
    async fn carry_builds(
        &mut self,
        mut link: Peer<Connection>,
        variables: proxies::Variables,
    ) -> Result<(), Refusal> {
        // The answer that opens it belongs to the upgrade, and goes as it came.
        let head = link.inbound.head().await.map_err(|_| Ending::Closed)?;
        let answer = link.inbound.buffer.split_to(head);
        self.say(&answer).await?;
        let (near, client) = tokio::io::duplex(READ_SIZE);
        let (far, engine) = tokio::io::duplex(READ_SIZE);
        // Its type is too deep for the compiler to see that it can be sent.
        let builds: BoxFuture<'static, _> = Box::pin(buildkit::carry(client, engine, variables));
        let (client, engine, builds) = tokio::join!(
            carry_halves(self.client.halves(), tokio::io::split(near)),
            carry_halves(tokio::io::split(far), link.halves()),
            builds,
        );
        for error in [client.err(), engine.err()].into_iter().flatten() {
            debug!(error = &error as &dyn Error, "builds' stream broke");
        }
        if let Err(error) = builds {
            debug!(error = &error as &dyn Error, "builds broke off");
        }
        Ok(())
    }

    /// Reads the request's body, leaves it in the buffer, and answers its content and the length of head and body as
    /// they are there.
    async fn read_body(&mut self, request: &RequestHead) -> Result<(Vec<u8>, usize), Refusal> {
        let too_large = || {
            let most = MAX_CHECKED_BODY >> 20;
            let message = format!("the body of this request is larger than {most} MiB");
            Refusal::Tell(Reply::new(413, message))
        };
        if matches!(request.framing, Framing::Length(length) if length > MAX_CHECKED_BODY as u64) {
            return Err(too_large());
        }
        if request.expects_continue {
            self.say(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let client = &mut self.client.inbound;
        let mut body = Body::new(request.framing);
        let mut content = Vec::new();
        let mut length = request.length;
        loop {
            let rest = &client.buffer[length..];
            match body.next(rest) {
                Ok(Some(piece)) => {
                    if piece.content {
                        content.extend_from_slice(&rest[..piece.length]);
                    }
                    length += piece.length;
                }
                Ok(None) if body.is_complete() => return Ok((content, length)),
                Ok(None) if length - request.length > MAX_CHECKED_BODY => return Err(too_large()),
                Ok(None) => {
                    if !client.fill().await? {
                        return Err(Ending::Closed.into());
                    }
                }
                Err(error) => return Err(Refusal::Tell(error.into())),
            }
        }
    }

    async fn say(&mut self, words: &[u8]) -> Result<(), Ending> {
        Ok(self.client.outbound.send_all(words).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Unavailable;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// No engine; reaching for it shows in the answer.
    struct Nothing;

    #[async_trait::async_trait]
    impl Engine for Nothing {
        async fn connect(&self) -> Result<Connection, Unavailable> {
            Err(Unavailable::new("nothing here", ""))
        }

        fn mounts(&self) -> MountPolicy {
            unreachable!("no engine, no mounts")
        }

        async fn container(&self, _name: &str) -> Option<serde_json::Value> {
            None
        }
    }

    fn served() -> DuplexStream {
        let (client, gateway) = duplex(4096);
        tokio::spawn(async { serve(gateway, &Nothing, Examinations::new()).await });
        client
    }

    /// An engine that is there and says nothing.
    #[cfg(unix)]
    struct Silent;

    #[cfg(unix)]
    #[async_trait::async_trait]
    impl Engine for Silent {
        async fn connect(&self) -> Result<Connection, Unavailable> {
            let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
            Ok(ours.into())
        }

        fn mounts(&self) -> MountPolicy {
            MountPolicy {
                machine: "default".to_owned(),
                shares: Vec::new(),
                socket: "/run/cove/docker.sock".into(),
                host: crate::gateway::HostPaths::Unix,
                on_host: true,
            }
        }

        async fn container(&self, _name: &str) -> Option<serde_json::Value> {
            None
        }
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_request_whose_folder_does_not_answer_is_given_up() {
        let examinations = Examinations::new();
        let places = Arc::clone(&examinations.0);
        // As if as many file systems hung.
        let hanging = places
            .acquire_many(u32::try_from(MAX_EXAMINED).unwrap())
            .await
            .unwrap();
        let (mut client, gateway) = duplex(4096);
        tokio::spawn(async move { serve(gateway, &Silent, examinations).await });
        client
            .write_all(b"POST /containers/create HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            .await
            .unwrap();
        let began = Instant::now();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("does not answer"), "{answer}");
        assert!(began.elapsed() >= EXAMINED_WITHIN);
        drop(hanging);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_given_up() {
        let mut client = served();
        client.write_all(b"GET /info HT").await.unwrap();
        let began = Instant::now();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(began.elapsed() >= HEAD_TIME && began.elapsed() < 2 * HEAD_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_is_left_alone() {
        let mut client = served();
        tokio::time::sleep(Duration::from_hours(7 * 24)).await;
        client.write_all(b"GET /info HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_may_come_slowly() {
        let mut client = served();
        for byte in b"GET /info HTTP/1.1\r\n\r\n" {
            client.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}
