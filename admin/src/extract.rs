//! Reading requests: bodies, queries and ids, with refusals in our own shape.
//!
//! What does not fit is described without being repeated: a body may hold tokens.

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse as _, Response};
use codex_lb_shared::ids::{AccountId, ApiKeyId, EgressProxyId};
use http::request::Parts;
use http::{HeaderMap, header};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use crate::api_error::ApiError;

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::NotJson);
        }
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| does_not_fit(&error))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    if let BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) = rejection {
        return ApiError::TooLarge;
    }
    ApiError::Invalid { message: "The body ended before it was whole.".to_owned(), field: None }
}

/// The parser's words, without the value that it objects to.
pub(crate) fn does_not_fit(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let problem = match text.rsplit_once(", expected ") {
        Some((before, expected)) if before.starts_with("invalid ") => format!("expected {expected}"),
        _ => text,
    };
    ApiError::Invalid { message: format!("The body does not fit: {problem}."), field: None }
}

/// The parameters of the query.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(parameters)| Self(parameters)).map_err(|rejection: QueryRejection| {
            let message = format!("The query does not fit: {}.", rejection.body_text());
            ApiError::Invalid { message, field: None }
        })
    }
}

/// The id in the path. A text that is no id names nothing, so it is answered like an id that nobody has.
pub(crate) struct IdInPath<T>(pub(crate) T);

impl<S: Send + Sync, T: Identifier> FromRequestParts<S> for IdInPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| T::from_str(&text).ok());
        id.map(Self).ok_or(ApiError::NotFound(T::OF))
    }
}

/// An id that stands in a path.
pub(crate) trait Identifier: FromStr {
    /// What it names.
    const OF: &'static str;
}

impl Identifier for AccountId {
    const OF: &'static str = "account";
}

impl Identifier for EgressProxyId {
    const OF: &'static str = "egress proxy";
}

impl Identifier for ApiKeyId {
    const OF: &'static str = "api key";
}

/// For fields where `null` means "none" and a missing field means "as it was"; together with `#[serde(default)]`.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A name that an operator gave something: trimmed, and short enough to show.
pub(crate) fn name(field: &'static str, text: &str) -> Result<String, ApiError> {
    const CHARS_MAX: usize = 100;
    let text = text.trim();
    if text.is_empty() {
        return Err(ApiError::invalid_field(field, "The name is empty."));
    }
    if text.chars().count() > CHARS_MAX {
        return Err(ApiError::invalid_field(field, format!("The name is longer than {CHARS_MAX} characters.")));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::invalid_field(field, "The name holds characters that cannot be shown."));
    }
    Ok(text.to_owned())
}

/// An answer that must not be kept: it holds a secret that is shown once.
pub(crate) fn shown_once(answer: impl serde::Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(answer)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_described_without_being_repeated() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Shape {
            #[serde(rename = "count")]
            _count: u32,
        }
        let cases = [
            (r#"{"count": "s3cret, expected s3cret"}"#, "expected u32"),
            (r#"{"count": -5}"#, "expected u32"),
            (r#"{"size": 1}"#, "unknown field `size`, expected `count`"),
            ("{}", "missing field `count`"),
            ("{", "EOF while parsing"),
        ];
        for (body, expected) in cases {
            let error = does_not_fit(&serde_json::from_str::<Shape>(body).unwrap_err()).to_string();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{body}: {error}");
        }
    }

    #[test]
    fn a_name_is_trimmed_and_must_be_fit_to_show() {
        assert_eq!(name("name", "  ci bot ").unwrap(), "ci bot");
        for bad in ["", "   ", "a\nb", &"x".repeat(101)] {
            assert!(name("name", bad).is_err(), "{bad}");
        }
    }
}
