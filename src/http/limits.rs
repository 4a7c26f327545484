//! How much a client may ask: a bound on bodies, and a rate for the API by client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, RETRY_AFTER};
use actix_web::middleware::Next;
use actix_web::web;

use super::problem::problem;
use crate::resilience::token_bucket::TokenBucket;

/// Clients that are remembered; beyond that the memory begins anew, which only errs towards the client.
const MAX_CLIENTS: usize = 10_000;

/// See the module.
pub struct Limits {
    /// A larger body is refused.
    pub max_body_bytes: u64,
    /// Requests a second in the long run.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
    started: Instant,
    clients: Mutex<HashMap<IpAddr, TokenBucket>>,
}

impl Limits {
    /// Limits with an empty memory.
    pub fn new(max_body_bytes: u64, per_second: u32, burst: u32) -> Self {
        Self { max_body_bytes, per_second, burst, started: Instant::now(), clients: Mutex::default() }
    }

    /// How long the client has to wait; `None` when it may go on.
    fn wait(&self, client: IpAddr) -> Option<Duration> {
        let now = self.started.elapsed();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            clients.clear();
        }
        let bucket = clients.entry(client).or_insert_with(|| TokenBucket::new(self.per_second, self.burst, now));
        (bucket.take(1, now) == 0).then(|| bucket.until_token(now))
    }
}

/// Refuses what is too much before anything else looks at it.
pub async fn enforce(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(limits) = request.app_data::<web::Data<Limits>>().cloned() else { return next.call(request).await };
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.max_body_bytes) {
        let detail = format!("the body must not be longer than {} bytes", limits.max_body_bytes);
        return Ok(request.into_response(problem(StatusCode::PAYLOAD_TOO_LARGE, &detail)));
    }
    let client = request.peer_addr().map(|peer| peer.ip().to_canonical());
    if let Some(client) = client.filter(|_| is_api(request.match_info().as_str()))
        && let Some(wait) = limits.wait(client)
    {
        let mut answer = problem(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address");
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        return Ok(request.into_response(answer));
    }
    next.call(request).await
}

/// By the path as the router matches it: decoded, so that no spelling of it evades the limit.
fn is_api(path: &str) -> bool {
    path.starts_with("/api")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_burst_and_then_waits() {
        let limits = Limits::new(1, 1, 3);
        let client: IpAddr = [127, 0, 0, 1].into();
        let refused = (0..10).filter(|_| limits.wait(client).is_some()).count();
        assert!(refused >= 6, "{refused} of 10 refused after a burst of 3");
        assert!(limits.wait([127, 0, 0, 2].into()).is_none(), "another client is not affected");
    }
}
