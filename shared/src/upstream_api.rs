//! Control calls to ChatGPT: everything but the exchanges themselves, which the data plane relays.
//!
//! A call that belongs to an account goes out as the account does, through its egress proxy if it has one, and does not
//! happen if it has no way out. Errors never hold a token or a body.

pub mod models;
pub mod oauth;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use crate::egress::{AccountEgress, Egress, EgressClosed, OnlyResolver};

/// Longest wait for one control call, connect included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the connection, an egress proxy's handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where upstream is and who we are to it.
#[derive(Clone, Debug)]
pub struct UpstreamEndpoints {
    /// Such as `https://chatgpt.com/backend-api`, without a slash at its end.
    pub base_url: String,
    /// Such as `https://auth.openai.com`, without a slash at its end.
    pub issuer: String,
    /// The OAuth client that the accounts logged in with.
    pub client_id: String,
    /// The Codex version whose model list we ask for.
    pub client_version: String,
    /// Sent as `originator`.
    pub originator: String,
    /// Sent as `user-agent`.
    pub user_agent: String,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Makes control calls.
#[derive(Clone)]
pub struct UpstreamApi {
    direct: reqwest::Client,
    endpoints: UpstreamEndpoints,
    certificates: Vec<reqwest::Certificate>,
}

/// Why a call did not even leave.
#[derive(Debug, thiserror::Error)]
pub enum NoWayOut {
    /// The account has no way out.
    #[error(transparent)]
    Closed(#[from] EgressClosed),
    /// The client for its egress proxy could not be built.
    #[error("set up the client for an egress proxy")]
    Client(#[source] reqwest::Error),
}

/// Why a control call could not even be prepared.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamApiError {
    /// The certificate file cannot be used.
    #[error("read the certificates in {path}")]
    CaFile {
        /// The configured file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The HTTP client could not be built.
    #[error("set up the client for upstream's control calls")]
    Client(#[source] reqwest::Error),
}

impl UpstreamApi {
    /// Prepares a client. Needs rustls' default provider to be installed.
    ///
    /// # Errors
    /// When the certificate file cannot be read.
    pub fn new(endpoints: UpstreamEndpoints) -> Result<Self, UpstreamApiError> {
        let mut certificates = Vec::new();
        if let Some(path) = &endpoints.ca_file {
            let wrap = |source| UpstreamApiError::CaFile { path: path.clone(), source };
            let pem = std::fs::read(path).map_err(|error| wrap(error.into()))?;
            certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrap(error.into()))?;
        }
        let direct = builder(&endpoints, &certificates).build().map_err(UpstreamApiError::Client)?;
        Ok(Self { direct, endpoints, certificates })
    }

    /// The client whose connections leave this way; made once for each egress proxy.
    fn http(&self, egress: &AccountEgress) -> Result<reqwest::Client, NoWayOut> {
        let egress = match egress {
            AccountEgress::Direct => return Ok(self.direct.clone()),
            AccountEgress::Closed(closed) => return Err((*closed).into()),
            AccountEgress::Through(egress) => egress,
        };
        if let Some(made) = egress.http.get() {
            return Ok(made.clone());
        }
        let builder = builder(&self.endpoints, &self.certificates);
        let made = through(builder, egress).and_then(reqwest::ClientBuilder::build).map_err(NoWayOut::Client)?;
        // Of two that were made at once one is kept.
        Ok(egress.http.get_or_init(|| made).clone())
    }

    /// A GET below the base URL on behalf of an account.
    fn account_get(
        &self,
        egress: &AccountEgress,
        path: &str,
        access_token: &SecretString,
        chatgpt_account_id: &str,
    ) -> Result<reqwest::RequestBuilder, NoWayOut> {
        let get = self.http(egress)?.get(format!("{}{path}", self.endpoints.base_url));
        Ok(get
            .bearer_auth(access_token.expose_secret())
            .header("chatgpt-account-id", chatgpt_account_id)
            .header("originator", &self.endpoints.originator))
    }
}

/// What all our clients have in common. The process environment names no proxy for them: an account's egress is what
/// an operator bound it to, on every replica.
fn builder(endpoints: &UpstreamEndpoints, certificates: &[reqwest::Certificate]) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .timeout(CALL_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(endpoints.user_agent.clone());
    certificates.iter().cloned().fold(builder, reqwest::ClientBuilder::add_root_certificate)
}

/// Sends everything through the egress proxy, which also resolves all names.
fn through(builder: reqwest::ClientBuilder, egress: &Egress) -> reqwest::Result<reqwest::ClientBuilder> {
    let access = egress.access();
    let forwarder = reqwest::Proxy::all(egress.place())?;
    let forwarder = match access.login() {
        Some((user, password)) => forwarder.basic_auth(user, password),
        None => forwarder,
    };
    // If the proxy were ever passed by, there is no name that could be resolved to get there.
    let resolver = OnlyResolver::new(access.endpoint().host.clone());
    Ok(builder.proxy(forwarder).dns_resolver(Arc::new(resolver)))
}
