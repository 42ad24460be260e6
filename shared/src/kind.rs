//! The few kinds of trouble there are: the label of errors in metrics and logs.

use serde::{Deserialize, Serialize};

/// Why something went wrong, coarse enough for a dashboard and closed, so it may be a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The caller sent something we cannot act on.
    BadRequest,
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller is known and may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The caller's body is larger than its bound.
    TooLarge,
    /// A limit of the caller, or every account's limit, is reached.
    Limited,
    /// Nobody can serve this now; trying later may help.
    Unavailable,
    /// Upstream answered with a failure, or not at all.
    Upstream,
    /// A time-out of ours ran out.
    Timeout,
    /// The caller left before its answer ended.
    Cancelled,
    /// We are at fault.
    Internal,
}

impl Kind {
    /// The metric and log label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::Upstream => "upstream",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}
