//! The same fake over TLS and HTTP/2.

mod support;

use std::time::Duration;

use fake_chatgpt::{AccountSpec, Answer, FakeAccount, FakeChatGpt, Script, SilencePlace};
use support::{body, client, events, post};

fn request(client: &reqwest::Client, fake: &FakeChatGpt, account: &FakeAccount) -> reqwest::RequestBuilder {
    client
        .post(format!("{}/codex/responses", fake.base_url()))
        .bearer_auth(account.access_token())
        .header("chatgpt-account-id", account.chatgpt_account_id())
        .json(&body("hello"))
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_a_connection_and_every_one_is_counted() {
    let fake = FakeChatGpt::builder().tls(true).start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    fake.default_script(&account, Script::Answer(Answer { text_tokens: 500, ..Answer::default() }));
    let client = client(&fake);
    let streams = (0..50).map(|_| {
        let request = request(&client, &fake, &account);
        async move { events(&request.send().await.unwrap().text().await.unwrap()).len() }
    });
    let lengths = futures_util::future::join_all(streams).await;
    // Sums are right at once, without waiting for anything.
    let totals = fake.totals(&account);
    assert_eq!((totals.completed, totals.output), (50, 50 * 500));
    assert!(lengths.iter().all(|length| *length == lengths[0]));
    let requests = fake.requests();
    assert!(requests.iter().all(|request| request.head.http_version == "2"));
    assert!(requests.iter().all(|request| request.connection == requests[0].connection));
}

#[tokio::test]
async fn a_cut_resets_the_stream_and_leaves_the_connection() {
    let fake = FakeChatGpt::builder().tls(true).start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    fake.script(&account, [Script::cut_after(20)]);
    let client = client(&fake);
    let mut torn = request(&client, &fake, &account).send().await.unwrap();
    let mut received = Vec::new();
    while let Ok(chunk) = torn.chunk().await {
        received.extend_from_slice(&chunk.expect("the stream ended well"));
    }
    let deltas = events(std::str::from_utf8(&received).unwrap());
    assert_eq!(deltas.iter().filter(|event| event["type"] == "response.output_text.delta").count(), 20);
    assert_eq!(request(&client, &fake, &account).send().await.unwrap().status(), 200);
    assert_eq!(fake.requests()[0].connection, fake.requests()[1].connection);
}

#[tokio::test]
async fn a_client_that_goes_is_seen_while_the_connection_stays() {
    let fake = FakeChatGpt::builder().tls(true).start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    let silence = |place| Script::Silence { place, duration_ms: None };
    fake.script(&account, [silence(SilencePlace::AfterEvents(2)), silence(SilencePlace::BeforeHead)]);
    let client = client(&fake);
    let mut response = request(&client, &fake, &account).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    fake.wait_for(|request| request.sequence == 1 && request.is_cancelled()).await.unwrap();
    let impatient = tokio::time::timeout(Duration::from_millis(300), request(&client, &fake, &account).send());
    assert!(impatient.await.is_err());
    let silent = fake.wait_for(|request| request.sequence == 2 && request.is_cancelled()).await.unwrap();
    assert_eq!(silent.connection, fake.requests()[0].connection);
    assert_eq!(fake.totals(&account).completed, 0);
}

#[tokio::test]
async fn http2_can_be_withheld() {
    let fake = FakeChatGpt::builder().tls(true).http2(false).start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    assert_eq!(post(&fake, &account, &body("hello")).await.unwrap().version(), reqwest::Version::HTTP_11);
    assert_eq!(fake.requests()[0].head.http_version, "1.1");
}
