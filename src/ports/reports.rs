//! What a provider reports later, by calling back: delivered after all, bounced, refused by the recipient.

use jiff::Timestamp;

/// A call as it came.
#[derive(Debug, Clone, Default)]
pub struct Callback {
    /// What stands behind `?` in its URL.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Callback {
    /// A call with this body.
    pub fn new(query: &str, headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        Self { query: query.to_owned(), headers, body }
    }

    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What was posted.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// What became of a notification after it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The notification, where the report names it.
    pub notification: Option<String>,
    /// `delivered`, or what went wrong; a word or two for people.
    pub outcome: String,
    /// What it means for later ones.
    pub consequence: Option<Consequence>,
}

/// What a report means for later notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consequence {
    /// This address shall get nothing further.
    Suppress {
        /// Which.
        address: String,
        /// Why, in a word or two.
        reason: String,
    },
    /// The recipient wants no more of the notification's kind.
    Unsubscribe {
        /// Of no kind at all.
        all: bool,
        /// What gets nothing further when the notification is not known. `None` where whoever reports holds mails back
        /// by itself, and may mean those of others.
        address: Option<String>,
    },
}

/// Why a call is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Its signature is missing or wrong.
    #[error("{0}")]
    Stranger(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// Reads one provider's reports.
pub trait ReportReader: Send + Sync {
    /// What a call says, once its signature is found good.
    ///
    /// # Errors
    /// See [`ReportError`].
    fn read(&self, callback: &Callback, now: Timestamp) -> Result<Vec<Report>, ReportError>;
}
