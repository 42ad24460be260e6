//! The way out of an account: straight to upstream, or through its egress proxy and never past it.
//!
//! Everything here fails closed. An egress proxy that cannot be opened is [`AccountEgress::Closed`], and no code makes a
//! direct connection of that. No text holds a user or a password.

mod dial;
mod only_resolver;
mod pace;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use crate::domain::egress_proxy::{EgressAccess, InvalidEgress};
use crate::ids::{AccountId, EgressProxyId};
use crate::secret::Sealer;
use crate::store::StoredEgressProxy;

pub use dial::{EgressDialer, EgressError, EgressSetupError, EgressStream};
pub(crate) use only_resolver::OnlyResolver;

/// How the connections of an account leave.
#[derive(Clone, Debug)]
pub enum AccountEgress {
    /// Straight to upstream.
    Direct,
    /// Through this egress proxy, and no other way.
    Through(Arc<Egress>),
    /// Not at all.
    Closed(EgressClosed),
}

/// Why an account has no way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressClosed {
    /// It is bound to one that was not loaded.
    #[error("the account's egress proxy is not known here yet")]
    Unknown,
    /// Another encryption key is needed, or the text was altered.
    #[error("the password of the account's egress proxy does not open; set it anew")]
    PasswordSealed,
    /// What is stored does not fit together.
    #[error("the account's egress proxy cannot be used")]
    Invalid(#[source] InvalidEgress),
}

/// An egress proxy that is ready to be gone through.
pub struct Egress {
    access: EgressAccess,
    /// The control calls' client; see [`crate::upstream_api`].
    pub(crate) http: OnceLock<reqwest::Client>,
}

impl Egress {
    /// An egress proxy, ready to be gone through.
    pub fn new(access: EgressAccess) -> Arc<Self> {
        Arc::new(Self { access, http: OnceLock::new() })
    }

    /// Where it is and how it is entered.
    pub const fn access(&self) -> &EgressAccess {
        &self.access
    }

    /// Its url without user and password, for logs and errors.
    pub fn place(&self) -> String {
        let endpoint = self.access.endpoint();
        format!("{}://{}", endpoint.kind.scheme(), endpoint.authority())
    }

    /// Never zero; differs between accounts, and changes with anything about the egress proxy, so that a connection which
    /// was opened for one is never used for another.
    pub fn connection_group(&self, account: AccountId) -> u64 {
        let endpoint = self.access.endpoint();
        let (user, password) = self.access.login().unwrap_or_default();
        let mut hash = Sha256::new();
        let authority = endpoint.authority();
        for part in [endpoint.kind.as_str(), &authority, user, password, &account.to_string()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        digest.iter().take(8).fold(0, |group, byte| (group << 8) | u64::from(*byte)) | 1
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Egress").field(&self.access).finish()
    }
}

/// All egress proxies at one moment.
#[derive(Debug)]
pub struct EgressTable {
    default: AccountEgress,
    by_id: HashMap<EgressProxyId, AccountEgress>,
}

/// Knows none and lets nobody out: what stands there until the first load.
impl Default for EgressTable {
    fn default() -> Self {
        Self { default: AccountEgress::Closed(EgressClosed::Unknown), by_id: HashMap::new() }
    }
}

impl EgressTable {
    /// The egress of an account that is bound to `id`, or to none.
    pub fn of(&self, id: Option<EgressProxyId>) -> AccountEgress {
        match id {
            None => self.default.clone(),
            Some(id) => self.by_id.get(&id).cloned().unwrap_or(AccountEgress::Closed(EgressClosed::Unknown)),
        }
    }

    /// Opens what is stored. What has not changed since `before` stays the same object, with its connections.
    pub(crate) fn open(
        stored: Vec<StoredEgressProxy>,
        default: &AccountEgress,
        sealer: &Sealer,
        before: &Self,
    ) -> Self {
        let opened = stored.into_iter().map(|stored| {
            let id = stored.egress.id;
            let egress = match open_access(stored, sealer) {
                Ok(access) => match before.by_id.get(&id) {
                    Some(AccountEgress::Through(known)) if *known.access() == access => {
                        AccountEgress::Through(Arc::clone(known))
                    }
                    Some(AccountEgress::Through(_) | AccountEgress::Closed(_) | AccountEgress::Direct) | None => {
                        AccountEgress::Through(Egress::new(access))
                    }
                },
                Err(closed) => AccountEgress::Closed(closed),
            };
            (id, egress)
        });
        Self { default: default.clone(), by_id: opened.collect() }
    }

    /// The egress proxies that have no way through and did not say so `before`: what is worth a line in the log.
    pub(crate) fn closed_since(&self, before: &Self) -> impl Iterator<Item = (EgressProxyId, EgressClosed)> {
        let news = |(id, egress): (&EgressProxyId, &AccountEgress)| match (egress, before.by_id.get(id)) {
            (AccountEgress::Closed(closed), Some(AccountEgress::Closed(known))) if closed == known => None,
            (AccountEgress::Closed(closed), _) => Some((*id, *closed)),
            (AccountEgress::Direct | AccountEgress::Through(_), _) => None,
        };
        self.by_id.iter().filter_map(news)
    }
}

fn open_access(stored: StoredEgressProxy, sealer: &Sealer) -> Result<EgressAccess, EgressClosed> {
    let id = stored.egress.id;
    let password: Option<SecretString> = match stored.password {
        Some(sealed) => Some(sealed.open(sealer, id).map_err(|_| EgressClosed::PasswordSealed)?),
        None => None,
    };
    EgressAccess::new(stored.egress.endpoint, password).map_err(EgressClosed::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::egress_proxy::{EgressKind, EgressProxy};
    use crate::secret::{EncryptionKey, SealedEgressPassword};

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&EncryptionKey::from_bytes([byte; 32]))
    }

    fn stored(id: EgressProxyId, port: u16, sealed_by: Option<&Sealer>) -> StoredEgressProxy {
        let password = sealed_by.map(|sealer| SealedEgressPassword::seal(sealer, id, &"s3cret".into()).unwrap());
        let user = password.as_ref().map(|_| "ann".to_owned());
        StoredEgressProxy {
            egress: EgressProxy {
                id,
                name: "one".to_owned(),
                endpoint: crate::domain::egress_proxy::EgressEndpoint {
                    kind: EgressKind::Http,
                    host: "proxy.example".to_owned(),
                    port,
                    user,
                },
                has_password: password.is_some(),
                version: 1,
                created_at: Timestamp::from_unix_ms(0),
            },
            password,
        }
    }

    fn open(stored: Vec<StoredEgressProxy>, before: &EgressTable) -> EgressTable {
        EgressTable::open(stored, &AccountEgress::Direct, &sealer(1), before)
    }

    fn through(egress: &AccountEgress) -> &Arc<Egress> {
        match egress {
            AccountEgress::Through(egress) => egress,
            AccountEgress::Direct | AccountEgress::Closed(_) => panic!("{egress:?}"),
        }
    }

    #[test]
    fn what_does_not_open_is_closed_and_never_direct() {
        let (mine, foreign, wrong) =
            (EgressProxyId::from_u128(1), EgressProxyId::from_u128(2), EgressProxyId::from_u128(3));
        let rows =
            vec![stored(mine, 1, Some(&sealer(1))), stored(foreign, 1, Some(&sealer(2))), stored(wrong, 0, None)];
        let table = open(rows, &EgressTable::default());
        assert_eq!(through(&table.of(Some(mine))).access().login(), Some(("ann", "s3cret")));
        let is_closed = |id, why: fn(EgressClosed) -> bool| match table.of(Some(id)) {
            AccountEgress::Closed(closed) => why(closed),
            AccountEgress::Direct | AccountEgress::Through(_) => false,
        };
        assert!(is_closed(foreign, |closed| closed == EgressClosed::PasswordSealed));
        assert!(is_closed(wrong, |closed| closed == EgressClosed::Invalid(InvalidEgress::Port)));
        assert!(is_closed(EgressProxyId::from_u128(4), |closed| closed == EgressClosed::Unknown));
        assert!(matches!(table.of(None), AccountEgress::Direct));
        assert!(matches!(EgressTable::default().of(None), AccountEgress::Closed(EgressClosed::Unknown)));
        assert!(!format!("{table:?}").contains("s3cret"));

        // News once.
        assert_eq!(table.closed_since(&EgressTable::default()).count(), 2);
        assert_eq!(table.closed_since(&table).count(), 0);
    }

    #[test]
    fn what_has_not_changed_stays_the_same_object() {
        let id = EgressProxyId::from_u128(1);
        let first = open(vec![stored(id, 1, Some(&sealer(1)))], &EgressTable::default());
        let same = open(vec![stored(id, 1, Some(&sealer(1)))], &first);
        assert!(Arc::ptr_eq(through(&first.of(Some(id))), through(&same.of(Some(id)))));
        let moved = open(vec![stored(id, 2, Some(&sealer(1)))], &same);
        assert!(!Arc::ptr_eq(through(&same.of(Some(id))), through(&moved.of(Some(id)))));
    }

    #[test]
    fn connections_are_kept_apart_by_account_and_by_everything_about_the_egress() {
        let urls = ["http://h:1", "https://h:1", "http://h:2", "http://u@h:1", "http://u:a@h:1", "http://u:b@h:1"];
        let mut groups = std::collections::HashSet::new();
        for url in urls {
            for account in [1, 2] {
                let group = Egress::new(url.parse().unwrap()).connection_group(AccountId::from_u128(account));
                assert_ne!(group, 0);
                assert!(groups.insert(group), "{url} {account}");
            }
        }
    }
}
