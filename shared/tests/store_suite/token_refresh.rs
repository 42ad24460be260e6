//! `AccountTokens` on a real database and against a fake issuer: one refresh at a time over all replicas, and no pair lost.

use std::sync::Arc;
use std::time::Duration;

use codex_lb_shared::account_import::import_login;
use codex_lb_shared::account_tokens::{AccountTokens, Freshness};
use codex_lb_shared::clock;
use codex_lb_shared::domain::account::{Account, AccountState, AccountStatus};
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::pool::Pool;
use codex_lb_shared::secret::{EncryptionKey, SealedTokens, Sealer};
use codex_lb_shared::store::{ClaimState, Store};
use codex_lb_shared::upstream_api::{UpstreamApi, UpstreamEndpoints};
use fake_chatgpt::{AccountSpec, FakeAccount, FakeChatGpt, RefreshScript, Script, SilencePlace};
use tokio_util::task::TaskTracker;

use crate::databases::Database;
use crate::samples::{at, sealer, tokens};

const HOUR: Duration = Duration::from_secs(3_600);

/// An issuer with one account, which the database holds.
struct Issuer {
    fake: FakeChatGpt,
    account: FakeAccount,
    id: AccountId,
}

impl Issuer {
    async fn new(db: &Database) -> Self {
        // Every test wants it and the second call fails.
        drop(rustls::crypto::ring::default_provider().install_default());
        let fake = FakeChatGpt::start().await.unwrap();
        let account = fake.add_account(AccountSpec::default());
        let imported = import_login(&db.store, &sealer(), &account.auth_json().to_string(), clock::now()).await;
        Self { fake, account, id: imported.unwrap().id }
    }

    /// How often the refresh token was sent.
    fn calls(&self) -> usize {
        self.fake.requests().iter().filter(|request| request.head.path == "/oauth/token").count()
    }

    fn script(&self, script: RefreshScript) {
        self.fake.script_refresh(&self.account, [script]);
    }

    /// Lets the next refresh take a while.
    fn delay_next(&self, delay_ms: u64) {
        let silence = Script::Silence { place: SilencePlace::BeforeHead, duration_ms: Some(delay_ms) };
        self.fake.script_path("/oauth/token", [silence]);
    }

    async fn is_asked(&self) {
        self.fake.wait_for(|request| request.head.path == "/oauth/token").await.unwrap();
    }

    async fn account(&self, store: &Store) -> Account {
        store.find_account(self.id).await.unwrap().unwrap().account
    }

    async fn claim(&self, store: &Store) -> ClaimState {
        store.token_refresh_progress(self.id).await.unwrap().unwrap().claim
    }
}

/// One process.
struct Replica {
    id: AccountId,
    pool: Arc<Pool>,
    account_tokens: Arc<AccountTokens>,
}

impl Replica {
    async fn new(db: &Database, issuer: &Issuer) -> Self {
        Self::with_sealer(db, issuer, sealer()).await
    }

    async fn with_sealer(db: &Database, issuer: &Issuer, sealer: Sealer) -> Self {
        let (store, sealer) = (db.another().await, Arc::new(sealer));
        let pool = Pool::load(store.clone(), Arc::clone(&sealer), None).await.unwrap();
        let upstream = UpstreamApi::new(UpstreamEndpoints {
            base_url: issuer.fake.base_url(),
            issuer: issuer.fake.issuer_url(),
            client_id: "app_EMoamEEZ73f0CkXaXp7hrann".to_owned(),
            client_version: "0.169.0".to_owned(),
            originator: "codex_lb".to_owned(),
            user_agent: "codex-lb/test".to_owned(),
            ca_file: None,
        });
        let account_tokens =
            AccountTokens::new(store, sealer, Arc::clone(&pool), upstream.unwrap(), TaskTracker::new());
        Self { id: issuer.id, pool, account_tokens }
    }

    async fn refresh(&self, stale_version: i64) -> Freshness {
        self.account_tokens.refresh(self.id, stale_version).await
    }

    /// The same in a task, for what happens meanwhile.
    fn start_refresh(&self, stale_version: i64) -> tokio::task::JoinHandle<Freshness> {
        let (account_tokens, id) = (Arc::clone(&self.account_tokens), self.id);
        tokio::spawn(async move { account_tokens.refresh(id, stale_version).await })
    }

    /// Waits until the pool holds this version, for ten seconds at most.
    async fn has_version(&self, version: i64) {
        for _ in 0..2_000 {
            if self.version() == version {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the pool still holds version {}", self.version());
    }

    fn version(&self) -> i64 {
        self.pool.snapshot().find(self.id).unwrap().account.token_version
    }

    fn access_token(&self) -> String {
        use secrecy::ExposeSecret as _;
        self.pool.snapshot().find(self.id).unwrap().access_token.expose_secret().to_owned()
    }
}

/// Moves the clock of everything that waits in this test, and of nothing outside.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

both_databases! {
    async fn replicas_that_ask_at_once_send_the_refresh_token_once(db: Database) {
        let issuer = Issuer::new(&db).await;
        let mut replicas = Vec::new();
        for _ in 0..3 {
            replicas.push(Replica::new(&db, &issuer).await);
        }
        for version in 1..=8 {
            issuer.delay_next(60);
            let mut running = Vec::new();
            for replica in &replicas {
                running.extend([replica.start_refresh(version), replica.start_refresh(version)]);
            }
            for refresh in running {
                assert_eq!(refresh.await.unwrap(), Freshness::Fresh, "version {version}");
            }
            for replica in &replicas {
                assert_eq!((replica.version(), replica.access_token()), (version + 1, issuer.account.access_token()));
            }
            assert_eq!(issuer.calls(), usize::try_from(version).unwrap());
        }
        assert_eq!(issuer.claim(&db.store).await, ClaimState::None);
    }

    async fn a_replica_that_heard_nothing_of_the_new_pair_takes_it_without_asking(db: Database) {
        let issuer = Issuer::new(&db).await;
        let (first, second) = (Replica::new(&db, &issuer).await, Replica::new(&db, &issuer).await);
        assert_eq!(first.refresh(1).await, Freshness::Fresh);
        assert_eq!((second.version(), second.refresh(1).await, second.version()), (1, Freshness::Fresh, 2));
        assert_eq!(issuer.calls(), 1);
    }

    async fn a_holder_that_died_is_waited_for_until_its_lease_is_over(db: Database) {
        let issuer = Issuer::new(&db).await;
        let replica = Replica::new(&db, &issuer).await;
        assert!(db.store.claim_token_refresh(issuer.id, "dead", Duration::from_millis(400)).await.unwrap());
        let running = replica.start_refresh(1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((issuer.calls(), running.is_finished()), (0, false));
        assert_eq!(running.await.unwrap(), Freshness::Fresh);
        assert_eq!(issuer.calls(), 1);
    }

    async fn nobody_waits_for_another_replica_for_ever_nor_at_a_stop(db: Database) {
        let issuer = Issuer::new(&db).await;
        let (replica, stopping) = (Replica::new(&db, &issuer).await, Replica::new(&db, &issuer).await);
        assert!(db.store.claim_token_refresh(issuer.id, "slow", HOUR).await.unwrap());
        let (running, other) = (replica.start_refresh(1), stopping.start_refresh(1));
        tokio::time::sleep(Duration::from_millis(100)).await;
        stopping.account_tokens.stop().await;
        assert_eq!(other.await.unwrap(), Freshness::Failed);
        assert!(!running.is_finished());
        pass(Duration::from_secs(46)).await;
        assert_eq!(running.await.unwrap(), Freshness::Failed);
        assert_eq!(issuer.calls(), 0);
    }

    async fn who_waited_for_a_refresh_that_failed_does_not_repeat_it(db: Database) {
        let issuer = Issuer::new(&db).await;
        let (first, second) = (Replica::new(&db, &issuer).await, Replica::new(&db, &issuer).await);
        issuer.script(RefreshScript::Silence);
        let silent = first.start_refresh(1);
        issuer.is_asked().await;
        let waiting = second.start_refresh(1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        issuer.fake.drop_connections();
        assert_eq!((silent.await.unwrap(), waiting.await.unwrap()), (Freshness::Failed, Freshness::Failed));
        assert_eq!((issuer.calls(), issuer.claim(&db.store).await), (1, ClaimState::None));
        // It was transient: the refresh token is still good.
        pass(Duration::from_secs(2)).await;
        assert_eq!(second.refresh(1).await, Freshness::Fresh);
    }

    async fn an_issuer_that_keeps_silent_is_given_up(db: Database) {
        let issuer = Issuer::new(&db).await;
        let replica = Replica::new(&db, &issuer).await;
        issuer.script(RefreshScript::Silence);
        let running = replica.start_refresh(1);
        issuer.is_asked().await;
        pass(Duration::from_secs(31)).await;
        assert_eq!(running.await.unwrap(), Freshness::Failed);
        assert_eq!(issuer.claim(&db.store).await, ClaimState::None);
        assert_eq!(issuer.account(&db.store).await.status, AccountStatus::ACTIVE);
    }

    async fn a_failure_that_may_pass_is_not_repeated_at_once_and_then_passes(db: Database) {
        let issuer = Issuer::new(&db).await;
        let replica = Replica::new(&db, &issuer).await;
        issuer.script(RefreshScript::ServerError);
        assert_eq!(replica.refresh(1).await, Freshness::Failed);
        assert_eq!(replica.refresh(1).await, Freshness::Failed);
        assert_eq!(issuer.calls(), 1);
        assert_eq!(issuer.account(&db.store).await.status, AccountStatus::ACTIVE);
        pass(Duration::from_secs(1)).await;
        assert_eq!(replica.refresh(1).await, Freshness::Fresh);
        assert_eq!((issuer.calls(), replica.version()), (2, 2));
    }

    async fn an_access_token_alone_keeps_the_refresh_token(db: Database) {
        let issuer = Issuer::new(&db).await;
        let replica = Replica::new(&db, &issuer).await;
        issuer.script(RefreshScript::AccessTokenOnly);
        assert_eq!(replica.refresh(1).await, Freshness::Fresh);
        assert_eq!(replica.access_token(), issuer.account.access_token());
        assert_eq!(replica.refresh(2).await, Freshness::Fresh);
        assert_eq!((issuer.calls(), replica.version()), (2, 3));
    }

    async fn an_answer_that_is_lost_ends_the_login_at_the_next_try(db: Database) {
        let issuer = Issuer::new(&db).await;
        let replica = Replica::new(&db, &issuer).await;
        issuer.script(RefreshScript::LostAnswer);
        assert_eq!(replica.refresh(1).await, Freshness::Failed);
        assert_eq!(issuer.account(&db.store).await.status, AccountStatus::ACTIVE);
        pass(Duration::from_secs(1)).await;
        assert_eq!(replica.refresh(1).await, Freshness::LoginEnded);
        let status = issuer.account(&db.store).await.status;
        assert_eq!(status.state, AccountState::ReauthRequired);
        assert_eq!(status.reason.as_deref(), Some("login ended: refresh_token_reused"));
    }

    async fn every_permanent_error_ends_the_login_everywhere_and_is_asked_once(db: Database) {
        use RefreshScript::{Expired, InvalidGrant, Invalidated, Reused};
        for script in [Expired, Reused, Invalidated, InvalidGrant] {
            let issuer = Issuer::new(&db).await;
            let (first, second) = (Replica::new(&db, &issuer).await, Replica::new(&db, &issuer).await);
            issuer.script(script);
            assert_eq!(first.refresh(1).await, Freshness::LoginEnded, "{script:?}");
            assert_eq!(first.refresh(1).await, Freshness::LoginEnded, "{script:?}");
            assert_eq!(second.refresh(1).await, Freshness::LoginEnded, "{script:?}");
            assert_eq!(issuer.calls(), 1);
            assert_eq!(issuer.account(&db.store).await.status.state, AccountState::ReauthRequired);
            for replica in [first, second] {
                let live = replica.pool.snapshot().find(issuer.id).unwrap().live.view(clock::now());
                assert_eq!(live.state, AccountState::ReauthRequired);
            }
        }
    }

    async fn a_paused_account_is_refreshed_and_if_its_login_has_ended_it_stays_paused(db: Database) {
        let issuer = Issuer::new(&db).await;
        let paused = AccountStatus { state: AccountState::Paused, reason: None, until: None };
        db.store.set_account_status(issuer.id, &paused, at(2)).await.unwrap();
        let replica = Replica::new(&db, &issuer).await;
        assert_eq!(replica.refresh(1).await, Freshness::Fresh);
        issuer.script(RefreshScript::Expired);
        for _ in 0..3 {
            assert_eq!(replica.refresh(2).await, Freshness::LoginEnded);
        }
        assert_eq!((issuer.calls(), issuer.account(&db.store).await.status), (2, paused));
        // Once it is resumed the end of its login shows.
        db.store.set_account_status(issuer.id, &AccountStatus::ACTIVE, at(3)).await.unwrap();
        assert_eq!(replica.refresh(2).await, Freshness::LoginEnded);
        assert_eq!(issuer.account(&db.store).await.status.state, AccountState::ReauthRequired);
        assert_eq!(issuer.calls(), 2);
    }

    async fn reused_is_no_end_of_a_login_whose_new_pair_another_replica_has_stored(db: Database) {
        let issuer = Issuer::new(&db).await;
        let replica = Replica::new(&db, &issuer).await;
        issuer.script(RefreshScript::Reused);
        issuer.delay_next(200);
        let running = replica.start_refresh(1);
        issuer.is_asked().await;
        // What a replica does whose lease had run out while it waited for the issuer.
        let pair = SealedTokens::seal(&sealer(), issuer.id, &tokens("theirs")).unwrap();
        assert!(db.store.replace_tokens(issuer.id, 1, &pair, None, at(2)).await.unwrap());
        assert_eq!(running.await.unwrap(), Freshness::Fresh);
        assert_eq!(issuer.account(&db.store).await.status, AccountStatus::ACTIVE);
        assert_eq!((replica.version(), replica.access_token().as_str()), (2, "access theirs"));
    }

    async fn a_pair_that_cannot_be_stored_is_kept_until_it_can_and_used_only_then(db: Database) {
        let issuer = Issuer::new(&db).await;
        let (replica, other) = (Replica::new(&db, &issuer).await, Replica::new(&db, &issuer).await);
        let before = replica.access_token();
        db.execute(REFUSE_TOKENS[usize::from(db.is_postgres())]).await;
        assert_eq!(replica.refresh(1).await, Freshness::Failed);
        assert_eq!(replica.access_token(), before);
        // Neither we nor the others send the refresh token again: it is used up.
        assert_eq!(issuer.claim(&db.store).await, ClaimState::Running);
        let waiting = other.start_refresh(1);
        pass(Duration::from_secs(2)).await;
        assert_eq!(replica.refresh(1).await, Freshness::Failed);
        assert_eq!((issuer.calls(), waiting.is_finished()), (1, false));

        db.execute(TAKE_TOKENS[usize::from(db.is_postgres())]).await;
        replica.has_version(2).await;
        assert_eq!(waiting.await.unwrap(), Freshness::Fresh);
        for replica in [&replica, &other] {
            assert_eq!(replica.access_token(), issuer.account.access_token());
        }
        assert_eq!((issuer.calls(), issuer.claim(&db.store).await), (1, ClaimState::None));
        assert_eq!(replica.refresh(2).await, Freshness::Fresh);
    }

    async fn a_stop_waits_until_a_pair_is_stored(db: Database) {
        let issuer = Issuer::new(&db).await;
        let replica = Replica::new(&db, &issuer).await;
        db.execute(REFUSE_TOKENS[usize::from(db.is_postgres())]).await;
        assert_eq!(replica.refresh(1).await, Freshness::Failed);
        let account_tokens = Arc::clone(&replica.account_tokens);
        let stopping = tokio::spawn(async move { account_tokens.stop().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!stopping.is_finished());
        db.execute(TAKE_TOKENS[usize::from(db.is_postgres())]).await;
        stopping.await.unwrap();
        assert_eq!(issuer.account(&db.store).await.token_version, 2);
    }

    async fn a_pair_that_comes_while_the_encryption_key_is_rotated_is_stored_under_the_new_key(db: Database) {
        let issuer = Issuer::new(&db).await;
        let (old, new) = (EncryptionKey::from_bytes([1; 32]), EncryptionKey::from_bytes([2; 32]));
        db.store.check_encryption_fingerprint(&old.fingerprint(), at(1)).await.unwrap();
        let replica = Replica::with_sealer(&db, &issuer, Sealer::with_older_keys(&old, std::slice::from_ref(&new))).await;
        issuer.delay_next(200);
        let running = replica.start_refresh(1);
        issuer.is_asked().await;
        let to = Sealer::new(&new);
        let (from, fingerprint, key_id) = (old.fingerprint(), to.fingerprint(), to.key_id());
        db.store.switch_encryption_key(&from, &fingerprint, &key_id, at(2)).await.unwrap();
        assert_eq!(running.await.unwrap(), Freshness::Fresh);
        let stored = db.store.find_account(issuer.id).await.unwrap().unwrap();
        assert!(stored.tokens.are_sealed_with(&to.key_id()));
        assert_eq!(replica.access_token(), issuer.account.access_token());
    }
}

/// Makes the database refuse new tokens and nothing else: for SQLite and for PostgreSQL.
const REFUSE_TOKENS: [&str; 2] = [
    "create trigger refuse_tokens before update of token_version on accounts \
     begin select raise(abort, 'the disk is full'); end",
    "create function refuse_tokens() returns trigger language plpgsql as $$ \
     begin raise exception 'the disk is full'; end $$; \
     create trigger refuse_tokens before update of token_version on accounts \
     for each row execute function refuse_tokens()",
];
const TAKE_TOKENS: [&str; 2] = ["drop trigger refuse_tokens", "drop trigger refuse_tokens on accounts"];
