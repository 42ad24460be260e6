//! From the head of a request to its handler, like a table of contents. Every request is recorded here.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version, request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::issuer::tokens::AccessState;
use crate::record::{Outcome, RequestHead, RequestRecord};
use crate::reply::{Exchange, Refusal, Reply};
use crate::responses::stream::Torn;
use crate::script::Script;
use crate::server::Connection;
use crate::{backend, clock, control, issuer, responses};

/// The largest request body, before and after decoding.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Answers one request. An error tears the connection (HTTP/1.1) or the stream (HTTP/2).
pub(crate) async fn serve(connection: Connection, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    // A client that goes while it sends its request leaves no record.
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else { return Err(Torn) };
    let encoding = parts.headers.get("content-encoding").map(|value| value.as_bytes().to_vec());
    let (body, is_decoded) = match decode(encoding.as_deref(), body.to_bytes()) {
        Ok(decoded) => (decoded, true),
        Err(undecoded) => (undecoded, false),
    };
    let head = Arc::new(request_head(&parts));
    if head.path.starts_with("/__fake/") {
        return control::serve(connection, head, body).await;
    }
    let exchange = record(&connection, head, parts.headers, body);
    if !is_decoded {
        let refusal =
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, json!({"detail": "Unsupported content encoding"}));
        return exchange.refuse(refusal);
    }
    match exchange.fake.take_path_script(&exchange.head.path) {
        None | Some(Script::Auto) => dispatch(exchange).await,
        Some(script) => responses::serve_on_path(exchange, script).await,
    }
}

pub(crate) async fn dispatch(exchange: Exchange) -> Reply {
    let head = exchange.head.clone();
    let path = head.path.strip_prefix("/backend-api").map_or((false, &*head.path), |path| (true, path));
    match (head.method.as_str(), path) {
        ("POST", (true, "/codex/responses")) => responses::serve(exchange).await,
        ("POST", (true, "/codex/responses/compact")) => responses::serve_compact(exchange).await,
        ("GET", (true, "/codex/models")) => backend::models(exchange),
        ("GET", (true, "/wham/usage")) => backend::usage(exchange),
        ("GET", (true, "/wham/accounts/check")) => backend::accounts_check(exchange),
        ("POST", (true, "/files")) => backend::create_file(exchange),
        ("POST", (true, path)) if path.starts_with("/files/") && path.ends_with("/uploaded") => {
            backend::file_uploaded(exchange)
        }
        ("POST", (true, "/transcribe")) => backend::transcribe(exchange),
        ("GET", (true, "/codex/thread/goal/get" | "/codex/agent-identities/jwks"))
        | (
            "POST",
            (
                true,
                "/codex/thread/goal/get"
                | "/codex/thread/goal/set"
                | "/codex/thread/goal/clear"
                | "/codex/memories/trace_summarize"
                | "/codex/safety/arc"
                | "/codex/alpha/search"
                | "/codex/analytics-events/events",
            ),
        ) => backend::control(exchange),
        ("GET", (false, "/oauth/authorize")) => issuer::login::authorize(exchange),
        ("POST", (false, "/oauth/token")) => issuer::token_endpoint(exchange).await,
        ("POST", (false, "/oauth/revoke")) => issuer::revoke(exchange),
        ("POST", (false, "/api/accounts/deviceauth/usercode")) => issuer::login::device_user_code(exchange),
        ("POST", (false, "/api/accounts/deviceauth/token")) => issuer::login::device_poll(exchange),
        (_, (true, "/codex/responses" | "/codex/models" | "/wham/usage" | "/files" | "/transcribe")) => {
            exchange.refuse(Refusal::method_not_allowed())
        }
        _ => exchange.refuse(Refusal::not_found()),
    }
}

fn record(connection: &Connection, head: Arc<RequestHead>, headers: HeaderMap, body: Bytes) -> Exchange {
    let fake = connection.fake.clone();
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    let access_token = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let bearer = fake.tokens.look_up(access_token);
    let account = match &bearer {
        AccessState::Good(account) | AccessState::Expired(account) | AccessState::Revoked(account) => {
            Some(account.clone())
        }
        AccessState::Unknown => None,
    };
    let keeps_body = fake.options.record_bodies;
    let arrived = RequestRecord {
        sequence: 0,
        connection: connection.number,
        head: head.clone(),
        body: if keeps_body { body.clone() } else { Bytes::new() },
        body_bytes: body.len() as u64,
        body_sha256: keeps_body.then(|| Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect()),
        account: account.as_ref().map(|account| account.profile.name.clone()),
        received_at: clock::now(),
        script: None,
        status: None,
        events_sent: 0,
        outcome: Outcome::InFlight,
    };
    let ticket = fake.log.open(arrived, account);
    Exchange { fake, head, headers, body, bearer, ticket, queue: connection.queue.clone() }
}

fn request_head(parts: &request::Parts) -> RequestHead {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    RequestHead {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        http_version: match parts.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        },
        headers: parts.headers.iter().map(text).collect(),
    }
}

/// The body without its content encoding, or the body as it is if that cannot be undone.
fn decode(encoding: Option<&[u8]>, body: Bytes) -> Result<Bytes, Bytes> {
    let mut decoded = Vec::new();
    let limit = BODY_BYTES_MAX as u64;
    let outcome = match encoding {
        None | Some(b"identity") => return Ok(body),
        Some(b"zstd") => {
            zstd::Decoder::new(&body[..]).and_then(|decoder| decoder.take(limit).read_to_end(&mut decoded))
        }
        Some(b"gzip") => flate2::read::MultiGzDecoder::new(&body[..]).take(limit).read_to_end(&mut decoded),
        Some(_) => return Err(body),
    };
    outcome.map(|_| Bytes::from(decoded)).map_err(|_| body)
}
