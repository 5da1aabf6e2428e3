//! Answers that are kept for as long as they hold.

use cove_wire::dns;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// Answers that are kept at most, and bytes of each.
const MOST: usize = 1024;
const LARGEST: usize = 4096;
/// However long an answer holds, the host is asked again after this: it may have joined another network, and keeps
/// answers itself.
const LONGEST: Duration = Duration::from_mins(1);
/// The same for what there is not: a container that is started before its computer's VPN goes on asking, and is to find
/// the name soon after it is there.
const LONGEST_LACK: Duration = Duration::from_secs(5);
/// For how long nobody is asked again what could not be answered (RFC 9520, section 3.2: for a second at least).
/// Clients ask anew at once, some twice, and would wait for the same failure each time.
const FAILED: Duration = Duration::from_secs(1);

/// The answers, by what is the same in the questions for them.
#[derive(Debug, Default)]
pub(super) struct Kept(HashMap<Vec<u8>, Entry>);

#[derive(Debug)]
struct Entry {
    answer: Vec<u8>,
    since: Instant,
    until: Instant,
}

impl Kept {
    /// The answer to a question, as old as it is now.
    pub(super) fn get(&mut self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.0.get(key)?;
        if entry.until <= now {
            self.0.remove(key);
            return None;
        }
        let mut answer = entry.answer.clone();
        let age = now.duration_since(entry.since).as_secs();
        dns::age(&mut answer, u32::try_from(age).unwrap_or(u32::MAX));
        Some(answer)
    }

    /// Keeps an answer, if it may be kept, and a failure for a moment.
    pub(super) fn put(&mut self, key: Vec<u8>, answer: &[u8], now: Instant) {
        let lifetime = match dns::lifetime(answer) {
            Some(lifetime @ 1..) => {
                let longest = if dns::is_negative(answer) {
                    LONGEST_LACK
                } else {
                    LONGEST
                };
                longest.min(Duration::from_secs(lifetime.into()))
            }
            None if !dns::is_conclusive(answer) => FAILED,
            _ => return,
        };
        if answer.len() > LARGEST {
            return;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, entry| entry.until > now);
        }
        if self.0.len() >= MOST {
            let soonest = self.0.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(key) = soonest.map(|(key, _)| key.clone()) {
                self.0.remove(&key);
            }
        }
        let entry = Entry {
            answer: answer.to_vec(),
            since: now,
            until: now + lifetime,
        };
        self.0.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of one address that holds for `ttl` seconds.
    fn answer(ttl: u8) -> Vec<u8> {
        let mut message = vec![0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1];
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4]);
        message.extend([192, 0, 2, 1]);
        message
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_as_long_as_it_holds_and_grows_older() {
        let mut kept = Kept::default();
        let begin = Instant::now();
        kept.put(vec![1], &answer(30), begin);
        assert_eq!(kept.get(&[1], begin + Duration::from_secs(10)), Some(answer(20)));
        assert_eq!(kept.get(&[1], begin + Duration::from_secs(30)), None);
        assert!(kept.0.is_empty());
        kept.put(vec![1], &answer(200), begin);
        assert_eq!(kept.get(&[1], begin + LONGEST), None);
    }

    /// That there is no address of `x`, after an alias of it or none. The zone says that this holds for a minute, or for
    /// the `minimum` that it has of it.
    fn lack(code: u8, aliases: &[u8], minimum: u8) -> Vec<u8> {
        let mut message = vec![0, 0, 0x80, code, 0, 1, 0, 0, 0, 1, 0, 0, 1, b'x', 0, 0, 1, 0, 1];
        for alias in aliases {
            message[7] += 1;
            message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 3, 1, *alias, 0]);
        }
        // Two names that are the root, and five numbers of which the last counts.
        message.extend([0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
        message.extend([0; 19]);
        message.push(minimum);
        message
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_is_not_is_asked_for_again_soon_whatever_its_zone_says() {
        let now = Instant::now();
        // No such name, and a name without the record, be it itself or what it is an alias of.
        for (code, aliases) in [(3, &b""[..]), (0, b""), (0, b"y"), (3, b"y")] {
            let mut kept = Kept::default();
            kept.put(vec![1], &lack(code, aliases, 60), now);
            let almost = LONGEST_LACK.checked_sub(Duration::from_millis(1)).unwrap();
            assert!(kept.get(&[1], now + almost).is_some(), "{code} {aliases:?}");
            assert_eq!(kept.get(&[1], now + LONGEST_LACK), None, "{code} {aliases:?}");
            // The zone may want it sooner.
            kept.put(vec![1], &lack(code, aliases, 2), now);
            assert_eq!(
                kept.get(&[1], now + Duration::from_secs(2)),
                None,
                "{code} {aliases:?}"
            );
            kept.put(vec![1], &lack(code, aliases, 0), now);
            assert_eq!(kept.get(&[1], now), None, "{code} {aliases:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_kept_for_a_second_whatever_is_in_it() {
        let mut kept = Kept::default();
        let now = Instant::now();
        let mut failure = answer(30);
        failure[3] = 2;
        kept.put(vec![1], &failure, now);
        let almost = FAILED.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(kept.get(&[1], now + almost), Some(failure));
        assert_eq!(kept.get(&[1], now + FAILED), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_must_not_be_kept_is_not_and_room_is_made() {
        let mut kept = Kept::default();
        let now = Instant::now();
        kept.put(vec![1], &answer(0), now);
        let mut cut = answer(30);
        cut[2] |= 2;
        kept.put(vec![2], &cut, now);
        assert!(kept.0.is_empty());
        for number in 0..=MOST {
            let ttl = if number == 0 { 5 } else { 50 };
            kept.put(number.to_be_bytes().to_vec(), &answer(ttl), now);
        }
        assert_eq!(kept.0.len(), MOST);
        assert_eq!(
            kept.get(&0_usize.to_be_bytes(), now),
            None,
            "the one that ends soonest went"
        );
    }
}
