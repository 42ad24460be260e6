//! A scriptable fake of the ChatGPT backend and of its OAuth issuer, on one port.
//!
//! It is the upstream of the tests and benchmarks of codex-lb. What it models was collected from public clients of the
//! backend (the Codex CLI and open-source gateways), not from the live service: the streamed Responses call with its
//! events, headers, refusals and failures; the model catalog, usage, files and transcription; and logins, refreshes and
//! device logins at the issuer. It keeps upstream's rules strictly, above all those that a pool can break: a request
//! needs the `chatgpt-account-id` of its access token, encrypted content opens only on the account that made it, and a
//! refresh token is good once.
//!
//! ```
//! # async fn example() -> anyhow::Result<()> {
//! use fake_chatgpt::{AccountSpec, FakeChatGpt, Script};
//!
//! let fake = FakeChatGpt::builder().start().await?;
//! let account = fake.add_account(AccountSpec { plan: "pro".into(), ..AccountSpec::default() });
//! fake.script(&account, [Script::usage_limit(60), Script::answer(100)]);
//! // Point a client at `fake.base_url()` with `account.access_token()`, then ask what happened.
//! let record = fake.wait_for(|request| request.status == Some(429)).await?;
//! assert_eq!(record.account.as_deref(), Some(account.name()));
//! assert_eq!(fake.totals(&account).completed, 0);
//! # Ok(())
//! # }
//! ```

mod account;
mod backend;
mod builder;
mod clock;
mod control;
mod fake;
mod form;
mod ids;
mod issuer;
mod jwt;
mod models;
mod record;
mod reply;
mod responses;
mod route;
mod script;
mod server;
mod tls;
mod usage;
mod wire;

pub use account::{AccountSpec, FakeAccount, Totals};
pub use builder::Builder;
pub use fake::FakeChatGpt;
pub use models::DEFAULT_MODELS;
pub use record::{Outcome, RequestHead, RequestRecord, Terminal};
pub use responses::compose::IMAGE_BASE64;
pub use script::{Answer, FunctionCall, RefreshScript, Script, SilencePlace, UnauthorizedReason, Usage};
pub use usage::{Credits, UsageState, UsageWindow};
