//! Two replicas on one database, and how alike they place conversations that neither has met.
//!
//! `CODEX_LB_PLACEMENTS` says how many conversations are placed by each strategy.

use std::collections::HashMap;

use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::store::SettingsGroup;
use fake_chatgpt::{AccountSpec, Answer, FakeChatGpt, Script, UsageState};
use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use crate::support::{Database, Gateway, Setup, Upstream, eventually, native_body};

const PATH: &str = "/backend-api/codex/responses";
const PLANS: [&str; 12] =
    ["plus", "pro", "team", "free", "plus", "prolite", "plus", "team", "pro", "plus", "free", "prolite"];
const CONVERSATIONS: usize = 500;
/// Pairs that are asked at once.
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_place_a_conversation_that_both_meet_at_once_alike() {
    for strategy in [StrategyKind::CapacityWeighted, StrategyKind::RelativeAvailability] {
        let upstream = mixed_pool().await;
        let mut setup = Setup::on(&upstream, Database::Postgres);
        setup.set("CODEX_LB_UPSTREAM__IDLE_TIMEOUT", "60s");
        // A full account would be passed over by the replica that filled it, which is another question.
        let routing = RoutingSettings { strategy, account_concurrency_cap: 500, ..RoutingSettings::default() };
        setup.save(SettingsGroup::Routing, &routing).await;
        let twin = setup.twin();
        let replicas = [setup.serve().await, twin.serve().await];
        know_alike(&upstream, &replicas).await;

        // One is busy ten times as much as the other.
        let endless = Answer { text_tokens: 4_000, tokens_per_second: Some(4.0), ..Answer::default() };
        say(&upstream, &Script::Answer(endless));
        let mut held = Vec::new();
        for (replica, count) in replicas.iter().zip([40, 4]) {
            for index in 0..count {
                held.push(replica.post(PATH, &native_body(&format!("held {index}"))).send().await.unwrap());
            }
        }
        say(&upstream, &Script::answer(1));
        let (agreed, used) = place_everywhere(&upstream, &replicas, conversations()).await;
        let share = 100.0 * agreed as f64 / conversations() as f64;
        eprintln!("{strategy:?}: agreed on {agreed} of {} ({share:.2} %) over {used} accounts", conversations());
        assert!(share >= 99.0, "{strategy:?}: agreed on {agreed} of {}", conversations());
        assert!(used >= 4, "{strategy:?} used {used} accounts only");
        assert!(held.iter().all(|response| response.status() == 200));
    }
}

fn conversations() -> usize {
    std::env::var("CODEX_LB_PLACEMENTS").map_or(CONVERSATIONS, |count| count.parse().unwrap())
}

/// Accounts of several plans, used to different parts.
async fn mixed_pool() -> Upstream {
    let fake = FakeChatGpt::builder().records_max(100_000).start().await.unwrap();
    let add = |plan: &&str| fake.add_account(AccountSpec { plan: (*plan).to_owned(), ..AccountSpec::default() });
    let accounts: Vec<_> = PLANS.iter().map(add).collect();
    for (number, account) in accounts.iter().enumerate() {
        fake.set_usage(account, UsageState::used(number as f64 * 5.0, 60.0 - number as f64 * 4.0));
    }
    Upstream { fake, accounts }
}

fn say(upstream: &Upstream, script: &Script) {
    for account in &upstream.accounts {
        upstream.fake.default_script(account, script.clone());
    }
}

/// Makes both replicas learn how much of each account is used, as traffic does in time.
async fn know_alike(upstream: &Upstream, replicas: &[Gateway; 2]) {
    say(upstream, &Script::answer(1));
    let ids: Vec<_> = replicas[0].store.list_accounts().await.unwrap().iter().map(|stored| stored.account.id).collect();
    for replica in replicas {
        // Each account once, by pausing all others.
        let order = async |id: &codex_lb_shared::ids::AccountId, verb: &str| {
            let url = format!("{}/api/v1/accounts/{id}/{verb}", replica.admin_url);
            let done = replica.http.post(url).header("x-codex-lb-request", "1").send().await.unwrap();
            assert_eq!(done.status(), 200);
        };
        for id in &ids {
            order(id, "pause").await;
        }
        for id in &ids {
            order(id, "resume").await;
            assert_eq!(replica.post(PATH, &native_body("who are you?")).send().await.unwrap().status(), 200);
            order(id, "pause").await;
        }
        for id in &ids {
            order(id, "resume").await;
        }
    }
    eventually("both replicas know the same of all accounts", async || {
        let mut views = Vec::new();
        for replica in replicas {
            let url = format!("{}/api/v1/accounts", replica.admin_url);
            let list: Value = replica.http.get(url).send().await.unwrap().json().await.unwrap();
            let view = |account: &Value| {
                let used = ["primary", "secondary"].map(|window| account["usage"][window]["usedPercent"].clone());
                (account["id"].to_string(), account["state"].clone(), used)
            };
            let mut known: Vec<_> = list["items"].as_array().unwrap().iter().map(view).collect();
            known.sort_by(|one, other| one.0.cmp(&other.0));
            views.push(known);
        }
        let is_known = views[0].iter().all(|(_, state, used)| state == "active" && used[0].is_number());
        (is_known && views[0].len() == PLANS.len() && views[0] == views[1]).then_some(())
    })
    .await;
}

/// Asks both replicas for each of many new conversations, in turn the one or the other first. Returns how often they chose
/// the same account, and how many accounts were used.
async fn place_everywhere(upstream: &Upstream, replicas: &[Gateway; 2], count: usize) -> (usize, usize) {
    upstream.fake.clear();
    let ask = async |replica: &Gateway, conversation: &str| {
        let request = replica.post(PATH, &native_body("hi")).header("session-id", conversation);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        response.text().await.unwrap();
        id
    };
    let pairs = stream::iter(0..count).map(async |number| {
        let conversation = format!("conversation {number}");
        let (first, second) = (&replicas[number % 2], &replicas[1 - number % 2]);
        futures_util::future::join(ask(first, &conversation), ask(second, &conversation)).await
    });
    let pairs: Vec<_> = pairs.buffer_unordered(AT_ONCE).collect().await;
    let placed: HashMap<String, String> = upstream
        .responses()
        .into_iter()
        .map(|record| (record.header("x-request-id").unwrap().to_owned(), record.account.unwrap()))
        .collect();
    let agreed = pairs.iter().filter(|(one, other)| placed[one] == placed[other]).count();
    let used: std::collections::HashSet<_> = placed.values().collect();
    (agreed, used.len())
}
