//! `/api/v1/recipients`: how people are reached, what they want, and erasing them.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, put, web};
use serde::Deserialize;

use super::{
    Refusal, admit, ask, ask_within, bad, body_text, masks, none_if_refused, one, refuse, sees_addresses, stored,
    unstored,
};
use crate::domain::envelope::{from_json, non_empty};
use crate::domain::error::DecodeError;
use crate::domain::locale::Locale;
use crate::domain::preferences::Preferences;
use crate::domain::recipient::{Device, Recipient, is_email, is_phone};
use crate::http::state::SharedState;

/// Nobody has more devices.
const MAX_DEVICES: usize = 100;
const MAX_TOKEN_BYTES: usize = 4096;
/// Erasing looks through all dead letters.
const ERASURE_DEADLINE: Duration = Duration::from_secs(60);
/// An ordinary send is over by then.
const SENDING_PATIENCE: Duration = Duration::from_secs(6);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a client sends. Null counts as absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    phone: Option<String>,
    #[serde(default)]
    locale: Option<String>,
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    devices: Option<Vec<Device>>,
}

fn wrong(field: &str, rule: &str) -> Refusal {
    bad(DecodeError::invalid(field, rule))
}

fn checked_id(id: &str) -> Result<String, Refusal> {
    non_empty("id", id).map_err(bad)?;
    Ok(id.to_owned())
}

fn recipient_of(id: &str, body: &str) -> Result<Recipient, Refusal> {
    let wire: Wire = from_json(body, "").map_err(bad)?;
    let holds = |holds: bool, field: &str, rule: &str| if holds { Ok(()) } else { Err(wrong(field, rule)) };
    let each = |value: &Option<String>, test: fn(&str) -> bool| value.as_deref().is_none_or(test);
    holds(each(&wire.email, is_email), "email", "expected an e-mail address")?;
    holds(each(&wire.phone, is_phone), "phone", "expected an E.164 number such as +15550100123")?;
    let locale = |tag: &str| Locale::parse(tag).is_some();
    holds(each(&wire.locale, locale), "locale", "expected a BCP 47 language tag such as de-AT")?;
    let zone = |zone: &str| jiff::tz::TimeZone::get(zone).is_ok();
    holds(each(&wire.time_zone, zone), "timeZone", "expected an IANA time zone such as Europe/Berlin")?;
    let devices = wire.devices.unwrap_or_default();
    holds(devices.len() <= MAX_DEVICES, "devices", "must not be more than 100")?;
    for (index, device) in devices.iter().enumerate() {
        let sound = !device.token.is_empty()
            && device.token.len() <= MAX_TOKEN_BYTES
            && device.token.bytes().all(|b| b.is_ascii_graphic());
        let field = format!("devices[{index}].token");
        holds(sound, &field, "expected 1 to 4096 visible ASCII characters")?;
    }
    Ok(Recipient {
        id: checked_id(id)?,
        email: wire.email,
        phone: wire.phone,
        locale: wire.locale,
        time_zone: wire.time_zone,
        devices,
    })
}

#[put("/api/v1/recipients/{id}")]
pub async fn put_recipient(
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let put = async || {
        let running = admit(&request, &state)?;
        let recipient = recipient_of(&id, &body_text(&body)?)?;
        let (contacts, new, now) = (Arc::clone(&running.contacts), recipient.clone(), running.clock.now());
        stored(&state, async move { contacts.put(new, now).await }).await?;
        Ok(HttpResponse::Ok().json(recipient))
    };
    put().await.unwrap_or_else(refuse)
}

#[get("/api/v1/recipients/{id}")]
pub async fn get_recipient(request: HttpRequest, id: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    let found = async || {
        let contacts = Arc::clone(&admit(&request, &state)?.contacts);
        let wanted = id.clone();
        let question = async move { none_if_refused(contacts.recipient(&wanted).await) };
        let recipient: Recipient = one(&state, "recipient", &id, question).await?;
        let shown = if sees_addresses(&request)? { recipient } else { masks::recipient(recipient) };
        Ok(HttpResponse::Ok().json(shown))
    };
    found().await.unwrap_or_else(refuse)
}

/// Erases a person: what waits is cancelled, what is personal is removed everywhere, counts stay. What is being sent at
/// this moment is waited for a little; nothing is erased while something still is.
#[delete("/api/v1/recipients/{id}")]
pub async fn erase(request: HttpRequest, id: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    let erase = async || {
        let running = admit(&request, &state)?;
        let (door, contacts) = (Arc::clone(&running.door), Arc::clone(&running.contacts));
        let (wanted, clock) = (checked_id(&id)?, Arc::clone(&running.clock));
        let erased = ask_within(&state, ERASURE_DEADLINE, async move {
            let until = clock.monotonic() + SENDING_PATIENCE;
            loop {
                match door.desk.cancel_all_of(&wanted, clock.now()).await {
                    Ok(0) => return Ok(contacts.erase(&wanted, clock.now()).await.map(Ok)),
                    Ok(sending) if clock.monotonic() >= until => return Ok(Ok(Err(sending))),
                    Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
                    Err(error) => return Ok(Err(error)),
                }
            }
        });
        match erased.await?.map_err(unstored)? {
            Ok(erased) => {
                tracing::info!(?erased, "a recipient was erased");
                Ok(HttpResponse::Ok().json(erased))
            }
            Err(sending) => {
                let detail = format!("{sending} notifications are being sent; nothing was erased, try again later");
                Err((StatusCode::CONFLICT, detail))
            }
        }
    };
    erase().await.unwrap_or_else(refuse)
}

#[get("/api/v1/recipients/{id}/preferences")]
pub async fn get_preferences(
    request: HttpRequest,
    id: web::Path<String>,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let found = async || {
        let contacts = Arc::clone(&admit(&request, &state)?.contacts);
        let wanted = id.clone();
        let question = async move { none_if_refused(contacts.preferences(&wanted).await) };
        // Whoever has not said anything wants everything.
        let preferences = ask(&state, question).await?.unwrap_or_default();
        Ok(HttpResponse::Ok().json(preferences))
    };
    found().await.unwrap_or_else(refuse)
}

#[put("/api/v1/recipients/{id}/preferences")]
pub async fn put_preferences(
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let put = async || {
        let running = admit(&request, &state)?;
        let body = body_text(&body)?;
        let wanted: Preferences = from_json(&body, "").map_err(bad)?;
        refuse_unknown_fields(&body)?;
        wanted.check().map_err(|(field, rule)| wrong(&field, &rule))?;
        let (contacts, id, new) = (Arc::clone(&running.contacts), checked_id(&id)?, wanted.clone());
        stored(&state, async move { contacts.set_preferences(&id, &new).await }).await?;
        Ok(HttpResponse::Ok().json(wanted))
    };
    put().await.unwrap_or_else(refuse)
}

/// A misspelt field must not pass for a preference that is not there.
fn refuse_unknown_fields(body: &str) -> Result<(), Refusal> {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let strange = |at: &str, value: &serde_json::Value, known: &[&str]| {
        let unknown = value.as_object().and_then(|object| object.keys().find(|key| !known.contains(&key.as_str())));
        unknown.map_or(Ok(()), |key| Err(wrong(&format!("{at}{key}"), "there is no such field")))
    };
    strange("", &value, &["optOut", "quietHours"])?;
    strange("quietHours.", &value["quietHours"], &["from", "to"])?;
    let mut refusals = value["optOut"].as_array().into_iter().flatten();
    refusals.try_for_each(|refusal| strange("optOut.", refusal, &["channel", "category"]))
}
