//! Over real sockets: what listens where, whom it believes, and how it stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codex_lb_admin::{ServeError, serve};
use codex_lb_shared::hop::HOP_HEADER;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::support::Plane;

/// Sends a GET and reads the whole answer.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost:2456\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn each_socket_believes_its_own_proof_of_the_peer_and_no_other() {
    let plane = Plane::new().await;
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    let socket = listening.hop_socket.clone().unwrap();
    assert_eq!(socket, plane.data_dir().join("dashboard.sock"));
    let path = "/api/v1/accounts";
    let tcp = async || TcpStream::connect(listening.address).await.unwrap();
    let hop = async || UnixStream::connect(&socket).await.unwrap();
    let (here, remote) = (plane.signed("127.0.0.1", false), plane.signed("203.0.113.9", false));

    assert_eq!(status(&get(tcp().await, path, &[]).await), "200");
    assert_eq!(status(&get(tcp().await, path, &[(HOP_HEADER, &here)]).await), "400");
    assert_eq!(status(&get(tcp().await, path, &[("x-forwarded-for", "127.0.0.1")]).await), "403");
    assert_eq!(status(&get(hop().await, path, &[(HOP_HEADER, &here)]).await), "200");
    assert_eq!(status(&get(hop().await, path, &[(HOP_HEADER, &remote)]).await), "403");
    assert_eq!(status(&get(hop().await, path, &[]).await), "400");
    assert_eq!(status(&get(hop().await, path, &[(HOP_HEADER, &here), (HOP_HEADER, &remote)]).await), "400");
    assert_eq!(status(&get(hop().await, "/", &[(HOP_HEADER, &remote)]).await), "200");

    listening.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn metrics_count_the_accounts_as_they_are_now() {
    let plane = Plane::with_accounts(&["plus", "pro"]).await;
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    let ask = async |path: &str| get(TcpStream::connect(listening.metrics_address).await.unwrap(), path, &[]).await;
    let answer = ask("/metrics").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("codex_lb_accounts{state=\"active\"} 2"), "{answer}");
    assert_eq!(status(&ask("/health/live").await), "200");
    for path in ["/", "/api/v1/accounts", "/health/ready"] {
        assert_eq!(status(&ask(path).await), "404", "{path}");
    }
    listening.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_setting() {
    let plane = Plane::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let state = plane.state_with(|config| config.metrics.listen = address).await;
    let error = serve(state).await.unwrap_err();
    assert!(matches!(error, ServeError::PortTaken { setting: "metrics.listen", .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("taken"), "{text}");
    assert!(!plane.data_dir().join("dashboard.sock").exists());
}

#[tokio::test]
async fn without_the_hop_there_is_no_socket() {
    let plane = Plane::new().await;
    let state = plane.state_with(|config| config.dashboard.on_proxy_port = false).await;
    let listening = serve(state).await.unwrap();
    assert_eq!(listening.hop_socket, None);
    assert!(!plane.data_dir().join("dashboard.sock").exists());
    listening.stop().await;
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_up_the_stop_for_long() {
    let plane = Plane::new().await;
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    let (address, socket) = (listening.address, listening.hop_socket.clone().unwrap());
    let idle = TcpStream::connect(address).await.unwrap();
    let mut stuck = TcpStream::connect(address).await.unwrap();
    let head = "POST /api/v1/api-keys HTTP/1.1\r\nhost: localhost\r\nx-codex-lb-request: 1\r\n\
                content-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    stuck.write_all(head.as_bytes()).await.unwrap();
    // Its connection must be known to the server before the stop.
    assert_eq!(status(&get(TcpStream::connect(address).await.unwrap(), "/health", &[]).await), "200");
    let began = Instant::now();
    listening.stop().await;
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert!(!socket.exists() && TcpStream::connect(address).await.is_err());
    drop((idle, stuck));
}
