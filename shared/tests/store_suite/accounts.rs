//! `accounts`: one identity is one account, tokens change hands once, and upstream never overrules a person.

use codex_lb_shared::domain::account::{AccountState, AccountStatus, Plan, RoutingPolicy};
use codex_lb_shared::domain::upstream_window::AccountUsage;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::secret::{EncryptionKey, SealError, SealedTokens, Sealer};
use codex_lb_shared::store::{AccountPatch, NewAccount, Store, StoreError, StoredAccount, Upserted};
use secrecy::ExposeSecret as _;

use crate::samples::{add_account, at, exchange, identity, login, sealer, status, tokens};

const ALL_STATES: [AccountState; 6] = [
    AccountState::Active,
    AccountState::RateLimited,
    AccountState::QuotaExceeded,
    AccountState::Paused,
    AccountState::ReauthRequired,
    AccountState::Deactivated,
];

async fn found(store: &Store, id: AccountId) -> StoredAccount {
    store.find_account(id).await.unwrap().unwrap()
}

both_databases! {
    async fn a_new_login_joins_the_pool_as_it_was_given(db: Database) {
        let new = login(AccountId::generate(), "ann", "first");
        assert_eq!(db.store.account_id_for(&new.identity).await.unwrap(), None);
        let upserted = db.store.upsert_account(&new, at(7)).await.unwrap();
        assert_eq!(upserted, Upserted { id: new.id, was_new: true });
        assert_eq!(db.store.account_id_for(&new.identity).await.unwrap(), Some(new.id));

        let StoredAccount { account, tokens } = found(&db.store, new.id).await;
        assert_eq!((&account.identity, &account.email), (&new.identity, &new.email));
        assert_eq!((account.plan, account.status), (Plan::Plus, AccountStatus::ACTIVE));
        assert_eq!((account.alias, account.concurrency_cap), (None, None));
        assert_eq!(account.routing_policy, RoutingPolicy::Normal);
        assert_eq!(account.installation_id, new.installation_id);
        assert_eq!(account.access_token_expires_at, Some(at(9_000)));
        assert_eq!((account.tokens_refreshed_at, account.created_at, account.token_version), (at(7), at(7), 1));
        let opened = tokens.open(&sealer(), new.id).unwrap();
        assert_eq!(opened.id_token.expose_secret(), "id first");
        assert_eq!(opened.access_token.expose_secret(), "access first");
        assert_eq!(opened.refresh_token.expose_secret(), "refresh first");
    }

    async fn a_known_identity_keeps_its_id_and_what_an_operator_set(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let patch = AccountPatch {
            alias: Some(Some("mine".to_owned())),
            routing_policy: Some(RoutingPolicy::Preserve),
            concurrency_cap: Some(Some(3)),
            ..AccountPatch::default()
        };
        assert!(db.store.update_account(id, &patch, at(2)).await.unwrap());
        let before = found(&db.store, id).await.account;

        let again = NewAccount {
            email: "ann@new.test".to_owned(),
            plan: Plan::Pro,
            installation_id: "another".to_owned(),
            access_token_expires_at: None,
            ..login(id, "ann", "second")
        };
        let upserted = db.store.upsert_account(&again, at(50)).await.unwrap();
        assert_eq!(upserted, Upserted { id, was_new: false });

        let after = found(&db.store, id).await;
        assert_eq!(after.tokens.open(&sealer(), id).unwrap().access_token.expose_secret(), "access second");
        let expected = codex_lb_shared::domain::account::Account {
            email: "ann@new.test".to_owned(),
            plan: Plan::Pro,
            access_token_expires_at: None,
            tokens_refreshed_at: at(50),
            token_version: 2,
            ..before
        };
        assert_eq!(after.account, expected);
        assert_eq!(db.store.list_accounts().await.unwrap(), [after]);
    }

    async fn a_new_login_ends_only_the_states_that_a_new_login_can_end(db: Database) {
        for state in ALL_STATES {
            let person = state.as_str();
            let id = add_account(&db.store, person).await;
            let before = status(state);
            assert!(db.store.set_account_status(id, &before, at(2)).await.unwrap());
            db.store.upsert_account(&login(id, person, "second"), at(3)).await.unwrap();
            let expected = match state {
                AccountState::ReauthRequired | AccountState::Deactivated => AccountStatus::ACTIVE,
                AccountState::Active
                | AccountState::RateLimited
                | AccountState::QuotaExceeded
                | AccountState::Paused => before,
            };
            assert_eq!(found(&db.store, id).await.account.status, expected, "{state:?}");
        }
    }

    async fn one_login_stored_by_two_at_once_is_one_account(db: Database) {
        let another = db.another().await;
        let (first, second) =
            (login(AccountId::generate(), "ann", "first"), login(AccountId::generate(), "ann", "second"));
        let outcomes = tokio::join!(db.store.upsert_account(&first, at(1)), another.upsert_account(&second, at(1)));
        let (won, lost) = match outcomes {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            other => panic!("expected one winner: {other:?}"),
        };
        assert!(won.was_new);
        assert!(matches!(lost, StoreError::Conflict { .. }), "{lost:?}");
        // Whoever lost finds the winner's id, and what is stored opens under it.
        assert_eq!(db.store.account_id_for(&first.identity).await.unwrap(), Some(won.id));
        let accounts = db.store.list_accounts().await.unwrap();
        assert_eq!(accounts.len(), 1);
        accounts[0].tokens.open(&sealer(), won.id).unwrap();
    }

    async fn one_person_in_two_workspaces_is_two_accounts(db: Database) {
        let one = login(AccountId::generate(), "ann", "one");
        let other = NewAccount { identity: identity("elsewhere", "ann"), ..login(AccountId::generate(), "ann", "two") };
        for login in [&one, &other] {
            assert!(db.store.upsert_account(login, at(1)).await.unwrap().was_new);
        }
        assert_eq!(db.store.list_accounts().await.unwrap().len(), 2);
    }

    async fn of_writers_that_read_the_same_token_version_exactly_one_replaces_the_tokens(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let another = db.another().await;
        let sealed = |word: &str| SealedTokens::seal(&sealer(), id, &tokens(word)).unwrap();
        let (ours, theirs) = (sealed("ours"), sealed("theirs"));
        for version in 1..=10 {
            let (won, lost) = tokio::join!(
                db.store.replace_tokens(id, version, &ours, Some(at(20)), at(10)),
                another.replace_tokens(id, version, &theirs, None, at(11)),
            );
            let (ours_won, theirs_won) = (won.unwrap(), lost.unwrap());
            assert!(ours_won != theirs_won, "version {version}: ours {ours_won}, theirs {theirs_won}");
            let stored = found(&db.store, id).await;
            assert_eq!(stored.account.token_version, version + 1);
            assert_eq!(stored.tokens, if ours_won { ours.clone() } else { theirs.clone() });
            assert_eq!(stored.account.access_token_expires_at, ours_won.then(|| at(20)));
            assert_eq!(stored.account.tokens_refreshed_at, at(if ours_won { 10 } else { 11 }));
        }
        assert!(!db.store.replace_tokens(id, 1, &ours, None, at(12)).await.unwrap());
        assert!(!db.store.replace_tokens(AccountId::generate(), 1, &ours, None, at(12)).await.unwrap());
    }

    async fn what_upstream_says_never_overrules_a_person_or_the_end_of_a_login(db: Database) {
        for state in ALL_STATES {
            let id = add_account(&db.store, state.as_str()).await;
            let before = status(state);
            db.store.set_account_status(id, &before, at(2)).await.unwrap();
            for suggested in [status(AccountState::RateLimited), AccountStatus::ACTIVE] {
                let is_applied = db.store.apply_upstream_status(id, &suggested, at(3)).await.unwrap();
                let may_apply = state == AccountState::Active || state.ends_by_itself();
                assert_eq!(is_applied, may_apply, "{suggested:?} over {state:?}");
                let expected = if may_apply { suggested } else { before.clone() };
                assert_eq!(found(&db.store, id).await.account.status, expected);
            }
        }
        assert!(!db.store.apply_upstream_status(AccountId::generate(), &AccountStatus::ACTIVE, at(3)).await.unwrap());
    }

    async fn a_failure_that_arrives_late_does_not_end_a_login_that_was_made_meanwhile(db: Database) {
        let ended = AccountStatus { state: AccountState::ReauthRequired, reason: None, until: None };
        let id = add_account(&db.store, "ann").await;
        db.store.upsert_account(&login(id, "ann", "second"), at(2)).await.unwrap();
        assert!(!db.store.end_login(id, 1, &ended, at(3)).await.unwrap());
        assert_eq!(found(&db.store, id).await.account.status, AccountStatus::ACTIVE);
        assert!(db.store.end_login(id, 2, &ended, at(4)).await.unwrap());
        assert_eq!(found(&db.store, id).await.account.status, ended);

        for stronger in [AccountState::Paused, AccountState::Deactivated] {
            db.store.set_account_status(id, &status(stronger), at(5)).await.unwrap();
            assert!(!db.store.end_login(id, 2, &ended, at(6)).await.unwrap());
            assert_eq!(found(&db.store, id).await.account.status, status(stronger));
        }
    }

    async fn a_pause_outlasts_what_upstream_says_at_the_same_moment(db: Database) {
        let another = db.another().await;
        let id = add_account(&db.store, "ann").await;
        let (paused, limited) = (status(AccountState::Paused), status(AccountState::RateLimited));
        for round in 0..10 {
            db.store.set_account_status(id, &AccountStatus::ACTIVE, at(round)).await.unwrap();
            let (by_upstream, by_operator) = tokio::join!(
                db.store.apply_upstream_status(id, &limited, at(round)),
                another.set_account_status(id, &paused, at(round)),
            );
            by_upstream.unwrap();
            assert!(by_operator.unwrap());
            assert_eq!(found(&db.store, id).await.account.status, paused);
        }
    }

    async fn an_operator_sets_any_status_over_any_other(db: Database) {
        let id = add_account(&db.store, "ann").await;
        for before in ALL_STATES {
            for after in ALL_STATES {
                assert!(db.store.set_account_status(id, &status(before), at(2)).await.unwrap());
                assert!(db.store.set_account_status(id, &status(after), at(3)).await.unwrap());
                assert_eq!(found(&db.store, id).await.account.status, status(after));
            }
        }
        assert!(!db.store.set_account_status(AccountId::generate(), &AccountStatus::ACTIVE, at(3)).await.unwrap());
    }

    async fn a_patch_changes_what_it_names_and_nothing_else(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let patch = |alias: Option<Option<&str>>, policy, cap| AccountPatch {
            alias: alias.map(|alias| alias.map(str::to_owned)),
            routing_policy: policy,
            concurrency_cap: cap,
            ..AccountPatch::default()
        };
        let steps = [
            (patch(Some(Some("mine")), None, None), (Some("mine"), RoutingPolicy::Normal, None)),
            (patch(None, Some(RoutingPolicy::BurnFirst), None), (Some("mine"), RoutingPolicy::BurnFirst, None)),
            (patch(None, None, Some(Some(5))), (Some("mine"), RoutingPolicy::BurnFirst, Some(5))),
            (patch(None, None, None), (Some("mine"), RoutingPolicy::BurnFirst, Some(5))),
            (patch(Some(None), None, Some(None)), (None, RoutingPolicy::BurnFirst, None)),
        ];
        for (patch, expected) in steps {
            assert!(db.store.update_account(id, &patch, at(2)).await.unwrap());
            let account = found(&db.store, id).await.account;
            assert_eq!((account.alias.as_deref(), account.routing_policy, account.concurrency_cap), expected);
        }
        assert!(!db.store.update_account(AccountId::generate(), &AccountPatch::default(), at(2)).await.unwrap());
    }

    async fn a_deleted_account_takes_its_usage_along_and_leaves_the_log(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let kept = add_account(&db.store, "bob").await;
        let window = codex_lb_shared::domain::upstream_window::UpstreamWindow {
            used_percent: 1.5,
            window_minutes: 300,
            resets_at: None,
        };
        let usage = AccountUsage { primary: Some(window), secondary: None, observed_at: at(1) };
        db.store.save_account_usage(&[(id, usage), (kept, usage)]).await.unwrap();
        let mut record = exchange(1);
        record.account_id = Some(id);
        db.store.record_exchanges(&[record]).await.unwrap();

        assert!(db.store.delete_account(id).await.unwrap());
        assert!(!db.store.delete_account(id).await.unwrap());
        assert_eq!(db.store.find_account(id).await.unwrap(), None);
        assert_eq!(db.store.list_account_usage().await.unwrap(), [(kept, usage)]);
        let logged = db.store.recent_exchanges(&Default::default()).await.unwrap();
        assert_eq!(logged[0].account_id, Some(id));
        assert_eq!(db.store.usage_by_account(at(0), at(10)).await.unwrap()[0].of, Some(id));
    }

    async fn tokens_that_were_moved_to_another_row_do_not_open(db: Database) {
        let (ann, bob) = (add_account(&db.store, "ann").await, add_account(&db.store, "bob").await);
        db.execute(
            "update accounts set access_token_sealed = \
             (select other.access_token_sealed from accounts other where other.chatgpt_user_id = 'ann') \
             where chatgpt_user_id = 'bob'",
        )
        .await;
        found(&db.store, ann).await.tokens.open(&sealer(), ann).unwrap();
        let error = found(&db.store, bob).await.tokens.open(&sealer(), bob).unwrap_err();
        assert!(matches!(error, SealError::Broken(_)), "{error:?}");
    }

    async fn tokens_that_were_sealed_with_another_key_say_so(db: Database) {
        let id = add_account(&db.store, "ann").await;
        let wrong = Sealer::new(&EncryptionKey::from_bytes([9; 32]));
        let error = found(&db.store, id).await.tokens.open(&wrong, id).unwrap_err();
        assert!(error.to_string().contains("but the configured key is"), "{error}");
    }

    async fn a_row_that_cannot_be_read_names_its_column_and_not_its_content(db: Database) {
        let id = add_account(&db.store, "ann").await;
        db.execute("update accounts set state = 'hibernating'").await;
        for error in [db.store.list_accounts().await.unwrap_err(), db.store.find_account(id).await.unwrap_err()] {
            assert!(matches!(error, StoreError::Corrupt { table: "accounts", column: "state", .. }), "{error:?}");
            assert!(!format!("{error:?} {error}").contains("hibernating"));
        }
        db.execute("update accounts set state = 'active', id = 'not an id'").await;
        let error = db.store.list_accounts().await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { table: "accounts", column: "id", .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("not an id"));
    }
}
