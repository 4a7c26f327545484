//! `/api/v1/suppressions`: addresses that nothing is sent to.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::notifications::page_size;
use super::{Page, Refusal, admit, ask, bad, body_text, masks, none_if_refused, refuse, sees_addresses, stored};
use crate::domain::channel::Channel;
use crate::domain::envelope::{from_json, non_empty};
use crate::domain::recipient::is_address_for;
use crate::http::state::SharedState;

/// What a client sends. Null counts as absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    channel: String,
    address: String,
    #[serde(default)]
    reason: Option<String>,
}

fn checked(body: &str) -> Result<(Channel, String, String), Refusal> {
    let wire: Wire = from_json(body, "").map_err(bad)?;
    let channel: Channel = wire.channel.parse().map_err(|e| bad(format!("`channel` is invalid: {e}")))?;
    let addressed = matches!(channel, Channel::Email | Channel::Sms | Channel::Webhook);
    if addressed && !is_address_for(channel, &wire.address) {
        return Err(bad(format!("`address` is invalid: it is none for {channel}")));
    }
    non_empty("address", &wire.address).map_err(bad)?;
    let reason = wire.reason.unwrap_or_else(|| "operator".to_owned());
    non_empty("reason", &reason).map_err(bad)?;
    Ok((channel, wire.address, reason))
}

#[post("/api/v1/suppressions")]
pub async fn suppress(request: HttpRequest, body: web::Bytes, state: web::Data<SharedState>) -> HttpResponse {
    let suppress = async || {
        let running = admit(&request, &state)?;
        let (channel, address, reason) = checked(&body_text(&body)?)?;
        let contacts = Arc::clone(&running.contacts);
        let entries = stored(&state, async move { contacts.suppress(channel, &[address], &reason).await }).await?;
        Ok(HttpResponse::Created().json(entries.first()))
    };
    suppress().await.unwrap_or_else(refuse)
}

#[delete("/api/v1/suppressions/{channel}/{address}")]
pub async fn unsuppress(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let unsuppress = async || {
        let running = admit(&request, &state)?;
        let (channel, address) = path.into_inner();
        let known: Channel = channel.parse().map_err(|e| bad(format!("`channel` is invalid: {e}")))?;
        let (contacts, wanted) = (Arc::clone(&running.contacts), address.clone());
        match stored(&state, async move { contacts.unsuppress(known, &wanted).await }).await? {
            true => Ok(HttpResponse::NoContent().finish()),
            false => Err((StatusCode::NOT_FOUND, format!("`{address}` is not suppressed for {known}"))),
        }
    };
    unsuppress().await.unwrap_or_else(refuse)
}

/// What a cursor carries; encoded, because nobody is to build one.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Cursor {
    /// The last channel and address.
    After(String, String),
    /// How many came before: for those who do not see addresses, and must not find them by guessing either.
    Behind(u32),
}

fn cursor_of(text: &str) -> Result<Cursor, Refusal> {
    let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    decoded.ok_or_else(|| bad("`cursor` is invalid: expected a nextCursor"))
}

#[get("/api/v1/suppressions")]
pub async fn list(request: HttpRequest, page: web::Query<Page>, state: web::Data<SharedState>) -> HttpResponse {
    let list = async || {
        let contacts = Arc::clone(&admit(&request, &state)?.contacts);
        let limit = page_size(page.limit.as_deref())?;
        let all = sees_addresses(&request)?;
        let (after, skip) = match page.cursor.as_deref().map(cursor_of).transpose()? {
            Some(Cursor::After(channel, address)) if all => (Some((channel, address)), 0),
            Some(Cursor::Behind(count)) if !all => (None, count as usize),
            Some(_) => return Err(bad("`cursor` is invalid: expected a nextCursor of the same role")),
            None => (None, 0),
        };
        let question = async move { none_if_refused(contacts.suppressions(after, skip, limit).await.map(Some)) };
        let mut items = ask(&state, question).await?.unwrap_or_default();
        let last = items.last().filter(|_| items.len() == limit);
        let mut next = last.map(|s| Cursor::After(s.channel.to_string(), s.address.clone()));
        if !all {
            items = items.into_iter().map(masks::suppression).collect();
            next = next.and_then(|_| u32::try_from(skip + limit).ok()).map(Cursor::Behind);
        }
        let next = next.map(|cursor| URL_SAFE_NO_PAD.encode(json!(cursor).to_string()));
        Ok(HttpResponse::Ok().json(json!({"items": items, "nextCursor": next})))
    };
    list().await.unwrap_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_nobody_knows_is_refused_by_its_name() {
        let body = |field: &str| format!(r#"{{"channel":"email","address":"a@example.com","{field}":"bounce"}}"#);
        let (_, _, reason) = checked(&body("reason")).expect("is sound");
        assert_eq!(reason, "bounce");
        let (status, detail) = checked(&body("raeson")).expect_err("is misspelt");
        assert!(status == StatusCode::BAD_REQUEST && detail.contains("`raeson`"), "{detail}");
    }
}
