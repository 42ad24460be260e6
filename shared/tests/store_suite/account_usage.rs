//! `account_usage_latest`: the newest observation of each account, and nothing older.

use codex_lb_shared::domain::upstream_window::{AccountUsage, UpstreamWindow};
use codex_lb_shared::ids::AccountId;

use crate::samples::{add_account, at};

fn window(used_percent: f64) -> Option<UpstreamWindow> {
    Some(UpstreamWindow { used_percent, window_minutes: 300, resets_at: Some(at(77)) })
}

fn usage(primary: Option<UpstreamWindow>, secondary: Option<UpstreamWindow>, observed_at: i64) -> AccountUsage {
    AccountUsage { primary, secondary, observed_at: at(observed_at) }
}

both_databases! {
    async fn an_observation_is_kept_until_a_newer_one_arrives(db: Database) {
        let (ann, bob) = (add_account(&db.store, "ann").await, add_account(&db.store, "bob").await);
        let mut sorted = [(ann, usage(window(12.5), window(3.0), 10)), (bob, usage(None, window(99.9), 10))];
        db.store.save_account_usage(&sorted).await.unwrap();
        sorted.sort_by_key(|(id, _)| *id);
        assert_eq!(db.store.list_account_usage().await.unwrap(), sorted);

        let (older, newer) = (usage(window(1.0), window(1.0), 9), usage(window(50.0), window(4.0), 11));
        db.store.delete_account(bob).await.unwrap();
        for (observed, remembered) in [(older, usage(window(12.5), window(3.0), 10)), (newer, newer), (older, newer)] {
            db.store.save_account_usage(&[(ann, observed)]).await.unwrap();
            assert_eq!(db.store.list_account_usage().await.unwrap(), [(ann, remembered)]);
        }
    }

    async fn of_several_observations_in_one_batch_the_newest_stays(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let (old, new) = (usage(window(1.0), None, 1), usage(window(2.0), None, 2));
        db.store.save_account_usage(&[(id, new), (id, old)]).await.unwrap();
        assert_eq!(db.store.list_account_usage().await.unwrap(), [(id, new)]);
    }

    async fn a_window_that_the_plan_no_longer_has_is_forgotten(db: Database) {
        let id = add_account(&db.store, "ann").await;
        db.store.save_account_usage(&[(id, usage(window(1.0), window(2.0), 10))]).await.unwrap();
        // An older observation forgets nothing.
        db.store.save_account_usage(&[(id, usage(None, window(3.0), 9))]).await.unwrap();
        assert_eq!(db.store.list_account_usage().await.unwrap(), [(id, usage(window(1.0), window(2.0), 10))]);
        db.store.save_account_usage(&[(id, usage(None, window(3.0), 11))]).await.unwrap();
        assert_eq!(db.store.list_account_usage().await.unwrap(), [(id, usage(None, window(3.0), 11))]);
    }

    async fn an_account_that_left_the_pool_does_not_spoil_the_batch(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let observed = usage(window(1.0), None, 1);
        db.store.save_account_usage(&[(AccountId::generate(), observed), (id, observed)]).await.unwrap();
        assert_eq!(db.store.list_account_usage().await.unwrap(), [(id, observed)]);
        db.store.save_account_usage(&[]).await.unwrap();
    }
}
