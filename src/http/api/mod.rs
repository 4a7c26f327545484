//! The API. Who may ask for what, the gate has decided before.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, get, post, web};
use serde::Deserialize;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

pub mod inbox;
mod masks;
pub mod notifications;
pub mod recipients;
pub mod suppressions;

use super::gate::Caller;
use super::problem::problem;
use super::state::{RunningParts, SharedState};
use crate::domain::role::Role;
use crate::ports::ledger::LedgerError;
use crate::resilience::breaker::Order;
use crate::resilience::breaker_cell::BreakerCell;

/// No answer of the API takes longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Why a request is not answered.
type Refusal = (StatusCode, String);

/// Lets nobody in before the service runs.
fn admit<'a>(request: &HttpRequest, state: &'a SharedState) -> Result<&'a RunningParts, Refusal> {
    role(request)?;
    state.running.get().ok_or_else(|| (StatusCode::SERVICE_UNAVAILABLE, "the service is starting".to_owned()))
}

/// What the caller may do. A request that did not pass the gate may do nothing.
fn role(request: &HttpRequest) -> Result<Role, Refusal> {
    let caller = request.extensions().get::<Caller>().copied();
    let unknown = || (StatusCode::INTERNAL_SERVER_ERROR, "nobody has asked who calls".to_owned());
    caller.map(|Caller(role)| role).ok_or_else(unknown)
}

/// Whether the caller may know how people are reached.
fn sees_addresses(request: &HttpRequest) -> Result<bool, Refusal> {
    Ok(role(request)? >= Role::Operator)
}

/// The client's mistake; the words name the field and the rule.
fn bad(detail: impl ToString) -> Refusal {
    (StatusCode::BAD_REQUEST, detail.to_string())
}

/// Which part of a list is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    cursor: Option<String>,
    limit: Option<String>,
}

/// A body as text.
fn body_text(body: &[u8]) -> Result<String, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| bad("the body is not UTF-8"))?;
    Ok(text.to_owned())
}

/// A change to the database; content that it refuses is the client's mistake.
async fn stored<T: Send + 'static>(
    state: &SharedState,
    change: impl Future<Output = Result<T, LedgerError>> + Send + 'static,
) -> Result<T, Refusal> {
    ask(state, async move { Ok(change.await) }).await?.map_err(unstored)
}

fn unstored(error: LedgerError) -> Refusal {
    match error {
        LedgerError::Rejected(detail) => bad(detail),
        LedgerError::Unavailable(detail) => (StatusCode::SERVICE_UNAVAILABLE, detail),
    }
}

fn refuse((status, detail): Refusal) -> HttpResponse {
    problem(status, &detail)
}

/// Runs a question to the database where its connections live, within the deadline; one that nobody waits for any more is
/// given up.
async fn ask<T: Send + 'static>(
    state: &SharedState,
    question: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, Refusal> {
    ask_within(state, DEADLINE, question).await
}

async fn ask_within<T: Send + 'static>(
    state: &SharedState,
    deadline: Duration,
    question: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, Refusal> {
    let answer = tokio::time::timeout(deadline, AbortOnDropHandle::new(state.io.spawn(question))).await;
    let unavailable = |detail: &str| (StatusCode::SERVICE_UNAVAILABLE, detail.to_owned());
    match answer {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(unavailable(&error)),
        Ok(Err(_)) => Err((StatusCode::INTERNAL_SERVER_ERROR, "the question panicked".to_owned())),
        Err(_) => Err(unavailable("the database does not answer")),
    }
}

#[get("/api/v1/dead-letters/{id}/payload")]
pub async fn parked_payload(
    request: HttpRequest,
    id: web::Path<String>,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let found = async || {
        let (payloads, wanted) = (Arc::clone(&admit(&request, &state)?.payloads), id.clone());
        if !sees_addresses(&request)? {
            let detail = "payloads may hold addresses, which the role viewer does not see";
            return Err((StatusCode::FORBIDDEN, detail.to_owned()));
        }
        let question = async move { payloads.parked_payload(&wanted).await.map_err(|e| e.to_string()) };
        let bytes = one(&state, "parked payload", &id, question).await?;
        Ok(HttpResponse::Ok().content_type("application/octet-stream").body(bytes))
    };
    found().await.unwrap_or_else(refuse)
}

/// An id that the database cannot even compare with, such as one with a NUL, is nobody's.
fn none_if_refused<T>(found: Result<Option<T>, LedgerError>) -> Result<Option<T>, String> {
    match found {
        Err(LedgerError::Rejected(_)) => Ok(None),
        found => found.map_err(|e| e.to_string()),
    }
}

/// What an id names; an id of nothing is refused.
async fn one<T: Send + 'static>(
    state: &SharedState,
    kind: &str,
    id: &str,
    question: impl Future<Output = Result<Option<T>, String>> + Send + 'static,
) -> Result<T, Refusal> {
    ask(state, question).await?.ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no {kind} `{id}`")))
}

#[get("/api/v1/system")]
pub async fn system(request: HttpRequest, state: web::Data<SharedState>) -> HttpResponse {
    let running = match admit(&request, &state) {
        Ok(running) => running,
        Err(refusal) => return refuse(refusal),
    };
    let picture = state.picture.borrow().clone();
    let groups: Vec<_> = picture
        .groups
        .iter()
        .map(|(group, health)| {
            let source = health.source.clone().unwrap_or_default();
            let assignment: Vec<_> = source
                .assigned
                .iter()
                .map(|p| {
                    let lag = health.lag.get(&(p.topic.clone(), p.partition));
                    json!({
                        "topic": p.topic, "partition": p.partition, "position": p.position.or(p.committed),
                        "inHand": p.in_hand, "lag": lag,
                        "heldBackBy": p.head.map(|(offset, age)| json!({"offset": offset, "ms": age.as_millis() as u64})),
                    })
                })
                .collect();
            let paused: Vec<String> = source.paused.iter().map(ToString::to_string).collect();
            json!({"group": group, "running": health.source.is_some(), "paused": paused, "assignment": assignment, "lostAssignments": source.lost_assignments})
        })
        .collect();
    let breakers: Vec<_> = running.breakers.iter().map(|b| shown(b)).collect();
    HttpResponse::Ok().json(json!({
        "service": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"),
        "actors": state.actors(), "consumerGroups": groups, "breakers": breakers,
    }))
}

#[post("/api/v1/breakers/{name}/{order}")]
pub async fn order_breaker(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let (name, order) = path.into_inner();
    obey(&request, &state, &name, &order).unwrap_or_else(refuse)
}

fn obey(request: &HttpRequest, state: &SharedState, name: &str, order: &str) -> Result<HttpResponse, Refusal> {
    let running = admit(request, state)?;
    let not_found = |detail: String| (StatusCode::NOT_FOUND, detail);
    let breaker = running.breakers.iter().find(|breaker| breaker.name() == name);
    let breaker = breaker.ok_or_else(|| not_found(format!("there is no breaker `{name}`")))?;
    breaker.obey(match order {
        "open" => Order::Open,
        "close" => Order::Close,
        "auto" => Order::Auto,
        _ => return Err(not_found(format!("`{order}` is none of open, close, auto"))),
    });
    tracing::warn!(breaker = name, order, "an operator decides about a breaker");
    Ok(HttpResponse::Ok().json(shown(breaker)))
}

fn shown(breaker: &BreakerCell) -> serde_json::Value {
    json!({"name": breaker.name(), "state": breaker.position().as_str(), "held": breaker.is_held()})
}

/// What nobody answers.
pub async fn not_found(request: HttpRequest) -> HttpResponse {
    problem(StatusCode::NOT_FOUND, &format!("there is nothing at {}", request.path()))
}
