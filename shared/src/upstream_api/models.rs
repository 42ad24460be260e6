//! The list of models that an account is offered.

use secrecy::SecretString;
use serde_json::Value;

use super::{NoWayOut, UpstreamApi};
use crate::egress::AccountEgress;

/// Most models we believe a list to hold.
const MODELS_MAX: usize = 1_000;

/// Why the models could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The account has no way out; nothing was sent.
    #[error("leave for upstream to ask for its models")]
    NoWayOut(#[from] NoWayOut),
    /// No answer, or not in time.
    #[error("ask upstream for its models")]
    Unreachable(#[source] reqwest::Error),
    /// An answer that is no list.
    #[error("upstream answered the question for its models with status {0}")]
    Refused(u16),
    /// A list we cannot read.
    #[error("upstream's list of models is not `{{\"models\":[…]}}`")]
    Unreadable,
}

impl UpstreamApi {
    /// Fetches the models that this account is offered, as upstream wrote them, by the account's own way out.
    ///
    /// # Errors
    /// When upstream does not answer, refuses, or answers something else.
    pub async fn fetch_models(
        &self,
        egress: &AccountEgress,
        access_token: &SecretString,
        chatgpt_account_id: &str,
    ) -> Result<Vec<Value>, ModelsError> {
        let request = self
            .account_get(egress, "/codex/models", access_token, chatgpt_account_id)?
            .query(&[("client_version", &self.endpoints.client_version)]);
        let response = request.send().await.map_err(|error| ModelsError::Unreachable(error.without_url()))?;
        if !response.status().is_success() {
            return Err(ModelsError::Refused(response.status().as_u16()));
        }
        let mut list: Value = response.json().await.map_err(|_| ModelsError::Unreadable)?;
        match list.get_mut("models").map(Value::take) {
            Some(Value::Array(models)) if models.len() <= MODELS_MAX => Ok(models),
            _ => Err(ModelsError::Unreadable),
        }
    }
}
