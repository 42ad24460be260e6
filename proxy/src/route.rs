//! Names the endpoint of a request, or says that there is none. Route names, not raw paths, are metric labels.

use http::Method;

use crate::rejection::Rejection;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    /// Relayed through an account.
    Responses(Dialect),
    /// The model list, OpenAI's or Codex's shape.
    Models(Dialect),
    /// One model.
    Model(&'p str),
    /// Is the process alive, ready, started?
    Health(HealthQuestion),
    /// Not the data plane's: handed to the control plane.
    ControlPlane,
}

/// Whose habits an endpoint follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The Codex CLI's native routes: bodies and streams go through untouched.
    Native,
    /// OpenAI's public API.
    OpenAi,
}

/// What a health check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthQuestion {
    /// Is the process able to answer at all?
    Live,
    /// Should it get traffic?
    Ready,
    /// Has it started?
    Startup,
}

impl Route<'_> {
    /// The metric label and the request log's word.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Responses(Dialect::Native) => "codex_responses",
            Self::Responses(Dialect::OpenAi) => "responses",
            Self::Models(Dialect::Native) => "codex_models",
            Self::Models(Dialect::OpenAi) => "models",
            Self::Model(_) => "model",
            Self::Health(_) => "health",
            Self::ControlPlane => "control_plane",
        }
    }
}

/// Finds the route of a path. The path is taken as it was sent: an encoded or doubled slash names nothing.
///
/// # Errors
/// 404 for an unknown path below a prefix of ours, 405 for a known path with the wrong method.
pub(crate) fn route<'p>(method: &Method, path: &'p str) -> Result<Route<'p>, Rejection> {
    let (route, allow) = match path {
        "/v1/responses" => (Route::Responses(Dialect::OpenAi), "POST"),
        "/backend-api/codex/responses" | "/backend-api/codex/v1/responses" => {
            (Route::Responses(Dialect::Native), "POST")
        }
        "/v1/models" => (Route::Models(Dialect::OpenAi), "GET"),
        "/backend-api/codex/models" => (Route::Models(Dialect::Native), "GET"),
        "/health" | "/health/live" => (Route::Health(HealthQuestion::Live), "GET"),
        "/health/ready" => (Route::Health(HealthQuestion::Ready), "GET"),
        "/health/startup" => (Route::Health(HealthQuestion::Startup), "GET"),
        _ => match path.strip_prefix("/v1/models/").filter(|slug| !slug.is_empty() && !slug.contains('/')) {
            Some(slug) => (Route::Model(slug), "GET"),
            None if is_ours(path) => return Err(Rejection::unknown_path(method.as_str(), path)),
            None => return Ok(Route::ControlPlane),
        },
    };
    let is_allowed = method.as_str() == allow || (allow == "GET" && *method == Method::HEAD);
    if is_allowed { Ok(route) } else { Err(Rejection::method_not_allowed(allow)) }
}

/// Whether a path lies below a prefix that belongs to the data plane.
fn is_ours(path: &str) -> bool {
    ["/v1", "/backend-api", "/api/codex", "/health"]
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_routes() {
        let post = Method::POST;
        let get = Method::GET;
        let cases = [
            (&post, "/v1/responses", Ok("responses")),
            (&post, "/backend-api/codex/responses", Ok("codex_responses")),
            (&post, "/backend-api/codex/v1/responses", Ok("codex_responses")),
            (&get, "/v1/models", Ok("models")),
            (&get, "/v1/models/gpt-5.5", Ok("model")),
            (&get, "/backend-api/codex/models", Ok("codex_models")),
            (&get, "/health/ready", Ok("health")),
            (&get, "/", Ok("control_plane")),
            (&get, "/api/v1/accounts", Ok("control_plane")),
            (&get, "/v1x", Ok("control_plane")),
            (&get, "/healthy", Ok("control_plane")),
            (&get, "/v1", Err(404)),
            (&get, "/v1/", Err(404)),
            (&post, "/v1/embeddings", Err(404)),
            (&post, "/v1//responses", Err(404)),
            (&post, "/v1/../v1/responses", Err(404)),
            (&get, "/v1/models/", Err(404)),
            (&get, "/v1/models/a/b", Err(404)),
            (&get, "/backend-api/wham/tasks", Err(404)),
            (&get, "/api/codex/x", Err(404)),
            (&get, "/health/x", Err(404)),
            (&get, "/v1/responses", Err(405)),
            (&post, "/v1/models", Err(405)),
            (&Method::HEAD, "/v1/models", Ok("models")),
        ];
        for (method, path, expected) in cases {
            let found = route(method, path).map(Route::name).map_err(|rejection| rejection.status);
            assert_eq!(found, expected, "{method} {path}");
        }
    }
}
