//! Account tokens in real processes: refreshed ahead of time, once over all replicas, and sealed with another key while
//! servers run.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use codex_lb_shared::clock;
use codex_lb_shared::secret::{EncryptionKey, SealedTokens, Sealer};
use codex_lb_shared::store::{SealedRow, Store};
use fake_chatgpt::{AccountSpec, FakeChatGpt, Script, SilencePlace};

use crate::support::{Database, Gateway, Setup, Upstream, eventually, native_body};

const TOKEN_PATH: &str = "/oauth/token";

/// How often a refresh token reached the issuer.
fn refreshes(upstream: &Upstream) -> usize {
    upstream.fake.requests().iter().filter(|request| request.head.path == TOKEN_PATH).count()
}

/// Lets the next refresh take a while.
fn delay_refresh(upstream: &Upstream, delay_ms: u64) {
    let silence = Script::Silence { place: SilencePlace::BeforeHead, duration_ms: Some(delay_ms) };
    upstream.fake.script_path(TOKEN_PATH, [silence]);
}

/// Makes every access token of the pool useless, so that the next request of each account needs a refresh.
fn expire_all(upstream: &Upstream) {
    for account in &upstream.accounts {
        upstream.fake.expire_access_token(account);
    }
}

/// Each request is a conversation of its own, so that it may go to any account.
async fn ask(gateway: &Gateway) -> u16 {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let prompt = format!("hi {}", ASKED.fetch_add(1, Ordering::Relaxed));
    let response = gateway.post("/backend-api/codex/responses", &native_body(&prompt)).send().await.unwrap();
    let status = response.status().as_u16();
    response.bytes().await.unwrap();
    status
}

/// Proves that a server can open and replace the tokens of every account: it must refresh each to answer with it.
async fn answers_after_refreshes(gateway: &Gateway, upstream: &Upstream) {
    let expected = refreshes(upstream) + upstream.accounts.len();
    expire_all(upstream);
    // A server that has not noticed yet what another one refreshed meets a refusal for that first.
    eventually("the accounts serve again", async || {
        (ask(gateway).await == 200 && refreshes(upstream) >= expected).then_some(())
    })
    .await;
    assert_eq!(refreshes(upstream), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_refused_at_once_send_the_refresh_token_once() {
    let upstream = Upstream::start(1).await;
    let setup = Setup::on(&upstream, Database::Postgres);
    let (twin, first) = (setup.twin(), setup.serve().await);
    let second = twin.serve().await;
    for round in 1..=5 {
        expire_all(&upstream);
        delay_refresh(&upstream, 150);
        let statuses = tokio::join!(ask(&first), ask(&second), ask(&first), ask(&second));
        assert_eq!(statuses, (200, 200, 200, 200), "round {round}");
        assert_eq!(refreshes(&upstream), round);
    }
    assert_eq!(first.store.list_accounts().await.unwrap()[0].account.token_version, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_before_its_end_though_nobody_asks() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec { access_token_seconds: 60, ..AccountSpec::default() });
    let upstream = Upstream { fake, accounts: vec![account] };
    let gateway = Setup::new(&upstream).serve().await;
    let began = std::time::Instant::now();
    let is_refresh = |request: &fake_chatgpt::RequestRecord| request.head.path == TOKEN_PATH;
    upstream.fake.wait_for_within(Duration::from_secs(50), is_refresh).await.unwrap();
    // Half its life, and not at once: a token that lives shorter than we refresh ahead is not refreshed for ever.
    assert!(began.elapsed() > Duration::from_secs(20), "{:?}", began.elapsed());
    eventually("the pair is stored", async || {
        (gateway.store.list_accounts().await.unwrap()[0].account.token_version == 2).then_some(())
    })
    .await;
    assert_eq!((ask(&gateway).await, refreshes(&upstream)), (200, 1));
    assert!(upstream.responses().iter().all(|request| request.status != Some(401)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_outlives_its_caller_and_is_waited_for_at_a_stop() {
    let upstream = Upstream::start(1).await;
    let mut gateway = Gateway::before(&upstream).await;
    expire_all(&upstream);
    delay_refresh(&upstream, 1_500);
    let request = gateway.post("/backend-api/codex/responses", &native_body("hi"));
    let caller = tokio::spawn(async move { request.send().await.map(|response| response.status()) });
    upstream.fake.wait_for(|request| request.head.path == TOKEN_PATH).await.unwrap();
    caller.abort();
    let (status, gateway) = tokio::task::spawn_blocking(move || (gateway.stop(), gateway)).await.unwrap();
    assert!(status.success());
    assert_eq!(gateway.store.list_accounts().await.unwrap()[0].account.token_version, 2);
}

async fn rotation_beside_a_busy_server(database: Database) {
    let upstream = Upstream::start(4).await;
    let mut gateway = Setup::on(&upstream, database).serve().await;
    let old_key = key_in(&gateway.setup.path("gateway.key"));
    for round in 0..3 {
        // Every account is refreshed while its row is being sealed anew.
        expire_all(&upstream);
        for _ in 0..4 {
            delay_refresh(&upstream, 100);
        }
        let rotate = async {
            let arguments = ["keys", "rotate-encryption", "--generate"];
            tokio::task::block_in_place(|| gateway.setup.command(&arguments)).expect_success()
        };
        let requests = futures_util::future::join_all((0..24).map(|_| ask(&gateway)));
        let (statuses, told) = tokio::join!(requests, rotate);
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        assert!(told.contains("accounts were sealed anew"), "{told}");
        let new = Sealer::new(&key_in(&gateway.setup.path("gateway.key")));
        for stored in gateway.store.list_accounts().await.unwrap() {
            assert!(stored.tokens.are_sealed_with(&new.key_id()), "round {round}");
            stored.tokens.open(&new, stored.account.id).unwrap();
        }
        // The server seals with the new key, and what is imported beside it too.
        answers_after_refreshes(&gateway, &upstream).await;
        let file = gateway.setup.path("account-1.json");
        std::fs::write(&file, upstream.accounts[0].auth_json().to_string()).unwrap();
        gateway.setup.command(&["accounts", "import", &file.to_string_lossy()]).expect_success();
        let discard = ["keys", "rotate-encryption", "--discard-old"];
        gateway.setup.command(&discard).expect_success();
        for stored in gateway.store.list_accounts().await.unwrap() {
            assert!(stored.tokens.are_sealed_with(&new.key_id()), "round {round}");
        }
    }
    assert!(upstream.responses().iter().filter(|request| request.status == Some(401)).count() >= 4);
    assert!(gateway.stop().success());
    let setup = gateway.setup.clone();
    let new_key = std::fs::read_to_string(setup.path("gateway.key")).unwrap();
    assert!(!setup.path("gateway.key.old").exists() && !setup.path("gateway.key.new").exists());
    assert_eq!(ask(&setup.serve().await).await, 200);
    assert_ne!(EncryptionKey::parse(&new_key).unwrap().fingerprint(), old_key.fingerprint());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encryption_key_is_changed_while_a_server_refreshes_on_sqlite() {
    rotation_beside_a_busy_server(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encryption_key_is_changed_while_a_server_refreshes_on_postgres() {
    rotation_beside_a_busy_server(Database::Postgres).await;
}

/// How far a rotation got before it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DiedAfter {
    MakingTheKey,
    SomeRows,
    AllRows,
    TheSwitch,
    KeepingTheOldKey,
    Renaming,
}

impl DiedAfter {
    const ALL: [Self; 6] =
        [Self::MakingTheKey, Self::SomeRows, Self::AllRows, Self::TheSwitch, Self::KeepingTheOldKey, Self::Renaming];
}

/// Does by hand what a rotation does until it dies.
async fn die(setup: &Setup, died_after: DiedAfter) {
    let (main, new) = (setup.path("gateway.key"), setup.path("gateway.key.new"));
    let (old_key, new_key) = (key_in(&main), EncryptionKey::from_bytes([9; 32]));
    write_key(&new, &[9; 32]);
    let store = setup.store().await;
    let sealer = Sealer::with_older_keys(&new_key, std::slice::from_ref(&old_key));
    let mut rows = store.sealed_rows(None, 100).await.unwrap();
    match died_after {
        DiedAfter::MakingTheKey => rows.clear(),
        DiedAfter::SomeRows => rows.truncate(1),
        DiedAfter::AllRows | DiedAfter::TheSwitch | DiedAfter::KeepingTheOldKey | DiedAfter::Renaming => {}
    }
    store.reseal(&rows.into_iter().map(|row| seal_anew(&sealer, row)).collect::<Vec<_>>()).await.unwrap();
    if died_after >= DiedAfter::TheSwitch {
        let (from, to, key_id) = (old_key.fingerprint(), new_key.fingerprint(), sealer.key_id());
        store.switch_encryption_key(&from, &to, &key_id, clock::now()).await.unwrap();
    }
    if died_after >= DiedAfter::KeepingTheOldKey {
        std::fs::copy(&main, setup.path("gateway.key.old")).unwrap();
    }
    if died_after >= DiedAfter::Renaming {
        std::fs::rename(&new, &main).unwrap();
    }
    store.close().await;
}

fn seal_anew(sealer: &Sealer, row: SealedRow) -> SealedRow {
    let opened = row.tokens.open(sealer, row.id).unwrap();
    SealedRow { tokens: SealedTokens::seal(sealer, row.id, &opened).unwrap(), ..row }
}

async fn is_sealed_with(store: &Store, key: &EncryptionKey) -> bool {
    let key_id = Sealer::new(key).key_id();
    store.list_accounts().await.unwrap().iter().all(|stored| stored.tokens.are_sealed_with(&key_id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_died_leaves_a_server_that_starts_and_is_finished_by_running_it_again() {
    for died_after in DiedAfter::ALL {
        let upstream = Upstream::start(2).await;
        let setup = Setup::new(&upstream);
        let old_key = key_in(&setup.path("gateway.key"));
        die(&setup, died_after).await;

        let mut gateway = setup.serve().await;
        answers_after_refreshes(&gateway, &upstream).await;
        let again = gateway.setup.command(&["keys", "rotate-encryption"]);
        if died_after == DiedAfter::Renaming {
            assert!(again.expect_failure().contains("--discard-old"), "{again:?}");
        } else {
            again.expect_success();
        }
        let main = key_in(&gateway.setup.path("gateway.key"));
        assert_eq!(main.fingerprint(), EncryptionKey::from_bytes([9; 32]).fingerprint(), "{died_after:?}");
        assert_eq!(key_in(&gateway.setup.path("gateway.key.old")).fingerprint(), old_key.fingerprint());
        assert!(is_sealed_with(&gateway.store, &main).await, "{died_after:?}");
        // The server that ran all the time, and one that starts now without the old key.
        answers_after_refreshes(&gateway, &upstream).await;
        gateway.setup.command(&["keys", "rotate-encryption", "--discard-old"]).expect_success();
        assert!(is_sealed_with(&gateway.store, &main).await, "{died_after:?}");
        assert!(gateway.stop().success());
        answers_after_refreshes(&gateway.setup.clone().serve().await, &upstream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_were_given_the_new_key_first_move_one_after_the_other() {
    let upstream = Upstream::start(1).await;
    let setup = Setup::on(&upstream, Database::Postgres);
    let rotate = ["keys", "rotate-encryption"];
    let refused = setup.command(&rotate).expect_failure();
    assert!(refused.contains("other machines") && refused.contains("--generate"), "{refused}");
    let (twin, first) = (setup.twin(), setup.serve().await);
    let second = twin.serve().await;
    for gateway in [&first, &second] {
        write_key(&gateway.setup.path("gateway.key.new"), &[9; 32]);
    }
    first.setup.command(&rotate).expect_success();
    for gateway in [&first, &second] {
        answers_after_refreshes(gateway, &upstream).await;
    }
    assert!(is_sealed_with(&first.store, &EncryptionKey::from_bytes([9; 32])).await);
    let told = second.setup.command(&rotate).expect_success();
    assert!(told.starts_with("0 accounts"), "{told}");
    for gateway in [&first, &second] {
        gateway.setup.command(&["keys", "rotate-encryption", "--discard-old"]).expect_success();
        answers_after_refreshes(gateway, &upstream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_environment_gives_are_changed_there() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::without_accounts(&upstream.fake);
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    setup.set("CODEX_LB_ENCRYPTION_KEY", &old);
    let file = setup.path("account-1.json");
    std::fs::write(&file, upstream.accounts[0].auth_json().to_string()).unwrap();
    setup.command(&["accounts", "import", &file.to_string_lossy()]).expect_success();
    let rotate = ["keys", "rotate-encryption"];
    let refused = setup.command(&rotate).expect_failure();
    assert!(refused.contains("holds one key") && refused.contains("behind it"), "{refused}");

    setup.set("CODEX_LB_ENCRYPTION_KEY", &format!("{old} {new}"));
    let mut gateway = setup.serve().await;
    answers_after_refreshes(&gateway, &upstream).await;
    assert!(is_sealed_with(&gateway.store, &EncryptionKey::parse(&old).unwrap()).await);
    for sealed_anew in ["1 accounts", "0 accounts"] {
        let told = gateway.setup.command(&rotate).expect_success();
        assert!(told.starts_with(sealed_anew), "{told}");
        answers_after_refreshes(&gateway, &upstream).await;
        assert!(is_sealed_with(&gateway.store, &EncryptionKey::parse(&new).unwrap()).await);
    }
    assert!(gateway.stop().success());
    let mut setup = gateway.setup.clone();
    setup.set("CODEX_LB_ENCRYPTION_KEY", &old);
    assert!(setup.command(&["serve"]).expect_failure().contains("restore the original key"));
    setup.set("CODEX_LB_ENCRYPTION_KEY", &new);
    answers_after_refreshes(&setup.serve().await, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rotated_safely_is_refused_in_one_sentence_and_changes_nothing() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    let path = setup.path("gateway.key");
    let (original, store) = (key_in(&path), setup.store().await);
    let refuse = |setup: &Setup, arguments: &[&str], words: &str| {
        let mut all = vec!["keys", "rotate-encryption"];
        all.extend(arguments);
        let complaint = setup.command(&all).expect_failure();
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
        assert!(complaint.contains(words), "{complaint}");
    };
    refuse(&setup, &["--discard-old"], "there is no old key");

    let away = setup.path("away");
    std::fs::rename(&path, &away).unwrap();
    refuse(&setup, &[], "read the encryption key");
    assert!(!path.exists());
    write_key(&path, &[3; 32]);
    refuse(&setup, &[], "not the encryption key that this database was last used with");
    write_key(&setup.path("gateway.key.new"), &[4; 32]);
    refuse(&setup, &[], "none of the keys here");
    std::fs::remove_file(setup.path("gateway.key.new")).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&away, &path).unwrap();
    refuse(&setup, &[], "is a link");
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    let lock = std::fs::File::open(&path).unwrap();
    lock.try_lock().unwrap();
    refuse(&setup, &[], "another rotation is running");
    drop(lock);
    setup.set("CODEX_LB_ENCRYPTION_KEY", &format!("{} {}", "12".repeat(32), "34".repeat(32)));
    refuse(&setup, &[], "none of the keys here");
    setup.set("CODEX_LB_ENCRYPTION_KEY", "");

    assert!(is_sealed_with(&store, &original).await);
    setup.command(&["keys", "rotate-encryption"]).expect_success();
    refuse(&setup, &[], "the last rotation is done");
    write_key(&setup.path("gateway.key.new"), &[4; 32]);
    refuse(&setup, &[], "the rotation before");
    refuse(&setup, &["--discard-old"], "not finished");
    assert_eq!(key_in(&setup.path("gateway.key.old")).fingerprint(), original.fingerprint());
    assert!(is_sealed_with(&store, &key_in(&path)).await);
}

fn key_in(path: &Path) -> EncryptionKey {
    EncryptionKey::load(path).unwrap().remove(0)
}

fn write_key(path: &Path, bytes: &[u8; 32]) {
    use std::os::unix::fs::PermissionsExt as _;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(path, hex).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
