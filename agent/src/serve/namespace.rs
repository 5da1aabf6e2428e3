//! Doing something within a network namespace.

use cove_wire::{Fault, FaultCode};
use rustix::{
    fs::{Mode, OFlags, open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{os::fd::AsFd, thread};
use tokio::sync::oneshot;

/// Does `work` on a thread of its own, in the namespace whose file is at `path` or else in the guest's own. What stays
/// in a namespace, such as a socket, does so when the thread has ended; nothing else is ever done from it.
pub(super) async fn within<T: Send + 'static>(
    path: Option<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let (sender, done) = oneshot::channel();
    let enter = move || {
        let result = path.as_deref().map_or(Ok(()), move_to).map(|()| work());
        // An error says that the host hung up meanwhile.
        drop(sender.send(result));
    };
    let failed = |error: &dyn std::fmt::Display| {
        Fault::new(FaultCode::Failed, format!("starting a thread failed: {error}"))
    };
    thread::Builder::new()
        .name("netns".into())
        .spawn(enter)
        .map_err(|error| failed(&error))?;
    done.await.map_err(|error| failed(&error))?
}

fn move_to(path: &str) -> Result<(), Fault> {
    // Without O_NONBLOCK a path to a pipe would block here.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    open(path, flags, Mode::empty())
        .and_then(|namespace| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)))
        .map_err(|error| {
            let code = if error == rustix::io::Errno::NOENT {
                FaultCode::NotFound
            } else {
                FaultCode::Failed
            };
            let message = format!("entering the network namespace {path} failed: {error}");
            Fault::new(code, message)
        })
}
