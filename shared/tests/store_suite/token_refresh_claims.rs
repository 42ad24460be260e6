//! `token_refresh_claims`: one holder at a time, for as long as the database's clock says.

use std::time::Duration;

use codex_lb_shared::domain::account::AccountState;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::store::{ClaimState, RefreshProgress, Store};

use crate::samples::{add_account, at, status};

const MINUTE: Duration = Duration::from_secs(60);

async fn claim_state(store: &Store, id: AccountId) -> ClaimState {
    store.token_refresh_progress(id).await.unwrap().unwrap().claim
}

both_databases! {
    async fn of_claimants_that_come_at_once_exactly_one_wins(db: Database) {
        let another = db.another().await;
        for round in 0..10 {
            let id = add_account(&db.store, &format!("person {round}")).await;
            let (ours, theirs) = tokio::join!(
                db.store.claim_token_refresh(id, "ours", MINUTE),
                another.claim_token_refresh(id, "theirs", MINUTE),
            );
            assert!(ours.unwrap() != theirs.unwrap(), "round {round}");
            assert!(!db.store.claim_token_refresh(id, "late", MINUTE).await.unwrap());
        }
    }

    async fn a_claim_holds_until_it_is_released(db: Database) {
        let id = add_account(&db.store, "ann").await;
        assert_eq!(claim_state(&db.store, id).await, ClaimState::None);
        assert!(db.store.claim_token_refresh(id, "ours", MINUTE).await.unwrap());
        assert_eq!(claim_state(&db.store, id).await, ClaimState::Running);
        assert!(!db.store.claim_token_refresh(id, "theirs", MINUTE).await.unwrap());
        db.store.release_token_refresh(id, "ours").await.unwrap();
        assert_eq!(claim_state(&db.store, id).await, ClaimState::None);
        assert!(db.store.claim_token_refresh(id, "theirs", MINUTE).await.unwrap());
    }

    async fn a_holder_may_extend_its_own_claim(db: Database) {
        let id = add_account(&db.store, "ann").await;
        assert!(db.store.claim_token_refresh(id, "ours", MINUTE).await.unwrap());
        assert!(db.store.claim_token_refresh(id, "ours", MINUTE).await.unwrap());
        assert!(!db.store.claim_token_refresh(id, "theirs", MINUTE).await.unwrap());
    }

    async fn a_lease_that_is_over_can_be_taken_and_its_holder_cannot_release_it_any_more(db: Database) {
        let id = add_account(&db.store, "ann").await;
        assert!(db.store.claim_token_refresh(id, "dead", Duration::ZERO).await.unwrap());
        assert_eq!(claim_state(&db.store, id).await, ClaimState::Expired);
        assert!(db.store.claim_token_refresh(id, "ours", MINUTE).await.unwrap());
        db.store.release_token_refresh(id, "dead").await.unwrap();
        assert_eq!(claim_state(&db.store, id).await, ClaimState::Running);
    }

    async fn a_claim_goes_with_its_account_and_an_unknown_account_has_none(db: Database) {
        let unknown = AccountId::generate();
        assert!(!db.store.claim_token_refresh(unknown, "ours", MINUTE).await.unwrap());
        assert_eq!(db.store.token_refresh_progress(unknown).await.unwrap(), None);
        let id = add_account(&db.store, "ann").await;
        assert!(db.store.claim_token_refresh(id, "ours", MINUTE).await.unwrap());
        assert!(db.store.delete_account(id).await.unwrap());
        assert_eq!(db.store.token_refresh_progress(id).await.unwrap(), None);
    }

    async fn progress_tells_version_and_state_and_raises_nothing(db: Database) {
        let id = add_account(&db.store, "ann").await;
        db.store.set_account_status(id, &status(AccountState::ReauthRequired), at(2)).await.unwrap();
        let before = db.store.generations().await.unwrap();
        let expected =
            RefreshProgress { token_version: 1, state: AccountState::ReauthRequired, claim: ClaimState::None };
        assert_eq!(db.store.token_refresh_progress(id).await.unwrap(), Some(expected));
        db.store.claim_token_refresh(id, "ours", MINUTE).await.unwrap();
        db.store.release_token_refresh(id, "ours").await.unwrap();
        assert_eq!(db.store.generations().await.unwrap(), before);
    }
}
