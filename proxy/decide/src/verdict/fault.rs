//! What is wrong, as far as a reply tells: its status, what its error calls itself, the words of its message.

use super::UpstreamError;

/// What is wrong, and so whose trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The way to the model is broken. The same account has the same way, another one may not.
    Way,
    /// The model's server stumbled; the next try may do.
    Server,
    /// Upstream's edge wants to see a person behind the account.
    Challenge,
    /// The account is limited for a while.
    RateLimit,
    /// The account's quota is used up, or its plan has none.
    Quota,
    /// The account's access token is refused.
    Token,
    /// The account is not paid for.
    Payment,
    /// Upstream closed the account; the code says how.
    Closed(&'static str),
    /// The body holds items that only another account can decrypt.
    ForeignContent,
    /// The account does not serve the model.
    Model,
    /// The request is at fault, whoever serves it.
    Request,
}

impl Fault {
    /// What is wrong by a reply with a status outside 2xx.
    pub(super) fn of_reply(status: u16, error: &UpstreamError) -> Self {
        match (status, Self::named(error)) {
            // These come from what stands before the model, whatever their body calls itself: gateways, a page for
            // people behind a redirect, a server that waited in vain for the request or wants another connection.
            (..=399 | 408 | 421 | 425 | 501.., _) => Self::Way,
            (429, None | Some(Self::Server)) => Self::RateLimit,
            (_, Some(named)) => named,
            (401, None) => Self::Token,
            (402, None) => Self::Payment,
            (403, None) if error.is_not_json => Self::Challenge,
            (500, None) => Self::Server,
            (_, None) => Self::Request,
        }
    }

    /// What is wrong by a failure event.
    pub(super) fn of_event(error: &UpstreamError) -> Self {
        // Upstream explains what is wrong with a request; a failure without a word is its own.
        let unnamed = if error.says_nothing() { Self::Server } else { Self::Request };
        Self::named(error).unwrap_or(unnamed)
    }

    /// What the error says of itself: the same names and words arrive as bodies and as events.
    fn named(error: &UpstreamError) -> Option<Self> {
        error.names().into_iter().find_map(Self::of_name).or_else(|| Self::of_message(error))
    }

    fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "usage_limit_reached" | "rate_limit_exceeded" => Self::RateLimit,
            "insufficient_quota" | "usage_not_included" | "quota_exceeded" => Self::Quota,
            "account_deactivated" => Self::Closed("account_deactivated"),
            "account_suspended" => Self::Closed("account_suspended"),
            "account_deleted" => Self::Closed("account_deleted"),
            "deactivated_workspace" => Self::Closed("deactivated_workspace"),
            "token_expired" | "token_invalidated" | "token_revoked" => Self::Token,
            "server_error" | "overloaded" | "overloaded_error" | "server_is_overloaded" | "slow_down" => Self::Server,
            "invalid_encrypted_content" => Self::ForeignContent,
            _ => return None,
        })
    }

    /// Messages quote what the client sent, so only whole sentences that upstream is known for count against an account.
    fn of_message(error: &UpstreamError) -> Option<Self> {
        if error.message_has("invalid_encrypted_content")
            || (error.message_has("encrypted content") && error.message_has("could not be verified"))
        {
            Some(Self::ForeignContent)
        } else if error.says_model_is_unsupported() {
            Some(Self::Model)
        } else if error.says_model_is_at_capacity() {
            Some(Self::Server)
        } else {
            None
        }
    }
}
