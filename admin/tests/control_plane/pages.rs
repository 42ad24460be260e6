//! What is not the API: the page, health, unknown paths, and the headers that every answer has.

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{Answer, Call, Plane};

fn assert_is_careful(answer: &Answer) {
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("x-frame-options"), "DENY");
}

#[tokio::test]
async fn every_answer_is_careful_and_the_api_is_never_kept() {
    let plane = Plane::new().await;
    let paths = ["/", "/app.js", "/style.css", "/health", "/nonsense", "/api/v1/accounts", "/api/v1/nonsense"];
    for path in paths {
        let calls = [
            Call::here(Method::GET, path),
            Call::here(Method::GET, path).from("203.0.113.9"),
            Call::here(Method::GET, path).through_hop("forged"),
            Call::here(Method::PUT, path),
        ];
        for call in calls {
            let answer = plane.send(call).await;
            assert_is_careful(&answer);
            if path.starts_with("/api") {
                assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_page_needs_nothing_that_its_policy_forbids() {
    let plane = Plane::new().await;
    let page = plane.get("/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    for forbidden in ["<style", "style=", "onclick", "http://", "https://", "<script>"] {
        assert!(!page.text.contains(forbidden), "{forbidden}");
    }
    let script = plane.get("/app.js").await;
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "setAttribute('style"]
    {
        assert!(!script.text.contains(forbidden), "{forbidden}");
    }
    // Every file that the page names is served, and every element that the script names is on the page.
    for file in ["/app.js", "/style.css", "/icon.svg"] {
        assert!(page.text.contains(file));
        assert_eq!(plane.get(file).await.status, StatusCode::OK, "{file}");
    }
    for id in script.text.split("$('").skip(1).map(|rest| rest.split('\'').next().unwrap()) {
        assert!(page.text.contains(&format!("id=\"{id}\"")), "{id}");
    }
}

#[tokio::test]
async fn only_a_browser_that_follows_a_link_gets_the_page_for_an_unknown_path() {
    let plane = Plane::new().await;
    let ask = async |method: Method, path: &str, accept: &str| {
        plane.send(Call::here(method, path).header("accept", accept)).await
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = ask(Method::GET, "/accounts", browser).await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    for (method, path, accept) in [
        (Method::GET, "/accounts", "*/*"),
        (Method::GET, "/accounts", "application/json"),
        (Method::POST, "/accounts", browser),
        (Method::GET, "/api", browser),
        (Method::GET, "/api/v1/nonsense", browser),
        (Method::GET, "/api/v2/accounts", browser),
    ] {
        ask(method, path, accept).await.refused(StatusCode::NOT_FOUND, "not_found");
    }
    let wrong_method = ask(Method::PUT, "/api/v1/accounts", browser).await;
    wrong_method.refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
}

#[tokio::test]
async fn health_is_ready_until_the_process_stops_and_says_degraded_without_a_database() {
    let plane = Plane::new().await;
    let paths = ["/health", "/health/live", "/health/ready", "/health/startup"];
    let probe = async |path: &str| plane.send(Call::here(Method::GET, path).from("10.0.0.1").without("host")).await;
    for path in paths {
        assert_eq!(probe(path).await.ok(), json!({"status": "ok"}), "{path}");
    }
    plane.state.store.close().await;
    plane.state.note_database_error(&plane.state.store.ping().await.unwrap_err());
    for path in paths {
        assert_eq!(probe(path).await.ok(), json!({"status": "degraded"}), "{path}");
    }
    plane.state.begin_draining();
    for path in paths {
        let expected = if path == "/health/ready" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        assert_eq!(probe(path).await.status, expected, "{path}");
    }
}
