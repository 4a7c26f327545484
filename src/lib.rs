//! The notification service: domain events from Kafka become delivered notifications.
//!
//! Two stages, each fed by consumer groups of its own. **Routing** turns an event into requests on
//! `notification-events`; **delivery** writes requests into a ledger and hands them to providers. What cannot be
//! processed becomes a dead letter before its offset moves.
//!
//! | module | holds |
//! |---|---|
//! | [`domain`] | pure types: envelopes, typed events, notifications, dead letters, ids |
//! | [`handlers`] | pure functions from an event to the notifications it asks for |
//! | [`ports`] | the traits between the stages and the world |
//! | [`resilience`] | circuit breaker, retry, token bucket |
//! | [`consume`] | the loop of a consumer group: take, decide, make durable, settle |
//! | [`routing`] | stage 1, over that loop |
//! | [`delivery`] | stage 2: intake over that loop, then lanes, attempts, leases, the outbox |
//! | [`review`] | dead letters from their topic into their table, over that loop |
//! | [`actors`] | the actix actors that own all this, and their supervisor |
//! | [`adapters`] | Kafka, SQL, Redis and the providers, behind the ports |
//! | [`app`] | the composition root: start order, ordered shutdown |
//! | [`http`] | probes, metrics, the API |
//! | [`config`] | the configuration, one file per section |
//! | [`cli`] | the commands |
//! | [`telemetry`] | logs, metrics, the journal of notable events |
//!
//! Dependencies point from `cli` over `app` and `actors` to `domain`; `scripts/check-imports.sh` holds the table.

pub mod actors;
pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod consume;
pub mod delivery;
#[allow(missing_docs)]
pub mod domain;
pub mod handlers;
pub mod http;
pub mod ports;
pub mod resilience;
pub mod review;
pub mod routing;
pub mod telemetry;
