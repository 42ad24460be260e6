//! Logins in progress: codes that wait for their exchange, and device logins that wait for a person.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::challenge_of;
use crate::account::Account;
use crate::ids;

/// How many logins of each kind are kept; then all are forgotten.
const LOGINS_MAX: usize = 10_000;
const CODE_LIFETIME: Duration = Duration::from_secs(600);

/// What a code was given for.
#[derive(Clone, Debug)]
pub(crate) struct CodeGrant {
    pub(crate) account: Arc<Account>,
    pub(crate) redirect_uri: String,
    pub(crate) code_challenge: String,
}

#[derive(Debug)]
struct DeviceLogin {
    user_code: String,
    started_at: Instant,
    approved_by: Option<Arc<Account>>,
}

/// How a device login stands.
#[derive(Clone, Debug)]
pub(crate) enum DevicePoll {
    Unknown,
    Pending,
    /// It is over; the poller gets a code and the verifier for it.
    Approved(Arc<Account>),
}

#[derive(Debug)]
pub(crate) struct Logins {
    pub(crate) device_interval_seconds: u64,
    device_lifetime: Duration,
    next: Mutex<Option<Arc<Account>>>,
    codes: Mutex<HashMap<String, (CodeGrant, Instant)>>,
    /// By `device_auth_id`.
    devices: Mutex<HashMap<String, DeviceLogin>>,
}

impl Logins {
    pub(crate) fn new(device_interval_seconds: u64, device_lifetime: Duration) -> Self {
        Self {
            device_interval_seconds,
            device_lifetime,
            next: Mutex::default(),
            codes: Mutex::default(),
            devices: Mutex::default(),
        }
    }

    pub(crate) fn set_next(&self, account: &Arc<Account>) {
        *self.next.lock() = Some(account.clone());
    }

    pub(crate) fn next(&self) -> Option<Arc<Account>> {
        self.next.lock().clone()
    }

    /// A code that is good for one exchange.
    pub(crate) fn grant_code(&self, grant: CodeGrant) -> String {
        let code = format!("ac_{}", ids::alphanumeric(43));
        let mut codes = self.codes.lock();
        if codes.len() >= LOGINS_MAX {
            codes.clear();
        }
        codes.insert(code.clone(), (grant, Instant::now()));
        code
    }

    /// A code and the verifier for it, as the device flow hands them out; the verifier is the issuer's own there.
    pub(crate) fn grant_device_code(&self, account: Arc<Account>, redirect_uri: String) -> (String, String) {
        let code_verifier = ids::alphanumeric(64);
        let code_challenge = challenge_of(&code_verifier);
        (self.grant_code(CodeGrant { account, redirect_uri, code_challenge }), code_verifier)
    }

    /// Uses a code up.
    pub(crate) fn redeem_code(&self, code: &str) -> Option<CodeGrant> {
        let (grant, granted_at) = self.codes.lock().remove(code)?;
        (granted_at.elapsed() < CODE_LIFETIME).then_some(grant)
    }

    /// Starts a device login: its id and the code for the person.
    pub(crate) fn start_device(&self) -> (String, String) {
        let device_auth_id = format!("deviceauth_{}", ids::alphanumeric(32));
        let letters = ids::alphanumeric(9).to_uppercase();
        let user_code = format!("{}-{}", &letters[..4], &letters[4..]);
        let login = DeviceLogin { user_code: user_code.clone(), started_at: Instant::now(), approved_by: None };
        let mut devices = self.devices.lock();
        if devices.len() >= LOGINS_MAX {
            devices.clear();
        }
        devices.insert(device_auth_id.clone(), login);
        (device_auth_id, user_code)
    }

    /// The person enters the code. `None` if nothing waits for it.
    pub(crate) fn approve_device(&self, account: &Arc<Account>, user_code: &str) -> Option<()> {
        let mut devices = self.devices.lock();
        let login = devices.values_mut().find(|login| login.user_code == user_code && login.approved_by.is_none())?;
        login.approved_by = Some(account.clone());
        Some(())
    }

    /// Looks how the login stands, and ends it if it is approved.
    pub(crate) fn poll_device(&self, device_auth_id: &str, user_code: &str) -> DevicePoll {
        let mut devices = self.devices.lock();
        let Some(login) = devices.get(device_auth_id) else { return DevicePoll::Unknown };
        if login.user_code != user_code || login.started_at.elapsed() >= self.device_lifetime {
            return DevicePoll::Unknown;
        }
        match login.approved_by.clone() {
            None => DevicePoll::Pending,
            Some(account) => {
                devices.remove(device_auth_id);
                DevicePoll::Approved(account)
            }
        }
    }
}
