//! What becomes of a provider's later report: it is noted at the attempt, addresses that shall get nothing further are
//! suppressed, and who wants no more of a kind gets no more of it.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::channel::Channel;
use crate::domain::preferences::{ANY, MAX_CATEGORY_BYTES, OptOut};
use crate::ports::contacts::Contacts;
use crate::ports::ledger::{LedgerError, NotificationLedger};
use crate::ports::reports::{Callback, Consequence, Report, ReportError, ReportReader};
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
        // Of several about one notification the last one stands, as if they had come one by one.
        let noted: HashMap<&str, &str> =
            reports.iter().filter_map(|r| Some((r.notification.as_deref()?, r.outcome.as_str()))).collect();
        self.ledger.note_reports(provider, &noted.into_iter().collect::<Vec<_>>()).await?;
        let mut suppressed: HashMap<&str, Vec<String>> = HashMap::new();
        for report in &reports {
            if let Some(Consequence::Suppress { address, reason }) = &report.consequence {
                suppressed.entry(reason).or_default().push(address.clone());
            }
        }
        for (reason, addresses) in suppressed {
            self.contacts.suppress(known.channel, &addresses, reason).await?;
        }
        for report in &reports {
            if let Some(Consequence::Unsubscribe { all, address }) = &report.consequence {
                self.unsubscribe(known.channel, report, *all, address.as_ref()).await?;
            }
        }
        for report in &reports {
            events::provider_reported(provider, report.notification.as_deref(), &report.outcome);
        }
        Ok(reports.len())
    }

    /// Refuses the notification's category, an exempt one too: it is what its recipient has seen and does not want. Who
    /// wants none at all gets what is exempt still.
    async fn unsubscribe(
        &self,
        channel: Channel,
        report: &Report,
        all: bool,
        address: Option<&String>,
    ) -> Result<(), LedgerError> {
        let known = match report.notification.as_deref() {
            Some(id) => self.ledger.notification(id).await?,
            None => None,
        };
        let category = |known| if all { ANY.to_owned() } else { known };
        let kind = known.and_then(|known| Some((known.recipient?, category(known.category))));
        match (kind.filter(|(_, category)| category.len() <= MAX_CATEGORY_BYTES), address) {
            (Some((recipient, category)), _) => {
                let refusal = OptOut { channel: channel.as_str().to_owned(), category };
                self.contacts.refuse(&recipient, refusal).await
            }
            (None, Some(address)) => {
                self.contacts.suppress(channel, std::slice::from_ref(address), &report.outcome).await.map(drop)
            }
            (None, None) => Ok(()),
        }
    }
}
