//! What becomes of a provider's later report: it is noted at the attempt, and addresses that shall get nothing further
//! are suppressed.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::channel::Channel;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::{LedgerError, NotificationLedger};
use crate::ports::reports::{Callback, Report, ReportError, ReportReader};
use crate::telemetry::events;

/// A provider whose reports are taken.
pub struct ReportingProvider {
    /// What it carries.
    pub channel: Channel,
    /// Reads its reports.
    pub reader: Box<dyn ReportReader>,
}

/// Takes reports.
pub struct ReportDesk {
    /// By the provider's name.
    pub providers: HashMap<String, ReportingProvider>,
    /// Where reports are noted.
    pub ledger: Arc<dyn NotificationLedger>,
    /// Where addresses are suppressed.
    pub contacts: Arc<dyn Contacts>,
}

/// Why a report is not taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotTaken {
    #[error("no provider of this name takes reports")]
    UnknownProvider,
    #[error(transparent)]
    Refused(#[from] ReportError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ReportDesk {
    /// Takes a call. Taking it twice changes nothing more.
    ///
    /// # Errors
    /// See [`NotTaken`]. The caller may try again.
    pub async fn take(&self, provider: &str, callback: &Callback, now: Timestamp) -> Result<usize, NotTaken> {
        let known = self.providers.get(provider).ok_or(NotTaken::UnknownProvider)?;
        let reports = known.reader.read(callback, now)?;
        for Report { notification, outcome, suppress } in &reports {
            if let Some(id) = notification {
                self.ledger.note_report(id, provider, outcome).await?;
            }
            if let Some((address, reason)) = suppress {
                self.contacts.suppress(known.channel, std::slice::from_ref(address), reason).await?;
            }
            events::provider_reported(provider, notification.as_deref(), outcome);
        }
        Ok(reports.len())
    }
}
