//! `/__fake/…`: what the library offers to Rust, for drivers in other languages. These requests are not recorded.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::account::{Account, AccountSpec, FakeAccount};
use crate::fake::Fake;
use crate::form;
use crate::issuer::tokens::DeadRefresh;
use crate::record::{RequestHead, RequestRecord};
use crate::reply::Reply;
use crate::responses::stream::{ReplyBody, Torn};
use crate::script::{RefreshScript, Script};
use crate::server::Connection;
use crate::usage::UsageState;
use crate::wire::Frame;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptOrder {
    /// An account's scripts, or those of a path.
    account: Option<String>,
    path: Option<String>,
    #[serde(default)]
    scripts: Vec<Script>,
    #[serde(default)]
    refresh_scripts: Vec<RefreshScript>,
    /// Forgets what is still queued for the account first.
    #[serde(default)]
    replace: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultScriptOrder {
    /// All accounts, and those to come, when absent.
    account: Option<String>,
    script: Script,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveOrder {
    /// The next login account, or the first one, when absent.
    account: Option<String>,
    user_code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeOrder {
    account: String,
    #[serde(default)]
    access: bool,
    #[serde(default)]
    refresh: bool,
    /// Lets access tokens be expired rather than revoked.
    #[serde(default)]
    expire: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageOrder {
    account: String,
    usage: UsageState,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanModelsOrder {
    plan: String,
    models: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountOrder {
    account: String,
}

/// Carries out one order: 200 with JSON, or 400 with the reason.
pub(crate) async fn serve(connection: Connection, head: Arc<RequestHead>, body: Bytes) -> Reply {
    let fake = connection.fake;
    // On a task of its own, because some orders wait until no connection makes progress, and this is one.
    let outcome = tokio::spawn(async move { carry_out(&fake, &head, &body) }).await;
    let (status, value) = match outcome {
        Ok(Ok(value)) => (StatusCode::OK, value),
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, json!({"error": format!("{error:#}")})),
        Err(_) => return Err(Torn),
    };
    let bytes = Bytes::from(value.to_string());
    let length = bytes.len() as u64;
    let mut response = Response::new(ReplyBody::Whole(Some(Frame::plain(bytes)), length));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

fn carry_out(fake: &Fake, head: &RequestHead, body: &[u8]) -> anyhow::Result<Value> {
    match (head.method.as_str(), head.path.as_str()) {
        ("GET", "/__fake/requests") => requests(fake, &head.query),
        ("GET", "/__fake/totals") => Ok(totals(fake)),
        ("POST", "/__fake/script") => script(fake, parse(body)?),
        ("POST", "/__fake/default-script") => default_script(fake, parse(body)?),
        ("POST", "/__fake/clear") => {
            fake.settled(|| fake.clear());
            Ok(json!({}))
        }
        ("POST", "/__fake/accounts") => create_account(fake, parse(body)?),
        ("GET", "/__fake/accounts") => Ok(accounts(fake)),
        ("POST", "/__fake/approve-device") => approve_device(fake, parse(body)?),
        ("POST", "/__fake/revoke") => revoke(fake, &parse(body)?),
        ("POST", "/__fake/usage") => {
            let order: UsageOrder = parse(body)?;
            account(fake, &order.account)?.desk.lock().usage = order.usage;
            Ok(json!({}))
        }
        ("POST", "/__fake/plan-models") => {
            let order: PlanModelsOrder = parse(body)?;
            fake.set_plan_models(order.plan, order.models);
            Ok(json!({}))
        }
        ("POST", "/__fake/next-login") => {
            let order: AccountOrder = parse(body)?;
            fake.logins.set_next(&account(fake, &order.account)?);
            Ok(json!({}))
        }
        (method, path) => anyhow::bail!("no such order: {method} {path}"),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("read the order")
}

fn account(fake: &Fake, name: &str) -> anyhow::Result<Arc<Account>> {
    fake.account(name).with_context(|| format!("find account {name}"))
}

/// All requests, or those behind the sequence number `after`.
fn requests(fake: &Fake, query: &str) -> anyhow::Result<Value> {
    let after = match form::parse(query).into_iter().find(|(name, _)| name == "after") {
        Some((_, after)) => after.parse().context("read after as a number")?,
        None => 0,
    };
    let records = fake.settled(|| fake.log.snapshot());
    let wanted = records.iter().filter(|record| record.sequence > after).map(RequestRecord::to_json);
    Ok(json!({"requests": wanted.collect::<Vec<_>>()}))
}

fn totals(fake: &Fake) -> Value {
    let by_account: serde_json::Map<_, _> = fake.settled(|| {
        let total = |account: &Arc<Account>| (account.profile.name.clone(), json!(account.desk.lock().totals));
        fake.accounts.read().iter().map(total).collect()
    });
    json!({"totals": by_account})
}

fn script(fake: &Fake, order: ScriptOrder) -> anyhow::Result<Value> {
    match (order.account, order.path) {
        (Some(name), None) => {
            let account = account(fake, &name)?;
            let mut desk = account.desk.lock();
            if order.replace {
                desk.scripts.clear();
                desk.refresh_scripts.clear();
            }
            desk.scripts.extend(order.scripts);
            desk.refresh_scripts.extend(order.refresh_scripts);
        }
        (None, Some(path)) => fake.script_path(&path, order.scripts),
        (Some(_), Some(_)) | (None, None) => anyhow::bail!("name either an account or a path"),
    }
    Ok(json!({}))
}

fn default_script(fake: &Fake, order: DefaultScriptOrder) -> anyhow::Result<Value> {
    match order.account {
        Some(name) => account(fake, &name)?.desk.lock().default_script = order.script,
        None => {
            for account in fake.accounts.read().iter() {
                account.desk.lock().default_script = order.script.clone();
            }
            *fake.default_script.lock() = order.script;
        }
    }
    Ok(json!({}))
}

fn create_account(fake: &Fake, spec: AccountSpec) -> anyhow::Result<Value> {
    let name = spec.name.clone();
    let account = fake.add_account(spec).with_context(|| format!("create a second account {name}"))?;
    Ok(described(&account))
}

fn accounts(fake: &Fake) -> Value {
    let accounts: Vec<_> = fake.accounts.read().iter().cloned().map(FakeAccount).collect();
    json!({"accounts": accounts.iter().map(described).collect::<Vec<_>>()})
}

/// `auth.json` and the name by which to speak of the account.
fn described(account: &FakeAccount) -> Value {
    json!({
        "name": account.name(), "email": account.email(), "plan": account.plan(),
        "chatgpt_account_id": account.chatgpt_account_id(), "chatgpt_user_id": account.chatgpt_user_id(),
        "auth_json": account.auth_json(),
    })
}

fn approve_device(fake: &Fake, order: ApproveOrder) -> anyhow::Result<Value> {
    let account = match order.account {
        Some(name) => account(fake, &name)?,
        None => fake.login_account().context("approve without any account")?,
    };
    fake.logins.approve_device(&account, &order.user_code).with_context(|| format!("approve {}", order.user_code))?;
    Ok(json!({}))
}

fn revoke(fake: &Fake, order: &RevokeOrder) -> anyhow::Result<Value> {
    let account = account(fake, &order.account)?;
    if order.access {
        fake.tokens.revoke_access(&account);
    }
    if order.expire {
        fake.tokens.expire_access(&account);
    }
    if order.refresh {
        fake.tokens.end_refresh(&account, DeadRefresh::Invalidated);
    }
    Ok(json!({}))
}
