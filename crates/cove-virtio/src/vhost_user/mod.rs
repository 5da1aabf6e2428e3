//! Serves any [`Device`] to a vhost-user front end, such as QEMU, on a unix socket.
//!
//! One front end is served at a time; when it goes, the device is reset and the next one may come, so a restarted
//! QEMU finds the device as new. [`backend`] turns the protocol's messages into calls of the device.

mod backend;
mod vring;

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use vhost::vhost_user::{BackendReqHandler, Error as ProtocolError};

use self::backend::Backend;
use crate::device::Device;
use crate::socket::{ListenError, Listener};

/// Why a device is not, or no longer, served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no socket for front ends to connect to.
    #[error("cannot offer the device over vhost-user")]
    Listen(#[from] ListenError),
    /// A system call failed.
    #[error("cannot {operation} for a vhost-user device")]
    Os {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The thread panicked, which is a mistake in this crate.
    #[error("the vhost-user thread panicked")]
    Panicked,
}

/// A device being served. Dropping it stops the service and drops the device.
pub struct Server {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// How the serving thread is told to end, wherever it waits.
struct Stop {
    event: OwnedFd,
    /// The stream of the session under way.
    session: Mutex<Option<UnixStream>>,
}

/// Serves `device` on a socket at `path`, mode 0600, from a thread of its own.
pub fn serve(device: impl Device + 'static, path: &Path) -> Result<Server, ServeError> {
    let os = |operation| move |source| ServeError::Os { operation, source };
    let listener = Listener::bind(path)?;
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| os("create an eventfd")(error.into()))?;
    let stop = Arc::new(Stop {
        event,
        session: Mutex::new(None),
    });
    let thread = std::thread::Builder::new()
        .name("vhost-user".to_owned())
        .spawn({
            let stop = Arc::clone(&stop);
            move || run(Box::new(device), &listener, &stop)
        })
        .map_err(os("start a thread"))?;
    Ok(Server {
        stop,
        thread: Some(thread),
    })
}

impl Server {
    /// Ends the service: the front end is disconnected, the socket removed, the device dropped.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.stop.request();
        self.join()
    }

    /// Waits until the service ends by itself, which it does only with an error.
    pub fn wait(mut self) -> Result<(), ServeError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), ServeError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(ServeError::Panicked),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop.request();
            if let Err(error) = self.join() {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a vhost-user device ended badly"
                );
            }
        }
    }
}

impl Stop {
    fn request(&self) {
        // An eventfd only refuses when its counter is about to overflow.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        // A front end that stopped in the middle of a message would hold the thread for ever.
        if let Some(session) = &*self.session.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = session.shutdown(Shutdown::Both);
        }
    }

    /// Waits until `fd` is readable; false when the service is to end first.
    fn wait_for(&self, fd: impl AsFd) -> io::Result<bool> {
        let fd = fd.as_fd();
        let mut fds = [
            PollFd::new(&self.event, PollFlags::IN),
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
        ];
        loop {
            match rustix::event::poll(&mut fds, None) {
                Ok(_) if !fds[0].revents().is_empty() => return Ok(false),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(true),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn run(device: Box<dyn Device>, listener: &Listener, stop: &Stop) -> Result<(), ServeError> {
    let os = |operation| move |source| ServeError::Os { operation, source };
    let backend = Arc::new(Mutex::new(Backend::new(device)));
    while stop.wait_for(listener).map_err(os("wait for a front end"))? {
        let Some(stream) = listener.accept().map_err(os("accept a front end"))? else {
            continue;
        };
        let stream = UnixStream::from(stream);
        stream
            .set_nonblocking(false)
            .map_err(os("prepare the front end's stream"))?;
        let clone = || stream.try_clone().map_err(os("prepare the front end's stream"));
        let readable = clone()?;
        *stop.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(clone()?);
        tracing::info!(socket = %listener.path().display(), "vhost-user front end connected");
        let mut handler = BackendReqHandler::from_stream(stream, Arc::clone(&backend));
        let end = converse(&mut handler, &readable, stop);
        backend
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .end_session();
        *stop.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match end {
            Ok(()) => return Ok(()),
            Err(ProtocolError::Disconnected) => {
                tracing::info!(socket = %listener.path().display(), "vhost-user front end left");
            }
            Err(error) => {
                tracing::warn!(socket = %listener.path().display(), %error, "vhost-user session ended");
            }
        }
    }
    Ok(())
}

/// Answers messages until the front end goes, or the service is to end.
fn converse(
    handler: &mut BackendReqHandler<Mutex<Backend>>,
    stream: &UnixStream,
    stop: &Stop,
) -> Result<(), ProtocolError> {
    while stop.wait_for(stream).map_err(ProtocolError::SocketError)? {
        match handler.handle_request() {
            Ok(()) => {}
            // The message was read whole and refused, and a front end that asked for an answer has it.
            Err(
                error @ (ProtocolError::InvalidParam
                | ProtocolError::InvalidOperation(_)
                | ProtocolError::ReqHandlerError(_)),
            ) => tracing::warn!(%error, "vhost-user request refused"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
