//! What templates and preferences decide about a notification beside its words: pure, with time as an argument.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::templates::Templates;
use crate::domain::envelope::non_empty;
use crate::domain::notification::Request;
use crate::ports::ledger::{Claimed, Handling};

/// What templates decide about requests, as the ledger's intake needs it.
pub struct TemplateRules {
    templates: Arc<Templates>,
}

impl TemplateRules {
    /// The rules of all templates.
    pub fn new(templates: Arc<Templates>) -> Self {
        Self { templates }
    }

    /// How the ledger is to handle a request.
    pub fn handling(&self, request: &Request) -> Handling {
        let settings = self.templates.settings(&request.template);
        // From when it could have been sent: an event that comes late does not make old news new.
        let from = request.send_at.map_or(request.caused_at, |at| at.max(request.caused_at));
        let collected = settings.digest_window().unwrap_or_default();
        let lapse = settings.expires_after().and_then(|after| later(from, after + collected));
        // Only where one replaces the other it matters what they are about.
        let replaces = !settings.supersedes.is_empty() || !self.templates.superseders(&request.template).is_empty();
        Handling {
            category: settings.category.clone(),
            critical: request.critical || settings.critical,
            expires_at: request.expires_at.or(lapse),
            about: request.data.as_deref().filter(|_| replaces).and_then(about),
            supersedes: settings.supersedes.clone(),
            digest_window: settings.digest_window(),
        }
    }
}

fn later(from: Timestamp, wait: Duration) -> Option<Timestamp> {
    from.checked_add(SignedDuration::try_from(wait).ok()?).ok()
}

/// The order, product or user that a notification is about, by the variables of its template.
fn about(data: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Keys {
        #[serde(default)]
        order_id: serde_json::Value,
        #[serde(default)]
        product_id: serde_json::Value,
        #[serde(default)]
        user_id: serde_json::Value,
    }
    let keys: Keys = serde_json::from_str(data).ok()?;
    [("order", keys.order_id), ("product", keys.product_id), ("user", keys.user_id)]
        .into_iter()
        .find_map(|(kind, id)| id.as_str().filter(|id| non_empty("", id).is_ok()).map(|id| format!("{kind}:{id}")))
}

/// The rules that hold for everybody.
#[derive(Debug, Clone, Default)]
pub struct HouseRules {
    /// Categories that a refusal of everything does not reach.
    pub exempt_categories: Vec<String>,
    /// For recipients whose zone is not known.
    pub default_time_zone: NamedZone,
}

/// The names of UTC.
const UTC: [&str; 8] = ["UTC", "Etc/UTC", "UCT", "Etc/UCT", "Universal", "Etc/Universal", "Zulu", "Etc/Zulu"];

/// A time zone by its IANA name; UTC by default.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NamedZone {
    pub name: String,
    pub zone: TimeZone,
}

impl Default for NamedZone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl NamedZone {
    /// The zone in which recipients read times who have none of their own. UTC is none: nobody lives by it, so times in
    /// it say that they are.
    pub fn of_times(&self) -> Option<&str> {
        Some(self.name.as_str()).filter(|name| !UTC.iter().any(|utc| utc.eq_ignore_ascii_case(name)))
    }
}

/// How many notifications a recipient gets over one channel.
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    /// So many at most…
    pub per_recipient: u32,
    /// …in this time, whenever it begins.
    pub window: Duration,
}

/// What the rules say before a notification is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may go out.
    Open,
    /// It is worth nothing any more.
    Expired,
    /// The recipient does not want it.
    Refused,
    /// Not before this time.
    Later {
        /// When.
        at: Timestamp,
        /// For whoever asks.
        reason: String,
    },
}

impl HouseRules {
    /// Decides about a notification that is due.
    pub fn gate(&self, claimed: &Claimed, now: Timestamp) -> Gate {
        if claimed.expires_at.is_some_and(|at| at <= now) {
            return Gate::Expired;
        }
        let Some(preferences) = &claimed.preferences else { return Gate::Open };
        if preferences.refuses(claimed.channel, &claimed.category, &self.exempt_categories) {
            return Gate::Refused;
        }
        if claimed.critical {
            return Gate::Open;
        }
        match preferences.quiet_until(now, &self.zone_of(claimed)) {
            Some(at) => Gate::Later { at, reason: "quiet hours".to_owned() },
            None => Gate::Open,
        }
    }

    /// The recipient's zone. One that does not exist is taken from nobody; should there be one all the same, it counts as
    /// unknown.
    fn zone_of(&self, claimed: &Claimed) -> TimeZone {
        let name = claimed.contact.as_ref().and_then(|contact| contact.time_zone.as_deref());
        name.and_then(|name| TimeZone::get(name).ok()).unwrap_or_else(|| self.default_time_zone.zone.clone())
    }
}
