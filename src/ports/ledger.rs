//! The notification ledger: every notification, its state, its attempts.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::domain::channel::Channel;
use crate::domain::dead_letter::Origin;
use crate::domain::notification::{DEFAULT_CATEGORY, Request};
use crate::domain::preferences::Preferences;
use crate::domain::recipient::Recipient;
use crate::domain::record::Headers;

/// Why the ledger did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The database cannot be reached or cannot work now.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database refuses this content for ever.
    #[error("the database refuses the content: {0}")]
    Rejected(String),
}

/// The states of a notification (docs/architecture.md shows the transitions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum State {
    Pending,
    Sending,
    Retrying,
    AwaitingContact,
    Sent,
    /// Not sent: the recipient or a rule does not want it.
    Suppressed,
    /// Not sent in time.
    Expired,
    /// Called off.
    Cancelled,
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Sending,
        Self::Retrying,
        Self::AwaitingContact,
        Self::Sent,
        Self::Suppressed,
        Self::Expired,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The name used in JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Retrying => "retrying",
            Self::AwaitingContact => "awaiting_contact",
            Self::Sent => "sent",
            Self::Suppressed => "suppressed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// True when nothing more will happen by itself.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Sent | Self::Suppressed | Self::Expired | Self::Cancelled | Self::Failed)
    }
}

/// A request on its way into the ledger, with the record that brought it.
#[derive(Debug, Clone)]
pub struct NewNotification {
    /// The request.
    pub request: Request,
    /// The request's own record: what a dead letter will carry.
    pub origin: Origin,
    /// When it arrived.
    pub received_at: Timestamp,
    /// What its template and its request ask for beside the sending.
    pub handling: Handling,
}

impl NewNotification {
    /// What its recipient may refuse it by.
    pub fn category(&self) -> &str {
        let named = self.request.category.as_deref().or(self.handling.category.as_deref());
        named.unwrap_or(DEFAULT_CATEGORY)
    }

    /// Until when it is collected in a digest. One that has a time of its own travels with nobody, and so does one that
    /// is worth nothing when the digest is due.
    pub fn collected_until(&self) -> Option<Timestamp> {
        let window = self.handling.digest_window.filter(|_| self.request.send_at.is_none())?;
        let until = self.received_at.checked_add(window).unwrap_or(Timestamp::MAX);
        self.request.expires_at.is_none_or(|at| at > until).then_some(until)
    }
}

/// How a notification is handled beside being sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handling {
    /// What its recipient may refuse it by, unless the request says so itself.
    pub category: Option<String>,
    /// It waits neither for the end of quiet hours nor for the throttle.
    pub critical: bool,
    /// Not to be sent from then on.
    pub expires_at: Option<Timestamp>,
    /// What it is about, where another one may replace it.
    pub about: Option<String>,
    /// Templates of waiting notifications that it replaces, when they are about the same.
    pub supersedes: Vec<String>,
    /// It is collected with others of its recipient and template for so long.
    pub digest_window: Option<Duration>,
}

/// Waiting notifications (pending, retrying, awaiting a contact) that somebody wants to settle out of turn.
#[derive(Debug, Clone)]
pub enum Selection {
    /// These.
    Ids(Vec<String>),
    /// Those that this one replaces: that lack a contact, wait for a time, or have been held up for seconds. What is about
    /// to be sent is not replaced.
    SupersededBy {
        /// What they are about.
        about: String,
        /// Whom they are for.
        recipient: Option<String>,
        /// Of which templates.
        templates: Vec<String>,
        /// Not this one itself.
        except: String,
        /// Caused no later than it.
        caused_at: Timestamp,
        /// When it arrived.
        now: Timestamp,
    },
    /// Those of a channel whose time is over.
    Expired {
        /// The channel.
        channel: Channel,
        /// Now.
        by: Timestamp,
    },
    /// Those of a channel that have waited for a contact for too long.
    Forgotten {
        /// The channel.
        channel: Channel,
        /// From this time or before.
        waiting_since: Timestamp,
    },
    /// All of a recipient.
    Recipient(String),
    /// Those that travel with these.
    DigestOf(Vec<String>),
}

/// What became of a batch of requests.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Inserted {
    pub new: u64,
    pub duplicates: u64,
    /// Waiting ones that the new ones replaced.
    pub replaced: Vec<Settlement>,
}

/// What becomes of a notification that is settled out of turn.
pub type Verdict<'f> = dyn Fn(&Claimed) -> Settlement + Send + Sync + 'f;

/// What becomes of a notification that a new one replaces.
pub type Replacement<'f> = dyn Fn(&NewNotification, &Claimed) -> Settlement + Send + Sync + 'f;

/// The owner in the settlements of notifications that are settled out of turn.
pub const OUT_OF_TURN: &str = "out of turn";

/// Who holds a notification, and until when by the owner's clock. Each renewal changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The notification's number.
    pub seq: i64,
    /// Who holds it.
    pub owner: String,
    /// Until when.
    pub until: Timestamp,
}

/// Due notifications of one lane, asked for by one owner.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ClaimRequest {
    pub channel: Channel,
    /// Position of the provider within the channel.
    pub lane: u16,
    /// Other lanes, from which is taken what there is room for after that, unless its own provider may have it already.
    pub stands_in_for: Vec<u16>,
    /// Names this instance; only the owner may settle.
    pub owner: String,
    pub now: Timestamp,
    pub lease_until: Timestamp,
    pub limit: usize,
}

/// A notification that this instance holds under a lease.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Claimed {
    /// The ledger's number for it.
    pub seq: i64,
    pub id: String,
    pub aggregate_id: String,
    pub channel: Channel,
    pub template: String,
    pub category: String,
    pub recipient: Option<String>,
    /// What the directory knows about the recipient.
    pub contact: Option<Recipient>,
    /// The version of the directory's entry that was seen; 0 when there was none.
    pub contact_version: i64,
    /// What the recipient wants to get, where that is known.
    pub preferences: Option<Preferences>,
    /// It waits for nothing.
    pub critical: bool,
    /// Not to be sent from then on.
    pub expires_at: Option<Timestamp>,
    /// The notification that carries it.
    pub digest_id: Option<String>,
    /// What it is about, where another one may replace it.
    pub about: Option<String>,
    /// When it was first found to have no contact.
    pub awaiting_since: Option<Timestamp>,
    /// How often it was tried again by hand.
    pub reopened: u32,
    pub correlation_id: String,
    pub caused_at: Timestamp,
    pub received_at: Timestamp,
    /// When it is or was to be tried, unless it waits for something else.
    pub due: Option<Timestamp>,
    /// The request's envelope.
    pub request_json: String,
    /// Rounds of the retry schedule used up.
    pub round: u16,
    pub lane: u16,
    /// Attempts so far.
    pub attempts: u32,
    /// How many of them ended with an unknown outcome.
    pub unknowns: u32,
    /// First failure, if there was one.
    pub first_failure_at: Option<Timestamp>,
    pub origin: OriginCoordinates,
}

/// A template whose notifications replace another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superseder {
    /// Its name.
    pub template: String,
    /// Whether the other's replace its own too: of two that were caused at the same time the one that came last counts.
    pub mutual: bool,
}

/// A notification that others may replace, and their templates.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Replaceable<'a> {
    pub claimed: &'a Claimed,
    pub by: &'a [Superseder],
}

impl Replaceable<'_> {
    /// Whether this one, in hand as well, replaces it: about the same, for the same recipient, caused no earlier.
    pub fn is_replaced_by(&self, other: &Claimed) -> bool {
        let old = self.claimed;
        let newer = |mutual: bool| match other.caused_at.cmp(&old.caused_at) {
            Ordering::Equal => !mutual || other.seq > old.seq,
            order => order.is_gt(),
        };
        let replaces = |by: &Superseder| by.template == other.template && newer(by.mutual);
        old.about.is_some()
            && other.about == old.about
            && other.recipient == old.recipient
            && self.by.iter().any(replaces)
    }
}

/// Where the request stood.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct OriginCoordinates {
    pub topic: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// The record's headers, as the ledger keeps them.
    pub headers_json: String,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Outcome {
    Accepted,
    Transient,
    Permanent,
    RateLimited,
    Unknown,
}

impl Outcome {
    /// Every outcome, for pre-registering metrics.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Transient, Self::Permanent, Self::RateLimited, Self::Unknown];

    /// The name used in JSON, metrics and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::RateLimited => "rate_limited",
            Self::Unknown => "unknown",
        }
    }
}

/// An attempt that is about to be made: recorded before the request leaves.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AttemptStart {
    /// See [`Claimed::seq`].
    pub seq: i64,
    pub id: String,
    pub number: u32,
    pub provider: String,
    /// Of the words that are sent.
    pub template_version: Option<String>,
    pub started_at: Timestamp,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AttemptEnd {
    pub number: u32,
    pub outcome: Outcome,
    pub duration_ms: i64,
    pub receipt: Option<String>,
    pub error: Option<String>,
}

/// What becomes of a claimed notification.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Settlement {
    /// See [`Claimed::seq`].
    pub seq: i64,
    pub id: String,
    pub channel: Channel,
    /// The digest that it travels with.
    pub digest_id: Option<String>,
    pub owner: String,
    pub state: State,
    /// When it is due again, for states that are.
    pub next_attempt_at: Option<Timestamp>,
    pub round: u16,
    pub lane: u16,
    pub at: Timestamp,
    /// See [`Claimed::contact_version`]: a newer entry ends the wait for a contact at once.
    pub contact_version: i64,
    /// Unknown outcomes so far, this attempt's included.
    pub unknowns: u32,
    pub attempt: Option<AttemptEnd>,
    pub reason: Option<String>,
    /// What to publish in the same transaction.
    pub outbox: Vec<OutboxMessage>,
}

/// Something to be published, stored in the transaction that makes it true.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct OutboxMessage {
    pub kind: OutboxKind,
    pub key: Option<Vec<u8>>,
    pub headers: Headers,
    pub body: Box<RawValue>,
}

/// Where an outbox message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OutboxKind {
    /// An envelope for `notification-events`.
    Lifecycle,
    /// A dead letter, as JSON of [`crate::domain::dead_letter::DeadLetter`].
    DeadLetter,
}

/// An attempt as it is shown.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct AttemptView {
    pub number: i64,
    pub provider: String,
    /// `None` while it is under way.
    pub outcome: Option<String>,
    pub started_at: String,
    pub duration_ms: Option<i64>,
    pub receipt: Option<String>,
    pub error: Option<String>,
    /// What the provider reported later: delivered, bounced, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Which version of the template's words was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_version: Option<String>,
}

/// A notification as it is shown.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NotificationView {
    pub id: String,
    pub state: String,
    pub channel: String,
    pub recipient: Option<String>,
    pub template: String,
    pub category: String,
    pub created_at: String,
    pub settled_at: Option<String>,
    pub receipt: Option<String>,
    pub reason: Option<String>,
    /// When it is tried next, while it waits for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The notification that carries this one along with others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    pub attempts: Vec<AttemptView>,
}

/// What a list of notifications is narrowed to.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Search {
    pub state: Option<State>,
    pub channel: Option<Channel>,
    pub recipient: Option<String>,
    pub template: Option<String>,
    pub causation_id: Option<String>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// The place of the last one of the page before.
    pub before: Option<i64>,
    pub limit: usize,
}

/// One notification for the account of a run.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Brief {
    pub id: String,
    pub causation_id: Option<String>,
    pub state: State,
}

/// Keeps every notification, its state and its attempts.
#[async_trait]
pub trait NotificationLedger: Send + Sync {
    /// Changes whenever work is added or becomes due by this process, or by others that are followed: nobody has to poll
    /// for it.
    fn work(&self) -> watch::Receiver<u64>;

    /// Hears of work that other instances add, and tells them of this one's, until an error. Without it they find each
    /// other's work all the same, a little later.
    ///
    /// # Errors
    /// When the others cannot be heard.
    async fn follow_others(&self) -> Result<(), LedgerError>;

    /// Adds requests; one that is known already changes nothing. What waits and is replaced by one of them is settled as
    /// `replaced` says. All or nothing.
    ///
    /// # Errors
    /// When nothing was stored.
    async fn insert(&self, batch: &[NewNotification], replaced: &Replacement<'_>) -> Result<Inserted, LedgerError>;

    /// Takes due notifications under a lease; no other owner gets them until it expires.
    ///
    /// # Errors
    /// When nothing was taken.
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, LedgerError>;

    /// Settles waiting notifications out of their turn, as `verdict` says, whose settlements have the owner
    /// [`OUT_OF_TURN`]. One that is being sent is not waiting. Returns the settlements.
    ///
    /// # Errors
    /// When none was settled.
    async fn call_off(
        &self,
        selection: &Selection,
        limit: usize,
        verdict: &Verdict<'_>,
    ) -> Result<Vec<Settlement>, LedgerError>;

    /// Which of these have a newer one that waits and replaces them, with that one's id.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn superseded(&self, old: &[Replaceable<'_>]) -> Result<HashMap<String, String>, LedgerError>;

    /// How many notifications of a recipient are not settled.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn unsettled_of(&self, recipient: &str) -> Result<u64, LedgerError>;

    /// Takes waiting notifications out of their turn, under a lease, so that they can travel with another one. One that
    /// is being sent is not waiting.
    ///
    /// # Errors
    /// When nothing was taken.
    async fn seize(
        &self,
        selection: &Selection,
        owner: &str,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claimed>, LedgerError>;

    /// Which of these addresses of a channel are suppressed, with the reason.
    ///
    /// # Errors
    /// When it cannot be known.
    async fn suppressed(&self, channel: Channel, addresses: &[&str]) -> Result<HashMap<String, String>, LedgerError>;

    /// When each recipient last got non-critical notifications since `since`: how many, and the oldest of them.
    ///
    /// # Errors
    /// When it cannot be known.
    async fn sent_since(
        &self,
        channel: Channel,
        recipients: &[&str],
        since: Timestamp,
    ) -> Result<HashMap<String, (u64, Timestamp)>, LedgerError>;

    /// Moves notifications that were settled before `before` out of the ledger, at most so many, and keeps their
    /// counts. Says how many it moved. As many dead letters go that were dealt with and are as old.
    ///
    /// # Errors
    /// When none was moved.
    async fn retire(&self, before: Timestamp, limit: usize) -> Result<u64, LedgerError>;

    /// Lets notifications go on whose leading one is settled without them: the first of them leads the others now.
    ///
    /// # Errors
    /// When none was let go.
    async fn release_followers(&self, channel: Channel, now: Timestamp) -> Result<u64, LedgerError>;

    /// Makes a notification that is settled, but was not sent, wait again from the beginning; its dead letter, if there is
    /// one, is no longer open. Returns it as it is then, before anybody can take it; `None` when there is no such
    /// notification.
    ///
    /// # Errors
    /// When nothing was changed.
    async fn reopen(&self, id: &str, now: Timestamp) -> Result<Option<NotificationView>, LedgerError>;

    /// Notifications, the newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn search(&self, search: &Search) -> Result<Vec<(i64, NotificationView)>, LedgerError>;

    /// Notes what a provider reports about attempts later, one report for each of these notifications. Says how many of
    /// them it can have had.
    ///
    /// # Errors
    /// When nothing was noted.
    async fn note_reports(&self, provider: &str, reports: &[(&str, &str)]) -> Result<u64, LedgerError>;

    /// The request of a notification, as it came.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn request_of(&self, id: &str) -> Result<Option<String>, LedgerError>;

    /// When the lane's next notification is due.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn next_due(&self, channel: Channel, lane: u16) -> Result<Option<Timestamp>, LedgerError>;

    /// Records that these attempts begin now, each only while the owner still holds its notification. Returns the ids
    /// of those that may be sent.
    ///
    /// # Errors
    /// When none was recorded: then nothing may be sent.
    async fn begin_attempts(&self, owner: &str, attempts: &[AttemptStart]) -> Result<Vec<String>, LedgerError>;

    /// Settles claimed notifications with their outbox messages, each only while its owner still holds it. Returns
    /// the ids of those that were.
    ///
    /// # Errors
    /// When nothing was stored.
    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<String>, LedgerError>;

    /// Extends the leases of these notifications, as far as this owner holds them. A notification that its owner lost
    /// track of is not among them: its lease expires and it is taken over.
    ///
    /// # Errors
    /// When none was extended.
    async fn renew(&self, owner: &str, ids: &[String], until: Timestamp) -> Result<u64, LedgerError>;

    /// The leases of a channel's notifications, those first that end first.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn leases(&self, channel: Channel, limit: usize) -> Result<Vec<Lease>, LedgerError>;

    /// Takes over notifications whose owner is gone and whose leases are still these: their open attempts become
    /// `unknown`, and they are claimed for the new owner, with the provider of the interrupted attempt, if there was one.
    /// What the same owner has of a digest is taken over with any of it, where its lease is one of those that linger:
    /// nobody has renewed them for a good while.
    ///
    /// # Errors
    /// When nothing was taken over.
    async fn take_over(
        &self,
        owner: &str,
        leases: &[Lease],
        lingering: &[Lease],
        lease_until: Timestamp,
    ) -> Result<Vec<(Claimed, Option<String>)>, LedgerError>;

    /// Moves notifications that are or become due, in lanes that no longer exist, to the channel's first lane; `limit` of
    /// them at most. Says how many.
    ///
    /// # Errors
    /// When nothing was moved.
    async fn fold_lanes(&self, channel: Channel, lanes: u16, limit: usize) -> Result<u64, LedgerError>;

    /// How many notifications of a channel are not settled, for each state that is not the end. It reads them all.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn unsettled(&self, channel: Channel) -> Result<Vec<(State, u64)>, LedgerError>;

    /// One notification with all its attempts.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn notification(&self, id: &str) -> Result<Option<NotificationView>, LedgerError>;

    /// The notifications that these events caused.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn caused_by(&self, events: &[String]) -> Result<Vec<Brief>, LedgerError>;
}
