//! Asking the page before the window closes for good, since that ends what only the page knows of.
//!
//! ```text
//!          somebody closes it              nothing ends, or a person agrees
//!   open ────────────────────▶ asked ──┬──────────────────────────────────────▶ closed
//!     ▲                                ├── no word in time: the page hangs ───▶ closed
//!     └── a person does not agree ◀────┘
//! ```
//!
//! A person may take as long as they like: the page says at once that it was asked.

use std::time::Duration;
use tokio::{sync::watch, time::timeout};

/// How long the page may take to say that it was asked.
const WORD: Duration = Duration::from_secs(3);

/// What the page is asked and answers.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// How often it was asked.
    asked: watch::Sender<u32>,
    /// How often it has answered.
    answered: watch::Sender<u32>,
}

/// A page that was asked, and has answered or not.
#[derive(Debug)]
pub(crate) struct Asked(watch::Receiver<u32>);

impl Closing {
    /// Changes whenever the page is asked from now on.
    pub(crate) fn heard(&self) -> watch::Receiver<u32> {
        self.asked.subscribe()
    }

    /// Asks the page; nothing where none listens, such as one that is still being loaded.
    pub(crate) fn ask(&self) -> Option<Asked> {
        // First, so that no answer is missed.
        let asked = Asked(self.answered.subscribe());
        let count = self.asked.borrow().wrapping_add(1);
        self.asked.send(count).is_ok().then_some(asked)
    }

    /// The page answers, whatever it says.
    pub(crate) fn answer(&self) {
        self.answered.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Asked {
    /// Waits for an answer; whether there is none in time.
    pub(crate) async fn stays_silent(mut self) -> bool {
        timeout(WORD, self.0.changed()).await.is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_where_no_page_listens() {
        let closing = Closing::default();
        assert!(closing.ask().is_none());
        let page = closing.heard();
        assert!(closing.ask().is_some());
        drop(page);
        assert!(closing.ask().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_hangs_keeps_no_window_open_and_one_answer_is_enough_for_all_before_it() {
        let closing = Closing::default();
        let mut page = closing.heard();
        let (first, second) = (closing.ask().unwrap(), closing.ask().unwrap());
        assert!(page.changed().await.is_ok());
        closing.answer();
        assert!(!first.stays_silent().await);
        assert!(!second.stays_silent().await);
        let third = closing.ask().unwrap();
        assert!(third.stays_silent().await);
    }
}
