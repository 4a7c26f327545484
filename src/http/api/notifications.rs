//! `/api/v1/notifications`: asking for one, finding them, calling one off, trying one again.

use std::num::IntErrorKind;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use serde::Deserialize;
use serde_json::json;

use super::{Refusal, admit, ask, bad, body_text, masks, none_if_refused, one, refuse, sees_addresses};
use crate::delivery::door::DoorError;
use crate::domain::channel::Channel;
use crate::domain::time::parse_rfc3339;
use crate::http::state::{RunningParts, SharedState};
use crate::ports::ledger::{LedgerError, NotificationView, Search, State};

/// Notifications on a page when nobody says how many.
const PAGE: usize = 50;
const MAX_PAGE: usize = 500;

#[post("/api/v1/notifications")]
pub async fn submit(request: HttpRequest, body: web::Bytes, state: web::Data<SharedState>) -> HttpResponse {
    match submitted(&request, &body, &state).await {
        Ok(id) => HttpResponse::Accepted().json(json!({"id": id})),
        Err(refusal) => refuse(refusal),
    }
}

async fn submitted(request: &HttpRequest, body: &[u8], state: &SharedState) -> Result<String, Refusal> {
    let running = admit(request, state)?;
    let body = body_text(body)?;
    let key = match request.headers().get("idempotency-key") {
        Some(value) => Some(value.to_str().map_err(|_| bad("the Idempotency-Key must be ASCII"))?.to_owned()),
        None => None,
    };
    let (door, now) = (Arc::clone(&running.door), running.clock.now());
    let submitted = ask(state, async move { Ok(door.submit(&body, key.as_deref(), now).await) }).await?;
    submitted.map_err(|error| match error {
        DoorError::Invalid(detail) => bad(detail),
        DoorError::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        DoorError::Ledger(LedgerError::Rejected(detail)) => bad(detail),
        DoorError::Ledger(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    })
}

#[get("/api/v1/notifications/{id}")]
pub async fn notification(request: HttpRequest, id: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    let id = id.into_inner();
    match admit(&request, &state) {
        Ok(running) => {
            let shown = view(running, &state, &id).await.and_then(|view| shown_to(&request, view));
            shown.map_or_else(refuse, |view| HttpResponse::Ok().json(view))
        }
        Err(refusal) => refuse(refusal),
    }
}

fn shown_to(request: &HttpRequest, view: NotificationView) -> Result<NotificationView, Refusal> {
    Ok(if sees_addresses(request)? { view } else { masks::notification(view) })
}

async fn view(running: &RunningParts, state: &SharedState, id: &str) -> Result<NotificationView, Refusal> {
    let (ledger, wanted) = (Arc::clone(&running.ledger), id.to_owned());
    let question = async move { none_if_refused(ledger.notification(&wanted).await) };
    one(state, "notification", id, question).await
}

/// A filter that nobody knows would find what was not asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filters {
    state: Option<String>,
    channel: Option<String>,
    recipient: Option<String>,
    template: Option<String>,
    causation_id: Option<String>,
    from: Option<String>,
    to: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

#[get("/api/v1/notifications")]
pub async fn list(request: HttpRequest, filters: web::Query<Filters>, state: web::Data<SharedState>) -> HttpResponse {
    found(&request, filters.into_inner(), &state).await.unwrap_or_else(refuse)
}

async fn found(request: &HttpRequest, filters: Filters, state: &SharedState) -> Result<HttpResponse, Refusal> {
    let running = admit(request, state)?;
    let search = search(filters)?;
    let (ledger, limit) = (Arc::clone(&running.ledger), search.limit);
    let found = ask(state, async move { none_if_refused(ledger.search(&search).await.map(Some)) }).await?;
    let found = found.unwrap_or_default();
    let next = (found.len() == limit).then(|| found.last().map(|(seq, _)| seq.to_string())).flatten();
    let items = found.into_iter().map(|(_, view)| shown_to(request, view)).collect::<Result<Vec<_>, _>>()?;
    Ok(HttpResponse::Ok().json(json!({"items": items, "nextCursor": next})))
}

fn search(filters: Filters) -> Result<Search, Refusal> {
    let known = |field: &str, rule: String| bad(format!("`{field}` is invalid: {rule}"));
    let moment = |field: &str, text: Option<String>| {
        let parse =
            |text: String| parse_rfc3339(&text).ok_or_else(|| known(field, "expected an RFC 3339 date-time".into()));
        text.map(parse).transpose()
    };
    let state = |text: String| {
        let names: Vec<&str> = State::ALL.into_iter().map(State::as_str).collect();
        State::parse(&text).ok_or_else(|| known("state", format!("expected one of {}", names.join(", "))))
    };
    let channel = |text: String| text.parse::<Channel>().map_err(|error| known("channel", error.to_string()));
    let cursor = |text: String| text.parse::<i64>().map_err(|_| known("cursor", "expected a nextCursor".into()));
    Ok(Search {
        state: filters.state.map(state).transpose()?,
        channel: filters.channel.map(channel).transpose()?,
        recipient: filters.recipient,
        template: filters.template,
        causation_id: filters.causation_id,
        from: moment("from", filters.from)?,
        to: moment("to", filters.to)?,
        before: filters.cursor.map(cursor).transpose()?,
        limit: page_size(filters.limit.as_deref())?,
    })
}

/// How many items a list may have: who asks for more than a page holds gets a full one, and the cursor of the next.
pub fn page_size(limit: Option<&str>) -> Result<usize, Refusal> {
    let Some(limit) = limit else { return Ok(PAGE) };
    match limit.parse::<usize>() {
        Ok(wanted) if wanted > 0 => Ok(wanted.min(MAX_PAGE)),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(MAX_PAGE),
        Ok(_) | Err(_) => Err(bad("`limit` is invalid: expected a number, at least 1")),
    }
}

#[post("/api/v1/notifications/{id}/cancel")]
pub async fn cancel(request: HttpRequest, id: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    changed(&request, &id, &state, Change::Cancel).await.unwrap_or_else(refuse)
}

#[post("/api/v1/notifications/{id}/retry")]
pub async fn retry(request: HttpRequest, id: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    changed(&request, &id, &state, Change::Retry).await.unwrap_or_else(refuse)
}

#[derive(Clone, Copy)]
enum Change {
    Cancel,
    Retry,
}

/// The notification as the change left it; one that cannot be changed now is a conflict.
async fn changed(
    request: &HttpRequest,
    id: &str,
    state: &SharedState,
    change: Change,
) -> Result<HttpResponse, Refusal> {
    let running = admit(request, state)?;
    let (door, now, wanted) = (Arc::clone(&running.door), running.clock.now(), id.to_owned());
    let done = ask(state, async move {
        none_if_refused(match change {
            Change::Cancel => door.cancel(&wanted, now).await,
            Change::Retry => door.reopen(&wanted, now).await,
        })
    });
    if let Some(view) = done.await? {
        return Ok(HttpResponse::Ok().json(view));
    }
    let view = view(running, state, id).await?;
    let rule = match change {
        Change::Cancel => "only one that waits can be cancelled",
        Change::Retry => "only one that was not sent, and whose channel has a provider, can be tried again",
    };
    Err((StatusCode::CONFLICT, format!("the notification is {}: {rule}", view.state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_at_most_so_many_and_at_least_one() {
        let sizes = [
            (None, PAGE),
            (Some("1"), 1),
            (Some("500"), MAX_PAGE),
            (Some("501"), MAX_PAGE),
            (Some("99999999999999999999999"), MAX_PAGE),
        ];
        for (limit, expected) in sizes {
            assert_eq!(page_size(limit), Ok(expected), "{limit:?}");
        }
        for limit in ["0", "-1", "1.5", "many", ""] {
            let refused = page_size(Some(limit)).expect_err(limit);
            assert!(refused.0 == StatusCode::BAD_REQUEST && refused.1.contains("`limit`"), "{limit}: {}", refused.1);
        }
    }
}
