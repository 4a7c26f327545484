//! Direct requests: notifications that somebody asks for without an event. They are checked here, at the door, as far
//! as anything can be known before they are sent.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::contact::{Contact, resolve};
use super::desk::Desk;
use super::rules::TemplateRules;
use super::templates::{RenderRequest, Templates};
use super::unsubscribe::UnsubscribeLinks;
use crate::domain::catalog::NOTIFICATION_REQUESTED;
use crate::domain::channel::Channel;
use crate::domain::dead_letter::Origin;
use crate::domain::envelope::{Envelope, EnvelopeOut, MetadataOut, from_json, to_json};
use crate::domain::error::DecodeError;
use crate::domain::events::VERSION;
use crate::domain::ids::direct_request_id;
use crate::domain::notification::{Request, SOURCE};
use crate::domain::recipient::is_failed_address;
use crate::domain::record::Headers;
use crate::domain::time::format_utc;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::{LedgerError, NewNotification, NotificationView};

/// Where direct requests come from, in dead letters.
const ORIGIN: &str = "api";
/// Longer keys are no keys.
const MAX_KEY_BYTES: usize = 255;

/// Takes direct requests.
pub struct Door {
    /// Where they go.
    pub desk: Desk,
    /// The words that they may ask for.
    pub templates: Arc<Templates>,
    /// What templates decide beside the words.
    pub rules: Arc<TemplateRules>,
    /// Links to refuse more, which words may print.
    pub unsubscribe: Option<UnsubscribeLinks>,
    /// Categories whose e-mails carry none.
    pub exempt_categories: Vec<String>,
    /// Who is in the directory.
    pub contacts: Arc<dyn Contacts>,
    /// Channels that have a provider.
    pub channels: HashSet<Channel>,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// It is wrong; the words name the field and the rule.
    #[error("{0}")]
    Invalid(String),
    /// Another request came with its idempotency key.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// It could not be stored.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<DecodeError> for DoorError {
    fn from(error: DecodeError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// What a client sends. Null counts as absent. A field that nobody knows is refused: a misspelt `expiresAt` would let the
/// notification live for ever.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<'a> {
    channel: String,
    #[serde(default)]
    recipient: Option<String>,
    template: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    critical: Option<bool>,
    #[serde(default)]
    send_at: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
}

/// The same as the payload of a `NotificationRequested`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a str>,
    template: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    critical: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<&'a str>,
}

impl Door {
    /// Takes a request: the id of its notification. The same request with the same key is the same notification.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub async fn submit(&self, body: &str, key: Option<&str>, now: Timestamp) -> Result<String, DoorError> {
        let id = match key {
            Some(key) => direct_request_id(checked_key(key)?).to_string(),
            None => uuid::Uuid::new_v4().to_string(),
        };
        let new = self.check(body, id, now)?;
        self.check_recipient(&new.request).await?;
        let added = self.desk.add(std::slice::from_ref(&new)).await?;
        if added == 0 && !self.is_same(&new).await? {
            return Err(DoorError::KeyReused);
        }
        Ok(new.request.id)
    }

    /// Cancels a waiting notification: as it is then. `None` when it does not wait.
    ///
    /// # Errors
    /// When it is not cancelled, or cannot be read afterwards.
    pub async fn cancel(&self, id: &str, now: Timestamp) -> Result<Option<NotificationView>, LedgerError> {
        match self.desk.cancel(id, now).await? {
            true => self.desk.ledger.notification(id).await,
            false => Ok(None),
        }
    }

    /// Lets a notification that was not sent begin anew: as it is then. `None` when there is none, or nobody who could
    /// carry it.
    ///
    /// # Errors
    /// When nothing was changed.
    pub async fn reopen(&self, id: &str, now: Timestamp) -> Result<Option<NotificationView>, LedgerError> {
        let known = self.desk.ledger.notification(id).await?;
        let channel = known.and_then(|view| view.channel.parse::<Channel>().ok());
        match channel.filter(|channel| self.channels.contains(channel)) {
            Some(_) => self.desk.ledger.reopen(id, now).await,
            None => Ok(None),
        }
    }

    /// Whether the notification that has the id already asks for the same.
    async fn is_same(&self, new: &NewNotification) -> Result<bool, DoorError> {
        let known = self.desk.ledger.request_of(&new.request.id).await?;
        let asked = std::str::from_utf8(new.origin.value.as_deref().unwrap_or_default()).ok();
        let payload = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok().map(|mut v| v["data"].take());
        Ok(known.as_deref().and_then(payload) == asked.and_then(payload))
    }

    fn check(&self, body: &str, id: String, now: Timestamp) -> Result<NewNotification, DoorError> {
        let wire: Wire<'_> = from_json(body, "")?;
        let channel: Channel = wire.channel.parse().map_err(|e| DecodeError::invalid("channel", e))?;
        if !self.channels.contains(&channel) {
            return Err(DecodeError::invalid("channel", format!("no provider is configured for {channel}")).into());
        }
        let json = envelope(&id, &wire, now)?;
        // The checks of the topic's requests hold here too; their names of fields are those of the envelope.
        let request = Request::decode(&Envelope::decode(Some(&json))?).map_err(|error| outside(&error))?;
        if request.expires_at.zip(request.send_at).is_some_and(|(expires, send)| expires <= send) {
            return Err(DecodeError::invalid("expiresAt", "must be later than sendAt").into());
        }
        let handling = self.rules.handling(&request);
        let origin = Origin {
            topic: ORIGIN.to_owned(),
            partition: None,
            offset: None,
            key: Some(request.aggregate_id.clone().into_bytes()),
            value: Some(json),
            headers: Headers::default(),
        };
        let new = NewNotification { request, origin, received_at: now, handling };
        self.check_words(&new)?;
        Ok(new)
    }

    /// Who is not in the directory may come to be there; what was meant as an address never becomes one.
    async fn check_recipient(&self, request: &Request) -> Result<(), DoorError> {
        let (channel, data) = (request.channel, request.data.as_deref().unwrap_or("{}"));
        let Some(text) = request.recipient.as_deref().filter(|text| is_failed_address(channel, text)) else {
            return Ok(());
        };
        let goes_elsewhere = resolve(channel, Some(text), None, data) != Contact::Missing;
        if goes_elsewhere || self.contacts.recipient(text).await?.is_some() {
            return Ok(());
        }
        let problem = format!("is no address for {channel}, and nobody in the directory has this id");
        Err(DecodeError::invalid("recipient", problem).into())
    }

    /// What can be known already: the template has words, every variable, and an address that it carries is one.
    fn check_words(&self, new: &NewNotification) -> Result<(), DoorError> {
        let request = &new.request;
        if !self.templates.has(&request.template) {
            let problem = format!("there is no template `{}`", request.template);
            return Err(DecodeError::invalid("template", problem).into());
        }
        let text = request.data.as_deref().unwrap_or("{}");
        let data = RawValue::from_string(text.to_owned()).map_err(|e| DoorError::Invalid(e.to_string()))?;
        let (template, channel) = (request.template.as_str(), request.channel);
        let link = self.unsubscribe_url(new);
        let unsubscribe_url = link.as_deref();
        let asked = RenderRequest { template, channel, locale: None, time_zone: None, data: &data, unsubscribe_url };
        let words = match self.templates.collects(template) {
            true => self.templates.render_digest(&asked, std::slice::from_ref(&data)),
            false => self.templates.render(&asked),
        };
        words.map_err(|error| DoorError::Invalid(format!("`data` is invalid: {error}")))?;
        match resolve(channel, request.recipient.as_deref(), None, text) {
            Contact::Invalid(problem) => {
                let field = if channel == Channel::Webhook { "recipient" } else { "data" };
                Err(DecodeError::invalid(field, problem).into())
            }
            Contact::Found(_) | Contact::Missing => Ok(()),
        }
    }

    /// As it will be when it is sent.
    fn unsubscribe_url(&self, new: &NewNotification) -> Option<String> {
        let (links, request) = (self.unsubscribe.as_ref()?, &new.request);
        links.offered(request.recipient.as_deref(), request.channel, new.category(), &self.exempt_categories)
    }
}

fn envelope(id: &str, wire: &Wire<'_>, now: Timestamp) -> Result<Vec<u8>, DoorError> {
    let none = RawValue::from_string("{}".to_owned()).map_err(|e| DoorError::Invalid(e.to_string()))?;
    let aggregate_id = format!("notification-{id}");
    Ok(to_json(&EnvelopeOut {
        event_id: id,
        event_type: NOTIFICATION_REQUESTED,
        aggregate_id: &aggregate_id,
        version: VERSION,
        timestamp: &format_utc(now),
        data: Payload {
            r#type: &wire.channel,
            recipient: wire.recipient.as_deref(),
            template: &wire.template,
            data: wire.data.filter(|data| data.get() != "null").unwrap_or(&none),
            category: wire.category.as_deref(),
            critical: wire.critical,
            send_at: wire.send_at.as_deref(),
            expires_at: wire.expires_at.as_deref(),
        },
        metadata: MetadataOut { source: SOURCE, correlation_id: None, causation_id: None, caused_at: None },
    }))
}

/// `data.recipient` of the envelope is `recipient` for whoever asks here.
fn outside(error: &DecodeError) -> DoorError {
    DoorError::Invalid(error.to_string().replacen("`data.", "`", 1))
}

fn checked_key(key: &str) -> Result<&str, DoorError> {
    let sound = !key.is_empty() && key.len() <= MAX_KEY_BYTES && key.bytes().all(|b| (b' '..=b'~').contains(&b));
    let rule = format!("must have 1 to {MAX_KEY_BYTES} printable ASCII characters");
    if sound { Ok(key) } else { Err(DecodeError::invalid("Idempotency-Key", rule).into()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::adapters::sql::Database;

    /// A door with a template of category `news` that prints the link unguarded; receipts carry none.
    async fn door(folder: &std::path::Path, unsubscribe: Option<UnsubscribeLinks>) -> Door {
        let template = folder.join("templates/newsletter");
        std::fs::create_dir_all(&template).expect("a folder");
        std::fs::write(template.join("body.txt"), "{{ unsubscribeUrl }}").expect("is written");
        std::fs::write(template.join("template.toml"), "category = \"news\"\n").expect("is written");
        let templates = Templates::load(Some(&folder.join("templates")), "en").expect("they are sound");
        let templates = Arc::new(templates);
        let url = format!("sqlite://{}", folder.join("ledger.db").display());
        let database = Database::open(&url, 2).await.expect("opens");
        Door {
            desk: Desk { ledger: Arc::new(database.clone()) },
            rules: Arc::new(TemplateRules::new(Arc::clone(&templates))),
            templates,
            unsubscribe,
            exempt_categories: vec!["receipts".to_owned()],
            contacts: Arc::new(database),
            channels: HashSet::from([Channel::Email, Channel::Sms]),
        }
    }

    async fn ask(door: &Door, channel: &str, recipient: &str, category: Option<&str>) -> Result<String, DoorError> {
        let body = json!({"channel": channel, "recipient": recipient, "template": "newsletter", "category": category});
        door.submit(&body.to_string(), None, Timestamp::UNIX_EPOCH).await
    }

    #[tokio::test]
    async fn words_may_print_the_link_that_they_will_have() {
        let folder = tempfile::tempdir().expect("a folder");
        let links = UnsubscribeLinks::new("https://n.example", "key");
        let with_links = door(folder.path(), Some(links)).await;
        let (ada, phone) = ("ada@example.com", "+15550100123");
        ask(&with_links, "email", ada, None).await.expect("the template's category can be refused");
        ask(&with_links, "email", ada, Some("offers")).await.expect("its own can be, too");
        let without = door(folder.path(), None).await;
        for refused in [
            ask(&with_links, "email", ada, Some("receipts")).await,
            ask(&with_links, "sms", phone, None).await,
            ask(&without, "email", ada, None).await,
        ] {
            let error = refused.expect_err("it could not be sent");
            assert!(error.to_string().contains("unsubscribeUrl"), "{error}");
        }
    }
}
