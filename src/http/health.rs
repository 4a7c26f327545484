//! `/health` for people and load balancers, `/health/live|ready|startup` for orchestrators.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use serde_json::{Value, json};

use super::state::{Phase, SharedState};
use crate::actors::supervisor::ActorState;
use crate::resilience::breaker::Position;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Healthy,
    Degraded,
    Unhealthy,
}

/// Without these the service cannot do its work.
const VITAL: [&str; 2] = ["kafka", "database"];

#[get("/health")]
pub async fn health(state: web::Data<SharedState>) -> HttpResponse {
    let picture = state.picture.borrow().clone();
    let mut status = Status::Healthy;
    let mut details: BTreeMap<String, Value> = BTreeMap::new();
    for name in VITAL {
        if !picture.dependencies.get(name).is_some_and(|d| d.up) {
            status = Status::Unhealthy;
        }
        details.insert(name.to_owned(), json!({"status": "unknown"}));
    }
    for (name, dependency) in &picture.dependencies {
        if !dependency.up {
            status = status.max(Status::Degraded);
        }
        let word = if dependency.up { "up" } else { "down" };
        details.insert(name.clone(), json!({"status": word, "problem": dependency.problem}));
    }
    let mut kafka_flows = picture.dependencies.get("kafka").is_some_and(|d| d.up);
    let mut breakers = BTreeMap::new();
    for breaker in state.running.get().map(|r| r.breakers.as_slice()).unwrap_or_default() {
        let position = breaker.position();
        if position != Position::Closed {
            status = status.max(Status::Degraded);
            kafka_flows &= breaker.name() != "kafka";
        }
        breakers.insert(breaker.name().to_owned(), position.as_str());
    }
    let rebuilding: Vec<String> =
        state.actors().into_iter().filter(|a| a.state != ActorState::Running).map(|a| a.name).collect();
    if !rebuilding.is_empty() {
        status = status.max(Status::Degraded);
    }
    let phase = *state.phase.borrow();
    if phase == Phase::Starting {
        status = Status::Unhealthy;
    }
    details.insert("phase".into(), json!(format!("{phase:?}").to_lowercase()));
    details.insert("connectedTopics".into(), json!(picture.topics));
    let active = picture.groups.values().filter(|g| g.source.is_some()).count();
    details.insert("activeConsumers".into(), json!(active));
    details.insert("producerConnected".into(), json!(kafka_flows));
    details.insert("breakers".into(), json!(breakers));
    details.insert("actorsBeingRebuilt".into(), json!(rebuilding));
    let code = if status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    HttpResponse::build(code).json(json!({"status": status, "details": details}))
}

fn probe(result: Result<(), &str>) -> HttpResponse {
    match result {
        Ok(()) => HttpResponse::Ok().json(json!({"status": "ok"})),
        Err(why) => HttpResponse::ServiceUnavailable().json(json!({"status": "failing", "reason": why})),
    }
}

/// Fails only for what a restart cures: an actor that was given up. One that is being rebuilt needs no restart, and a
/// dependency that is away does not come back by one.
#[get("/health/live")]
pub async fn live(state: web::Data<SharedState>) -> HttpResponse {
    let given_up = state.actors().iter().any(|a| a.state == ActorState::GivenUp);
    probe(if given_up { Err("an actor is past its restart budget") } else { Ok(()) })
}

#[get("/health/ready")]
pub async fn ready(state: web::Data<SharedState>) -> HttpResponse {
    probe(state.is_ready())
}

#[get("/health/startup")]
pub async fn startup(state: web::Data<SharedState>) -> HttpResponse {
    let starting = *state.phase.borrow() == Phase::Starting;
    probe(if starting { Err("waiting for Kafka and the database") } else { Ok(()) })
}

#[get("/metrics")]
pub async fn metrics(state: web::Data<SharedState>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(state.metrics.render())
}
