//! Binding and serving.

use std::net::SocketAddr;

use actix_web::dev::ServerHandle;
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};

use super::gate::{Gate, enforce};
use super::problem::problem;
use super::state::SharedState;
use super::{api, health, unsubscribe, webhooks};

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (HTTP_ADDRESS): {source}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A server that listens.
pub struct HttpServerHandle {
    handle: ServerHandle,
    address: SocketAddr,
}

impl HttpServerHandle {
    /// Where it listens; port 0 in the configuration becomes a real one here.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it; requests under way are finished.
    pub async fn stop(&self) {
        self.handle.stop(true).await;
    }
}

/// What cannot even be read as a request of this API.
fn malformed(part: &str, error: &dyn std::fmt::Display) -> actix_web::Error {
    let detail = format!("the {part} is malformed: {error}");
    InternalError::from_response(detail.clone(), problem(StatusCode::BAD_REQUEST, &detail)).into()
}

/// Starts listening, on the current actix system.
///
/// # Errors
/// [`BindError`], which names the address and its setting.
pub fn start(address: SocketAddr, gate: Gate, state: SharedState) -> Result<HttpServerHandle, BindError> {
    let state = web::Data::new(state);
    let max_body_bytes = gate.limits.max_body_bytes as usize;
    let gate = web::Data::new(gate);
    let failed = |source| BindError { address, source };
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(gate.clone())
            .app_data(web::PayloadConfig::new(max_body_bytes))
            .app_data(web::QueryConfig::default().error_handler(|error, _| malformed("query", &error)))
            .app_data(web::PathConfig::default().error_handler(|error, _| malformed("path", &error)))
            .wrap(from_fn(enforce))
            .service(health::health)
            .service(health::live)
            .service(health::ready)
            .service(health::startup)
            .service(health::metrics)
            .service(api::notifications::submit)
            .service(api::notifications::list)
            .service(api::notifications::notification)
            .service(api::notifications::cancel)
            .service(api::notifications::retry)
            .service(api::recipients::put_recipient)
            .service(api::recipients::get_recipient)
            .service(api::recipients::erase)
            .service(api::recipients::get_preferences)
            .service(api::recipients::put_preferences)
            .service(api::suppressions::suppress)
            .service(api::suppressions::unsuppress)
            .service(api::suppressions::list)
            .service(api::inbox::entries)
            .service(api::inbox::read_all)
            .service(api::inbox::read_one)
            .service(api::inbox::follow)
            .service(webhooks::report)
            .service(unsubscribe::look)
            .service(unsubscribe::unsubscribe)
            .service(api::parked_payload)
            .service(api::system)
            .service(api::order_breaker)
            .default_service(web::to(api::not_found))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .bind(address)
    .map_err(failed)?;
    let address = server.addrs().first().copied().unwrap_or(address);
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(HttpServerHandle { handle, address })
}
