//! What an account answers next, as plain data that Rust tests build and other drivers send as JSON.
//!
//! A script only says what should happen; it never does any of it. Each account has a queue of scripts, one of which is
//! used up per Responses request, and a default script for when the queue is empty.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One scripted behaviour. As JSON it is tagged by `kind`: `{"kind":"usage_limit","resets_in_seconds":60}`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Script {
    /// Reads the prompt and behaves like a model that obeys the markers `run:`, `call:` and `calls:`.
    #[default]
    Auto,
    /// A 200 with a stream of a given size and speed.
    Answer(Answer),
    /// Calls the shell tool that the client offers with `command`, then answers with what the tool printed.
    EchoShellTool {
        /// The command line that the client is to run.
        command: String,
    },
    /// 401 although the access token is good.
    Unauthorized {
        /// Which of the bodies seen in the wild.
        #[serde(default)]
        reason: UnauthorizedReason,
    },
    /// 402 `{"detail":{"code":"deactivated_workspace"}}`.
    DeactivatedWorkspace,
    /// 429 `usage_limit_reached`.
    UsageLimit {
        /// Seconds until the window resets; 3,600 when neither this nor `resets_at` is given.
        #[serde(default)]
        resets_in_seconds: Option<u64>,
        /// Unix time of the reset; derived from `resets_in_seconds` when absent.
        #[serde(default)]
        resets_at: Option<u64>,
        /// The `plan_type` of the body; the plan of the account when absent.
        #[serde(default)]
        plan: Option<String>,
    },
    /// 429 `usage_not_included`.
    UsageNotIncluded,
    /// 429 `rate_limit_exceeded`.
    RateLimited {
        /// The message; "… Please try again in 1.3s." when absent.
        #[serde(default)]
        message: Option<String>,
        /// The `retry-after` header, in seconds or as a date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Any failing status with a body as the backend, or the proxy before it, would send it.
    ServerError {
        /// The status, usually 500 to 529.
        status: u16,
        /// An HTML page as Cloudflare sends it, instead of JSON.
        #[serde(default)]
        html: bool,
        /// `error.code`, such as `server_is_overloaded`.
        #[serde(default)]
        code: Option<String>,
        /// `error.message`.
        #[serde(default)]
        message: Option<String>,
        /// The `retry-after` header.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// 200, `response.created`, and at once `response.failed`.
    FirstEventFailure {
        /// `response.error.code`.
        code: String,
        /// `response.error.message`.
        message: String,
    },
    /// Like [`Script::Auto`], but `response.failed` takes the place of the rest after some deltas.
    FailMidStream {
        /// How many delta events come before it.
        after_deltas: u64,
        /// `response.error.code`.
        code: String,
        /// `response.error.message`.
        message: String,
    },
    /// A text answer that is torn off after some deltas: HTTP/1.1 loses the connection without a last chunk, HTTP/2 the
    /// stream. Everything before the cut has been handed to the socket.
    CutMidStream {
        /// How many delta events come before the cut.
        after_deltas: u64,
        /// HTTP/1.1 without TLS only: the peer sees a reset instead of an end of file.
        #[serde(default)]
        reset: bool,
    },
    /// The connection (HTTP/2: the stream) is closed before a response head.
    CutBeforeHead,
    /// Nothing for a while, or for ever; afterwards it goes on like [`Script::Auto`].
    Silence {
        /// Where the silence falls.
        place: SilencePlace,
        /// How long; for ever when absent.
        #[serde(default)]
        duration_ms: Option<u64>,
    },
    /// Exactly this response.
    Raw {
        /// The status.
        status: u16,
        /// Header lines; nothing is added but what HTTP itself needs.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// A text answer that ends with `response.incomplete`.
    Incomplete {
        /// `incomplete_details.reason`: `max_output_tokens` or `content_filter`.
        reason: String,
        /// What comes before it.
        #[serde(default)]
        answer: Answer,
    },
}

impl Script {
    /// An answer of `text_tokens` tokens, as fast as the peer reads.
    pub fn answer(text_tokens: u64) -> Self {
        Self::Answer(Answer { text_tokens, ..Answer::default() })
    }

    /// An answer with this text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Answer(Answer { text: Some(text.into()), ..Answer::default() })
    }

    /// A 429 `usage_limit_reached` that resets after so many seconds.
    pub fn usage_limit(resets_in_seconds: u64) -> Self {
        Self::UsageLimit { resets_in_seconds: Some(resets_in_seconds), resets_at: None, plan: None }
    }

    /// A failing status with a JSON body.
    pub fn server_error(status: u16) -> Self {
        Self::ServerError { status, html: false, code: None, message: None, retry_after: None }
    }

    /// A stream that is torn off after so many deltas.
    pub fn cut_after(after_deltas: u64) -> Self {
        Self::CutMidStream { after_deltas, reset: false }
    }
}

/// A scripted model answer. Every field has a default, so name only what matters.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// How many delta events of synthetic text. Ignored when `text` is given; 0 with function calls means no message.
    pub text_tokens: u64,
    /// This text instead, split into deltas at word boundaries.
    pub text: Option<String>,
    /// Delta events per second; as fast as the peer reads when absent.
    pub tokens_per_second: Option<f64>,
    /// Begins with a reasoning item (summary and, if the request includes it, encrypted content).
    pub reasoning: bool,
    /// Tool calls after the message.
    pub function_calls: Vec<FunctionCall>,
    /// What the terminal event reports; derived from the sizes when absent, see [`Usage`].
    pub usage: Option<Usage>,
    /// How long the response head waits.
    pub first_byte_delay_ms: u64,
    /// How long the first output item waits after `response.in_progress`.
    pub first_token_delay_ms: u64,
    /// Sends a `codex.rate_limits` event with the account's usage state.
    pub rate_limits_event: bool,
    /// Sent after `response.in_progress`; each needs a `type`, which becomes the event name.
    pub extra_events: Vec<Value>,
    /// Lets several ready deltas share one frame when `tokens_per_second` is absent. For throughput only.
    pub coalesce: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            text_tokens: 8,
            text: None,
            tokens_per_second: None,
            reasoning: false,
            function_calls: Vec::new(),
            usage: None,
            first_byte_delay_ms: 0,
            first_token_delay_ms: 0,
            rate_limits_event: false,
            extra_events: Vec::new(),
            coalesce: false,
        }
    }
}

/// A tool call in an answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionCall {
    /// The tool.
    pub name: String,
    /// A function's arguments (a string is taken as it is, anything else is printed compactly), or a custom tool's input.
    pub arguments: Value,
    /// The namespace of the tool, if it lives in one.
    pub namespace: Option<String>,
    /// A `custom_tool_call` instead of a `function_call`.
    pub custom: bool,
}

/// Token counts of one answer, or a sum of them.
///
/// When a script leaves them open: `input` is a quarter of the request's bytes, `cached` is what the same account has
/// already seen under the same `prompt_cache_key` rounded down to 128, `reasoning` is 64 for a reasoning item and
/// `output` counts the deltas plus `reasoning`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Cached input tokens.
    #[serde(default)]
    pub cached: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Reasoning tokens.
    #[serde(default)]
    pub reasoning: u64,
}

/// Which 401.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnauthorizedReason {
    /// `error.code` `token_invalidated`.
    #[default]
    TokenInvalidated,
    /// `error.code` `token_expired`.
    TokenExpired,
    /// `error.code` `token_revoked`.
    TokenRevoked,
    /// `{"detail":"Unauthorized"}`.
    Detail,
}

/// Where a silence falls.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SilencePlace {
    /// Before the response head.
    BeforeHead,
    /// After the head, before the first event.
    AfterHead,
    /// After so many events.
    AfterEvents(u64),
}

/// What one refresh attempt meets. The default queue is empty, which means [`RefreshScript::Rotate`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshScript {
    /// A new pair, as it should be.
    #[default]
    Rotate,
    /// A new access token only; the refresh token stays good.
    AccessTokenOnly,
    /// The pair is rotated but the connection closes before the answer.
    LostAnswer,
    /// 500; the refresh token stays good.
    ServerError,
    /// 401 `refresh_token_expired`, from now on.
    Expired,
    /// 401 `refresh_token_reused`, as if another client had used it.
    Reused,
    /// 401 `refresh_token_invalidated`, from now on.
    Invalidated,
    /// 400 `invalid_grant`, from now on.
    InvalidGrant,
    /// No answer until the client goes away; the refresh token stays good.
    Silence,
}
