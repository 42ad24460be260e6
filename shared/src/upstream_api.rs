//! Control calls to ChatGPT: everything but the exchanges themselves, which the data plane relays.
//!
//! Errors never hold a token or a body.

pub mod models;
pub mod oauth;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

/// Longest wait for one control call, connect included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

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
    http: reqwest::Client,
    endpoints: UpstreamEndpoints,
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
        let mut builder = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(endpoints.user_agent.clone());
        if let Some(path) = &endpoints.ca_file {
            let wrap = |source| UpstreamApiError::CaFile { path: path.clone(), source };
            let pem = std::fs::read(path).map_err(|error| wrap(error.into()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrap(error.into()))?;
            builder = certificates.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        Ok(Self { http: builder.build().map_err(UpstreamApiError::Client)?, endpoints })
    }

    /// A GET below the base URL on behalf of an account.
    fn account_get(
        &self,
        path: &str,
        access_token: &SecretString,
        chatgpt_account_id: &str,
    ) -> reqwest::RequestBuilder {
        self.http
            .get(format!("{}{path}", self.endpoints.base_url))
            .bearer_auth(access_token.expose_secret())
            .header("chatgpt-account-id", chatgpt_account_id)
            .header("originator", &self.endpoints.originator)
    }
}
