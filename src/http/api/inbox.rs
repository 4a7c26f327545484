//! `/api/v1/recipients/{id}/inbox`: what a recipient reads in the application itself, live if wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use futures::stream::unfold;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::notifications::page_size;
use super::{Page, admit, ask, bad, masks, none_if_refused, refuse, sees_addresses, stored};
use crate::http::state::{Phase, SharedState};
use crate::ports::inbox::{Entry, Inbox};

/// Each is a connection that stays.
const MAX_LISTENERS: usize = 1000;
/// Proxies end connections over which nothing comes for long.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[get("/api/v1/recipients/{id}/inbox")]
pub async fn entries(
    request: HttpRequest,
    id: web::Path<String>,
    page: web::Query<Page>,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let list = async || {
        let inbox = Arc::clone(&admit(&request, &state)?.inbox);
        let limit = page_size(page.limit.as_deref())?;
        let wrong = || bad("`cursor` is invalid: expected a nextCursor");
        let before = page.cursor.as_deref().map(|text| text.parse().map_err(|_| wrong())).transpose()?;
        let id = id.into_inner();
        let question = async move {
            let entries = none_if_refused(inbox.entries(&id, before, limit).await.map(Some))?;
            let unread = none_if_refused(inbox.unread(&id).await.map(Some))?;
            Ok((entries.unwrap_or_default(), unread.unwrap_or_default()))
        };
        let (items, unread) = ask(&state, question).await?;
        let next = items.last().filter(|_| items.len() == limit).map(|entry| entry.seq.to_string());
        let all = sees_addresses(&request)?;
        let items: Vec<Entry> = items.into_iter().map(|it| if all { it } else { masks::entry(it) }).collect();
        Ok(HttpResponse::Ok().json(json!({"items": items, "nextCursor": next, "unread": unread})))
    };
    list().await.unwrap_or_else(refuse)
}

#[post("/api/v1/recipients/{id}/inbox/read")]
pub async fn read_all(request: HttpRequest, id: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    mark(&request, id.into_inner(), None, &state).await
}

#[post("/api/v1/recipients/{id}/inbox/{entry}/read")]
pub async fn read_one(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    state: web::Data<SharedState>,
) -> HttpResponse {
    let (id, entry) = path.into_inner();
    mark(&request, id, Some(entry), &state).await
}

/// Says how many were unread before; reading again is harmless.
async fn mark(request: &HttpRequest, id: String, entry: Option<String>, state: &SharedState) -> HttpResponse {
    let mark = async || {
        let inbox = Arc::clone(&admit(request, state)?.inbox);
        let marked = stored(state, async move { inbox.mark_read(&id, entry.as_deref()).await }).await?;
        Ok(HttpResponse::Ok().json(json!({"marked": marked})))
    };
    mark().await.unwrap_or_else(refuse)
}

/// Server-sent events: the number of unread entries, at once and whenever the inbox changes.
#[get("/api/v1/recipients/{id}/inbox/stream")]
pub async fn follow(request: HttpRequest, id: web::Path<String>, state: web::Data<SharedState>) -> HttpResponse {
    let running = match admit(&request, &state) {
        Ok(running) => running,
        Err(refusal) => return refuse(refusal),
    };
    let Some(place) = Place::take() else {
        return refuse((StatusCode::SERVICE_UNAVAILABLE, "too many inboxes are followed at once".to_owned()));
    };
    let listener = Listener {
        changes: running.inbox.changes(),
        inbox: Arc::clone(&running.inbox),
        id: id.into_inner(),
        state: state.clone(),
        said: None,
        _place: place,
    };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(unfold(listener, async |mut listener| {
            let event = listener.next().await?;
            Some((Ok::<_, std::io::Error>(event), listener))
        }))
}

struct Listener {
    changes: Receiver<String>,
    inbox: Arc<dyn Inbox>,
    id: String,
    state: web::Data<SharedState>,
    /// What was said last.
    said: Option<u64>,
    _place: Place,
}

/// A place among the listeners; dropping it makes room.
struct Place;

static LISTENERS: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Self> {
        let free = |taken: usize| (taken < MAX_LISTENERS).then_some(taken + 1);
        LISTENERS.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Listener {
    /// The next event; `None` when the service ends. What is missed, or cannot be asked now, is found at the next
    /// heartbeat.
    async fn next(&mut self) -> Option<Bytes> {
        if self.said.is_some() {
            self.changed().await?;
        }
        let (inbox, id) = (Arc::clone(&self.inbox), self.id.clone());
        let question = async move { inbox.unread(&id).await.map_err(|e| e.to_string()) };
        match ask(&self.state, question).await {
            Ok(unread) if self.said != Some(unread) => {
                self.said = Some(unread);
                Some(Bytes::from(format!("event: unread\ndata: {{\"unread\":{unread}}}\n\n")))
            }
            Ok(_) => Some(Bytes::from_static(b": still here\n\n")),
            Err(_) => {
                self.said.get_or_insert(u64::MAX);
                Some(Bytes::from_static(b": the inbox cannot be read now\n\n"))
            }
        }
    }

    /// Waits for a change of the inbox or a heartbeat.
    async fn changed(&mut self) -> Option<()> {
        let mut phase = self.state.phase.clone();
        let mut heartbeat = std::pin::pin!(tokio::time::sleep(HEARTBEAT));
        loop {
            if *phase.borrow() == Phase::Draining {
                return None;
            }
            tokio::select! {
                changed = self.changes.recv() => match changed {
                    Ok(recipient) if recipient == self.id => return Some(()),
                    // Of what was missed the heartbeat knows.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                () = &mut heartbeat => return Some(()),
                changed = phase.changed() => changed.ok()?,
            }
        }
    }
}
