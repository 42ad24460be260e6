//! `change_generation`: every write of a topic is noticed, reads and refused writes are not.

use codex_lb_shared::domain::account::{AccountState, AccountStatus};
use codex_lb_shared::domain::api_key::NewApiKeySecret;
use codex_lb_shared::domain::models::ModelCatalog;
use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::domain::upstream_window::AccountUsage;
use codex_lb_shared::ids::{AccountId, ApiKeyId};
use codex_lb_shared::secret::SealedTokens;
use codex_lb_shared::store::{AccountPatch, Generations, SettingsGroup, Store};

use crate::samples::{api_key, at, exchange, login, sealer, status, tokens};

/// How often each topic was raised since the last look.
struct Watch<'a> {
    store: &'a Store,
    seen: Generations,
}

impl Watch<'_> {
    async fn raised(&mut self) -> (i64, i64, i64) {
        let now = self.store.generations().await.unwrap();
        let before = std::mem::replace(&mut self.seen, now);
        (now.accounts - before.accounts, now.api_keys - before.api_keys, now.settings - before.settings)
    }
}

both_databases! {
    async fn every_write_of_accounts_is_noticed_once(db: Database) {
        let store = &db.another().await;
        let mut watch = Watch { store: &db.store, seen: Generations::default() };
        assert_eq!(watch.raised().await, (0, 0, 0));
        let id = AccountId::generate();
        let sealed = SealedTokens::seal(&sealer(), id, &tokens("x")).unwrap();
        let noticed = (1, 0, 0);

        store.upsert_account(&login(id, "ann", "first"), at(1)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.upsert_account(&login(id, "ann", "second"), at(1)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.replace_tokens(id, 2, &sealed, None, at(2)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.update_account(id, &AccountPatch::default(), at(3)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.apply_upstream_status(id, &status(AccountState::RateLimited), at(4)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.set_account_status(id, &status(AccountState::Paused), at(4)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);

        // Nothing was written by these.
        store.apply_upstream_status(id, &AccountStatus::ACTIVE, at(5)).await.unwrap();
        store.replace_tokens(id, 1, &sealed, None, at(5)).await.unwrap();
        store.upsert_account(&login(AccountId::generate(), "ann", "lost"), at(5)).await.unwrap_err();
        store.set_account_status(AccountId::generate(), &AccountStatus::ACTIVE, at(5)).await.unwrap();
        store.delete_account(AccountId::generate()).await.unwrap();
        store.list_accounts().await.unwrap();
        // Usage changes with every answer and is not part of the topic.
        let usage = AccountUsage { primary: None, secondary: None, observed_at: at(5) };
        store.save_account_usage(&[(id, usage)]).await.unwrap();
        assert_eq!(watch.raised().await, (0, 0, 0));

        store.delete_account(id).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
    }

    async fn every_write_of_api_keys_is_noticed_once(db: Database) {
        let store = &db.another().await;
        let mut watch = Watch { store: &db.store, seen: Generations::default() };
        let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
        let noticed = (0, 1, 0);

        store.insert_api_key(&key).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.set_api_key_enabled(key.id, false).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.revoke_api_key(key.id, at(2)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);

        store.revoke_api_key(key.id, at(3)).await.unwrap();
        store.insert_api_key(&key).await.unwrap_err();
        store.set_api_key_enabled(ApiKeyId::generate(), true).await.unwrap();
        let mut record = exchange(1);
        record.api_key_id = Some(key.id);
        store.record_exchanges(&[record]).await.unwrap();
        assert_eq!(watch.raised().await, (0, 0, 0));
    }

    async fn every_write_of_settings_is_noticed_once(db: Database) {
        let store = &db.another().await;
        let mut watch = Watch { store: &db.store, seen: Generations::default() };
        let noticed = (0, 0, 1);

        let routing = RoutingSettings::default();
        store.save_settings_group(SettingsGroup::Routing, &routing, 0, at(1)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);
        store.save_model_catalog(&ModelCatalog::default(), at(1)).await.unwrap();
        assert_eq!(watch.raised().await, noticed);

        store.save_model_catalog(&ModelCatalog::default(), at(2)).await.unwrap();
        store.save_settings_group(SettingsGroup::Routing, &routing, 0, at(2)).await.unwrap_err();
        store.check_encryption_fingerprint("f", at(2)).await.unwrap();
        assert_eq!(watch.raised().await, (0, 0, 0));
    }

    async fn a_topic_of_a_newer_version_is_ignored(db: Database) {
        db.execute("insert into change_generation (topic, value) values ('webhooks', 5)").await;
        assert_eq!(db.store.generations().await.unwrap(), Generations::default());
    }
}
