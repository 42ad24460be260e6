//! `POST codex/responses`: check the request as upstream would, take the account's next script, and play it.

pub(crate) mod auto;
pub(crate) mod compose;
pub(crate) mod events;
pub(crate) mod failures;
pub(crate) mod plan;
pub(crate) mod prompt;
pub(crate) mod render;
pub(crate) mod rules;
pub(crate) mod schema;
pub(crate) mod sealed;
pub(crate) mod stream;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::account::Account;
use crate::reply::{Exchange, Refusal, Reply};
use crate::route;
use crate::script::{Answer, Script, SilencePlace, Usage};
use crate::{clock, ids};
use compose::{Composer, Ending};
use events::UsageObject;
use plan::{Plan, Step};
use prompt::Prompt;

/// Answers a Responses request.
pub(crate) async fn serve(exchange: Exchange) -> Reply {
    let account = match exchange.authenticate() {
        Ok(account) => account,
        Err(refusal) => return exchange.refuse(refusal),
    };
    account.count_request();
    let body = match checked_body(&exchange, &account) {
        Ok(body) => body,
        Err(refusal) => return exchange.refuse(refusal),
    };
    let script = account.next_script();
    exchange.ticket.set_script(&script);
    play(exchange, &account, &body, script).await
}

/// Answers the compaction call of older clients with one JSON object.
pub(crate) async fn serve_compact(exchange: Exchange) -> Reply {
    let account = match exchange.authenticate() {
        Ok(account) => account,
        Err(refusal) => return exchange.refuse(refusal),
    };
    let body: Value = serde_json::from_slice(&exchange.body).unwrap_or_default();
    let offered = exchange.fake.models_of(&account.profile.plan);
    if let Err(refusal) = rules::check_content(&body, &account.profile.identity(), &offered, false) {
        return exchange.refuse(refusal);
    }
    let kept = prompt::items(&body).iter().filter(|item| prompt::is_message(item, "user"));
    let compaction = serde_json::to_value(compose::compaction_item(&account)).unwrap_or_default();
    let output: Vec<Value> = kept.cloned().chain([compaction]).collect();
    let usage =
        UsageObject::from(Usage { input: (exchange.body.len() as u64 / 4).max(1), output: 64, ..Usage::default() });
    exchange.json(&json!({
        "id": ids::item_id("resp"), "object": "response.compaction", "created_at": clock::unix_now(), "output": output, "usage": usage,
    }))
}

/// Plays a script on any path, before any check. What belongs to an account lets the request through.
pub(crate) async fn serve_on_path(exchange: Exchange, script: Script) -> Reply {
    if let Script::Silence { duration_ms, .. } = script {
        keep_silent(duration_ms).await;
    }
    match failures::play(exchange, &script, None) {
        ControlFlow::Break(reply) => reply,
        ControlFlow::Continue(exchange) => route::dispatch(exchange).await,
    }
}

fn checked_body(exchange: &Exchange, account: &Account) -> Result<Value, Refusal> {
    let body = serde_json::from_slice(&exchange.body).map_err(|_| Refusal::detail("Invalid JSON in request body"))?;
    let offered = exchange.fake.models_of(&account.profile.plan);
    rules::check(&body, &account.profile.identity(), &offered, exchange.fake.options.require_instructions)?;
    rules::check_files(&body, &account.desk.lock().files)?;
    Ok(body)
}

async fn play(exchange: Exchange, account: &Arc<Account>, body: &Value, script: Script) -> Reply {
    let exchange = match failures::play(exchange, &script, Some(account)) {
        ControlFlow::Break(reply) => return reply,
        ControlFlow::Continue(exchange) => exchange,
    };
    if let Script::Silence { place: SilencePlace::BeforeHead, duration_ms } = script {
        keep_silent(duration_ms).await;
    }
    let prompt = Prompt::new(body, exchange.body.len() as u64);
    let plan = plan_of(&script, &prompt, account);
    if !plan.head_delay.is_zero() {
        tokio::time::sleep(plan.head_delay).await;
    }
    let headers = exchange.model_headers(account, prompt.model());
    exchange.stream(headers, plan)
}

fn plan_of(script: &Script, prompt: &Prompt<'_>, account: &Account) -> Plan {
    let composer = |ending| Composer::new(prompt, account, ending);
    let compose = |answer: &Answer, ending| match prompt.image_tool() {
        _ if prompt.wants_compaction() => composer(ending).compaction(),
        Some(_) => composer(ending).image(),
        None => composer(ending).answer(answer),
    };
    let automatic = || compose(&auto::answer(prompt), Ending::Completed);
    match script {
        Script::Answer(answer) => compose(answer, Ending::Completed),
        Script::EchoShellTool { command } => compose(&auto::echo_shell_tool(prompt, command), Ending::Completed),
        Script::Incomplete { reason, answer } => compose(answer, Ending::Incomplete { reason }),
        Script::FirstEventFailure { code, message } => composer(Ending::Failed { code, message }).nothing(),
        Script::FailMidStream { after_deltas, code, message } => composer(Ending::Failed { code, message })
            .end_after_deltas(*after_deltas)
            .answer(&long_answer(*after_deltas)),
        Script::CutMidStream { after_deltas, reset } => {
            let mut plan = composer(Ending::Completed).answer(&long_answer(*after_deltas));
            drop(plan.split_after_deltas(*after_deltas));
            plan.steps.push(Step::Tear { reset: *reset });
            plan
        }
        Script::Silence { place: SilencePlace::AfterHead, duration_ms } => with_silence(automatic(), 0, *duration_ms),
        Script::Silence { place: SilencePlace::AfterEvents(events), duration_ms } => {
            with_silence(automatic(), *events, *duration_ms)
        }
        // The failures have been played before.
        Script::Auto
        | Script::Silence { place: SilencePlace::BeforeHead, .. }
        | Script::CutBeforeHead
        | Script::Raw { .. }
        | Script::ServerError { .. }
        | Script::Unauthorized { .. }
        | Script::DeactivatedWorkspace
        | Script::UsageLimit { .. }
        | Script::UsageNotIncluded
        | Script::RateLimited { .. } => automatic(),
    }
}

/// An answer with more deltas than those after which it ends badly.
fn long_answer(after_deltas: u64) -> Answer {
    Answer { text_tokens: after_deltas.saturating_add(8), ..Answer::default() }
}

fn with_silence(mut plan: Plan, after_events: u64, duration_ms: Option<u64>) -> Plan {
    let mut rest = plan.split_after_events(after_events);
    plan.steps.push(duration_ms.map_or(Step::Forever, |duration_ms| Step::Pause(Duration::from_millis(duration_ms))));
    plan.steps.append(&mut rest);
    plan
}

async fn keep_silent(duration_ms: Option<u64>) {
    match duration_ms {
        Some(duration_ms) => tokio::time::sleep(Duration::from_millis(duration_ms)).await,
        // The connection drops this future when its client goes.
        None => std::future::pending().await,
    }
}
