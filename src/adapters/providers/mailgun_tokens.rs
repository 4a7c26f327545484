//! Which event each of Mailgun's signatures came with.
//!
//! Mailgun signs a random token and the time, not the event: who gets to see one call could send another event with its
//! signature. So the first event is the only one that a token stands for, and a call that was not taken may still be
//! repeated. Kept by each instance for itself, and until it ends.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// Some 17 megabytes when it is full; the oldest goes first.
const MOST_TOKENS: usize = 200_000;

/// Half of a SHA-256: nobody finds another event with the same one.
type Hash = [u8; 16];

/// The tokens of late.
#[derive(Default)]
pub struct Tokens(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    events: HashMap<Hash, Hash>,
    order: VecDeque<Hash>,
}

impl Tokens {
    /// True when the token is new, or stands for this event already. Only for tokens whose signature is good: others
    /// would push these out.
    pub fn binds(&self, token: &str, event: &str) -> bool {
        let (token, event) = (hash(token), hash(event));
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = kept.events.get(&token) {
            return *first == event;
        }
        if kept.order.len() >= MOST_TOKENS
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.events.remove(&oldest);
        }
        kept.order.push_back(token);
        kept.events.insert(token, event);
        true
    }
}

fn hash(text: &str) -> Hash {
    let mut half = Hash::default();
    half.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_for_its_first_event_until_it_is_forgotten() {
        let tokens = Tokens::default();
        assert!(tokens.binds("t", "a") && tokens.binds("t", "a") && !tokens.binds("t", "b"));
        for n in 1..MOST_TOKENS {
            assert!(tokens.binds(&n.to_string(), "a"));
        }
        assert!(!tokens.binds("t", "b"), "there was room for all");
        assert!(tokens.binds("one more", "a") && tokens.binds("t", "b"));
        let kept = tokens.0.lock().expect("no panic");
        assert_eq!((kept.events.len(), kept.order.len()), (MOST_TOKENS, MOST_TOKENS));
    }
}
