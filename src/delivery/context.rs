//! What lanes work with.

use std::sync::Arc;
use std::time::Duration;

use super::decide::OnUnknown;
use super::rules::{HouseRules, Throttle};
use super::schedule::Schedule;
use super::templates::Templates;
use super::unsubscribe::UnsubscribeLinks;
use crate::domain::channel::Channel;
use crate::ports::clock::SharedClock;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::{LedgerError, NotificationLedger};
use crate::ports::provider::Provider;
use crate::ports::rate::SharedRate;
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::BreakerCell;

/// What all lanes share.
pub struct DispatchContext {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
    /// The recipients directory, which learns from answers too.
    pub contacts: Arc<dyn Contacts>,
    /// Their words.
    pub templates: Arc<Templates>,
    /// What holds for all recipients.
    pub house: HouseRules,
    /// How many a recipient gets.
    pub throttle: Option<Throttle>,
    /// Links to refuse more.
    pub unsubscribe: Option<UnsubscribeLinks>,
    /// For how long a notification waits for a contact.
    pub contact_patience: Duration,
    /// Waits between rounds.
    pub schedule: Schedule,
    /// Time.
    pub clock: SharedClock,
    /// In front of the database.
    pub database: Arc<BreakerCell>,
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// Claimed together at most.
    pub batch: usize,
    /// Sends under way at once, per lane, at most. So many settlements of one may wait twice over.
    pub max_in_flight: usize,
    /// How often the ledger is asked without being told of new work: for what other instances add.
    pub poll_interval: Duration,
}

/// A provider in its place within a channel.
pub struct LaneSettings {
    /// The channel.
    pub channel: Channel,
    /// Position of the provider within the channel.
    pub index: u16,
    /// Providers of the channel.
    pub lanes: u16,
    /// The provider's name.
    pub name: String,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// How long a send may take.
    pub timeout: Duration,
    /// Sends under way at once, at most; a provider that slows down gets less.
    pub max_in_flight: usize,
    /// What to do when nobody knows whether it took a notification.
    pub on_unknown: OnUnknown,
    /// Calls a second at most.
    pub max_per_second: Option<u32>,
    /// Who keeps that rate for all instances, and the breaker in front.
    pub shared_rate: Option<(Arc<dyn SharedRate>, Arc<BreakerCell>)>,
    /// In front of the provider.
    pub breaker: Arc<BreakerCell>,
    /// In front of the providers before it, in order.
    pub breakers_before: Vec<Arc<BreakerCell>>,
}

impl LaneSettings {
    /// The lanes whose notifications this provider gets too, for theirs turn calls away, and so does every one in
    /// between.
    pub fn stands_in_for(&self) -> Vec<u16> {
        let before = self.breakers_before.iter().enumerate().rev();
        before.take_while(|(_, breaker)| breaker.turns_away()).map(|(index, _)| index as u16).collect()
    }
}

impl DispatchContext {
    /// Tells the database's breaker how it went.
    pub async fn guarded<T>(&self, operation: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        // The actor's probe has a short deadline; an operation of a lane may take long.
        let permit = self.database.acquire_closed();
        let result = operation.await;
        if let Some(permit) = permit {
            permit.report(match &result {
                Err(LedgerError::Unavailable(_)) => CallOutcome::Failure(1),
                Ok(_) | Err(LedgerError::Rejected(_)) => CallOutcome::Success,
            });
        }
        result
    }
}
