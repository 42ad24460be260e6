//! The running fake: how tests start it, script it and ask it what happened.
//!
//! [`Fake`] is the state that connections share; [`FakeChatGpt`] is the handle that owns the server.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::{Mutex, RwLock};

use crate::account::{Account, AccountSpec, FakeAccount, Profile, Totals};
use crate::builder::Builder;
use crate::issuer::logins::Logins;
use crate::issuer::tokens::{DeadRefresh, TokenBook, TokenSet};
use crate::models::DEFAULT_MODELS;
use crate::record::{Log, RequestRecord};
use crate::script::{RefreshScript, Script};
use crate::server::Server;
use crate::usage::UsageState;

/// How long [`FakeChatGpt::wait_for`] waits.
const WAIT: Duration = Duration::from_secs(10);

/// A running fake. Dropping it stops the server and tears all its connections.
#[derive(Debug)]
pub struct FakeChatGpt {
    pub(crate) fake: Arc<Fake>,
    pub(crate) server: Server,
    pub(crate) ca_pem: Option<String>,
}

impl FakeChatGpt {
    /// Starts describing a fake.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A plain HTTP/1.1 fake on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.fake.address
    }

    /// The issuer: scheme, host and port.
    pub fn issuer_url(&self) -> String {
        self.fake.origin()
    }

    /// The backend: the issuer's origin and `/backend-api`.
    pub fn base_url(&self) -> String {
        format!("{}/backend-api", self.fake.origin())
    }

    /// The CA that signed its certificate, if it serves TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Creates an account.
    ///
    /// # Panics
    /// When the name is taken.
    pub fn add_account(&self, spec: AccountSpec) -> FakeAccount {
        let name = spec.name.clone();
        match self.fake.add_account(spec) {
            Some(account) => account,
            #[expect(clippy::panic, reason = "a mistake in a test, best reported where it was made")]
            None => panic!("two accounts called {name}"),
        }
    }

    /// The account of this name.
    pub fn account(&self, name: &str) -> Option<FakeAccount> {
        self.fake.account(name).map(FakeAccount)
    }

    /// All accounts in the order of their creation.
    pub fn accounts(&self) -> Vec<FakeAccount> {
        self.fake.accounts.read().iter().cloned().map(FakeAccount).collect()
    }

    /// Appends to what the account answers next. A request that upstream would refuse uses up nothing.
    pub fn script(&self, account: &FakeAccount, scripts: impl IntoIterator<Item = Script>) {
        account.0.desk.lock().scripts.extend(scripts);
    }

    /// What the account answers when nothing is queued.
    pub fn default_script(&self, account: &FakeAccount, script: Script) {
        account.0.desk.lock().default_script = script;
    }

    /// What accounts created from now on answer when nothing is queued.
    pub fn default_script_for_new_accounts(&self, script: Script) {
        *self.fake.default_script.lock() = script;
    }

    /// Appends to what the next requests for exactly this path meet, whoever sends them and before any check. Only
    /// scripts that make no model answer have an effect; the others let the request through.
    pub fn script_path(&self, path: &str, scripts: impl IntoIterator<Item = Script>) {
        self.fake.script_path(path, scripts);
    }

    /// Appends to what the next refreshes with any of the account's refresh tokens meet.
    pub fn script_refresh(&self, account: &FakeAccount, scripts: impl IntoIterator<Item = RefreshScript>) {
        account.0.desk.lock().refresh_scripts.extend(scripts);
    }

    /// Forgets all queued scripts of the account and makes it answer [`Script::Auto`].
    pub fn reset_scripts(&self, account: &FakeAccount) {
        let mut desk = account.0.desk.lock();
        desk.scripts.clear();
        desk.refresh_scripts.clear();
        desk.default_script = Script::Auto;
    }

    /// How many scripts of the account are still queued.
    pub fn scripts_left(&self, account: &FakeAccount) -> usize {
        account.0.desk.lock().scripts.len()
    }

    /// What headers, rate limit events and `wham/usage` say about the account from now on.
    pub fn set_usage(&self, account: &FakeAccount, usage: UsageState) {
        account.0.desk.lock().usage = usage;
    }

    /// Which models a plan offers from now on.
    pub fn set_plan_models<S: Into<String>>(&self, plan: &str, slugs: impl IntoIterator<Item = S>) {
        self.fake.set_plan_models(plan.to_owned(), slugs.into_iter().map(Into::into).collect());
    }

    /// Ends all access tokens of the account issued so far: 401 `token_revoked`.
    pub fn revoke_access_token(&self, account: &FakeAccount) {
        self.fake.tokens.revoke_access(&account.0);
    }

    /// Lets all access tokens of the account issued so far be past their time: 401 `token_expired`.
    pub fn expire_access_token(&self, account: &FakeAccount) {
        self.fake.tokens.expire_access(&account.0);
    }

    /// Ends the account's refresh token: 401 `refresh_token_invalidated`.
    pub fn revoke_refresh_token(&self, account: &FakeAccount) {
        self.fake.tokens.end_refresh(&account.0, DeadRefresh::Invalidated);
    }

    /// Who logs in at `/oauth/authorize` when no `login_hint` says so. Without either, the first account does.
    pub fn set_next_login(&self, account: &FakeAccount) {
        self.fake.logins.set_next(&account.0);
    }

    /// The person enters the code of a device login. Fails when no such login is pending.
    pub fn approve_device(&self, account: &FakeAccount, user_code: &str) -> anyhow::Result<()> {
        self.fake
            .logins
            .approve_device(&account.0, user_code)
            .with_context(|| format!("approve device code {user_code}"))
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.fake.settled(|| self.fake.log.snapshot())
    }

    /// Waits up to ten seconds until a request satisfies the predicate, and returns the first that does.
    pub async fn wait_for(&self, predicate: impl FnMut(&RequestRecord) -> bool) -> anyhow::Result<RequestRecord> {
        self.wait_for_within(WAIT, predicate).await
    }

    /// [`FakeChatGpt::wait_for`] with another patience.
    pub async fn wait_for_within(
        &self,
        timeout: Duration,
        predicate: impl FnMut(&RequestRecord) -> bool,
    ) -> anyhow::Result<RequestRecord> {
        self.fake.log.wait_for(timeout, predicate).await
    }

    /// The account's sums. Whatever a client has read of a terminal event is in them already.
    pub fn totals(&self, account: &FakeAccount) -> Totals {
        self.fake.settled(|| account.0.desk.lock().totals)
    }

    /// Forgets all requests and sets all sums to zero. Accounts, tokens and scripts stay.
    pub fn clear(&self) {
        self.fake.settled(|| self.fake.clear());
    }

    /// Closes every open connection, whatever is happening on it. New ones are accepted.
    pub fn drop_connections(&self) {
        self.server.drop_connections();
    }

    /// Stops serving and waits until every connection is closed.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) options: Builder,
    pub(crate) address: SocketAddr,
    pub(crate) accounts: RwLock<Vec<Arc<Account>>>,
    pub(crate) tokens: TokenBook,
    pub(crate) logins: Logins,
    pub(crate) log: Arc<Log>,
    pub(crate) default_script: Mutex<Script>,
    path_scripts: Mutex<HashMap<String, VecDeque<Script>>>,
    plan_models: Mutex<HashMap<String, Vec<String>>>,
    /// Held shared while a connection makes progress.
    pub(crate) progress: RwLock<()>,
}

impl Fake {
    pub(crate) fn new(options: Builder, address: SocketAddr) -> Self {
        let logins = Logins::new(options.device_interval_seconds, options.device_lifetime);
        let log = Arc::new(Log::new(options.records_max));
        Self {
            options,
            address,
            accounts: RwLock::default(),
            tokens: TokenBook::default(),
            logins,
            log,
            default_script: Mutex::default(),
            path_scripts: Mutex::default(),
            plan_models: Mutex::default(),
            progress: RwLock::default(),
        }
    }

    pub(crate) fn origin(&self) -> String {
        let scheme = if self.options.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Creates an account unless the name is taken.
    pub(crate) fn add_account(&self, spec: AccountSpec) -> Option<FakeAccount> {
        let mut accounts = self.accounts.write();
        let profile = Profile::new(spec, accounts.len() + 1);
        if accounts.iter().any(|account| account.profile.name == profile.name) {
            return None;
        }
        let token_set = TokenSet::first(&profile);
        let account = Arc::new(Account::new(profile, token_set, self.default_script.lock().clone()));
        self.tokens.register(&account);
        accounts.push(account.clone());
        Some(FakeAccount(account))
    }

    pub(crate) fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.accounts.read().iter().find(|account| account.profile.name == name).cloned()
    }

    pub(crate) fn script_path(&self, path: &str, scripts: impl IntoIterator<Item = Script>) {
        self.path_scripts.lock().entry(path.to_owned()).or_default().extend(scripts);
    }

    pub(crate) fn set_plan_models(&self, plan: String, slugs: Vec<String>) {
        self.plan_models.lock().insert(plan, slugs);
    }

    /// Who logs in when nobody says who.
    pub(crate) fn login_account(&self) -> Option<Arc<Account>> {
        self.logins.next().or_else(|| self.accounts.read().first().cloned())
    }

    pub(crate) fn take_path_script(&self, path: &str) -> Option<Script> {
        self.path_scripts.lock().get_mut(path).and_then(VecDeque::pop_front)
    }

    pub(crate) fn models_of(&self, plan: &str) -> Vec<String> {
        let configured = self.plan_models.lock().get(plan).cloned();
        configured.unwrap_or_else(|| DEFAULT_MODELS.iter().map(|slug| (*slug).to_owned()).collect())
    }

    pub(crate) fn clear(&self) {
        self.log.clear();
        for account in self.accounts.read().iter() {
            account.desk.lock().totals = Totals::default();
        }
    }

    /// Looks while no connection is between writing bytes and noting that it did, so that whoever has read a terminal
    /// event finds it counted. Must not be called from within a connection's own progress.
    pub(crate) fn settled<T>(&self, look: impl FnOnce() -> T) -> T {
        let _pause = self.progress.write();
        look()
    }
}
