//! `/unsubscribe/{token}`: a recipient refuses more of a kind with the link of an e-mail, without logging in.
//!
//! Looking at the page changes nothing, because mail scanners follow links; its button, and the one click of mail
//! programs (RFC 8058), post to the same address.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, get, post, web};

use super::problem::problem;
use super::state::{RunningParts, SharedState};
use crate::delivery::unsubscribe::Unsubscribe;
use crate::domain::preferences::OptOut;

const PAGE: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>Unsubscribe</title></head>
<body style="font-family:sans-serif;max-width:32em;margin:4em auto;padding:0 1em">CONTENT</body></html>
"#;

fn page(content: &str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header(("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"))
        .insert_header(("Referrer-Policy", "no-referrer"))
        .insert_header(("Cache-Control", "no-store"))
        .body(PAGE.replacen("CONTENT", content, 1))
}

type Refusal = (StatusCode, &'static str);

/// What the link does, if this service made it.
fn read<'a>(state: &'a SharedState, token: &str) -> Result<(&'a RunningParts, Unsubscribe), Refusal> {
    let running = state.running.get().ok_or((StatusCode::SERVICE_UNAVAILABLE, "the service is starting"))?;
    let wanted = running.unsubscribe.as_ref().and_then(|links| links.read(token));
    Ok((running, wanted.ok_or((StatusCode::NOT_FOUND, "this link leads nowhere"))?))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[get("/unsubscribe/{token}")]
pub async fn look(token: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    match read(&state, &token) {
        Ok((_, wanted)) => page(&format!(
            "<h1>Unsubscribe</h1><p>Stop messages of the kind <b>{}</b>?</p>\
             <form method=\"post\"><button>Unsubscribe</button></form>",
            escaped(&wanted.category)
        )),
        Err((status, detail)) => problem(status, detail),
    }
}

#[post("/unsubscribe/{token}")]
pub async fn unsubscribe(token: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    let (running, wanted) = match read(&state, &token) {
        Ok(found) => found,
        Err((status, detail)) => return problem(status, detail),
    };
    let contacts = Arc::clone(&running.contacts);
    let refusal = OptOut { channel: wanted.channel.as_str().to_owned(), category: wanted.category.clone() };
    let done = state.io.spawn(async move { contacts.refuse(&wanted.recipient, refusal).await });
    match tokio::time::timeout(super::api::DEADLINE, done).await {
        Ok(Ok(Ok(()))) => page("<h1>Done</h1><p>You will get no more of these messages.</p>"),
        _ => problem(StatusCode::SERVICE_UNAVAILABLE, "this cannot be stored now; please try again later"),
    }
}
