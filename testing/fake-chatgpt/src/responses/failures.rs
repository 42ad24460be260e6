//! Scripted responses that are no stream: refusals, broken servers, and whatever a test spells out.

use std::ops::ControlFlow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::account::Account;
use crate::reply::{Exchange, Refusal, Reply, write_edge_headers};
use crate::script::Script;
use crate::{clock, ids};

const RESET_SECONDS: u64 = 3_600;

/// Plays a script that is no stream; gives the request back if the script is none of these.
///
/// For an account the refusal carries its rate limit headers.
pub(crate) fn play(exchange: Exchange, script: &Script, account: Option<&Account>) -> ControlFlow<Reply, Exchange> {
    match script {
        Script::CutBeforeHead => return ControlFlow::Break(exchange.tear()),
        Script::Raw { status, headers, body } => {
            return ControlFlow::Break(raw(exchange, *status, headers, body.clone()));
        }
        Script::ServerError { html: true, status, retry_after, .. } => {
            return ControlFlow::Break(html_error(exchange, *status, retry_after.as_deref()));
        }
        Script::ServerError { html: false, .. }
        | Script::Unauthorized { .. }
        | Script::DeactivatedWorkspace
        | Script::UsageLimit { .. }
        | Script::UsageNotIncluded
        | Script::RateLimited { .. }
        | Script::Auto
        | Script::Answer(_)
        | Script::EchoShellTool { .. }
        | Script::FirstEventFailure { .. }
        | Script::FailMidStream { .. }
        | Script::CutMidStream { .. }
        | Script::Silence { .. }
        | Script::Incomplete { .. } => {}
    }
    let Some(refusal) = refusal(script, account.map_or("plus", |account| &account.profile.plan)) else {
        return ControlFlow::Continue(exchange);
    };
    let mut headers = HeaderMap::new();
    if let Some(account) = account {
        exchange.limit_headers(account, &mut headers);
    }
    ControlFlow::Break(exchange.refuse_with(headers, refusal))
}

/// The JSON refusal that a script stands for, if it stands for one; `plan` is the account's.
fn refusal(script: &Script, plan: &str) -> Option<Refusal> {
    let too_many = |error| Refusal::new(StatusCode::TOO_MANY_REQUESTS, json!({"error": error}));
    Some(match script {
        Script::Unauthorized { reason } => Refusal::unauthorized(*reason),
        Script::DeactivatedWorkspace => {
            Refusal::new(StatusCode::PAYMENT_REQUIRED, json!({"detail": {"code": "deactivated_workspace"}}))
        }
        Script::UsageLimit { resets_in_seconds, resets_at, plan: scripted_plan } => {
            let now = clock::unix_now();
            let resets_at = resets_at.unwrap_or_else(|| now + resets_in_seconds.unwrap_or(RESET_SECONDS));
            too_many(json!({
                "type": "usage_limit_reached", "message": "The usage limit has been reached",
                "plan_type": scripted_plan.as_deref().unwrap_or(plan), "resets_at": resets_at, "eligible_promo": null,
                "resets_in_seconds": resets_in_seconds.unwrap_or_else(|| resets_at.saturating_sub(now)),
            }))
        }
        Script::UsageNotIncluded => too_many(json!({
            "type": "usage_not_included", "message": "Usage not included in your plan", "plan_type": plan,
        })),
        Script::RateLimited { message, retry_after } => {
            let message = message.as_deref().unwrap_or("Rate limit reached. Please try again in 1.3s.");
            let error = json!({"type": "rate_limit_exceeded", "code": "rate_limit_exceeded", "message": message, "param": null});
            too_many(error).retry_after(retry_after.as_deref())
        }
        Script::ServerError { html: false, status, code, message, retry_after } => {
            let message = message.as_deref().unwrap_or("The server had an error while processing your request.");
            let error = json!({"message": message, "type": "server_error", "param": null, "code": code});
            Refusal::new(status_of(*status), json!({"error": error})).retry_after(retry_after.as_deref())
        }
        Script::ServerError { html: true, .. }
        | Script::Auto
        | Script::Answer(_)
        | Script::EchoShellTool { .. }
        | Script::FirstEventFailure { .. }
        | Script::FailMidStream { .. }
        | Script::CutMidStream { .. }
        | Script::CutBeforeHead
        | Script::Silence { .. }
        | Script::Raw { .. }
        | Script::Incomplete { .. } => return None,
    })
}

/// An error page of the network before the backend.
fn html_error(exchange: Exchange, status: u16, retry_after: Option<&str>) -> Reply {
    let status = status_of(status);
    let reason = status.canonical_reason().unwrap_or("Error");
    let title = format!("chatgpt.com | {}: {reason}", status.as_u16());
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en-US\">\n<head><title>{title}</title></head>\n<body>\n<h1>{reason}</h1>\n\
         <p>Error code {}</p>\n<p>Cloudflare Ray ID: {:016x}</p>\n</body>\n</html>\n",
        status.as_u16(),
        ids::unique()
    );
    let mut headers = HeaderMap::new();
    if let Some(Ok(retry_after)) = retry_after.map(HeaderValue::from_str) {
        headers.insert(RETRY_AFTER, retry_after);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
    write_edge_headers(&mut headers);
    exchange.whole(status, headers, Bytes::from(page))
}

/// Exactly what a test spelled out; header lines that HTTP does not allow are left out.
fn raw(exchange: Exchange, status: u16, lines: &[(String, String)], body: String) -> Reply {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    exchange.whole(status_of(status), headers, Bytes::from(body))
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
