//! The queue, for an operator: pages of it, one message, and what is to be done with messages.

use super::{Admin, problem};
use crate::mail::{QueueId, shown};
use crate::message_trace::{Event, TraceEvent};
use crate::spool::{Acted, Listed, QueueAction};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Messages of one page at most: it is read from the disk and held in memory as a whole.
pub const MAX_PAGE: usize = 1_000;

const NOT_QUEUED: &str = "no such message is queued";

/// Which page of the queue.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageRequest {
    /// The messages behind this one; absent: from the oldest.
    #[serde(default)]
    pub after: Option<String>,
    /// So many messages at most, up to [`MAX_PAGE`]. A message has a row for each way and, by `mx`, for each domain.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A page with fewer messages than were asked for is the last.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(request): Query<PageRequest>,
) -> Response {
    let after = match request.after.as_deref().map(str::parse::<QueueId>) {
        Some(Err(why)) => return problem(StatusCode::BAD_REQUEST, why),
        Some(Ok(id)) => Some(id),
        None => None,
    };
    let limit = request.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let page = move || admin.spool.page(after, limit, (admin.now)());
    rows(tokio::task::spawn_blocking(page).await)
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<QueueId>() else {
        return problem(StatusCode::NOT_FOUND, NOT_QUEUED);
    };
    let find = move || admin.spool.find(id, (admin.now)());
    match tokio::task::spawn_blocking(find).await {
        Ok(found) if found.is_empty() => problem(StatusCode::NOT_FOUND, NOT_QUEUED),
        found => rows(found),
    }
}

/// What `gatepost explain headers QUEUE-ID` reads.
pub(super) async fn header(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<QueueId>() else {
        return problem(StatusCode::NOT_FOUND, NOT_QUEUED);
    };
    let find = move || admin.spool.header_told(id);
    match tokio::task::spawn_blocking(find).await {
        Ok(Ok(Some(told))) => axum::Json(told).into_response(),
        Ok(Ok(None)) => problem(StatusCode::NOT_FOUND, NOT_QUEUED),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn rows(found: Result<Vec<Listed>, tokio::task::JoinError>) -> Response {
    match found {
        Ok(rows) => axum::Json(rows).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What an operator wants done, and to which messages: one id, or all of a tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActRequest {
    /// Queue id.
    #[serde(default)]
    pub id: Option<String>,
    /// Tenant name.
    #[serde(default)]
    pub tenant: Option<String>,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

/// How many messages did it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ActAnswer {
    /// Messages.
    pub messages: usize,
    /// Messages that an operator holds, and that a retry left alone for that.
    #[serde(default, skip_serializing_if = "is_none")]
    pub held: usize,
}

/// Does it, and writes it into the story of each message.
pub(super) async fn act(
    State(admin): State<Arc<Admin>>,
    Path(word): Path<String>,
    axum::Json(request): axum::Json<ActRequest>,
) -> Response {
    let Some(action) = action(&word) else {
        return problem(StatusCode::NOT_FOUND, "no such action");
    };
    let id = match request.id.as_deref().map(str::parse::<QueueId>) {
        Some(Err(_)) => return problem(StatusCode::NOT_FOUND, NOT_QUEUED),
        Some(Ok(id)) => Some(id),
        None => None,
    };
    if id.is_none() && request.tenant.is_none() {
        return problem(StatusCode::BAD_REQUEST, "an id or a tenant is needed");
    }
    let asked = match (&id, request.tenant.as_deref()) {
        (Some(id), _) => id.to_string(),
        (None, tenant) => format!("tenant {}", shown(tenant.unwrap_or_default().as_bytes())),
    };
    // A queue may be long: not on a thread that mail needs, and the trace gets all of it.
    let done = tokio::task::spawn_blocking({
        let word = word.clone();
        move || {
            let at = (admin.now)();
            let tell = |id: QueueId| {
                admin.tracer.record_patiently(&TraceEvent {
                    at,
                    id: id.to_string(),
                    event: Event::Operator {
                        action: word.clone(),
                    },
                });
            };
            let tenant = request.tenant.as_deref();
            admin.spool.act_on_each(id, tenant, action, at, tell)
        }
    });
    let Acted { messages, held } = match done.await {
        Ok(acted) => acted,
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    if messages + held == 0 && id.is_some() {
        return problem(StatusCode::NOT_FOUND, NOT_QUEUED);
    }
    tracing::info!(action = %word, %asked, messages, held, "an operator acted on the queue");
    axum::Json(ActAnswer { messages, held }).into_response()
}

fn action(word: &str) -> Option<QueueAction> {
    match word {
        "retry" => Some(QueueAction::Retry),
        "hold" => Some(QueueAction::Hold),
        "release" => Some(QueueAction::Release),
        "delete" => Some(QueueAction::Delete),
        _ => None,
    }
}
