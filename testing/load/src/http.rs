//! HTTP/1.1 connections that the benchmark holds itself, so that it knows which request travels on which.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const CALL_MAX: Duration = Duration::from_secs(30);
/// The largest answer of a control call.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Of a refusal, as much goes into the error.
const REFUSAL_CHARS_MAX: usize = 500;

/// A connection. Its task ends with it.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    address: SocketAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let connecting = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await;
        let connected = connecting.with_context(|| format!("connect to {address} in time"))?;
        let stream = connected.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("switch off Nagle's algorithm")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("begin to speak HTTP")?;
        // What breaks the connection also fails the request on it, which tells.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver, address })
    }

    /// Sends a JSON body and returns the head of a 200; any other status is an error with the body in it.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let response = self.send(Method::POST, path, headers, body).await?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let text = read(response).await?;
        let text: String = String::from_utf8_lossy(&text).chars().take(REFUSAL_CHARS_MAX).collect();
        anyhow::bail!("{path} answered {status}: {text}")
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().with_context(|| format!("read {path} as a path"))?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, self.address.to_string().parse().context("name the host")?);
        request.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        self.sender.ready().await.context("wait for the connection")?;
        self.sender.send_request(request).await.with_context(|| format!("send a request for {path}"))
    }
}

/// The whole body of a response.
pub(crate) async fn read(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let collected = body.collect().await.map_err(|error| anyhow::anyhow!("read an answer: {error}"))?;
    Ok(collected.to_bytes())
}

/// One call on a connection of its own. An empty body stands for none.
///
/// # Errors
/// When it takes too long or is answered with anything but a 2xx.
pub(crate) async fn call(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: Option<&Value>,
) -> anyhow::Result<Bytes> {
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let calling = async {
        let mut connection = Connection::open(address).await?;
        let response = connection.send(method.clone(), path, headers, bytes).await?;
        let status = response.status();
        let answer = read(response).await?;
        ensure!(status.is_success(), "answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    };
    let called = tokio::time::timeout(CALL_MAX, calling).await;
    called.context("get an answer in time").and_then(|answer| answer).with_context(|| format!("{method} {path}"))
}

/// Like [`call`], for an answer in JSON.
pub(crate) async fn call_json(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let answer = call(address, method.clone(), path, headers, body).await?;
    serde_json::from_slice(&answer).with_context(|| format!("read the answer of {method} {path}"))
}
