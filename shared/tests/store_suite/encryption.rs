//! Rotation of the encryption key: tokens are sealed anew without anybody noticing, and the old key is shut out.

use codex_lb_shared::domain::account::AccountState;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::secret::{EncryptionKey, SealedTokens, Sealer};
use codex_lb_shared::store::{FingerprintCheck, SealedRow, Store, StoreError};
use secrecy::ExposeSecret as _;

use crate::samples::{add_account, at, login, sealer, status, tokens};

/// Every column that holds something sealed. Whoever adds one must teach [`Store::reseal`] to move it, and then name it.
const RESEALED_COLUMNS: [&str; 4] = [
    "accounts.access_token_sealed",
    "accounts.id_token_sealed",
    "accounts.refresh_token_sealed",
    "egress_proxies.password_sealed",
];

fn new_key() -> EncryptionKey {
    EncryptionKey::from_bytes([2; 32])
}

fn new_sealer() -> Sealer {
    Sealer::with_older_keys(&new_key(), &[EncryptionKey::from_bytes([1; 32])])
}

async fn switch(store: &Store) {
    let (old, new) = (sealer(), new_sealer());
    store.check_encryption_fingerprint(&old.fingerprint(), at(1)).await.unwrap();
    store.switch_encryption_key(&old.fingerprint(), &new.fingerprint(), &new.key_id(), at(2)).await.unwrap();
}

fn seal_anew(row: SealedRow) -> SealedRow {
    let opened = row.tokens.open(&new_sealer(), row.id).unwrap();
    SealedRow { tokens: SealedTokens::seal(&new_sealer(), row.id, &opened).unwrap(), ..row }
}

both_databases! {
    async fn every_sealed_column_is_one_that_a_rotation_moves(db: Database) {
        let mut sealed = db.texts(
            "select t.name || '.' || c.name from sqlite_master t join pragma_table_info(t.name) c \
             where t.type = 'table' and c.name like '%sealed%'",
            "select table_name || '.' || column_name from information_schema.columns \
             where table_schema = 'public' and column_name like '%sealed%'",
        ).await;
        sealed.sort();
        assert_eq!(sealed, RESEALED_COLUMNS);
    }

    async fn tokens_sealed_anew_are_the_same_tokens_to_everybody(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let before = (db.store.generations().await.unwrap(), db.store.find_account(id).await.unwrap().unwrap());
        let rows: Vec<_> = db.store.sealed_rows(None, 10).await.unwrap().into_iter().map(seal_anew).collect();
        assert_eq!(db.store.reseal(&rows).await.unwrap(), 1);
        let after = db.store.find_account(id).await.unwrap().unwrap();
        assert_eq!((db.store.generations().await.unwrap(), &after.account), (before.0, &before.1.account));
        assert!(after.tokens.are_sealed_with(&new_sealer().key_id()));
        let opened = after.tokens.open(&Sealer::new(&new_key()), id).unwrap();
        assert_eq!(opened.refresh_token.expose_secret(), "refresh first");
    }

    async fn tokens_that_were_refreshed_meanwhile_are_not_overwritten(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let rows: Vec<_> = db.store.sealed_rows(None, 10).await.unwrap().into_iter().map(seal_anew).collect();
        let second = SealedTokens::seal(&sealer(), id, &tokens("second")).unwrap();
        assert!(db.store.replace_tokens(id, 1, &second, None, at(2)).await.unwrap());
        assert_eq!(db.store.reseal(&rows).await.unwrap(), 0);
        assert_eq!(db.store.find_account(id).await.unwrap().unwrap().tokens, second);
    }

    async fn a_refresh_that_was_running_stores_its_pair_after_its_row_was_sealed_anew(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let rows: Vec<_> = db.store.sealed_rows(None, 10).await.unwrap().into_iter().map(seal_anew).collect();
        db.store.reseal(&rows).await.unwrap();
        let second = SealedTokens::seal(&sealer(), id, &tokens("second")).unwrap();
        assert!(db.store.replace_tokens(id, 1, &second, None, at(2)).await.unwrap());
    }

    async fn rows_come_in_pages_and_each_once(db: Database) {
        let mut ids = Vec::new();
        for person in ["a", "b", "c", "d", "e"] {
            ids.push(add_account(&db.store, person).await);
        }
        let (mut after, mut seen): (Option<AccountId>, Vec<AccountId>) = (None, Vec::new());
        loop {
            let page = db.store.sealed_rows(after, 2).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 2);
            after = Some(last.id);
            seen.extend(page.iter().map(|row| row.id));
        }
        ids.sort();
        assert_eq!(seen, ids);
    }

    async fn once_switched_nothing_is_taken_under_the_key_before(db: Database) {
        let id = add_account(&db.store, "ann").await;
        switch(&db.store).await;
        let (old, new) = (sealer(), new_sealer());
        let before = db.store.find_account(id).await.unwrap();
        let sealed = SealedTokens::seal(&old, id, &tokens("second")).unwrap();
        let refused = db.store.replace_tokens(id, 1, &sealed, None, at(3)).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        let refused = db.store.upsert_account(&login(id, "ann", "second"), at(3)).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        assert_eq!(db.store.find_account(id).await.unwrap(), before);

        let sealed = SealedTokens::seal(&new, id, &tokens("second")).unwrap();
        assert!(db.store.replace_tokens(id, 1, &sealed, None, at(3)).await.unwrap());
        let again = codex_lb_shared::store::NewAccount { tokens: sealed, ..login(id, "ann", "second") };
        db.store.upsert_account(&again, at(4)).await.unwrap();
    }

    async fn a_switch_is_made_once_and_only_from_the_recorded_key(db: Database) {
        let (old, new) = (sealer(), new_sealer());
        assert_eq!(db.store.encryption_fingerprint().await.unwrap(), None);
        switch(&db.store).await;
        assert_eq!(db.store.encryption_fingerprint().await.unwrap(), Some(new.fingerprint()));
        let check = async |sealer: &Sealer| db.store.check_encryption_fingerprint(&sealer.fingerprint(), at(3)).await;
        assert_eq!(check(&new).await.unwrap(), FingerprintCheck::Matches);
        assert_eq!(check(&old).await.unwrap(), FingerprintCheck::Differs);
        let again = db.store.switch_encryption_key(&old.fingerprint(), "other", "id", at(4)).await;
        assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
        assert_eq!(check(&new).await.unwrap(), FingerprintCheck::Matches);
    }

    async fn whatever_is_written_beside_a_switch_is_found_by_the_look_after_it(db: Database) {
        let another = db.another().await;
        for round in 0..10_i64 {
            let (old, new) = (Sealer::new(&key(round)), Sealer::new(&key(round + 1)));
            let id = AccountId::generate();
            let mut account = login(id, &format!("person {round}"), "first");
            account.tokens = SealedTokens::seal(&old, id, &tokens("first")).unwrap();
            db.store.check_encryption_fingerprint(&old.fingerprint(), at(1)).await.unwrap();
            db.store.upsert_account(&account, at(1)).await.unwrap();
            let second = SealedTokens::seal(&old, id, &tokens("second")).unwrap();
            let (old_print, new_print, key_id) = (old.fingerprint(), new.fingerprint(), new.key_id());
            let (written, switched) = tokio::join!(
                another.replace_tokens(id, 1, &second, None, at(2)),
                db.store.switch_encryption_key(&old_print, &new_print, &key_id, at(2)),
            );
            switched.unwrap();
            // Seen by the very next look, or refused: never committed later.
            let seen = db.store.find_account(id).await.unwrap().unwrap().tokens == second;
            assert_eq!(seen, written.is_ok(), "round {round}: {written:?}");
        }
    }

    async fn a_pair_that_arrives_after_all_revives_a_login_that_was_thought_to_have_ended(db: Database) {
        for (state, expected) in [
            (AccountState::ReauthRequired, AccountState::Active),
            (AccountState::Paused, AccountState::Paused),
            (AccountState::Deactivated, AccountState::Deactivated),
            (AccountState::RateLimited, AccountState::RateLimited),
        ] {
            let id = add_account(&db.store, state.as_str()).await;
            db.store.set_account_status(id, &status(state), at(2)).await.unwrap();
            let sealed = SealedTokens::seal(&sealer(), id, &tokens("second")).unwrap();
            assert!(db.store.replace_tokens(id, 1, &sealed, None, at(3)).await.unwrap());
            let after = db.store.find_account(id).await.unwrap().unwrap().account.status;
            assert_eq!(after.state, expected);
            assert_eq!(after.reason.is_none(), expected == AccountState::Active);
        }
    }
}

fn key(number: i64) -> EncryptionKey {
    EncryptionKey::from_bytes([u8::try_from(number + 10).unwrap(); 32])
}
