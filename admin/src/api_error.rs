//! What the API answers when it does not do what was asked. Together with `health.rs` the only file here that knows
//! status codes.
//!
//! What the caller reads and what the log says are two texts: a driver's words never reach the caller. Every error that
//! needs somebody's attention is logged here, once.

use axum::Json;
use axum::response::{IntoResponse, Response};
use codex_lb_shared::kind::Kind;
use codex_lb_shared::pool::PoolError;
use codex_lb_shared::secret::SealError;
use codex_lb_shared::store::{EGRESS_PROXIES_MAX, StoreError};
use http::StatusCode;
use serde::Serialize;
use tracing::{error, warn};

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The hop's header came from somebody who may not send it, or was not signed by this process.
    #[error("the header of the hop is refused")]
    HopHeader,
    /// The caller does not sit at this machine.
    #[error("the caller is not on this machine")]
    LocalOnly {
        /// Where the control plane listens.
        port: u16,
    },
    /// A page of another origin tried to change something.
    #[error("the mutation comes from another origin")]
    ForeignOrigin,
    /// A mutation without the header that only our page and programs send.
    #[error("the mutation has no x-codex-lb-request header")]
    NoRequestHeader,
    /// The body or the query is not what the endpoint takes.
    #[error("the request does not fit: {message}")]
    Invalid {
        /// For the caller, in a whole sentence.
        message: String,
        /// The field or parameter, if it is a single one.
        field: Option<&'static str>,
    },
    /// The body is no JSON by its content type.
    #[error("the body is not JSON by its content type")]
    NotJson,
    /// The body is larger than its bound.
    #[error("the body is too large")]
    TooLarge,
    /// There is no such thing.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// There is such an endpoint, but not with this method.
    #[error("the method is not allowed")]
    MethodNotAllowed,
    /// The api key was revoked, and that is for good.
    #[error("the api key is revoked")]
    ApiKeyRevoked,
    /// Accounts are bound to the egress proxy that was to go.
    #[error("the egress proxy is in use by {accounts} accounts")]
    EgressProxyInUse {
        /// How many.
        accounts: u32,
    },
    /// There are as many as there may be.
    #[error("there are too many egress proxies")]
    TooManyEgressProxies,
    /// Egress proxies were tried out too often just now.
    #[error("egress proxies were tried out too often")]
    TestedTooOften,
    /// A secret could not be sealed.
    #[error("seal a secret")]
    Seal(#[from] SealError),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is stored, but this process could not read it back yet.
    #[error("a stored change could not be read back")]
    NotEffectiveYet(#[source] NotReadBack),
    /// It took too long.
    #[error("the request timed out")]
    TimedOut,
    /// We are at fault.
    #[error("impossible: {0}")]
    Impossible(&'static str),
}

/// Why a stored change could not be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReadBack {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The answer's shape: `{"error":{"code","message","details"?}}`.
#[derive(Serialize)]
struct Body<'a> {
    error: BodyError<'a>,
}

#[derive(Serialize)]
struct BodyError<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Serialize)]
struct Details {
    /// The field of the body or the parameter of the query that is wrong.
    field: &'static str,
}

impl ApiError {
    /// A field that does not hold what it should. The text is for the caller, in a whole sentence.
    pub(crate) fn invalid_field(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), field: Some(field) }
    }

    const fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::HopHeader => (StatusCode::BAD_REQUEST, "hop_header_refused"),
            Self::LocalOnly { .. } => (StatusCode::FORBIDDEN, "local_only"),
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin"),
            Self::NoRequestHeader => (StatusCode::FORBIDDEN, "request_header_missing"),
            Self::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::ApiKeyRevoked => (StatusCode::CONFLICT, "api_key_revoked"),
            Self::EgressProxyInUse { .. } => (StatusCode::CONFLICT, "egress_proxy_in_use"),
            Self::TooManyEgressProxies => (StatusCode::CONFLICT, "too_many_egress_proxies"),
            Self::TestedTooOften => (StatusCode::TOO_MANY_REQUESTS, "tested_too_often"),
            Self::Seal(_) => INTERNAL,
            Self::Store(error) => match error {
                StoreError::Unreachable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database_unreachable"),
                StoreError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database_busy"),
                StoreError::AlreadyExists { .. } => (StatusCode::CONFLICT, "already_exists"),
                StoreError::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
                StoreError::Corrupt { .. } | StoreError::Migrate { .. } | StoreError::Query { .. } => INTERNAL,
            },
            Self::NotEffectiveYet(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_effective_yet"),
            Self::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "timed_out"),
            Self::Impossible(_) => INTERNAL,
        }
    }

    /// What the caller reads: what happened, and what to do.
    fn message(&self) -> String {
        let text = match self {
            Self::HopHeader => "Only the data plane may say for whom it speaks.",
            Self::LocalOnly { port } => return local_only(*port),
            Self::ForeignOrigin => "Changes may only be made from the dashboard itself, not from another page.",
            Self::NoRequestHeader => {
                "Send the header `x-codex-lb-request: 1` with every request that changes something."
            }
            Self::Invalid { message, .. } => return message.clone(),
            Self::NotJson => "Send a JSON body with `content-type: application/json`.",
            Self::TooLarge => "The body is larger than 2 MiB. Send less at once.",
            Self::NotFound(what) => return format!("There is no such {what}."),
            Self::MethodNotAllowed => "There is such a path, but not with this method.",
            Self::ApiKeyRevoked => "This key was revoked, and that is for good. Create a new one.",
            Self::EgressProxyInUse { accounts } => {
                return format!("Accounts are bound to it ({accounts}). Bind them to another one, or to none, first.");
            }
            Self::TooManyEgressProxies => return format!("There are {EGRESS_PROXIES_MAX} already. Remove one first."),
            Self::TestedTooOften => "Egress proxies were tested too often just now. Try again in a minute.",
            Self::Seal(_) => OUR_FAULT,
            Self::Store(error) => match error {
                StoreError::Unreachable { .. } => "The database does not answer. Try again in a moment.",
                StoreError::Busy { .. } => "The database was busy for too long. Try again in a moment.",
                StoreError::AlreadyExists { .. } => "There is one like it already.",
                StoreError::Conflict { .. } => "Somebody else changed it first. Load it again and decide anew.",
                StoreError::Corrupt { .. } | StoreError::Migrate { .. } | StoreError::Query { .. } => OUR_FAULT,
            },
            Self::NotEffectiveYet(_) => {
                "The change is stored, but this server could not read it back. It takes effect by itself once the \
                 database answers; the log says more."
            }
            Self::TimedOut => "This took too long and was given up. Look whether it was done, and try again.",
            Self::Impossible(_) => OUR_FAULT,
        };
        text.to_owned()
    }

    fn details(&self) -> Option<Details> {
        if let Self::Invalid { field: Some(field), .. } = self { Some(Details { field }) } else { None }
    }

    /// The log's label.
    const fn kind(&self) -> Kind {
        match self {
            Self::HopHeader
            | Self::Invalid { .. }
            | Self::NotJson
            | Self::MethodNotAllowed
            | Self::ApiKeyRevoked
            | Self::EgressProxyInUse { .. }
            | Self::TooManyEgressProxies
            | Self::TestedTooOften => Kind::BadRequest,
            Self::Seal(_) => Kind::Internal,
            Self::LocalOnly { .. } | Self::ForeignOrigin | Self::NoRequestHeader => Kind::Forbidden,
            Self::TooLarge => Kind::TooLarge,
            Self::NotFound(_) => Kind::NotFound,
            Self::Store(error) => match error {
                StoreError::Unreachable { .. } | StoreError::Busy { .. } => Kind::Unavailable,
                StoreError::AlreadyExists { .. } | StoreError::Conflict { .. } => Kind::BadRequest,
                StoreError::Corrupt { .. } | StoreError::Migrate { .. } | StoreError::Query { .. } => Kind::Internal,
            },
            Self::NotEffectiveYet(_) => Kind::Unavailable,
            Self::TimedOut => Kind::Timeout,
            Self::Impossible(_) => Kind::Internal,
        }
    }

    fn log(&self) {
        let (kind, cause) = (self.kind().as_str(), self as &(dyn std::error::Error + 'static));
        match self.kind() {
            Kind::Internal | Kind::Upstream => error!(kind, error = cause, "the control plane failed a request"),
            Kind::Unavailable | Kind::Timeout | Kind::Limited => {
                warn!(kind, error = cause, "the control plane could not carry out a request");
            }
            // The caller's own mistake, which the caller is told.
            Kind::BadRequest
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::TooLarge
            | Kind::Cancelled => {}
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        debug_assert!(!matches!(self, Self::Impossible(_)), "{self}");
        let ((status, code), message) = (self.status_and_code(), self.message());
        let error = BodyError { code, message: &message, details: self.details() };
        (status, Json(Body { error })).into_response()
    }
}

const INTERNAL: (StatusCode, &str) = (StatusCode::INTERNAL_SERVER_ERROR, "internal");
const OUR_FAULT: &str = "Something went wrong here, and it is not your fault. The log says what.";

fn local_only(port: u16) -> String {
    format!(
        "The dashboard can so far be opened only on the machine that codex-lb runs on, as http://localhost:{port}, or \
         through an SSH tunnel: run `ssh -L {port}:127.0.0.1:{port} <that machine>` and open http://localhost:{port}."
    )
}
