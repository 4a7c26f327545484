//! The service as its users meet it: the real binary on real servers, with providers that are told how to behave.
//!
//! Tests that need servers are ignored by default; `scripts/test.sh` starts Kafka and PostgreSQL and runs them.

mod alerts;
mod auth;
mod backlog;
mod bad_input;
mod breaker;
mod callbacks;
mod cli;
mod contacts;
mod crash;
mod dead_letters;
mod dedup;
mod delivery;
mod delivery_faults;
mod end_to_end;
mod exactly_once;
mod failover;
mod faults;
mod inbox;
mod limits;
mod load;
mod mail;
mod masked_logs;
mod metrics;
mod offsets;
mod outage;
mod provider_faults;
mod push;
mod requests;
mod security;
mod shutdown;
mod small_topics;
mod source;
mod start;
mod stop;
mod streams;
mod support;
mod template_versions;
mod templates;
