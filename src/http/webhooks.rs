//! `/webhooks/{provider}`: providers report what became of notifications. Whoever signs with the provider's secret is
//! believed, from wherever the call comes.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, post, web};

use super::problem::problem;
use super::state::SharedState;
use crate::delivery::reports::NotTaken;
use crate::ports::ledger::LedgerError;
use crate::ports::reports::{Callback, ReportError};

#[post("/webhooks/{provider}")]
pub async fn report(
    request: HttpRequest,
    provider: web::Path<String>,
    body: web::Bytes,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let Some(running) = state.running.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the service is starting");
    };
    let headers = request.headers().iter();
    let headers = headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    let callback = Callback::new(request.query_string(), headers.collect(), body.to_vec());
    let (reports, now) = (Arc::clone(&running.reports), running.clock.now());
    let taken = state.io.spawn(async move { reports.take(&provider, &callback, now).await });
    match tokio::time::timeout(super::api::DEADLINE, taken).await {
        Ok(Ok(Ok(_))) => HttpResponse::NoContent().finish(),
        Ok(Ok(Err(refused))) => {
            let status = match &refused {
                NotTaken::UnknownProvider => StatusCode::NOT_FOUND,
                NotTaken::Refused(ReportError::Stranger(_)) => StatusCode::UNAUTHORIZED,
                NotTaken::Refused(ReportError::Invalid(_)) => StatusCode::BAD_REQUEST,
                NotTaken::Ledger(LedgerError::Rejected(_)) => StatusCode::BAD_REQUEST,
                NotTaken::Ledger(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, &refused.to_string())
        }
        Ok(Err(_)) => problem(StatusCode::INTERNAL_SERVER_ERROR, "taking the report panicked"),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer"),
    }
}
