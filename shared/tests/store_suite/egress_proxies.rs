//! `egress_proxies`: kept with sealed passwords, changed by one writer at a time, and not removed under an account.

use codex_lb_shared::domain::egress_proxy::{EgressEndpoint, EgressKind};
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::secret::{EncryptionKey, SealedEgressPassword, Sealer};
use codex_lb_shared::store::{
    AccountPatch, EgressProxyAdded, EgressProxyDeleted, EgressProxyForm, ResealedPassword, SealedPasswordRow, Store,
    StoreError,
};
use secrecy::ExposeSecret as _;

use crate::samples::{add_account, at, sealer};

fn form(name: &str, id: EgressProxyId, password: Option<&str>) -> EgressProxyForm {
    EgressProxyForm {
        name: name.to_owned(),
        endpoint: EgressEndpoint {
            kind: EgressKind::Socks5,
            host: "proxy.example".to_owned(),
            port: 1080,
            user: password.map(|_| "ann".to_owned()),
        },
        password: password.map(|password| SealedEgressPassword::seal(&sealer(), id, &password.into()).unwrap()),
    }
}

async fn add(store: &Store, name: &str, password: Option<&str>) -> EgressProxyId {
    let id = EgressProxyId::generate();
    let added = store.insert_egress_proxy(id, &form(name, id, password), at(1)).await.unwrap();
    assert_eq!(added, EgressProxyAdded::Added);
    id
}

async fn bind(
    store: &Store,
    account: codex_lb_shared::ids::AccountId,
    id: Option<EgressProxyId>,
) -> Result<bool, StoreError> {
    let patch = AccountPatch { egress_proxy_id: Some(id), ..AccountPatch::default() };
    store.update_account(account, &patch, at(3)).await
}

both_databases! {
    async fn what_was_added_is_read_back_and_only_for_its_own_id_does_its_password_open(db: Database) {
        let (plain, guarded) = (add(&db.store, "plain", None).await, add(&db.store, "guarded", Some("s3cret")).await);
        let stored = db.store.list_egress_proxies().await.unwrap();
        assert_eq!(stored.iter().map(|stored| stored.egress.id).collect::<Vec<_>>(), [plain, guarded]);
        assert_eq!(db.store.find_egress_proxy(guarded).await.unwrap().as_ref(), Some(&stored[1]));
        let EgressProxyForm { name, endpoint, .. } = form("guarded", guarded, Some("s3cret"));
        assert_eq!((&stored[1].egress.name, &stored[1].egress.endpoint), (&name, &endpoint));
        assert_eq!((stored[0].egress.has_password, stored[1].egress.has_password), (false, true));
        let password = stored[1].password.as_ref().unwrap();
        assert_eq!(password.open(&sealer(), guarded).unwrap().expose_secret(), "s3cret");
        assert!(password.open(&sealer(), plain).is_err());
        assert_eq!(db.store.find_egress_proxy(EgressProxyId::generate()).await.unwrap(), None);
    }

    async fn every_change_is_one_of_the_accounts(db: Database) {
        let mut generation = db.store.generations().await.unwrap().accounts;
        let mut has_risen = async || {
            let before = std::mem::replace(&mut generation, db.store.generations().await.unwrap().accounts);
            generation > before
        };
        let id = add(&db.store, "one", None).await;
        assert!(has_risen().await);
        db.store.update_egress_proxy(id, 1, &form("two", id, None), at(2)).await.unwrap();
        assert!(has_risen().await);
        db.store.delete_egress_proxy(id).await.unwrap();
        assert!(has_risen().await);
    }

    async fn of_two_changes_that_expect_the_same_one_is_made(db: Database) {
        let id = add(&db.store, "one", None).await;
        let (first, second) = (form("first", id, None), form("second", id, Some("s3cret")));
        db.store.update_egress_proxy(id, 1, &first, at(2)).await.unwrap();
        let refused = db.store.update_egress_proxy(id, 1, &second, at(2)).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        let stored = db.store.find_egress_proxy(id).await.unwrap().unwrap();
        assert_eq!((stored.egress.name.as_str(), stored.egress.version), ("first", 2));
    }

    async fn a_name_is_taken_once(db: Database) {
        let id = add(&db.store, "one", None).await;
        let other = EgressProxyId::generate();
        let refused = db.store.insert_egress_proxy(other, &form("one", other, None), at(2)).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })), "{refused:?}");
        add(&db.store, "two", None).await;
        let refused = db.store.update_egress_proxy(id, 1, &form("two", id, None), at(2)).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })), "{refused:?}");
    }

    async fn one_that_accounts_are_bound_to_stays(db: Database) {
        let account = add_account(&db.store, "ann").await;
        let id = add(&db.store, "one", None).await;
        assert!(bind(&db.store, account, Some(id)).await.unwrap());
        assert_eq!(db.store.find_account(account).await.unwrap().unwrap().account.egress_proxy_id, Some(id));
        assert_eq!(db.store.delete_egress_proxy(id).await.unwrap(), EgressProxyDeleted::InUse(1));
        assert!(db.store.find_egress_proxy(id).await.unwrap().is_some());

        // A patch that does not name it leaves it.
        db.store.update_account(account, &AccountPatch::default(), at(4)).await.unwrap();
        assert_eq!(db.store.delete_egress_proxy(id).await.unwrap(), EgressProxyDeleted::InUse(1));
        assert!(bind(&db.store, account, None).await.unwrap());
        assert_eq!(db.store.delete_egress_proxy(id).await.unwrap(), EgressProxyDeleted::Deleted);
        assert_eq!(db.store.delete_egress_proxy(id).await.unwrap(), EgressProxyDeleted::NotFound);
    }

    async fn an_account_cannot_be_bound_to_what_is_not_there(db: Database) {
        let account = add_account(&db.store, "ann").await;
        let refused = bind(&db.store, account, Some(EgressProxyId::generate())).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        assert_eq!(db.store.find_account(account).await.unwrap().unwrap().account.egress_proxy_id, None);
    }

    async fn a_password_is_sealed_anew_unless_it_was_changed_meanwhile(db: Database) {
        let (kept, changed) = (add(&db.store, "kept", Some("a")).await, add(&db.store, "changed", Some("b")).await);
        add(&db.store, "plain", None).await;
        let new = Sealer::with_older_keys(&EncryptionKey::from_bytes([2; 32]), &[EncryptionKey::from_bytes([1; 32])]);
        let mut rows = Vec::new();
        while let [row] = db.store.sealed_passwords(rows.last().map(|row: &ResealedPassword| row.before.id), 1).await.unwrap().as_slice() {
            let SealedPasswordRow { id, password } = row.clone();
            let after = SealedEgressPassword::seal(&new, id, &password.open(&new, id).unwrap()).unwrap();
            rows.push(ResealedPassword { before: row.clone(), after });
        }
        assert_eq!(rows.len(), 2);
        db.store.update_egress_proxy(changed, 1, &form("changed", changed, Some("c")), at(2)).await.unwrap();
        let generation = db.store.generations().await.unwrap();
        assert_eq!(db.store.reseal_passwords(&rows).await.unwrap(), 1);
        assert_eq!(db.store.generations().await.unwrap(), generation);
        let password = async |id| db.store.find_egress_proxy(id).await.unwrap().unwrap().password.unwrap();
        assert!(password(kept).await.is_sealed_with(&new.key_id()));
        assert_eq!(password(kept).await.open(&new, kept).unwrap().expose_secret(), "a");
        assert_eq!(password(changed).await.open(&sealer(), changed).unwrap().expose_secret(), "c");
    }

    async fn once_the_key_was_switched_no_password_is_taken_under_the_one_before(db: Database) {
        let id = add(&db.store, "one", Some("first")).await;
        let (old, new) = (sealer(), Sealer::new(&EncryptionKey::from_bytes([2; 32])));
        db.store.check_encryption_fingerprint(&old.fingerprint(), at(1)).await.unwrap();
        db.store.switch_encryption_key(&old.fingerprint(), &new.fingerprint(), &new.key_id(), at(2)).await.unwrap();
        let refused = db.store.update_egress_proxy(id, 1, &form("one", id, Some("second")), at(3)).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        let other = EgressProxyId::generate();
        let refused = db.store.insert_egress_proxy(other, &form("two", other, Some("second")), at(3)).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        let password = Some(SealedEgressPassword::seal(&new, id, &"second".into()).unwrap());
        let sealed_anew = EgressProxyForm { password, ..form("one", id, Some("second")) };
        db.store.update_egress_proxy(id, 1, &sealed_anew, at(3)).await.unwrap();
    }
}
