//! Names the endpoint of a request, or says that there is none. Route names, not raw paths, are metric labels.

mod control_path;

use http::Method;

use crate::rejection::Rejection;
pub(crate) use control_path::ControlPath;

/// Longest id of a file.
const FILE_ID_CHARS_MAX: usize = 128;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    /// Relayed through an account.
    Exchange(Endpoint<'p>),
    /// Answered here, never forwarded.
    Own(OwnQuestion),
    /// The model list, OpenAI's or Codex's shape.
    Models(Dialect),
    /// One model.
    Model(&'p str),
    /// Is the process alive, ready, started?
    Health(HealthQuestion),
    /// Not the data plane's: handed to the control plane.
    ControlPlane,
}

/// What is asked of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint<'p> {
    /// An answer of a model.
    Responses(Dialect),
    /// A conversation made small.
    Compact(Dialect),
    /// An answer of a model, in the words of Chat Completions.
    ChatCompletions,
    /// An image. The dialect only says by which path it is asked for.
    Images(ImageTask, Dialect),
    /// A new file, which the client then uploads elsewhere.
    NewFile,
    /// The word that the file with this id was uploaded.
    FileUploaded(&'p str),
    /// Text of a recording.
    Transcription(Dialect),
    /// Something of upstream's that goes through as it comes.
    Control(ControlPath),
}

impl Endpoint<'_> {
    /// Whose habits it follows.
    pub(crate) const fn dialect(self) -> Dialect {
        match self {
            Self::Responses(dialect) | Self::Compact(dialect) | Self::Transcription(dialect) => dialect,
            Self::ChatCompletions | Self::Images(..) => Dialect::OpenAi,
            Self::NewFile | Self::FileUploaded(_) | Self::Control(_) => Dialect::Native,
        }
    }

    /// The metric label and the request log's word.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Responses(Dialect::Native) => "codex_responses",
            Self::Responses(Dialect::OpenAi) => "responses",
            Self::Compact(Dialect::Native) => "codex_compact",
            Self::Compact(Dialect::OpenAi) => "compact",
            Self::ChatCompletions => "chat_completions",
            Self::Images(ImageTask::Generation, Dialect::Native) => "codex_images_generations",
            Self::Images(ImageTask::Generation, Dialect::OpenAi) => "images_generations",
            Self::Images(ImageTask::Edit, Dialect::Native) => "codex_images_edits",
            Self::Images(ImageTask::Edit, Dialect::OpenAi) => "images_edits",
            Self::NewFile => "files",
            Self::FileUploaded(_) => "file_uploaded",
            Self::Transcription(Dialect::Native) => "transcribe",
            Self::Transcription(Dialect::OpenAi) => "audio_transcriptions",
            Self::Control(control) => control.name(),
        }
    }
}

/// What is to be done with images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageTask {
    /// Make one.
    Generation,
    /// Make one out of others.
    Edit,
}

/// Whose habits an endpoint follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The Codex CLI's native routes: bodies and streams go through untouched.
    Native,
    /// OpenAI's public API.
    OpenAi,
}

/// What Codex clients ask of ChatGPT and we answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnQuestion {
    /// How much is used?
    PoolUsage,
    /// Which accounts are there, and where are they served?
    AccountsCheck,
    /// What does the workspace prescribe?
    ConfigBundle,
    /// What did the user set?
    UserSettings,
    /// Nothing: events that nobody waits for.
    AnalyticsEvents,
}

impl OwnQuestion {
    /// The metric label and the request log's word.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PoolUsage => "codex_usage",
            Self::AccountsCheck => "accounts_check",
            Self::ConfigBundle => "config_bundle",
            Self::UserSettings => "user_settings",
            Self::AnalyticsEvents => "analytics_events",
        }
    }
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

/// Finds the route of a path. The path is taken as it was sent: an encoded or doubled slash names nothing.
///
/// # Errors
/// 404 for an unknown path below a prefix of ours, 405 for a known path with the wrong method.
pub(crate) fn route<'p>(method: &Method, path: &'p str) -> Result<Route<'p>, Rejection> {
    let found = match path.strip_prefix("/backend-api/codex/") {
        // Clients append `/v1` to a base URL that is not OpenAI's.
        Some(rest) => codex_route(rest.strip_prefix("v1/").unwrap_or(rest)),
        None => public_route(path).or_else(|| backend_route(path)),
    };
    let (route, allow) = match found {
        Some(found) => found,
        None if let Some(why) = why_not(path) => return Err(Rejection::not_offered(path, why)),
        None if is_ours(path) => return Err(Rejection::unknown_path(method.as_str(), path)),
        None => return Ok(Route::ControlPlane),
    };
    // What upstream answers to HEAD is nobody's need, so HEAD is for our own answers.
    let is_own = !matches!(route, Route::Exchange(_));
    let is_allowed = allow
        .split(", ")
        .any(|allowed| method.as_str() == allowed || (is_own && allowed == "GET" && *method == Method::HEAD));
    if is_allowed { Ok(route) } else { Err(Rejection::method_not_allowed(allow)) }
}

/// A route and the methods it has.
type Found<'p> = Option<(Route<'p>, &'static str)>;

/// OpenAI's public API, and health.
fn public_route(path: &str) -> Found<'_> {
    let exchange = |endpoint| Some((Route::Exchange(endpoint), "POST"));
    match path {
        "/v1/responses" => exchange(Endpoint::Responses(Dialect::OpenAi)),
        "/v1/responses/compact" => exchange(Endpoint::Compact(Dialect::OpenAi)),
        "/v1/chat/completions" => exchange(Endpoint::ChatCompletions),
        "/v1/images/generations" => exchange(Endpoint::Images(ImageTask::Generation, Dialect::OpenAi)),
        "/v1/images/edits" => exchange(Endpoint::Images(ImageTask::Edit, Dialect::OpenAi)),
        "/v1/audio/transcriptions" => exchange(Endpoint::Transcription(Dialect::OpenAi)),
        "/v1/models" => Some((Route::Models(Dialect::OpenAi), "GET")),
        "/health" | "/health/live" => Some((Route::Health(HealthQuestion::Live), "GET")),
        "/health/ready" => Some((Route::Health(HealthQuestion::Ready), "GET")),
        "/health/startup" => Some((Route::Health(HealthQuestion::Startup), "GET")),
        _ => {
            let slug = path.strip_prefix("/v1/models/").filter(|slug| !slug.is_empty() && !slug.contains('/'))?;
            Some((Route::Model(slug), "GET"))
        }
    }
}

/// Why an endpoint of OpenAI's, which clients may well look for, is not there.
fn why_not(path: &str) -> Option<&'static str> {
    match path {
        "/v1/embeddings" => Some(
            "ChatGPT accounts offer no embedding models. Send embeddings to a server that has some; other requests can \
             stay here.",
        ),
        "/v1/completions" => {
            Some("ChatGPT accounts offer no completion models. Use /v1/chat/completions or /v1/responses instead.")
        }
        _ => None,
    }
}

/// What the Codex CLI asks of its model provider, below `/backend-api/codex/`.
fn codex_route(rest: &str) -> Found<'static> {
    let exchange = |endpoint| Some((Route::Exchange(endpoint), "POST"));
    match rest {
        "responses" => exchange(Endpoint::Responses(Dialect::Native)),
        "responses/compact" => exchange(Endpoint::Compact(Dialect::Native)),
        "images/generations" => exchange(Endpoint::Images(ImageTask::Generation, Dialect::Native)),
        "images/edits" => exchange(Endpoint::Images(ImageTask::Edit, Dialect::Native)),
        "models" => Some((Route::Models(Dialect::Native), "GET")),
        _ if rest.starts_with("analytics-events/") => Some((Route::Own(OwnQuestion::AnalyticsEvents), "POST")),
        _ => {
            let control = ControlPath::find(rest)?;
            Some((Route::Exchange(Endpoint::Control(control)), control.allow()))
        }
    }
}

/// What Codex clients ask of ChatGPT itself.
fn backend_route(path: &str) -> Found<'_> {
    let exchange = |endpoint| Some((Route::Exchange(endpoint), "POST"));
    let own = |question| Some((Route::Own(question), "GET"));
    match path {
        "/api/codex/usage" | "/backend-api/wham/usage" => own(OwnQuestion::PoolUsage),
        "/backend-api/wham/accounts/check" => own(OwnQuestion::AccountsCheck),
        "/backend-api/wham/config/bundle" => own(OwnQuestion::ConfigBundle),
        "/backend-api/wham/settings/user" => own(OwnQuestion::UserSettings),
        "/backend-api/files" => exchange(Endpoint::NewFile),
        "/backend-api/transcribe" => exchange(Endpoint::Transcription(Dialect::Native)),
        _ => {
            let id = path.strip_prefix("/backend-api/files/")?.strip_suffix("/uploaded")?;
            is_file_id(id).then_some((Route::Exchange(Endpoint::FileUploaded(id)), "POST"))
        }
    }
}

/// Whether this could be the id of a file. It goes into a path upstream, so it must not be able to name another one.
fn is_file_id(id: &str) -> bool {
    (1..=FILE_ID_CHARS_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
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

    fn name(route: Route<'_>) -> &'static str {
        match route {
            Route::Exchange(endpoint) => endpoint.name(),
            Route::Own(question) => question.name(),
            Route::Models(Dialect::Native) => "codex_models",
            Route::Models(Dialect::OpenAi) => "models",
            Route::Model(_) => "model",
            Route::Health(_) => "health",
            Route::ControlPlane => "control_plane",
        }
    }

    #[test]
    fn paths_have_their_routes() {
        let post = Method::POST;
        let get = Method::GET;
        let cases = [
            (&post, "/v1/responses", Ok("responses")),
            (&post, "/backend-api/codex/responses", Ok("codex_responses")),
            (&post, "/backend-api/codex/v1/responses", Ok("codex_responses")),
            (&post, "/v1/responses/compact", Ok("compact")),
            (&post, "/backend-api/codex/responses/compact", Ok("codex_compact")),
            (&post, "/backend-api/codex/v1/responses/compact", Ok("codex_compact")),
            (&get, "/v1/models", Ok("models")),
            (&get, "/v1/models/gpt-5.5", Ok("model")),
            (&get, "/backend-api/codex/models", Ok("codex_models")),
            (&post, "/v1/images/generations", Ok("images_generations")),
            (&post, "/v1/images/edits", Ok("images_edits")),
            (&post, "/v1/images/variations", Err(404)),
            (&post, "/backend-api/codex/images/generations", Ok("codex_images_generations")),
            (&post, "/backend-api/codex/images/edits", Ok("codex_images_edits")),
            (&post, "/backend-api/files", Ok("files")),
            (&post, "/backend-api/files/file_1-a/uploaded", Ok("file_uploaded")),
            (&post, "/backend-api/files/a%2Fb/uploaded", Err(404)),
            (&post, "/backend-api/files/../uploaded", Err(404)),
            (&post, "/backend-api/files//uploaded", Err(404)),
            (&post, "/backend-api/transcribe", Ok("transcribe")),
            (&post, "/v1/audio/transcriptions", Ok("audio_transcriptions")),
            (&get, "/backend-api/codex/thread/goal/get", Ok("thread_goal_get")),
            (&post, "/backend-api/codex/v1/thread/goal/get", Ok("thread_goal_get")),
            (&get, "/backend-api/codex/thread/goal/set", Err(405)),
            (&get, "/backend-api/codex/agent-identities/jwks", Ok("agent_identities_jwks")),
            (&Method::HEAD, "/backend-api/codex/agent-identities/jwks", Err(405)),
            (&post, "/backend-api/codex/alpha/other", Err(404)),
            (&post, "/backend-api/codex//alpha/search", Err(404)),
            (&get, "/health/ready", Ok("health")),
            (&get, "/", Ok("control_plane")),
            (&get, "/api/v1/accounts", Ok("control_plane")),
            (&get, "/v1x", Ok("control_plane")),
            (&get, "/healthy", Ok("control_plane")),
            (&get, "/v1", Err(404)),
            (&get, "/v1/", Err(404)),
            (&post, "/v1/chat/completions", Ok("chat_completions")),
            (&get, "/v1/chat/completions", Err(405)),
            (&post, "/v1/embeddings", Err(404)),
            (&post, "/v1/completions", Err(404)),
            (&post, "/v1//responses", Err(404)),
            (&post, "/v1/../v1/responses", Err(404)),
            (&get, "/v1/models/", Err(404)),
            (&get, "/v1/models/a/b", Err(404)),
            (&get, "/backend-api/wham/tasks", Err(404)),
            (&get, "/backend-api/wham/usage", Ok("codex_usage")),
            (&get, "/api/codex/usage", Ok("codex_usage")),
            (&post, "/api/codex/usage", Err(405)),
            (&get, "/backend-api/wham/accounts/check", Ok("accounts_check")),
            (&Method::HEAD, "/backend-api/wham/config/bundle", Ok("config_bundle")),
            (&get, "/backend-api/wham/settings/user", Ok("user_settings")),
            (&get, "/backend-api/ps/plugins/installed", Err(404)),
            (&post, "/backend-api/ps/mcp", Err(404)),
            (&post, "/backend-api/codex/analytics-events/events", Ok("analytics_events")),
            (&get, "/api/codex/x", Err(404)),
            (&get, "/health/x", Err(404)),
            (&get, "/v1/responses", Err(405)),
            (&get, "/v1/responses/compact", Err(405)),
            (&post, "/v1/models", Err(405)),
            (&Method::HEAD, "/v1/models", Ok("models")),
        ];
        for (method, path, expected) in cases {
            let found = route(method, path).map(name).map_err(|rejection| rejection.status);
            assert_eq!(found, expected, "{method} {path}");
        }
    }
}
