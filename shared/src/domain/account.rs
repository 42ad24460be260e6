//! What an account is: identity, plan, state and routing policy.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{AccountId, EgressProxyId};

/// A subscription plan, as far as it matters for capacity. Unknown plans count as free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// No subscription: one monthly window.
    Free,
    /// ChatGPT Plus.
    Plus,
    /// ChatGPT Business.
    Business,
    /// ChatGPT Team.
    Team,
    /// ChatGPT Edu.
    Edu,
    /// The smaller Pro plan.
    Prolite,
    /// ChatGPT Pro.
    Pro,
    /// ChatGPT Enterprise.
    Enterprise,
}

impl Plan {
    /// Reads a plan name as upstream spells it; aliases and unknown names are mapped, never refused.
    pub fn from_upstream(name: &str) -> Self {
        match name.trim().to_ascii_lowercase().as_str() {
            "plus" => Self::Plus,
            "business" => Self::Business,
            "team" => Self::Team,
            "edu" | "education" | "k12" => Self::Edu,
            "prolite" => Self::Prolite,
            "pro" => Self::Pro,
            "enterprise" => Self::Enterprise,
            _ => Self::Free,
        }
    }

    /// The name in the database, in JSON and in the UI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Plus => "plus",
            Self::Business => "business",
            Self::Team => "team",
            Self::Edu => "edu",
            Self::Prolite => "prolite",
            Self::Pro => "pro",
            Self::Enterprise => "enterprise",
        }
    }

    /// Credits in a full short (5 h) window. Upstream reports percentages only; public tables give these sizes.
    pub const fn primary_credits(self) -> u32 {
        match self {
            Self::Free => 0,
            Self::Plus | Self::Business | Self::Team | Self::Edu => 225,
            Self::Prolite => 1_125,
            Self::Pro | Self::Enterprise => 1_500,
        }
    }

    /// Credits in a full long (weekly, for free monthly) window.
    pub const fn secondary_credits(self) -> u32 {
        match self {
            Self::Free => 1_134,
            Self::Plus | Self::Business | Self::Team | Self::Edu => 7_560,
            Self::Prolite => 37_800,
            Self::Pro | Self::Enterprise => 50_400,
        }
    }
}

/// Whether an account may serve, and if not, why and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// May serve.
    Active,
    /// Upstream said "too many requests"; ends by itself.
    RateLimited,
    /// An upstream window is used up; ends by itself.
    QuotaExceeded,
    /// An operator took it out.
    Paused,
    /// Its login no longer refreshes; a person must log in again.
    ReauthRequired,
    /// Upstream closed the account or its workspace.
    Deactivated,
}

impl AccountState {
    /// The name in the database, in JSON, in metrics and in the UI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::RateLimited => "rate_limited",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Paused => "paused",
            Self::ReauthRequired => "reauth_required",
            Self::Deactivated => "deactivated",
        }
    }

    /// Reads the name that [`Self::as_str`] writes.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::RateLimited, Self::QuotaExceeded, Self::Paused, Self::ReauthRequired, Self::Deactivated]
            .into_iter()
            .find(|state| state.as_str() == name)
    }

    /// Whether a reply of upstream may change the state: a person's word and the end of a login stand.
    pub const fn yields_to_upstream(self) -> bool {
        match self {
            Self::Active | Self::RateLimited | Self::QuotaExceeded => true,
            Self::Paused | Self::ReauthRequired | Self::Deactivated => false,
        }
    }

    /// Whether the state ends by itself when its time is up.
    pub const fn ends_by_itself(self) -> bool {
        matches!(self, Self::RateLimited | Self::QuotaExceeded)
    }
}

/// A state with its reason and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountStatus {
    /// The state.
    pub state: AccountState,
    /// Why, in a few words fit for an operator; never a secret and never upstream's text.
    pub reason: Option<String>,
    /// When a state that ends by itself ends.
    pub until: Option<Timestamp>,
}

impl AccountStatus {
    /// An account that may serve.
    pub const ACTIVE: Self = Self { state: AccountState::Active, reason: None, until: None };

    /// The state at `now`: one whose time is up counts as active again.
    pub fn state_at(&self, now: Timestamp) -> AccountState {
        match self.until {
            Some(until) if self.state.ends_by_itself() && until <= now => AccountState::Active,
            _ => self.state,
        }
    }
}

/// Which accounts an operator wants used first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutingPolicy {
    /// Before all others.
    BurnFirst,
    /// As the strategy says.
    #[default]
    Normal,
    /// Only when no other can serve.
    Preserve,
}

impl RoutingPolicy {
    /// The name in the database, in JSON and in the UI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BurnFirst => "burn_first",
            Self::Normal => "normal",
            Self::Preserve => "preserve",
        }
    }

    /// Reads the name that [`Self::as_str`] writes.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::BurnFirst, Self::Normal, Self::Preserve].into_iter().find(|policy| policy.as_str() == name)
    }
}

/// A limit of single models that is used up on one account; it holds back nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCooldown {
    /// Which limit, in the one spelling that the data plane made of upstream's several.
    pub named_limit: String,
    /// When it resets.
    pub until: Timestamp,
}

/// Whether an account can pay for what exceeds its windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credits {
    /// It has bought credits left.
    pub has_credits: bool,
    /// It pays without a bound.
    pub is_unlimited: bool,
}

impl Credits {
    /// Whether upstream goes on serving when a window is used up.
    pub const fn can_pay(self) -> bool {
        self.has_credits || self.is_unlimited
    }
}

/// Who the account is to upstream. Unique in the pool: the same person in two workspaces is two accounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamIdentity {
    /// `chatgpt_account_id`: the workspace; sent upstream as `chatgpt-account-id`.
    pub chatgpt_account_id: String,
    /// `chatgpt_user_id`, else `sub`.
    pub chatgpt_user_id: String,
}

/// An account without its credentials: what lists, pages and decisions need.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Ours.
    pub id: AccountId,
    /// Who it is to upstream.
    pub identity: UpstreamIdentity,
    /// The login's e-mail address. For the dashboard only: never in logs, metrics or errors.
    pub email: String,
    /// An operator's own name for it.
    pub alias: Option<String>,
    /// The subscription.
    pub plan: Plan,
    /// State, reason and end.
    pub status: AccountStatus,
    /// How eagerly it is used.
    pub routing_policy: RoutingPolicy,
    /// Streams at once, or the setting's default.
    pub concurrency_cap: Option<u32>,
    /// What all its connections go out through, or the default of the installation.
    pub egress_proxy_id: Option<EgressProxyId>,
    /// A stable random id sent as `x-codex-installation-id`, so that clients' own ids never mix on one account.
    pub installation_id: String,
    /// When the access token expires, if it says so.
    pub access_token_expires_at: Option<Timestamp>,
    /// When the token pair was last renewed.
    pub tokens_refreshed_at: Timestamp,
    /// Grows by one with every stored token pair; the compare half of compare-and-set.
    pub token_version: i64,
    /// When it joined the pool.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_ends_by_itself_is_over_at_its_end_and_others_never() {
        let at = Timestamp::from_unix_ms;
        let cases = [
            (AccountState::RateLimited, Some(10), 9, AccountState::RateLimited),
            (AccountState::RateLimited, Some(10), 10, AccountState::Active),
            (AccountState::QuotaExceeded, Some(10), 11, AccountState::Active),
            (AccountState::QuotaExceeded, None, 11, AccountState::QuotaExceeded),
            (AccountState::Paused, Some(10), 11, AccountState::Paused),
        ];
        for (state, until, now, expected) in cases {
            let status = AccountStatus { state, reason: None, until: until.map(at) };
            assert_eq!(status.state_at(at(now)), expected, "{state:?} until {until:?} at {now}");
        }
    }

    #[test]
    fn every_name_reads_back() {
        for name in ["active", "rate_limited", "quota_exceeded", "paused", "reauth_required", "deactivated"] {
            assert_eq!(AccountState::parse(name).map(AccountState::as_str), Some(name));
        }
        for name in ["free", "plus", "business", "team", "edu", "prolite", "pro", "enterprise"] {
            assert_eq!(Plan::from_upstream(name).as_str(), name);
        }
        assert_eq!(Plan::from_upstream("K12"), Plan::Edu);
        assert_eq!(Plan::from_upstream("go"), Plan::Free);
    }
}
