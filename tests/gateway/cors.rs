//! Web pages: one of a listed origin may call from a browser, all others are kept out by their browsers.

use reqwest::Method;
use serde_json::json;

use crate::support::{Setup, Upstream};

const PAGE: &str = "https://chat.example.com";
const PATH: &str = "/v1/responses";

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_page_may_ask_and_read_and_others_may_not() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_PROXY__CORS_ORIGINS", PAGE);
    let key = setup.key("page");
    let gateway = setup.serve().await;
    let preflight = |origin: &str, path: &str| {
        let request = gateway.http.request(Method::OPTIONS, format!("{}{path}", gateway.proxy_url));
        let request = request.header("origin", origin).header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,content-type,x-stainless-os").send()
    };
    let told = preflight(PAGE, PATH).await.unwrap();
    assert_eq!(told.status(), 204);
    let header = |name: &str| told.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("access-control-allow-origin"), PAGE);
    assert_eq!(header("access-control-allow-methods"), "POST");
    assert_eq!(header("access-control-allow-headers"), "authorization,content-type,x-stainless-os");
    assert_eq!(preflight("https://evil.example.com", PATH).await.unwrap().status(), 405);
    assert_eq!(preflight(PAGE, "/v1/unknown").await.unwrap().status(), 404);
    assert!(preflight(PAGE, "/api/v1/accounts").await.unwrap().headers().get("access-control-allow-origin").is_none());

    for (stream, wrong) in [(false, false), (true, false), (false, true)] {
        let body = json!({"model": "gpt-5.5", "input": "hi", "stream": stream});
        let ask = |origin: &str| {
            let request = gateway.post(PATH, &body).header("origin", origin.to_owned());
            request.bearer_auth(if wrong { "sk-clb-wrong" } else { &key }).send()
        };
        let answer = ask(PAGE).await.unwrap();
        assert_eq!(answer.status(), if wrong { 401 } else { 200 });
        assert_eq!(answer.headers()["access-control-allow-origin"], PAGE);
        assert_eq!(answer.headers()["vary"], "origin");
        assert!(answer.headers()["access-control-expose-headers"].to_str().unwrap().contains("x-request-id"));
        answer.bytes().await.unwrap();
        let kept_back = ask("https://evil.example.com").await.unwrap();
        assert!(kept_back.headers().get("access-control-allow-origin").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_needs_a_key_unless_its_origin_is_listed_and_its_own() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_PROXY__CORS_ORIGINS", PAGE);
    let gateway = setup.serve().await;
    let ask = |origin: &'static str, site: &'static str| {
        let request = gateway.post(PATH, &json!({"model": "gpt-5.5", "input": "hi"}));
        request.header("origin", origin).header("sec-fetch-site", site).send()
    };
    assert_eq!(ask(PAGE, "same-site").await.unwrap().status(), 200);
    assert_eq!(ask(PAGE, "cross-site").await.unwrap().status(), 401);
    assert_eq!(ask("https://evil.example.com", "same-site").await.unwrap().status(), 401);
}
