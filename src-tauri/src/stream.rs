//! What the front end is told over a channel until it does not want to hear more.
//!
//! Every stream has a number, by which it is ended (`unwatch`), and an allowance: what may be under way to the page and
//! not yet taken by it. A container that writes faster than a page can draw is slowed down by it, instead of filling
//! the page's memory.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{sync::Semaphore, task::AbortHandle};

/// The streams of the page. Owns their tasks.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    next: AtomicU32,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// How many pages have gone.
    gone: u32,
    streams: HashMap<u32, Stream>,
}

/// The page that something is done for: none other is to get what comes of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct For(u32);

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
        self.add(&mut self.open(), allowance, run)
    }

    /// The page that is there now.
    pub(crate) fn page(&self) -> For {
        For(self.open().gone)
    }

    /// The same as [`start`](Self::start) for what took a while to begin; nothing, and no stream, where the page that
    /// asked for it has gone meanwhile: nobody would ever end it.
    pub(crate) fn start_for<F>(
        &self,
        For(page): For,
        allowance: usize,
        run: impl FnOnce(Allowance) -> F,
    ) -> Option<u32>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut open = self.open();
        (open.gone == page).then(|| self.add(&mut open, allowance, run))
    }

    fn add<F>(&self, open: &mut Open, allowance: usize, run: impl FnOnce(Allowance) -> F) -> u32
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let allowance = Allowance(Arc::new(Semaphore::new(allowance)));
        let task = tauri::async_runtime::spawn(run(allowance.clone()));
        let task = task.inner().abort_handle();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Those that ended by themselves need no number any more.
        open.streams.retain(|_, stream| !stream.task.is_finished());
        open.streams.insert(number, Stream { task, allowance });
        number
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a stream; one that has ended is no mistake.
    pub(crate) fn end(&self, number: u32) {
        if let Some(stream) = self.open().streams.remove(&number) {
            stream.task.abort();
        }
    }

    /// The page has taken `amount` of a stream.
    pub(crate) fn taken(&self, number: u32, amount: u32) {
        if let Some(stream) = self.open().streams.get(&number) {
            let free = Semaphore::MAX_PERMITS - stream.allowance.0.available_permits();
            stream.allowance.0.add_permits(free.min(amount as usize));
        }
    }

    /// Ends all of them: their page has gone, and the next one knows none.
    pub(crate) fn clear(&self) {
        let mut open = self.open();
        open.gone = open.gone.wrapping_add(1);
        for (_, stream) in open.streams.drain() {
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

    #[test]
    fn what_a_page_asked_for_that_has_gone_since_does_not_begin() {
        let streams = Streams::default();
        let page = streams.page();
        let begin = |page| streams.start_for(page, 0, |_| std::future::pending());
        assert!(begin(page).is_some());
        streams.clear();
        assert!(begin(page).is_none());
        assert!(begin(streams.page()).is_some());
        assert_eq!(streams.open().streams.len(), 1);
        streams.clear();
    }
}
