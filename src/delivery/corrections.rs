//! What a provider's answer teaches about addresses: devices that no longer exist, mailboxes that never did, people who
//! told the provider to stop.

use crate::domain::channel::Channel;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::Claimed;
use crate::ports::provider::{Accepted, SendError};

/// Something to be corrected in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lesson {
    /// These devices of a recipient are gone.
    Devices {
        /// Whose.
        recipient: String,
        /// Their tokens.
        tokens: Vec<String>,
    },
    /// Nothing further is to be sent there.
    Addresses {
        /// Over this channel.
        channel: Channel,
        /// Where.
        addresses: Vec<String>,
        /// For people.
        reason: &'static str,
    },
}

/// What an answer teaches.
pub fn lesson(claimed: &Claimed, to: Option<&str>, result: &Result<Accepted, SendError>) -> Option<Lesson> {
    let channel = claimed.channel;
    let gone = match result {
        Ok(Accepted { gone, .. }) if !gone.is_empty() => gone,
        Err(SendError::Gone { addresses, .. }) => addresses,
        Err(SendError::Suppressed(_)) => {
            let (addresses, reason) = (vec![to?.to_owned()], "opted out at the provider");
            return Some(Lesson::Addresses { channel, addresses, reason });
        }
        Ok(_) | Err(_) => return None,
    };
    match channel {
        Channel::Push => Some(Lesson::Devices { recipient: claimed.recipient.clone()?, tokens: gone.clone() }),
        // The directory may learn the same address again from an event: it is the address that is remembered.
        _ => Some(Lesson::Addresses { channel, addresses: gone.clone(), reason: "the provider knows no such address" }),
    }
}

/// Corrects the directory. When it cannot be written now the next answer teaches the same.
pub async fn learn(contacts: &dyn Contacts, lessons: Vec<Lesson>) {
    for lesson in lessons {
        let learnt = match &lesson {
            Lesson::Devices { recipient, tokens } => contacts.forget_devices(recipient, tokens).await,
            Lesson::Addresses { channel, addresses, reason } => {
                contacts.suppress(*channel, addresses, reason).await.map(drop)
            }
        };
        if let Err(error) = learnt {
            tracing::warn!(%error, "the directory was not corrected by a provider's answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::state_tests::claimed;

    fn over(channel: Channel) -> Claimed {
        Claimed { channel, ..claimed() }
    }

    fn gone(addresses: &[&str]) -> Result<Accepted, SendError> {
        let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
        Err(SendError::Gone { addresses, reason: "no such".into() })
    }

    #[test]
    fn devices_that_are_gone_are_forgotten_whether_others_took_it_or_not() {
        let expected =
            Some(Lesson::Devices { recipient: "customer".into(), tokens: vec!["t-1".to_owned(), "t-2".to_owned()] });
        assert_eq!(lesson(&over(Channel::Push), Some("t-1"), &gone(&["t-1", "t-2"])), expected);
        let some = Accepted { gone: vec!["t-1".to_owned(), "t-2".to_owned()], ..Accepted::default() };
        assert_eq!(lesson(&over(Channel::Push), Some("t-3"), &Ok(some)), expected);
        let nobodys = Claimed { recipient: None, ..over(Channel::Push) };
        assert_eq!(lesson(&nobodys, None, &gone(&["t-1"])), None);
    }

    #[test]
    fn addresses_that_do_not_exist_or_want_nothing_get_nothing_further() {
        let learnt = |channel, result| match lesson(&over(channel), Some("to"), &result) {
            Some(Lesson::Addresses { channel: of, addresses, reason }) if of == channel => Some((addresses, reason)),
            None => None,
            other => panic!("{other:?}"),
        };
        let email = learnt(Channel::Email, gone(&["a@x.example"]));
        assert_eq!(email, Some((vec!["a@x.example".to_owned()], "the provider knows no such address")));
        let sms = learnt(Channel::Sms, Err(SendError::Suppressed("STOP".into())));
        assert_eq!(sms, Some((vec!["to".to_owned()], "opted out at the provider")));
        for nothing in [Ok(Accepted::default()), Err(SendError::Permanent("no".into()))] {
            assert_eq!(learnt(Channel::Email, nothing), None);
        }
    }
}
