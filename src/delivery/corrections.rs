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
            Lesson::Addresses { channel, addresses, reason } => contacts.suppress(*channel, addresses, reason).await,
        };
        if let Err(error) = learnt {
            tracing::warn!(%error, "the directory was not corrected by a provider's answer");
        }
    }
}
