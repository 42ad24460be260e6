//! Which tokens are out and whether they are still good. Refresh tokens are good once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::account::{Account, Profile};
use crate::{clock, ids, jwt};

/// How long access tokens live at the real issuer.
pub(crate) const ACCESS_TOKEN_SECONDS: i64 = 10 * 24 * 3_600;

/// The newest tokens of an account.
#[derive(Clone, Debug)]
pub(crate) struct TokenSet {
    pub(crate) access: String,
    pub(crate) id: String,
    pub(crate) refresh: String,
    /// Unix time.
    pub(crate) issued_at: u64,
    /// Unix time at which the access token expires.
    access_expires_at: i64,
}

impl TokenSet {
    /// The first set of an account, whose access token lives as long as its spec says.
    pub(crate) fn first(profile: &Profile) -> Self {
        Self::new(profile, profile.access_token_seconds)
    }

    /// A later set. An account that began with an expired token gets good ones from now on.
    fn next(profile: &Profile) -> Self {
        let is_positive = profile.access_token_seconds > 0;
        Self::new(profile, if is_positive { profile.access_token_seconds } else { ACCESS_TOKEN_SECONDS })
    }

    fn new(profile: &Profile, access_token_seconds: i64) -> Self {
        let issued_at = clock::unix_now();
        Self {
            access: jwt::access_token(profile, access_token_seconds),
            id: jwt::id_token(profile),
            refresh: format!("rt_{}.{}", ids::alphanumeric(30), ids::alphanumeric(60)),
            issued_at,
            access_expires_at: issued_at as i64 + access_token_seconds,
        }
    }
}

/// What is known about an access token.
#[derive(Clone, Debug)]
pub(crate) enum AccessState {
    Good(Arc<Account>),
    Expired(Arc<Account>),
    Revoked(Arc<Account>),
    Unknown,
}

/// What is known about a refresh token that is not good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DeadRefresh {
    Used,
    Expired,
    Invalidated,
}

#[derive(Debug)]
struct AccessEntry {
    account: Arc<Account>,
    expires_at: i64,
    is_revoked: bool,
}

#[derive(Debug)]
struct RefreshEntry {
    account: Arc<Account>,
    death: Option<DeadRefresh>,
}

/// All tokens ever issued. Old access tokens stay good until they expire, as they do at the real issuer.
#[derive(Debug, Default)]
pub(crate) struct TokenBook {
    access: Mutex<HashMap<String, AccessEntry>>,
    refresh: Mutex<HashMap<String, RefreshEntry>>,
}

impl TokenBook {
    /// Enters the newest tokens of an account.
    pub(crate) fn register(&self, account: &Arc<Account>) {
        let token_set = account.desk.lock().token_set.clone();
        let expires_at = token_set.access_expires_at;
        let entry = AccessEntry { account: account.clone(), expires_at, is_revoked: false };
        self.access.lock().insert(token_set.access, entry);
        let entry = RefreshEntry { account: account.clone(), death: None };
        self.refresh.lock().entry(token_set.refresh).or_insert(entry);
    }

    /// Makes a whole new set, for a login or a refresh.
    pub(crate) fn issue(&self, account: &Arc<Account>) -> TokenSet {
        let token_set = TokenSet::next(&account.profile);
        account.desk.lock().token_set = token_set.clone();
        self.register(account);
        token_set
    }

    /// Makes a new access token and leaves the rest.
    pub(crate) fn issue_access(&self, account: &Arc<Account>) -> TokenSet {
        let fresh = TokenSet::next(&account.profile);
        let token_set = TokenSet { refresh: account.desk.lock().token_set.refresh.clone(), ..fresh };
        account.desk.lock().token_set = token_set.clone();
        self.register(account);
        token_set
    }

    pub(crate) fn look_up(&self, access_token: &str) -> AccessState {
        let access = self.access.lock();
        match access.get(access_token) {
            None => AccessState::Unknown,
            Some(entry) if entry.is_revoked => AccessState::Revoked(entry.account.clone()),
            Some(entry) if entry.expires_at <= clock::unix_now() as i64 => AccessState::Expired(entry.account.clone()),
            Some(entry) => AccessState::Good(entry.account.clone()),
        }
    }

    pub(crate) fn revoke_access(&self, account: &Account) {
        for entry in self.access.lock().values_mut().filter(|entry| entry.account.profile.name == account.profile.name)
        {
            entry.is_revoked = true;
        }
    }

    pub(crate) fn expire_access(&self, account: &Account) {
        for entry in self.access.lock().values_mut().filter(|entry| entry.account.profile.name == account.profile.name)
        {
            entry.expires_at = 0;
        }
    }

    /// Kills every living refresh token of the account.
    pub(crate) fn end_refresh(&self, account: &Account, death: DeadRefresh) {
        for entry in self.refresh.lock().values_mut().filter(|entry| entry.account.profile.name == account.profile.name)
        {
            entry.death.get_or_insert(death);
        }
    }

    /// Whose refresh token this is, dead or alive.
    pub(crate) fn owner(&self, refresh_token: &str) -> Option<Arc<Account>> {
        self.refresh.lock().get(refresh_token).map(|entry| entry.account.clone())
    }

    /// Whether the token is good; leaves it good.
    pub(crate) fn check_refresh(&self, refresh_token: &str) -> Result<(), DeadRefresh> {
        let death = self.refresh.lock().get(refresh_token).map_or(Some(DeadRefresh::Invalidated), |entry| entry.death);
        death.map_or(Ok(()), Err)
    }

    /// Uses the token up. Of several callers at once, exactly one succeeds.
    pub(crate) fn consume_refresh(&self, refresh_token: &str) -> Result<(), DeadRefresh> {
        let mut refresh = self.refresh.lock();
        let entry = refresh.get_mut(refresh_token).ok_or(DeadRefresh::Invalidated)?;
        match entry.death {
            Some(death) => Err(death),
            None => {
                entry.death = Some(DeadRefresh::Used);
                Ok(())
            }
        }
    }

    /// `POST /oauth/revoke`: ends one token, of either kind.
    pub(crate) fn revoke_one(&self, token: &str) {
        if let Some(entry) = self.refresh.lock().get_mut(token) {
            entry.death.get_or_insert(DeadRefresh::Invalidated);
        }
        if let Some(entry) = self.access.lock().get_mut(token) {
            entry.is_revoked = true;
        }
    }
}
