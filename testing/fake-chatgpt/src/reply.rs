//! One request on its way to one response, and the ways to make that response.
//!
//! Every way consumes the [`Exchange`], so a request is answered once and its ticket always finds its end.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::account::Account;
use crate::fake::Fake;
use crate::issuer::tokens::AccessState;
use crate::record::{Outcome, RequestHead, Ticket};
use crate::responses::plan::Plan;
use crate::responses::stream::{EventStream, ReplyBody, Torn, last_frame};
use crate::script::UnauthorizedReason;
use crate::wire::FlushQueue;
use crate::{ids, models};

/// What a handler gives back: a response, or a torn connection.
pub(crate) type Reply = Result<Response<ReplyBody>, Torn>;

/// A request with its whole decoded body, and the duty to answer it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) fake: Arc<Fake>,
    pub(crate) head: Arc<RequestHead>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) bearer: AccessState,
    pub(crate) ticket: Ticket,
    pub(crate) queue: Arc<FlushQueue>,
}

impl Exchange {
    /// The account of the access token, if the token is good and `chatgpt-account-id` fits it.
    pub(crate) fn authenticate(&self) -> Result<Arc<Account>, Refusal> {
        let account = match &self.bearer {
            AccessState::Good(account) => account,
            AccessState::Expired(_) => return Err(Refusal::unauthorized(UnauthorizedReason::TokenExpired)),
            AccessState::Revoked(_) => return Err(Refusal::unauthorized(UnauthorizedReason::TokenRevoked)),
            AccessState::Unknown if self.headers.contains_key("authorization") => {
                return Err(Refusal::unauthorized(UnauthorizedReason::TokenInvalidated));
            }
            AccessState::Unknown => return Err(Refusal::unauthorized(UnauthorizedReason::Detail)),
        };
        let claimed = self.header("chatgpt-account-id");
        if claimed == Some(&account.profile.chatgpt_account_id) {
            Ok(account.clone())
        } else {
            Err(Refusal::unauthorized(UnauthorizedReason::Detail))
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON or as a form, as an object of strings; OAuth clients use both.
    pub(crate) fn fields(&self) -> Value {
        let is_form =
            self.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if is_form {
            let pairs = crate::form::parse(&String::from_utf8_lossy(&self.body));
            Value::Object(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
        } else {
            serde_json::from_slice(&self.body).unwrap_or_default()
        }
    }

    /// The first value of a query parameter.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        crate::form::parse(&self.head.query).into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    pub(crate) fn json(self, value: &Value) -> Reply {
        self.json_with(StatusCode::OK, HeaderMap::new(), value)
    }

    pub(crate) fn refuse(self, refusal: Refusal) -> Reply {
        self.refuse_with(HeaderMap::new(), refusal)
    }

    pub(crate) fn refuse_with(self, mut headers: HeaderMap, refusal: Refusal) -> Reply {
        if let Some(retry_after) = refusal.retry_after {
            headers.insert(RETRY_AFTER, retry_after);
        }
        self.json_with(refusal.status, headers, &refusal.body)
    }

    pub(crate) fn json_with(self, status: StatusCode, mut headers: HeaderMap, value: &Value) -> Reply {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        write_edge_headers(&mut headers);
        self.whole(status, headers, Bytes::from(value.to_string()))
    }

    /// Exactly this response.
    pub(crate) fn whole(self, status: StatusCode, headers: HeaderMap, body: Bytes) -> Reply {
        self.ticket.set_status(status.as_u16());
        let length = body.len() as u64;
        let frame = if body.is_empty() {
            self.ticket.end(Outcome::Answered);
            None
        } else {
            Some(last_frame(body, self.ticket, Outcome::Answered, &self.queue))
        };
        Ok(respond(status, headers, ReplyBody::Whole(frame, length)))
    }

    /// A 200 with a stream.
    pub(crate) fn stream(self, headers: HeaderMap, plan: Plan) -> Reply {
        self.ticket.set_status(StatusCode::OK.as_u16());
        let stream = EventStream::new(plan, self.ticket, self.queue);
        Ok(respond(StatusCode::OK, headers, ReplyBody::Stream(Box::new(stream))))
    }

    /// No response at all.
    pub(crate) fn tear(self) -> Reply {
        self.ticket.end(Outcome::Torn);
        Err(Torn)
    }

    /// The headers of a Responses answer.
    pub(crate) fn model_headers(&self, account: &Account, model: &str) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(40);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert("cache-control", HeaderValue::from_static("no-cache"));
        insert(&mut headers, "openai-model", model);
        let offered = self.fake.models_of(&account.profile.plan);
        insert(&mut headers, "x-models-etag", &models::etag(&offered));
        // A turn keeps the state it was first given.
        match self.headers.get("x-codex-turn-state") {
            Some(state) => headers.insert("x-codex-turn-state", state.clone()),
            None => headers.insert("x-codex-turn-state", turn_state(account)),
        };
        self.limit_headers(account, &mut headers);
        if let Some(named_limit) = models::named_limit(model) {
            headers.insert("x-codex-active-limit", HeaderValue::from_static(named_limit));
        }
        write_edge_headers(&mut headers);
        headers
    }

    /// The rate limit headers, which stand on refusals too.
    pub(crate) fn limit_headers(&self, account: &Account, headers: &mut HeaderMap) {
        let usage = account.desk.lock().usage.clone();
        usage.write_headers(&account.profile, headers);
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn turn_state(account: &Account) -> HeaderValue {
    let sealed = crate::responses::sealed::seal(&account.profile.identity());
    HeaderValue::try_from(sealed.chars().take(120).collect::<String>())
        .unwrap_or_else(|_| HeaderValue::from_static("turn"))
}

/// What the network before the backend adds. A gateway must not pass most of it on.
pub(crate) fn write_edge_headers(headers: &mut HeaderMap) {
    insert(headers, "x-request-id", &format!("req_{:016x}{:016x}", ids::unique(), ids::unique()));
    insert(headers, "x-oai-request-id", &ids::uuid());
    insert(headers, "cf-ray", &format!("{:016x}-FRA", ids::unique()));
    let cookie = format!("__cf_bm={}; path=/; HttpOnly; Secure; SameSite=None", ids::alphanumeric(43));
    insert(headers, "set-cookie", &cookie);
    for (name, value) in [
        ("server", "cloudflare"),
        ("cf-cache-status", "DYNAMIC"),
        ("alt-svc", "h3=\":443\"; ma=86400"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
        ("x-content-type-options", "nosniff"),
        ("openai-processing-ms", "12"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // A requested model may hold anything; what no header can carry is left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// A request that upstream would refuse, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    status: StatusCode,
    body: Value,
    retry_after: Option<HeaderValue>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, retry_after: None }
    }

    /// 400 `{"detail":…}`, the form of the backend's own checks.
    pub(crate) fn detail(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, json!({"detail": message.into()}))
    }

    /// 400 `{"error":{…}}`, the form of the model service behind it.
    pub(crate) fn invalid_request(message: &str, param: Option<&str>, code: Option<&str>) -> Self {
        let error = json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
        Self::new(StatusCode::BAD_REQUEST, json!({"error": error}))
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, json!({"detail": "Not Found"}))
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, json!({"detail": "Method Not Allowed"}))
    }

    pub(crate) fn unauthorized(reason: UnauthorizedReason) -> Self {
        let (code, message) = match reason {
            UnauthorizedReason::TokenInvalidated => {
                ("token_invalidated", "Your authentication token has been invalidated. Please try signing in again.")
            }
            UnauthorizedReason::TokenExpired => {
                ("token_expired", "Provided authentication token is expired. Please try signing in again.")
            }
            UnauthorizedReason::TokenRevoked => {
                ("token_revoked", "Encountered invalidated oauth token for user, failing request")
            }
            UnauthorizedReason::Detail => {
                return Self::new(StatusCode::UNAUTHORIZED, json!({"detail": "Unauthorized"}));
            }
        };
        let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": code});
        Self::new(StatusCode::UNAUTHORIZED, json!({"error": error, "status": 401}))
    }

    #[cfg(test)]
    pub(crate) fn body(&self) -> &Value {
        &self.body
    }

    /// With a `retry-after` header, if the value can be one.
    pub(crate) fn retry_after(self, retry_after: Option<&str>) -> Self {
        let retry_after = retry_after.and_then(|value| HeaderValue::from_str(value).ok());
        Self { retry_after, ..self }
    }
}
