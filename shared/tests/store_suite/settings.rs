//! `settings`: defaults until saved, no lost updates, and a wrong encryption key is noticed.

use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::domain::models::ModelCatalog;
use codex_lb_shared::domain::settings::{AccessSettings, KeylessAccess, RoutingSettings, Settings};
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::store::{FingerprintCheck, SettingsGroup, StoreError, Versioned};
use serde_json::json;

use crate::samples::at;

fn access(keyless_access: KeylessAccess) -> AccessSettings {
    AccessSettings { api_key_auth: true, keyless_access, hide_pool_quota: false }
}

both_databases! {
    async fn settings_are_default_until_they_are_saved(db: Database) {
        assert_eq!(db.store.load_settings().await.unwrap(), Settings::default());
        let access = access(KeylessAccess::None);
        let version = db.store.save_settings_group(SettingsGroup::Access, &access, 0, at(1)).await.unwrap();
        assert_eq!(version, 1);
        assert_eq!(db.store.load_settings().await.unwrap(), Settings { access: access.clone(), ..Settings::default() });
        let group = db.store.load_settings_group(SettingsGroup::Access).await.unwrap();
        assert_eq!(group, Versioned { value: access, version: 1 });
        let group = db.store.load_settings_group(SettingsGroup::Routing).await.unwrap();
        assert_eq!(group, Versioned { value: RoutingSettings::default(), version: 0 });

        let routing = RoutingSettings { strategy: StrategyKind::RoundRobin, ..RoutingSettings::default() };
        db.store.save_settings_group(SettingsGroup::Routing, &routing, 0, at(2)).await.unwrap();
        assert_eq!(db.store.load_settings().await.unwrap().routing, routing);
    }

    async fn of_two_who_change_the_same_version_exactly_one_saves(db: Database) {
        let another = db.another().await;
        let (open, closed) = (access(KeylessAccess::Any), access(KeylessAccess::None));
        for version in 0..10 {
            let outcomes = tokio::join!(
                db.store.save_settings_group(SettingsGroup::Access, &open, version, at(1)),
                another.save_settings_group(SettingsGroup::Access, &closed, version, at(1)),
            );
            let (saved, refused, winner) = match outcomes {
                (Ok(saved), Err(refused)) => (saved, refused, &open),
                (Err(refused), Ok(saved)) => (saved, refused, &closed),
                other => panic!("expected one winner: {other:?}"),
            };
            assert_eq!(saved, version + 1);
            assert!(matches!(refused, StoreError::Conflict { .. }), "{refused:?}");
            assert_eq!(&db.store.load_settings().await.unwrap().access, winner);
        }
    }

    async fn a_version_that_never_was_saves_nothing(db: Database) {
        let error = db.store.save_settings_group(SettingsGroup::Access, &access(KeylessAccess::Any), 3, at(1)).await;
        assert!(matches!(error, Err(StoreError::Conflict { .. })), "{error:?}");
        assert_eq!(db.store.load_settings().await.unwrap(), Settings::default());
    }

    async fn a_group_that_does_not_read_is_an_error_that_names_it_and_no_default(db: Database) {
        let groups = [
            ("insert into settings values ('access', '{\"keylessAccess\": \"secret words\"}', 1, 0)", "access"),
            ("insert into settings values ('routing', '{\"strategy\": 1}', 1, 0)", "routing"),
        ];
        for (insert, group) in groups {
            db.execute(insert).await;
            let error = db.store.load_settings().await.unwrap_err();
            let StoreError::Corrupt { table: "settings", column, .. } = error else { panic!("{error:?}") };
            assert_eq!(column, group);
            assert!(!format!("{error:?}").contains("secret words"));
            db.execute("delete from settings").await;
        }
    }

    async fn a_field_that_a_newer_version_wrote_is_passed_over(db: Database) {
        db.execute("insert into settings values ('routing', '{\"fromTheFuture\": 1}', 1, 0)").await;
        assert_eq!(db.store.load_settings().await.unwrap(), Settings::default());
    }

    async fn the_model_catalog_is_saved_only_when_it_differs(db: Database) {
        assert_eq!(db.store.load_model_catalog().await.unwrap(), ModelCatalog::default());
        let mut catalog = ModelCatalog::default();
        catalog.merge_plan(Plan::Plus, vec![json!({"slug": "gpt-5.5", "zeta": 1, "alpha": "nul \u{0} stays"})]);
        for (has_changed, now) in [(true, 1), (false, 2)] {
            assert_eq!(db.store.save_model_catalog(&catalog, at(now)).await.unwrap(), has_changed);
            assert_eq!(db.store.load_model_catalog().await.unwrap(), catalog);
        }
        catalog.merge_plan(Plan::Pro, vec![json!({"slug": "gpt-5.5"})]);
        assert!(db.store.save_model_catalog(&catalog, at(3)).await.unwrap());
        assert_eq!(db.store.load_model_catalog().await.unwrap(), catalog);
    }

    async fn another_encryption_key_is_noticed_for_ever(db: Database) {
        let check = |fingerprint| db.store.check_encryption_fingerprint(fingerprint, at(1));
        assert_eq!(check("ours").await.unwrap(), FingerprintCheck::Recorded);
        assert_eq!(check("ours").await.unwrap(), FingerprintCheck::Matches);
        assert_eq!(check("theirs").await.unwrap(), FingerprintCheck::Differs);
        assert_eq!(check("ours").await.unwrap(), FingerprintCheck::Matches);
    }

    async fn of_processes_that_start_at_once_with_different_keys_one_is_right(db: Database) {
        let fingerprints = ["a", "b", "c", "d", "a", "b"];
        let checks = fingerprints.map(|fingerprint| {
            let url = db.url.clone();
            tokio::spawn(async move {
                let store = codex_lb_shared::store::Store::connect(&url).await.unwrap();
                (fingerprint, store.check_encryption_fingerprint(fingerprint, at(1)).await.unwrap())
            })
        });
        let mut outcomes = Vec::new();
        for check in checks {
            outcomes.push(check.await.unwrap());
        }
        let recorded: Vec<_> =
            outcomes.iter().filter(|(_, check)| *check == FingerprintCheck::Recorded).map(|(key, _)| *key).collect();
        assert_eq!(recorded.len(), 1, "{outcomes:?}");
        for (fingerprint, check) in outcomes {
            assert_eq!(check == FingerprintCheck::Differs, fingerprint != recorded[0]);
        }
    }
}
