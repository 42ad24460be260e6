//! The accounts of the fake: who they are, what they answer next, and what they have used.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ids;
use crate::issuer::tokens::{ACCESS_TOKEN_SECONDS, TokenSet};
use crate::record::Terminal;
use crate::script::{RefreshScript, Script, Usage};
use crate::usage::UsageState;

/// How many conversations' sizes an account remembers for its cached token counts.
const CONVERSATIONS_MAX: usize = 4_096;
/// The granularity in which cached input tokens are counted.
const CACHE_STEP_TOKENS: u64 = 128;

/// What an account should be like. What is left empty is made up.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountSpec {
    /// How tests call it; `account-1`, `account-2` … when empty. Must be unique.
    pub name: String,
    /// `<name>@example.test` when empty.
    pub email: String,
    /// `chatgpt_plan_type`.
    pub plan: String,
    /// The workspace; a new UUID when empty.
    pub chatgpt_account_id: String,
    /// The person; a new `user-…` when empty.
    pub chatgpt_user_id: String,
    /// Title of the organization in the id token; "Personal" when empty.
    pub workspace_name: String,
    /// Lifetime of its access tokens. When this is not positive the first one is already expired, and later ones live ten
    /// days.
    pub access_token_seconds: i64,
}

impl Default for AccountSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            email: String::new(),
            plan: "plus".to_owned(),
            chatgpt_account_id: String::new(),
            chatgpt_user_id: String::new(),
            workspace_name: String::new(),
            access_token_seconds: ACCESS_TOKEN_SECONDS,
        }
    }
}

/// Sums over the Responses requests of one account.
///
/// Usage enters when the last byte of the terminal event that reports it has been written to the socket and flushed
/// without an error. If the peer has gone by then, the write usually fails and nothing is counted; if the kernel still
/// accepted the bytes, they count although nobody read them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Requests that carried a good access token, whatever they were answered.
    pub requests: u64,
    /// Streams that ended with `response.completed`.
    pub completed: u64,
    /// Streams that ended with `response.incomplete`.
    pub incomplete: u64,
    /// Streams that ended with `response.failed`.
    pub failed: u64,
    /// Input tokens reported.
    pub input: u64,
    /// Cached input tokens reported.
    pub cached: u64,
    /// Output tokens reported.
    pub output: u64,
    /// Reasoning tokens reported.
    pub reasoning: u64,
}

/// A live handle on an account. Clones name the same account.
#[derive(Clone, Debug)]
pub struct FakeAccount(pub(crate) Arc<Account>);

impl FakeAccount {
    /// The name that records and the control API use.
    pub fn name(&self) -> &str {
        &self.0.profile.name
    }

    /// The email in its tokens.
    pub fn email(&self) -> &str {
        &self.0.profile.email
    }

    /// The plan it was made with.
    pub fn plan(&self) -> &str {
        &self.0.profile.plan
    }

    /// What must stand in the header `chatgpt-account-id`.
    pub fn chatgpt_account_id(&self) -> &str {
        &self.0.profile.chatgpt_account_id
    }

    /// The person.
    pub fn chatgpt_user_id(&self) -> &str {
        &self.0.profile.chatgpt_user_id
    }

    /// The newest access token.
    pub fn access_token(&self) -> String {
        self.0.desk.lock().token_set.access.clone()
    }

    /// The newest id token.
    pub fn id_token(&self) -> String {
        self.0.desk.lock().token_set.id.clone()
    }

    /// The newest refresh token.
    pub fn refresh_token(&self) -> String {
        self.0.desk.lock().token_set.refresh.clone()
    }

    /// The newest tokens in the shape of the Codex CLI's `auth.json`.
    pub fn auth_json(&self) -> Value {
        let token_set = self.0.desk.lock().token_set.clone();
        json!({
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": null,
            "tokens": {
                "id_token": token_set.id, "access_token": token_set.access, "refresh_token": token_set.refresh,
                "account_id": self.0.profile.chatgpt_account_id,
            },
            "last_refresh": rfc3339(token_set.issued_at),
        })
    }
}

/// Who an account is; fixed for its life.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) plan: String,
    pub(crate) chatgpt_account_id: String,
    pub(crate) chatgpt_user_id: String,
    pub(crate) subject: String,
    pub(crate) organization_id: String,
    pub(crate) workspace_name: String,
    pub(crate) access_token_seconds: i64,
}

impl Profile {
    /// Fills in what the spec leaves open; `number` counts accounts from 1.
    pub(crate) fn new(spec: AccountSpec, number: usize) -> Self {
        let or = |given: String, made_up: String| if given.is_empty() { made_up } else { given };
        let name = or(spec.name, format!("account-{number}"));
        Self {
            email: or(spec.email, format!("{name}@example.test")),
            plan: spec.plan,
            chatgpt_account_id: or(spec.chatgpt_account_id, ids::uuid()),
            chatgpt_user_id: or(spec.chatgpt_user_id, format!("user-{}", ids::alphanumeric(24))),
            subject: format!("auth0|{}", ids::alphanumeric(24)),
            organization_id: format!("org-{}", ids::alphanumeric(24)),
            workspace_name: or(spec.workspace_name, "Personal".to_owned()),
            access_token_seconds: spec.access_token_seconds,
            name,
        }
    }

    /// What encrypted content is bound to: the same person in another workspace is another account.
    pub(crate) fn identity(&self) -> String {
        format!("{}/{}", self.chatgpt_account_id, self.chatgpt_user_id)
    }
}

/// An account and everything about it that changes.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) profile: Profile,
    pub(crate) desk: Mutex<Desk>,
}

#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) token_set: TokenSet,
    pub(crate) scripts: VecDeque<Script>,
    pub(crate) default_script: Script,
    pub(crate) refresh_scripts: VecDeque<RefreshScript>,
    pub(crate) usage: UsageState,
    pub(crate) totals: Totals,
    /// The files that were made on it; no other account knows them.
    pub(crate) files: HashSet<String>,
    conversation_tokens: HashMap<String, u64>,
}

impl Account {
    pub(crate) fn new(profile: Profile, token_set: TokenSet, default_script: Script) -> Self {
        let usage = UsageState::for_plan(&profile.plan);
        let desk = Desk {
            token_set,
            scripts: VecDeque::new(),
            default_script,
            refresh_scripts: VecDeque::new(),
            usage,
            totals: Totals::default(),
            files: HashSet::new(),
            conversation_tokens: HashMap::new(),
        };
        Self { profile, desk: Mutex::new(desk) }
    }

    /// Takes the next script, or a copy of the default one.
    pub(crate) fn next_script(&self) -> Script {
        let mut desk = self.desk.lock();
        desk.scripts.pop_front().unwrap_or_else(|| desk.default_script.clone())
    }

    pub(crate) fn next_refresh_script(&self) -> RefreshScript {
        self.desk.lock().refresh_scripts.pop_front().unwrap_or_default()
    }

    pub(crate) fn count_request(&self) {
        self.desk.lock().totals.requests += 1;
    }

    pub(crate) fn add_to_totals(&self, terminal: Terminal, usage: Option<Usage>) {
        let totals = &mut self.desk.lock().totals;
        match terminal {
            Terminal::Completed => totals.completed += 1,
            Terminal::Incomplete => totals.incomplete += 1,
            Terminal::Failed => totals.failed += 1,
        }
        if let Some(usage) = usage {
            totals.input += usage.input;
            totals.cached += usage.cached;
            totals.output += usage.output;
            totals.reasoning += usage.reasoning;
        }
    }

    /// How many of these input tokens this account has seen before under this key; remembers them for the next time.
    pub(crate) fn cached_tokens(&self, prompt_cache_key: &str, input_tokens: u64) -> u64 {
        let conversations = &mut self.desk.lock().conversation_tokens;
        if conversations.len() >= CONVERSATIONS_MAX && !conversations.contains_key(prompt_cache_key) {
            conversations.clear();
        }
        let seen = conversations.insert(prompt_cache_key.to_owned(), input_tokens).unwrap_or(0);
        seen.min(input_tokens) / CACHE_STEP_TOKENS * CACHE_STEP_TOKENS
    }
}

/// A Unix time as the Codex CLI writes it.
pub(crate) fn rfc3339(unix: u64) -> String {
    let (days, seconds) = ((unix / 86_400) as i64, unix % 86_400);
    // Civil-from-days, after Howard Hinnant: years begin in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000000Z")
}
