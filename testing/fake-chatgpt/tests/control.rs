//! The control interface, as drivers in other languages use it.

mod support;

use fake_chatgpt::FakeChatGpt;
use serde_json::{Value, json};
use support::{body, client, post};

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_scripts_and_asks_over_http() {
    let fake = FakeChatGpt::start().await.unwrap();
    let client = client(&fake);
    let order = async |path: &str, body: Value| {
        let response = client.post(format!("{}/__fake/{path}", fake.issuer_url())).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let ask = async |path: &str| {
        let response = client.get(format!("{}/__fake/{path}", fake.issuer_url())).send().await.unwrap();
        response.json::<Value>().await.unwrap()
    };

    let (_, created) = order("accounts", json!({"name": "driver", "plan": "free"})).await;
    assert!(created["auth_json"]["tokens"]["access_token"].is_string());
    assert_eq!(order("accounts", json!({"name": "driver"})).await.0, 400, "names are unique");
    let usage = json!({"input": 10, "output": 5});
    let scripts = json!([{"kind": "answer", "text_tokens": 3, "usage": usage}, {"kind": "usage_limit"}]);
    assert_eq!(order("script", json!({"account": "driver", "scripts": scripts})).await.0, 200);
    assert_eq!(
        order("script", json!({"account": "driver", "scripts": [{"kind": "usage_limit", "typo": 1}]})).await.0,
        400
    );
    let account = fake.account("driver").unwrap();
    post(&fake, &account, &body("hello")).await.unwrap().text().await.unwrap();
    assert_eq!(post(&fake, &account, &body("hello")).await.unwrap().status(), 429);

    assert_eq!(ask("totals").await["totals"]["driver"]["output"], 5);
    let requests = ask("requests").await;
    assert_eq!(requests["requests"][0]["outcome"]["terminal"], "completed");
    assert_eq!(requests["requests"][1]["status"], 429);
    assert_eq!(ask("requests?after=1").await["requests"].as_array().unwrap().len(), 1);
    order("revoke", json!({"account": "driver", "access": true})).await;
    assert_eq!(post(&fake, &account, &body("hello")).await.unwrap().status(), 401);
    order("clear", json!({})).await;
    assert_eq!(ask("requests").await["requests"], json!([]));
}
