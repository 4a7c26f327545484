//! Deterministic ids: the same cause always yields the same id, so a reprocessed event can be recognised.

use uuid::Uuid;

use super::channel::Channel;
use super::dead_letter::DeadLetter;

/// The namespace of all ids that this service derives (UUIDv5 of `notification-service` in the URL namespace).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0c_9a0e_54c3_5b0e_8f5c_2f6d_93d1_a7b4);

/// The id of a request: UUIDv5 of (causing event, template, channel, recipient).
pub fn request_id(causing_event: &str, template: &str, channel: Channel, recipient: Option<&str>) -> Uuid {
    derive(&[causing_event, template, channel.as_str(), recipient.unwrap_or("")])
}

/// The id of a direct request with this idempotency key.
pub fn direct_request_id(key: &str) -> Uuid {
    derive(&["api", key])
}

/// The id of the lifecycle event of this type about a notification; each time that it is tried again by hand begins anew.
pub fn lifecycle_id(notification: &str, event_type: &str, reopened: u32) -> Uuid {
    match reopened {
        0 => derive(&[notification, event_type]),
        times => derive(&[notification, event_type, &times.to_string()]),
    }
}

/// The id of a dead letter: of the record it stands for, so that parking it twice parks it once.
pub fn dead_letter_id(letter: &DeadLetter) -> String {
    let origin = &letter.origin;
    letter_id(&origin.topic, origin.partition.map(i64::from), origin.offset, origin.value.as_deref())
}

/// The id of the letter about the record with this place and content.
pub fn letter_id(topic: &str, partition: Option<i64>, offset: Option<i64>, content: Option<&[u8]>) -> String {
    let number = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
    let content = String::from_utf8_lossy(content.unwrap_or_default());
    derive(&[topic, &number(partition), &number(offset), &content]).to_string()
}

/// Lengths go into the name as well, so that ("ab","c") and ("a","bc") differ.
fn derive(parts: &[&str]) -> Uuid {
    let mut name = Vec::with_capacity(128);
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_recipe_never_changes() {
        let id = request_id("evt-1", "order_confirmation", Channel::Email, Some("cust-1"));
        assert_eq!(id.get_version_num(), 5);
        assert_eq!(id, request_id("evt-1", "order_confirmation", Channel::Email, Some("cust-1")));
        assert_eq!(
            id.to_string(),
            "683d8fe7-f50b-5f2a-8e19-0d62e506aeba",
            "ids are stored for ever: a new recipe would send everything twice"
        );
    }

    proptest! {
        #[test]
        fn different_causes_have_different_ids(a in "\\PC{0,12}", b in "\\PC{0,12}", c in "\\PC{0,12}", d in "\\PC{0,12}") {
            prop_assume!((&a, &b) != (&c, &d));
            prop_assert_ne!(
                request_id(&a, &b, Channel::Sms, None),
                request_id(&c, &d, Channel::Sms, None)
            );
        }
    }
}
