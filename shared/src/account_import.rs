//! Puts a login into the pool: what the command line and the API share about importing an `auth.json`.
//!
//! No error and no log line of it holds a part of the file, which is full of secrets.

use crate::clock::Timestamp;
use crate::domain::account::{AccountState, Plan};
use crate::domain::auth_file::{AuthFileError, LoginClaims, TokenSet, parse_auth_file};
use crate::ids::AccountId;
use crate::secret::{SealError, SealedTokens, Sealer};
use crate::store::{NewAccount, Store, StoreError, Upserted};

/// Longest file that is looked at. Real ones have under ten kilobytes.
pub const AUTH_FILE_BYTES_MAX: usize = 256 * 1024;

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedAccount {
    /// The account. A login that was in the pool before keeps its id.
    pub id: AccountId,
    /// Whether it joined the pool just now.
    pub was_new: bool,
    /// Whether the pool had newer tokens of this login and kept them. The refresh token of an older pair is used up, so
    /// storing it would end a login that works.
    pub kept_newer_tokens: bool,
    /// The login's e-mail address; empty when its tokens name none.
    pub email: String,
    /// The subscription.
    pub plan: Plan,
}

/// Why a login could not be imported, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is too long to be one.
    #[error(
        "longer than {} KiB; expected the auth.json that the Codex CLI writes after `codex login`",
        AUTH_FILE_BYTES_MAX / 1024
    )]
    TooLong,
    /// It is something else, and its own words say what to do.
    #[error(transparent)]
    NotALogin(AuthFileError),
    /// It is a login with a part missing.
    #[error("{0}; run `codex login` again and import the auth.json that it writes")]
    Incomplete(AuthFileError),
    /// The tokens could not be sealed.
    #[error("the login's tokens could not be encrypted; import it again")]
    Seal(#[source] SealError),
    /// The database did not take it.
    #[error("the login could not be stored; import it again once the database works")]
    Store(#[from] StoreError),
}

/// Puts the login of an `auth.json` into the pool: a new account, or new tokens for the one it is already. Servers know
/// of it from the next change of the `accounts` generation on; the caller's own process is told by the caller.
///
/// # Errors
/// When the text is no usable login, or the database does not answer. Nothing was stored then.
pub async fn import_login(
    store: &Store,
    sealer: &Sealer,
    auth_json: &str,
    now: Timestamp,
) -> Result<ImportedAccount, ImportError> {
    if auth_json.len() > AUTH_FILE_BYTES_MAX {
        return Err(ImportError::TooLong);
    }
    let (tokens, claims) = parse_auth_file(auth_json)?;
    let stored = match put(store, sealer, &tokens, &claims, now).await {
        // Somebody stored the same login since we asked for its id; now it has one.
        Err(ImportError::Store(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. })) => {
            put(store, sealer, &tokens, &claims, now).await?
        }
        outcome => outcome?,
    };
    let (upserted, kept_newer_tokens) = match stored {
        Stored::Upserted(upserted) => (upserted, false),
        Stored::KeptNewer(id) => (Upserted { id, was_new: false }, true),
    };
    let Upserted { id, was_new } = upserted;
    Ok(ImportedAccount { id, was_new, kept_newer_tokens, email: claims.email, plan: claims.plan })
}

enum Stored {
    Upserted(Upserted),
    KeptNewer(AccountId),
}

async fn put(
    store: &Store,
    sealer: &Sealer,
    tokens: &TokenSet,
    claims: &LoginClaims,
    now: Timestamp,
) -> Result<Stored, ImportError> {
    let id = match store.account_id_for(&claims.identity).await? {
        Some(id) if holds_newer_tokens(store, id, claims).await? => return Ok(Stored::KeptNewer(id)),
        Some(id) => id,
        None => AccountId::generate(),
    };
    let login = NewAccount {
        id,
        identity: claims.identity.clone(),
        email: claims.email.clone(),
        plan: claims.plan,
        installation_id: random_uuid(),
        tokens: SealedTokens::seal(sealer, id, tokens).map_err(ImportError::Seal)?,
        access_token_expires_at: claims.access_token_expires_at,
    };
    Ok(Stored::Upserted(store.upsert_account(&login, now).await?))
}

/// Whether the pool's working tokens were issued after the ones at hand. All access tokens live equally long, so their
/// ends tell which came first.
async fn holds_newer_tokens(store: &Store, id: AccountId, claims: &LoginClaims) -> Result<bool, StoreError> {
    let Some(stored) = store.find_account(id).await? else { return Ok(false) };
    let works = match stored.account.status.state {
        AccountState::Active | AccountState::RateLimited | AccountState::QuotaExceeded | AccountState::Paused => true,
        AccountState::ReauthRequired | AccountState::Deactivated => false,
    };
    let ends = (stored.account.access_token_expires_at, claims.access_token_expires_at);
    Ok(works && matches!(ends, (Some(stored), Some(offered)) if stored > offered))
}

/// A random UUID (version 4), which is what Codex uses as installation id.
fn random_uuid() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl From<AuthFileError> for ImportError {
    fn from(error: AuthFileError) -> Self {
        match error {
            AuthFileError::NotJson | AuthFileError::ApiKeyOnly => Self::NotALogin(error),
            AuthFileError::Missing(_) | AuthFileError::NotAJwt(_) | AuthFileError::NoClaim(_) => {
                Self::Incomplete(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use secrecy::ExposeSecret as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::account::AccountStatus;
    use crate::secret::EncryptionKey;
    use crate::store::DatabaseUrl;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_000);

    struct Pool {
        store: Store,
        sealer: Sealer,
        _directory: tempfile::TempDir,
    }

    impl Pool {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::connect(&DatabaseUrl::sqlite_file(directory.path().join("a.db"))).await.unwrap();
            store.migrate().await.unwrap();
            Self { store, sealer: Sealer::new(&EncryptionKey::from_bytes([3; 32])), _directory: directory }
        }

        async fn import(&self, file: &str) -> Result<ImportedAccount, ImportError> {
            import_login(&self.store, &self.sealer, file, NOW).await
        }

        async fn refresh_token_of(&self, id: AccountId) -> String {
            let stored = self.store.find_account(id).await.unwrap().unwrap();
            let opened = stored.tokens.open(&self.sealer, id).unwrap();
            opened.refresh_token.expose_secret().to_owned()
        }
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    /// The file of `person`, whose access token ends at `expires_at` seconds.
    fn file(person: &str, refresh_token: &str, expires_at: i64) -> String {
        let id_token = jwt(&json!({"email": format!("{person}@example.test"), "https://api.openai.com/auth": {
            "chatgpt_account_id": "ws", "chatgpt_user_id": person, "chatgpt_plan_type": "pro"}}));
        let access_token = jwt(&json!({"exp": expires_at}));
        json!({"tokens": {"id_token": id_token, "access_token": access_token, "refresh_token": refresh_token}})
            .to_string()
    }

    #[tokio::test]
    async fn a_login_that_is_in_the_pool_keeps_its_id_and_gets_the_new_tokens() {
        let pool = Pool::new().await;
        let first = pool.import(&file("ann", "r1", 100)).await.unwrap();
        assert!(first.was_new && !first.kept_newer_tokens);
        assert_eq!((first.email.as_str(), first.plan), ("ann@example.test", Plan::Pro));
        let again = pool.import(&file("ann", "r2", 200)).await.unwrap();
        assert_eq!((again.id, again.was_new), (first.id, false));
        assert_eq!(pool.refresh_token_of(first.id).await, "r2");
        let other = pool.import(&file("bob", "r3", 100)).await.unwrap();
        assert!(other.was_new && other.id != first.id);
        assert_eq!(pool.store.list_accounts().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn an_older_file_does_not_replace_tokens_that_work() {
        let pool = Pool::new().await;
        let id = pool.import(&file("ann", "newer", 200)).await.unwrap().id;
        let again = pool.import(&file("ann", "older", 100)).await.unwrap();
        assert!(again.kept_newer_tokens && !again.was_new);
        assert_eq!(pool.refresh_token_of(id).await, "newer");
        let ended = AccountStatus { state: AccountState::ReauthRequired, reason: None, until: None };
        pool.store.set_account_status(id, &ended, NOW).await.unwrap();
        assert!(!pool.import(&file("ann", "older", 100)).await.unwrap().kept_newer_tokens);
        assert_eq!(pool.refresh_token_of(id).await, "older");
    }

    #[tokio::test]
    async fn the_same_new_login_imported_many_times_at_once_is_one_account_that_opens() {
        let pool = std::sync::Arc::new(Pool::new().await);
        let imports: Vec<_> = (0..8)
            .map(|_| {
                let pool = std::sync::Arc::clone(&pool);
                tokio::spawn(async move { pool.import(&file("ann", "same", 100)).await.unwrap() })
            })
            .collect();
        let mut imported = Vec::new();
        for import in imports {
            imported.push(import.await.unwrap());
        }
        assert!(imported.iter().all(|account| account.id == imported[0].id));
        assert_eq!(imported.iter().filter(|account| account.was_new).count(), 1);
        assert_eq!(pool.store.list_accounts().await.unwrap().len(), 1);
        assert_eq!(pool.refresh_token_of(imported[0].id).await, "same");
    }

    #[tokio::test]
    async fn an_error_says_what_to_do_and_never_what_the_file_holds() {
        let pool = Pool::new().await;
        let cases = [
            ("s3cret nonsense".to_owned(), "codex login"),
            (json!({"OPENAI_API_KEY": "s3cret"}).to_string(), "codex login"),
            (json!({"tokens": {"id_token": "s3cret", "access_token": "s3cret"}}).to_string(), "codex login"),
            ("s3cret".repeat(AUTH_FILE_BYTES_MAX), "longer than 256 KiB"),
        ];
        for (text, expected) in cases {
            let error = pool.import(&text).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        assert!(pool.store.list_accounts().await.unwrap().is_empty());
    }

    #[test]
    fn an_installation_id_is_a_random_uuid() {
        let id = random_uuid();
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
        assert_ne!(id, random_uuid());
    }
}
