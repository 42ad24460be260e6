//! Plain values to fill databases with. Numbers stand for moments, names for identities.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, AccountStatus, Plan, UpstreamIdentity};
use codex_lb_shared::domain::api_key::{ApiKey, NewApiKeySecret};
use codex_lb_shared::domain::auth_file::TokenSet;
use codex_lb_shared::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use codex_lb_shared::domain::usage::{MeteredUsage, TokenUsage};
use codex_lb_shared::ids::{AccountId, ApiKeyId, ExchangeId};
use codex_lb_shared::secret::{EncryptionKey, SealedTokens, Sealer};
use codex_lb_shared::store::{NewAccount, Store};

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

pub(crate) fn sealer() -> Sealer {
    Sealer::new(&EncryptionKey::from_bytes([1; 32]))
}

/// A token set whose tokens all say `word`.
pub(crate) fn tokens(word: &str) -> TokenSet {
    TokenSet {
        id_token: format!("id {word}").into(),
        access_token: format!("access {word}").into(),
        refresh_token: format!("refresh {word}").into(),
    }
}

pub(crate) fn identity(workspace: &str, person: &str) -> UpstreamIdentity {
    UpstreamIdentity { chatgpt_account_id: workspace.to_owned(), chatgpt_user_id: person.to_owned() }
}

/// A login of `person`, sealed for `id`, with tokens that say `word`.
pub(crate) fn login(id: AccountId, person: &str, word: &str) -> NewAccount {
    NewAccount {
        id,
        identity: identity("workspace", person),
        email: format!("{person}@example.test"),
        plan: Plan::Plus,
        installation_id: format!("installation of {id}"),
        tokens: SealedTokens::seal(&sealer(), id, &tokens(word)).unwrap(),
        access_token_expires_at: Some(at(9_000)),
    }
}

/// Puts a new account into the pool.
pub(crate) async fn add_account(store: &Store, person: &str) -> AccountId {
    let id = AccountId::generate();
    store.upsert_account(&login(id, person, "first"), at(1)).await.unwrap();
    id
}

pub(crate) fn status(state: AccountState) -> AccountStatus {
    let until = state.ends_by_itself().then(|| at(5_000));
    AccountStatus { state, reason: Some(format!("was set to {}", state.as_str())), until }
}

pub(crate) fn api_key(secret: &NewApiKeySecret, created_at: i64) -> ApiKey {
    ApiKey {
        id: ApiKeyId::generate(),
        name: "ci".to_owned(),
        hash: secret.hash,
        visible_prefix: secret.visible_prefix.clone(),
        is_enabled: true,
        revoked_at: None,
        expires_at: Some(at(99_000)),
        created_at: at(created_at),
        last_used_at: None,
    }
}

pub(crate) const USAGE: TokenUsage = TokenUsage { input: 100, cached_input: 40, output: 20, reasoning: 5 };

/// An exchange that ended well, at `requested_at`.
pub(crate) fn exchange(requested_at: i64) -> ExchangeRecord {
    ExchangeRecord {
        id: ExchangeId::generate(),
        requested_at: at(requested_at),
        account_id: None,
        api_key_id: None,
        route: "responses",
        transport: "sse",
        status: ExchangeStatus::Ok,
        error_code: None,
        upstream_status: Some(200),
        legs: 1,
        model_requested: Some("gpt-5.5".to_owned()),
        model: Some("gpt-5.5".to_owned()),
        effort: None,
        tier: None,
        usage: MeteredUsage::Exact(USAGE),
        cost_micros: Some(6_200),
        first_byte_ms: Some(120),
        first_token_ms: Some(340),
        total_ms: 2_000,
        user_agent_group: "codex_cli",
        conversation_id: None,
    }
}
