//! Serves the first, plain dashboard page, which is built into the program. It holds no secret, so everybody may load
//! it; what it shows comes from the API, which not everybody may ask.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};

use crate::api_error::ApiError;
use crate::middleware::is_api_path;

const PAGE: &str = include_str!("../dashboard-plain/index.html");
const SCRIPT: &str = include_str!("../dashboard-plain/app.js");
const STYLE: &str = include_str!("../dashboard-plain/style.css");
const ICON: &str = include_str!("../dashboard-plain/icon.svg");

/// `GET /`
pub(crate) async fn page() -> Response {
    file("text/html; charset=utf-8", PAGE)
}

/// `GET /app.js`
pub(crate) async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /style.css`
pub(crate) async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

/// `GET /icon.svg`
pub(crate) async fn icon() -> Response {
    file("image/svg+xml", ICON)
}

/// Paths that nothing else answers: the page for a browser that follows a link into it, and 404 for everybody else.
pub(crate) async fn fallback(method: Method, uri: http::Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wants_page = accepts
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().is_some_and(|range| range.trim().eq_ignore_ascii_case("text/html")));
    if method == Method::GET && wants_page && !is_api_path(uri.path()) {
        return Ok(page().await);
    }
    Err(ApiError::NotFound("path"))
}

/// The next version of the program has other files under the same names.
fn file(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}
