//! What the front end is told over a channel until it does not want to hear more.
//!
//! Every stream has a number, by which it is ended (`unwatch`), and an allowance: what may be under way to the page and
//! not yet taken by it. A container that writes faster than a page can draw is slowed down by it, instead of filling
//! the page's memory.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{sync::Semaphore, task::AbortHandle};

/// The streams of the page. Owns their tasks.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    next: AtomicU32,
    open: Mutex<HashMap<u32, Stream>>,
}

#[derive(Debug)]
struct Stream {
    task: AbortHandle,
    allowance: Allowance,
}

/// How much may still be sent.
#[derive(Debug, Clone)]
pub(crate) struct Allowance(Arc<Semaphore>);

impl Allowance {
    /// Waits until `amount` more may be sent.
    pub(crate) async fn spend(&self, amount: u32) {
        // It is never closed.
        if let Ok(permit) = self.0.acquire_many(amount).await {
            permit.forget();
        }
    }
}

impl Streams {
    /// Starts a stream that may have `allowance` under way, and returns its number.
    pub(crate) fn start<F>(&self, allowance: usize, run: impl FnOnce(Allowance) -> F) -> u32
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let allowance = Allowance(Arc::new(Semaphore::new(allowance)));
        let task = tauri::async_runtime::spawn(run(allowance.clone()));
        let task = task.inner().abort_handle();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that ended by themselves need no number any more.
        open.retain(|_, stream| !stream.task.is_finished());
        open.insert(number, Stream { task, allowance });
        number
    }

    /// Ends a stream; one that has ended is no mistake.
    pub(crate) fn end(&self, number: u32) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = open.remove(&number) {
            stream.task.abort();
        }
    }

    /// The page has taken `amount` of a stream.
    pub(crate) fn taken(&self, number: u32, amount: u32) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = open.get(&number) {
            let free = Semaphore::MAX_PERMITS - stream.allowance.0.available_permits();
            stream.allowance.0.add_permits(free.min(amount as usize));
        }
    }

    /// Ends all of them: another page was loaded, which knows none.
    pub(crate) fn clear(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, stream) in open.drain() {
            stream.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[test]
    fn a_stream_waits_for_its_page_and_ends_when_it_is_told() {
        let streams = Streams::default();
        let (sent, mut seen) = mpsc::unbounded_channel();
        let number = streams.start(2, move |allowance| async move {
            for count in 0.. {
                allowance.spend(1).await;
                if sent.send(count).is_err() {
                    return;
                }
            }
        });
        tauri::async_runtime::block_on(async {
            for expected in 0..2 {
                assert_eq!(seen.recv().await, Some(expected));
            }
            let more = tokio::time::timeout(Duration::from_millis(50), seen.recv()).await;
            assert!(more.is_err(), "it did not wait: {more:?}");
            streams.taken(number, 1);
            assert_eq!(seen.recv().await, Some(2));
            streams.end(number);
            assert_eq!(seen.recv().await, None);
        });
    }
}
