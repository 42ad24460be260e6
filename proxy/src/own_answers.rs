//! Questions of Codex clients that we answer ourselves and never pass on: upstream's answers would be about one account
//! of the pool, or lead the client past the gateway.

use bytes::Bytes;
use codex_lb_shared::clock;
use codex_lb_shared::domain::exchange_record::ExchangeStatus;
use http::HeaderMap;
use pingora_proxy::Session;
use serde_json::{Value, json};

use crate::intake::{self, Bounds, NoBody};
use crate::relay::{AnswerHead, ClientGone, Downstream};
use crate::route::OwnQuestion;
use crate::serve::DataPlane;
use crate::settlement::OpenExchange;
use crate::trail::Trail;
use crate::{caller, pool_limits};

/// Most that is read of what is only swallowed.
const SWALLOWED_BYTES_MAX: u64 = 1 << 20;
/// Longest account id of a client that is repeated to it.
const ACCOUNT_ID_CHARS_MAX: usize = 128;
/// What a client without an account is told it has.
const SYNTHETIC_ID: &str = "codex-lb";
/// "Use the address that you have": any other answer would send Codex past us.
const NO_CONSTRAINT: &str = "NO_CONSTRAINT";

/// Answers, and records that it did.
///
/// # Errors
/// When the client left.
pub(crate) async fn answer(plane: &DataPlane, session: &mut Session, question: OwnQuestion) -> Result<(), ClientGone> {
    let trail = Trail::begin(question.name(), &session.req_header().headers, clock::now());
    let mut downstream = plane.downstream(session, trail.id);
    let mut open = OpenExchange::new(trail, plane.recorder.clone());
    match find_answer(plane, &mut downstream, &mut open, question).await {
        Ok(body) => {
            open.close(ExchangeStatus::Ok).await;
            let head = AnswerHead { headers: vec![("cache-control", "no-store".to_owned())] };
            downstream.answer(200, "application/json", &head, Bytes::from(body.to_string())).await
        }
        Err(NoBody::ClientGone) => {
            open.close(ExchangeStatus::Cancelled).await;
            Err(ClientGone)
        }
        Err(NoBody::Rejected(rejection)) => {
            plane.state.metrics.rejected(rejection.code);
            open.trail.error_code = Some(rejection.code.to_owned());
            open.trail.error_kind = Some(rejection.kind);
            open.close(ExchangeStatus::Rejected).await;
            downstream.reject(&rejection).await
        }
    }
}

async fn find_answer(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    question: OwnQuestion,
) -> Result<Value, NoBody> {
    let socket_peer = caller::socket_peer(downstream.session());
    let headers = downstream.session().req_header().headers.clone();
    let caller = caller::prove(&plane.state, &headers, socket_peer, open.trail.requested_at).await?;
    open.trail.is_caller_proven = true;
    open.trail.api_key_id = caller.api_key_id();
    let now = clock::now();
    let limits = || pool_limits::of_callers_accounts(&plane.state, caller.api_key_id().is_some(), now);
    Ok(match question {
        OwnQuestion::PoolUsage => limits().to_json(now),
        OwnQuestion::AccountsCheck => accounts_check(&headers, limits().plan_type()),
        OwnQuestion::ConfigBundle | OwnQuestion::UserSettings => json!({}),
        OwnQuestion::AnalyticsEvents => {
            let bounds = Bounds {
                bytes_max: SWALLOWED_BYTES_MAX,
                piece_timeout: plane.state.config.intake.body_timeout,
                copies: 1,
            };
            let mut held = plane.body_budget.hold(caller.api_key_id().is_none());
            drop(intake::read_body(downstream.session(), bounds, &mut held).await?);
            json!({})
        }
    })
}

/// The accounts of whoever asks: the one it says it has.
fn accounts_check(headers: &HeaderMap, plan_type: &str) -> Value {
    let claimed = headers.get("chatgpt-account-id").and_then(|value| value.to_str().ok());
    let id = claimed.filter(|id| (1..=ACCOUNT_ID_CHARS_MAX).contains(&id.len())).unwrap_or(SYNTHETIC_ID);
    json!({
        "accounts": [{
            "id": id, "plan_type": plan_type, "name": "codex-lb", "structure": "personal",
            "account_user_id": format!("{SYNTHETIC_ID}__{id}"),
            "workspace_backend_origin": NO_CONSTRAINT, "account_routing_override": NO_CONSTRAINT,
        }],
        "account_ordering": [id],
        "default_account_id": id,
    })
}
