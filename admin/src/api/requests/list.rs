//! `GET /api/v1/requests?cursor&limit&accountId&apiKeyId&model&status`: the request log, newest first, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::exchange_record::ExchangeStatus;
use codex_lb_shared::ids::{AccountId, ApiKeyId, ExchangeId};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::{LoggedExchange, PAGE_ROWS_MAX, PageRequest};
use serde::{Deserialize, Serialize};

use crate::access::Viewer;
use crate::api_error::ApiError;
use crate::extract::Parameters;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Query {
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    limit: Option<u32>,
    account_id: Option<AccountId>,
    api_key_id: Option<ApiKeyId>,
    model: Option<String>,
    status: Option<ExchangeStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    items: Vec<LoggedExchange>,
    /// Where the next page begins; `null` on the last one. The last page may be empty.
    next_cursor: Option<String>,
}

pub(crate) async fn list(
    _: Viewer,
    State(state): State<Arc<SharedState>>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Answer>, ApiError> {
    let page = page(query)?;
    let items = state.store.recent_exchanges(&page).await?;
    let is_full = items.len() == page.limit as usize;
    let next_cursor = items.last().filter(|_| is_full).map(|last| write_cursor(last.requested_at, last.id));
    Ok(Json(Answer { items, next_cursor }))
}

fn page(query: Query) -> Result<PageRequest, ApiError> {
    let default = PageRequest::default();
    let limit = query.limit.unwrap_or(default.limit);
    if !(1..=PAGE_ROWS_MAX).contains(&limit) {
        return Err(ApiError::invalid_field("limit", format!("The limit must be between 1 and {PAGE_ROWS_MAX}.")));
    }
    let before = match &query.cursor {
        Some(cursor) => Some(read_cursor(cursor).ok_or_else(|| {
            ApiError::invalid_field("cursor", "This is no cursor. Take the nextCursor of the page before as it is.")
        })?),
        None => None,
    };
    Ok(PageRequest {
        before,
        limit,
        account_id: query.account_id,
        api_key_id: query.api_key_id,
        model: query.model,
        status: query.status,
    })
}

/// Both halves, because many exchanges may arrive in the same millisecond.
fn write_cursor(requested_at: Timestamp, id: ExchangeId) -> String {
    format!("{}_{id}", requested_at.as_unix_ms())
}

fn read_cursor(cursor: &str) -> Option<(Timestamp, ExchangeId)> {
    let (requested_at, id) = cursor.split_once('_')?;
    Some((Timestamp::from_unix_ms(requested_at.parse().ok()?), id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nonsense_is_refused() {
        let (at, id) = (Timestamp::from_unix_ms(1_700_000_000_123), ExchangeId::from_u128(9));
        assert_eq!(read_cursor(&write_cursor(at, id)), Some((at, id)));
        for nonsense in ["", "_", "1_", "x_01ARZ3NDEKTSV4RRFFQ69G5FAV", "1-01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
            assert_eq!(read_cursor(nonsense), None, "{nonsense}");
        }
    }
}
