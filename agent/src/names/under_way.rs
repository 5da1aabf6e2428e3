//! Questions that the host is being asked. Whoever asks the same meanwhile waits for the same answer: behind a name
//! server that is dead, everybody asks again and again.

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use std::collections::HashMap;

/// What comes of a question: an answer with the number of whoever asked first, or nothing.
type Asking = BoxFuture<'static, Option<Vec<u8>>>;

/// The questions, by what is the same in all that one answer fits. Those who ask own them.
#[derive(Default)]
pub(super) struct UnderWay(HashMap<Vec<u8>, WeakShared<Asking>>);

impl UnderWay {
    /// The question under way, or else `ask`, which then is under way until nobody waits for it any more.
    pub(super) fn join(
        &mut self,
        key: &[u8],
        ask: impl Future<Output = Option<Vec<u8>>> + Send + 'static,
    ) -> Shared<Asking> {
        if let Some(asking) = self.0.get(key).and_then(WeakShared::upgrade) {
            return asking;
        }
        // As many as there may be questions at most, so that looking through them costs nothing to speak of.
        self.0.retain(|_, asking| asking.upgrade().is_some());
        let asking = ask.boxed().shared();
        if let Some(shared) = asking.downgrade() {
            self.0.insert(key.to_vec(), shared);
        }
        asking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_is_asked_already_is_not_asked_again_until_it_is_answered() {
        let mut under_way = UnderWay::default();
        let (answer, answered) = oneshot::channel();
        let first = under_way.join(&[1], async { answered.await.ok() });
        let second = under_way.join(&[1], async { None });
        let other = under_way.join(&[2], async { None });
        answer.send(vec![7]).unwrap();
        assert_eq!(second.await, Some(vec![7]));
        assert_eq!(other.await, None);
        assert_eq!(first.await, Some(vec![7]));
        let later = under_way.join(&[1], async { Some(vec![8]) });
        assert_eq!(later.await, Some(vec![8]));
        assert_eq!(under_way.0.len(), 1, "what nobody waits for is forgotten");
    }

    #[tokio::test]
    async fn a_question_goes_on_when_whoever_asked_first_has_given_up() {
        let mut under_way = UnderWay::default();
        let (answer, answered) = oneshot::channel();
        let first = under_way.join(&[1], async { answered.await.ok() });
        let second = under_way.join(&[1], async { None });
        drop(first);
        answer.send(vec![7]).unwrap();
        assert_eq!(second.await, Some(vec![7]));
    }
}
