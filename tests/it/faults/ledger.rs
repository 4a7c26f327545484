//! What must come of the input, by the oracle, in a form that a million events fit into.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use uuid::Uuid;

use crate::support::events::Input;
use crate::support::kafka::{ORDERS, PRODUCTS, USERS};
use crate::support::oracle::{Content, Verdict, judge};

/// The topics of the input.
pub const TOPICS: [&str; 3] = [ORDERS, USERS, PRODUCTS];

/// The service's documented namespace of ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0c_9a0e_54c3_5b0e_8f5c_2f6d_93d1_a7b4);

/// What must come of one record.
#[derive(Debug, Clone, Copy)]
pub enum Due {
    /// This request.
    Request {
        id: u128,
        content: u64,
    },
    Letter,
    Nothing,
}

/// An expected request, and how often it was seen.
pub struct Expected {
    pub content: u64,
    /// Of its event: events of one key are numbered in their order.
    pub number: u64,
    pub seen: u32,
}

/// Every record that Kafka has acknowledged, with what must come of it.
#[derive(Default)]
pub struct Ledger {
    pub appended: u64,
    pub skipped: u64,
    pub requests: HashMap<u128, Expected>,
    /// Dead letters by the number of their record, and how often each was seen.
    pub letters: HashMap<u64, u32>,
}

impl Due {
    pub fn of(input: &Input) -> Self {
        match judge(input.value.as_deref()) {
            Verdict::Request(content) => Self::Request { id: request_id(&content), content: fingerprint(&content) },
            Verdict::Refuse(_) => Self::Letter,
            Verdict::Skip => Self::Nothing,
        }
    }
}

impl Ledger {
    /// A record is on its topic. Its place there is not asked for: the acknowledgement that comes after a lost one does
    /// not tell it.
    pub fn enter(&mut self, number: u64, due: Due) {
        self.appended += 1;
        match due {
            Due::Nothing => self.skipped += 1,
            Due::Letter => {
                self.letters.insert(number, 0);
            }
            Due::Request { id, content } => {
                let twice = self.requests.insert(id, Expected { content, number, seen: 0 });
                assert!(twice.is_none(), "every event of the input has an id of its own");
            }
        }
    }
}

/// Stands for a content in comparisons.
pub fn fingerprint(content: &Content) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// The id that a request must have: UUIDv5 of event, template, channel and recipient, each after its length.
pub fn request_id(content: &Content) -> u128 {
    let recipient = content.recipient.as_deref().unwrap_or_default();
    let mut name = Vec::with_capacity(128);
    for part in [&content.causation_id, &content.template, &content.channel, recipient] {
        name.extend((part.len() as u64).to_be_bytes());
        name.extend(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name).as_u128()
}
