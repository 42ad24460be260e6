//! `api_keys`: found by hash or id, revoked once, and marked as used by what was recorded.

use codex_lb_shared::domain::api_key::{ApiKey, ApiKeyHash, NewApiKeySecret};
use codex_lb_shared::ids::ApiKeyId;
use codex_lb_shared::store::StoreError;

use crate::samples::{api_key, at, exchange};

both_databases! {
    async fn a_key_is_found_by_its_hash_and_by_its_id(db: Database) {
        let secret = NewApiKeySecret::from_random([1; 32]);
        let key = ApiKey { revoked_at: Some(at(4)), last_used_at: Some(at(5)), ..api_key(&secret, 2) };
        let plain = ApiKey { expires_at: None, is_enabled: false, ..api_key(&NewApiKeySecret::from_random([2; 32]), 1) };
        for key in [&key, &plain] {
            db.store.insert_api_key(key).await.unwrap();
            assert_eq!(db.store.find_api_key_by_hash(&key.hash).await.unwrap().as_ref(), Some(key));
            assert_eq!(db.store.find_api_key(key.id).await.unwrap().as_ref(), Some(key));
        }
        assert_eq!(db.store.list_api_keys().await.unwrap(), [plain, key]);
        assert_eq!(db.store.find_api_key_by_hash(&ApiKeyHash::of("guessed")).await.unwrap(), None);
        assert_eq!(db.store.find_api_key(ApiKeyId::generate()).await.unwrap(), None);
    }

    async fn a_secret_belongs_to_one_key(db: Database) {
        let secret = NewApiKeySecret::from_random([1; 32]);
        db.store.insert_api_key(&api_key(&secret, 1)).await.unwrap();
        let error = db.store.insert_api_key(&api_key(&secret, 2)).await.unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
        // PostgreSQL's details would quote the value that was there already.
        assert!(!format!("{error:?} {error}").contains(&secret.hash.to_hex()));
        assert_eq!(db.store.list_api_keys().await.unwrap().len(), 1);
    }

    async fn a_key_is_revoked_once_and_for_good(db: Database) {
        let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
        db.store.insert_api_key(&key).await.unwrap();
        let another = db.another().await;
        let (ours, theirs) =
            tokio::join!(db.store.revoke_api_key(key.id, at(10)), another.revoke_api_key(key.id, at(20)));
        let ours = ours.unwrap();
        assert_ne!(ours, theirs.unwrap());
        assert!(!db.store.revoke_api_key(key.id, at(30)).await.unwrap());
        let revoked = db.store.find_api_key(key.id).await.unwrap().unwrap();
        assert_eq!(revoked.revoked_at, Some(at(if ours { 10 } else { 20 })));
        assert!(!db.store.revoke_api_key(ApiKeyId::generate(), at(30)).await.unwrap());
    }

    async fn a_key_is_switched_off_and_on(db: Database) {
        let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
        db.store.insert_api_key(&key).await.unwrap();
        for is_enabled in [false, false, true] {
            assert!(db.store.set_api_key_enabled(key.id, is_enabled).await.unwrap());
            assert_eq!(db.store.find_api_key(key.id).await.unwrap().unwrap().is_enabled, is_enabled);
        }
        assert!(!db.store.set_api_key_enabled(ApiKeyId::generate(), true).await.unwrap());
    }

    async fn a_key_was_last_used_by_its_latest_exchange_in_whatever_order_they_are_recorded(db: Database) {
        let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
        let idle = api_key(&NewApiKeySecret::from_random([2; 32]), 2);
        db.store.insert_api_key(&key).await.unwrap();
        db.store.insert_api_key(&idle).await.unwrap();
        for (requested_at, expected) in [([30, 50], 50), ([40, 10], 50), ([60, 20], 60)] {
            let of_key = requested_at.map(|requested_at| {
                let mut record = exchange(requested_at);
                record.api_key_id = Some(key.id);
                record
            });
            db.store.record_exchanges(&of_key).await.unwrap();
            assert_eq!(db.store.find_api_key(key.id).await.unwrap().unwrap().last_used_at, Some(at(expected)));
        }
        assert_eq!(db.store.find_api_key(idle.id).await.unwrap().unwrap().last_used_at, None);
    }
}
