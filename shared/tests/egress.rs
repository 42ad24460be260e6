//! Connections and control calls through egress proxies: every kind of proxy, and every way that one can fail.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use codex_lb_shared::egress::{AccountEgress, Egress, EgressClosed, EgressDialer, EgressError};
use codex_lb_shared::upstream_api::models::ModelsError;
use codex_lb_shared::upstream_api::oauth::RefreshError;
use codex_lb_shared::upstream_api::{UpstreamApi, UpstreamEndpoints};
use fake_chatgpt::{AccountSpec, FakeAccount, FakeChatGpt};
use fake_egress::{FakeEgress, Kind, Manner};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A name that only a test's proxy knows.
const NAME: &str = "upstream.invalid";
const KINDS: [Kind; 3] = [Kind::Http, Kind::Https, Kind::Socks5];
const LOGINS: [Option<(&str, &str)>; 2] = [None, Some(("ann", "s3cret"))];
const PATIENCE: Duration = Duration::from_secs(10);

/// Trusts what `fake` and `proxy` serve TLS with.
fn ca_file(fake: Option<&FakeChatGpt>, proxy: &FakeEgress) -> (TempDir, std::path::PathBuf) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let pems = [fake.and_then(FakeChatGpt::ca_pem), proxy.ca_pem()];
    std::fs::write(&path, pems.into_iter().flatten().collect::<String>()).unwrap();
    (directory, path)
}

fn dialer(proxy: &FakeEgress, timeout: Duration) -> EgressDialer {
    let (_directory, path) = ca_file(None, proxy);
    EgressDialer::new(proxy.ca_pem().map(|_| path.as_path()), timeout).unwrap()
}

fn egress(url: &str) -> Arc<Egress> {
    Egress::new(url.parse().unwrap())
}

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    address
}

#[tokio::test]
async fn every_kind_of_proxy_lets_through_and_resolves_the_name_itself() {
    let server = echo().await;
    for kind in KINDS {
        for login in LOGINS {
            let proxy = FakeEgress::start(kind, login).await.unwrap();
            proxy.lead(NAME, server);
            let connected = dialer(&proxy, PATIENCE).connect(&egress(&proxy.url()), NAME, 4711).await;
            let mut stream = connected.unwrap_or_else(|error| panic!("{kind:?}: {}", error.whole_story()));
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"hello", "{kind:?} {login:?}");
            assert_eq!(proxy.destinations(), [format!("{NAME}:4711")], "{kind:?} {login:?}");
        }
    }
}

#[tokio::test]
async fn a_wrong_login_is_told_as_such_and_never_repeated() {
    let server = echo().await;
    for kind in KINDS {
        let proxy = FakeEgress::start(kind, Some(("ann", "right"))).await.unwrap();
        proxy.lead(NAME, server);
        for wrong in [proxy.url().replace("right", "s3cret"), proxy.url().replace("ann:right@", "")] {
            let error = dialer(&proxy, PATIENCE).connect(&egress(&wrong), NAME, 1).await.unwrap_err();
            assert!(matches!(error, EgressError::NotLetThrough { .. }), "{kind:?} {error:?}");
            let story = format!("{} {error:?}", error.whole_story());
            assert!(!story.contains("s3cret") && !story.contains("ann"), "{story}");
            assert!(
                story.contains("authoriz") || story.contains("authentication") || story.contains("credentials"),
                "{story}"
            );
        }
        assert_eq!((proxy.refused(), proxy.destinations().len()), (2, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn a_destination_that_the_proxy_cannot_reach_is_a_failure() {
    for kind in KINDS {
        let proxy = FakeEgress::start(kind, None).await.unwrap();
        let error = dialer(&proxy, PATIENCE).connect(&egress(&proxy.url()), NAME, 1).await.unwrap_err();
        assert!(matches!(error, EgressError::NotLetThrough { .. }), "{kind:?} {error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_a_failure() {
    for kind in KINDS {
        let proxy = FakeEgress::start(kind, None).await.unwrap();
        let (url, dialer) = (proxy.url(), dialer(&proxy, PATIENCE));
        drop(proxy);
        let gone = async {
            // What was accepted just before the end is cut; from then on nobody accepts.
            loop {
                match dialer.connect(&egress(&url), "127.0.0.1", 1).await {
                    Err(EgressError::Unreachable { .. }) => return,
                    Ok(_) | Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_proxy_is_waited_for_no_longer_than_a_connection_may_take() {
    for kind in KINDS {
        let proxy = FakeEgress::start(kind, None).await.unwrap();
        proxy.behave(Manner::Silent);
        let timeout = Duration::from_millis(200);
        let error = dialer(&proxy, timeout).connect(&egress(&proxy.url()), NAME, 1).await.unwrap_err();
        assert!(matches!(error, EgressError::TimedOut { .. }), "{kind:?} {error:?}");
    }
}

#[tokio::test]
async fn a_proxy_whose_answer_does_not_end_is_not_read_for_ever() {
    for kind in KINDS {
        let proxy = FakeEgress::start(kind, None).await.unwrap();
        proxy.behave(Manner::Endless);
        let error = dialer(&proxy, PATIENCE).connect(&egress(&proxy.url()), NAME, 1).await.unwrap_err();
        assert!(matches!(error, EgressError::NotLetThrough { .. }), "{kind:?} {error:?}");
    }
}

#[tokio::test]
async fn an_https_proxy_must_prove_who_it_is() {
    let proxy = FakeEgress::start(Kind::Https, Some(("ann", "s3cret"))).await.unwrap();
    let dialer = EgressDialer::new(None, PATIENCE).unwrap();
    let error = dialer.connect(&egress(&proxy.url()), NAME, 1).await.unwrap_err();
    assert!(matches!(error, EgressError::ProxyTls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_trial_shakes_hands_with_the_destination_and_is_not_made_too_often() {
    let fake = FakeChatGpt::builder().tls(true).start().await.unwrap();
    for kind in KINDS {
        let proxy = FakeEgress::start(kind, None).await.unwrap();
        proxy.lead(NAME, fake.address());
        let (_directory, path) = ca_file(Some(&fake), &proxy);
        let dialer = EgressDialer::new(Some(&path), PATIENCE).unwrap();
        let egress = egress(&proxy.url());
        let (trusted, untrusted) = (dialer.try_out(&egress, NAME, 443, true).await, {
            let (_directory, path) = ca_file(None, &proxy);
            let dialer = EgressDialer::new(proxy.ca_pem().map(|_| path.as_path()), PATIENCE).unwrap();
            dialer.try_out(&egress, NAME, 443, true).await
        });
        assert!(matches!(trusted, Some(Ok(()))), "{kind:?} {trusted:?}");
        assert!(matches!(untrusted, Some(Err(EgressError::DestinationTls { .. }))), "{kind:?} {untrusted:?}");

        let mut refused = 0;
        for _ in 0..30 {
            refused += usize::from(dialer.try_out(&egress, NAME, 443, false).await.is_none());
        }
        assert_eq!(refused, 11, "{kind:?}");
    }
}

/// Control calls to a fake that is found by [`NAME`] only.
struct Calls {
    api: UpstreamApi,
    fake: FakeChatGpt,
    account: FakeAccount,
    _directory: TempDir,
}

impl Calls {
    async fn new(proxy: &FakeEgress, is_tls: bool) -> Self {
        let fake = FakeChatGpt::builder().tls(is_tls).start().await.unwrap();
        let account = fake.add_account(AccountSpec::default());
        proxy.lead(NAME, fake.address());
        let (directory, path) = ca_file(Some(&fake), proxy);
        let authority = fake.address().to_string();
        let api = UpstreamApi::new(UpstreamEndpoints {
            base_url: fake.base_url().replace(&authority, &format!("{NAME}:{}", fake.address().port())),
            issuer: fake.issuer_url().replace(&authority, &format!("{NAME}:{}", fake.address().port())),
            client_id: "app_EMoamEEZ73f0CkXaXp7hrann".to_owned(),
            client_version: "0.169.0".to_owned(),
            originator: "codex_lb".to_owned(),
            user_agent: "codex-lb/test".to_owned(),
            ca_file: is_tls.then_some(path),
        });
        Self { api: api.unwrap(), fake, account, _directory: directory }
    }

    async fn models(&self, egress: &AccountEgress) -> Result<usize, ModelsError> {
        let token = self.account.access_token().into();
        let models = self.api.fetch_models(egress, &token, self.account.chatgpt_account_id()).await?;
        Ok(models.len())
    }
}

#[tokio::test]
async fn control_calls_go_through_every_kind_of_proxy() {
    for kind in KINDS {
        for is_tls in [false, true] {
            let proxy = FakeEgress::start(kind, Some(("ann", "p@ss:w/rd%"))).await.unwrap();
            let calls = Calls::new(&proxy, is_tls || kind == Kind::Https).await;
            let way = AccountEgress::Through(egress(&proxy.url().replace('%', "%25")));
            assert!(calls.models(&way).await.unwrap() > 0, "{kind:?}");
            let refreshed = calls.api.refresh_tokens(&way, &calls.account.refresh_token().into()).await;
            assert!(refreshed.unwrap().access_token.is_some(), "{kind:?}");
            let wanted = format!("{NAME}:{}", calls.fake.address().port());
            assert!(proxy.destinations().iter().all(|destination| *destination == wanted), "{kind:?}");
            assert_eq!(calls.fake.requests().len(), 2, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn control_calls_keep_their_connection_to_the_proxy() {
    let proxy = FakeEgress::start(Kind::Socks5, None).await.unwrap();
    let calls = Calls::new(&proxy, true).await;
    let way = AccountEgress::Through(egress(&proxy.url()));
    for _ in 0..3 {
        calls.models(&way).await.unwrap();
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_control_call_that_cannot_go_through_does_not_go_at_all() {
    for kind in KINDS {
        let proxy = FakeEgress::start(kind, Some(("ann", "right"))).await.unwrap();
        // Reachable directly by its address, so a call that went around the proxy would succeed.
        let fake = FakeChatGpt::start().await.unwrap();
        let account = fake.add_account(AccountSpec::default());
        let (_directory, path) = ca_file(None, &proxy);
        let api = UpstreamApi::new(UpstreamEndpoints {
            base_url: fake.base_url(),
            issuer: fake.issuer_url(),
            client_id: "app_EMoamEEZ73f0CkXaXp7hrann".to_owned(),
            client_version: "0.169.0".to_owned(),
            originator: "codex_lb".to_owned(),
            user_agent: "codex-lb/test".to_owned(),
            ca_file: (kind == Kind::Https).then_some(path),
        })
        .unwrap();
        let wrong_password = egress(&proxy.url().replace("right", "s3cret"));
        let dead = egress("http://127.0.0.1:1");
        let ways = [
            AccountEgress::Through(wrong_password),
            AccountEgress::Through(dead),
            AccountEgress::Closed(EgressClosed::PasswordSealed),
        ];
        for way in ways {
            let token = account.access_token().into();
            let models = api.fetch_models(&way, &token, account.chatgpt_account_id()).await.unwrap_err();
            assert!(!format!("{models} {models:?}").contains("s3cret"), "{models:?}");
            let refreshed = api.refresh_tokens(&way, &account.refresh_token().into()).await.unwrap_err();
            assert!(!format!("{refreshed} {refreshed:?}").contains("s3cret"), "{refreshed:?}");
            let is_closed = matches!(way, AccountEgress::Closed(_));
            assert_eq!(matches!(models, ModelsError::NoWayOut(_)), is_closed);
            assert_eq!(matches!(refreshed, RefreshError::NoWayOut(_)), is_closed);
        }
        assert_eq!(fake.requests().len(), 0, "{kind:?}");
    }
}
