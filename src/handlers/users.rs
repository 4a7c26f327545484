//! Users: the welcome mail, and what the recipients directory learns from them.

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value};

use super::payload::variables;
use super::registry::{HandlerError, Output};
use crate::domain::channel::Channel;
use crate::domain::envelope::{Envelope, non_empty};
use crate::domain::error::DecodeError;
use crate::domain::events::{UserRegistered, payload};
use crate::domain::locale::Locale;
use crate::domain::notification::Draft;
use crate::domain::recipient::{Recipient, is_email, phone_as_written};

pub(super) fn user_registered(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: UserRegistered<'_> = payload(envelope)?;
    let welcome = Welcome { first_name: &event.first_name, email: &event.email, registered_at: &envelope.timestamp };
    Ok(Output::one(Draft {
        aggregate_id: format!("notification-user-{}", event.user_id),
        channel: Channel::Email,
        template: "welcome".into(),
        recipient: Some(event.user_id.to_string()),
        data: variables(&welcome),
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Welcome<'a> {
    first_name: &'a str,
    email: &'a str,
    registered_at: &'a str,
}

/// What `UserRegistered` and `UserUpdated` tell about how to reach a user; `None` when they tell nothing.
///
/// Lenient on purpose: the directory takes what it understands. `UserUpdated` may carry the fields in `data` or in
/// `data.changes`.
///
/// # Errors
/// A time zone that does not exist: times would be told wrongly, and quiet hours kept at the wrong hours. An e-mail address
/// that is none.
pub fn directory_entry(envelope: &Envelope<'_>) -> Result<Option<Recipient>, DecodeError> {
    if !matches!(envelope.event_type.as_ref(), "UserRegistered" | "UserUpdated") {
        return Ok(None);
    }
    let Ok(data) = serde_json::from_str::<Map<String, Value>>(envelope.data.get()) else { return Ok(None) };
    // `changes` may be anything, such as a list of field names.
    let changes = data.get("changes").and_then(Value::as_object);
    let pick_as = |field: &str, read: fn(&str) -> Option<String>| {
        let places = [changes.and_then(|c| c.get(field)), data.get(field)];
        let mut texts = places.into_iter().flatten().filter_map(Value::as_str);
        texts.find_map(|text| read(text).filter(|_| non_empty("", text).is_ok()))
    };
    let pick = |field: &str| pick_as(field, |text| Some(text.to_owned()));
    let time_zone = pick("timeZone");
    if let Some(zone) = time_zone.as_deref().filter(|zone| TimeZone::get(zone).is_err()) {
        return Err(DecodeError::invalid("data.timeZone", format!("there is no time zone `{zone}`")));
    }
    let email = pick("email");
    if email.as_deref().is_some_and(|email| !is_email(email)) {
        return Err(DecodeError::invalid("data.email", "must be an e-mail address"));
    }
    let Some(id) = data.get("userId").and_then(Value::as_str) else { return Ok(None) };
    let recipient = Recipient {
        email,
        // What is none must not take the place of a good one; people write numbers as they like.
        phone: pick_as("phone", phone_as_written),
        locale: pick_as("locale", |tag| Locale::parse(tag).map(|_| tag.to_owned())),
        time_zone,
        devices: Vec::new(),
        id: id.to_owned(),
    };
    let tells = recipient.email.is_some()
        || recipient.phone.is_some()
        || recipient.locale.is_some()
        || recipient.time_zone.is_some();
    Ok((tells && non_empty("", &recipient.id).is_ok()).then_some(recipient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event_type: &str, data: &str) -> Result<Option<Recipient>, DecodeError> {
        let json = format!(
            r#"{{"eventId":"e","eventType":"{event_type}","aggregateId":"u","version":1,"timestamp":"2026-01-15T10:30:00Z","data":{data}}}"#
        );
        directory_entry(&Envelope::decode(Some(json.as_bytes())).expect("envelope"))
    }

    fn entry(event_type: &str, data: &str) -> Option<Recipient> {
        told(event_type, data).expect("nothing is wrong")
    }

    #[test]
    fn a_time_zone_that_does_not_exist_is_told() {
        for data in [r#"{"userId":"u","timeZone":"Mars/Base"}"#, r#"{"userId":"u","changes":{"timeZone":"CEST+1"}}"#] {
            let error = told("UserUpdated", data).expect_err("there is none");
            assert!(error.to_string().contains("`data.timeZone`"), "{error}");
        }
    }

    #[test]
    fn an_e_mail_address_that_is_none_is_told_and_no_number_replaces_a_good_one() {
        for data in [r#"{"userId":"u","email":"nonsense"}"#, r#"{"userId":"u","changes":{"email":"a@b,c"}}"#] {
            let error = told("UserUpdated", data).expect_err("it is none");
            assert!(error.to_string().contains("`data.email`"), "{error}");
        }
        let told = entry("UserUpdated", r#"{"userId":"u","email":"a@b.c","phone":"0176 1234567"}"#).expect("an entry");
        assert_eq!((told.email.as_deref(), told.phone), (Some("a@b.c"), None));
        let told = entry("UserUpdated", r#"{"userId":"u","phone":"+1 (555) 010-0199"}"#).expect("an entry");
        assert_eq!(told.phone.as_deref(), Some("+15550100199"));
    }

    #[test]
    fn the_directory_takes_what_it_understands() {
        let told = entry("UserRegistered", r#"{"userId":"u","email":"a@b.c","phone":7}"#).expect("an entry");
        assert_eq!((told.email.as_deref(), told.phone), (Some("a@b.c"), None));
        let places = r#"{"userId":"u","locale":"de-AT","timeZone":"Europe/Vienna"}"#;
        let told = entry("UserUpdated", places).expect("an entry");
        assert_eq!((told.locale.as_deref(), told.time_zone.as_deref()), (Some("de-AT"), Some("Europe/Vienna")));
        let nowhere = r#"{"userId":"u","email":"a@b.c","locale":"german!","timeZone":7}"#;
        let told = entry("UserUpdated", nowhere).expect("an entry");
        assert_eq!((told.locale, told.time_zone), (None, None), "it keeps what it knew");
        let told = entry("UserUpdated", r#"{"userId":"u","email":"old@b.c","changes":{"email":"new@b.c"}}"#);
        assert_eq!(told.and_then(|r| r.email).as_deref(), Some("new@b.c"));
        assert_eq!(entry("UserUpdated", r#"{"userId":"u","changes":{"nickname":"x"}}"#), None);
        let told = entry("UserUpdated", r#"{"userId":"u","email":"new@b.c","changes":["email"]}"#);
        assert_eq!(told.and_then(|r| r.email).as_deref(), Some("new@b.c"));
        assert_eq!(entry("UserUpdated", r#"{"changes":{"email":"a@b.c"}}"#), None);
        assert_eq!(entry("UserLogin", r#"{"userId":"u","email":"a@b.c"}"#), None);
    }
}
