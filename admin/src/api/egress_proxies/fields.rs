//! What the fields of an egress proxy must be, and how its password is sealed.

use codex_lb_shared::domain::egress_proxy::{EgressAccess, EgressEndpoint, InvalidEgress};
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::secret::SealedEgressPassword;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::StoreError;
use secrecy::SecretString;

use crate::api_error::ApiError;

/// Makes sure that endpoint and password fit together. The refusal names the field, never what it holds.
pub(super) fn checked(endpoint: EgressEndpoint, password: Option<&SecretString>) -> Result<EgressEndpoint, ApiError> {
    let access = EgressAccess::new(endpoint, password.cloned()).map_err(refused)?;
    Ok(access.endpoint().clone())
}

fn refused(error: InvalidEgress) -> ApiError {
    match error {
        InvalidEgress::Host | InvalidEgress::Scheme | InvalidEgress::Rest => {
            ApiError::invalid_field("host", "The host must be a host name or an IP address, without scheme and port.")
        }
        InvalidEgress::Port => ApiError::invalid_field("port", "The port must be between 1 and 65535."),
        InvalidEgress::Login => ApiError::invalid_field(
            "user",
            "User and password must hold no control characters, and the user of an HTTP proxy no colon.",
        ),
        InvalidEgress::LoginTooLong => {
            ApiError::invalid_field("user", "User and password are too long for this kind of proxy.")
        }
        InvalidEgress::PasswordWithoutUser => ApiError::invalid_field("user", "A password needs a user."),
    }
}

/// Seals a password for the row of `id`.
pub(super) fn seal(
    state: &SharedState,
    id: EgressProxyId,
    password: Option<&SecretString>,
) -> Result<Option<SealedEgressPassword>, ApiError> {
    Ok(password.map(|password| SealedEgressPassword::seal(&state.sealer, id, password)).transpose()?)
}

/// Whether a write should be tried once more, from what is there now: somebody else changed the row or the encryption
/// key between our read and our write.
pub(super) async fn is_to_be_tried_again<T>(
    state: &SharedState,
    outcome: &Result<T, ApiError>,
) -> Result<bool, ApiError> {
    let came_between = matches!(outcome, Err(ApiError::Store(StoreError::Conflict { .. })));
    if came_between {
        state.account_tokens.follow_encryption_key().await?;
    }
    Ok(came_between)
}
