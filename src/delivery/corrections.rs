//! What a provider's answer teaches about addresses: devices that no longer exist, mailboxes that never did, people who
//! told the provider to stop.

use crate::domain::channel::Channel;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::{Claimed, LedgerError};
use crate::ports::provider::{Accepted, SendError};

/// Corrects the directory. When it cannot be written now the next answer teaches the same.
pub async fn learn_from(
    contacts: &dyn Contacts,
    claimed: &Claimed,
    to: Option<&str>,
    result: &Result<Accepted, SendError>,
) {
    let (channel, recipient) = (claimed.channel, claimed.recipient.as_deref());
    let corrected = match result {
        Ok(Accepted { gone, .. }) if !gone.is_empty() => forget(contacts, channel, recipient, gone).await,
        Err(SendError::Gone { addresses, .. }) => forget(contacts, channel, recipient, addresses).await,
        Err(SendError::Suppressed(_)) => match to {
            Some(to) => contacts.suppress(channel, &[to.to_owned()], "opted out at the provider").await,
            None => Ok(()),
        },
        Ok(_) | Err(_) => Ok(()),
    };
    if let Err(error) = corrected {
        tracing::warn!(notification = claimed.id, %error, "the directory was not corrected by a provider's answer");
    }
}

async fn forget(
    contacts: &dyn Contacts,
    channel: Channel,
    recipient: Option<&str>,
    addresses: &[String],
) -> Result<(), LedgerError> {
    match (channel, recipient) {
        (Channel::Push, Some(recipient)) => contacts.forget_devices(recipient, addresses).await,
        (Channel::Push, None) => Ok(()),
        // The directory may learn the same address again from an event: it is the address that is remembered.
        _ => contacts.suppress(channel, addresses, "the provider knows no such address").await,
    }
}
