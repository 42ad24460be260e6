//! A client that writes bytes instead of requests, and reads answers one by one off its connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Gateway;

/// Longest wait for an answer, or for the end of a connection.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// A connection to the gateway.
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Wire {
    pub(crate) async fn open(gateway: &Gateway) -> Self {
        let address = gateway.proxy_url.strip_prefix("http://").unwrap();
        Self { stream: TcpStream::connect(address).await.unwrap(), unread: Vec::new() }
    }

    /// A connection over which these bytes went. The gateway may have closed it before the last of them.
    pub(crate) async fn with(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> Self {
        let mut wire = Self::open(gateway).await;
        wire.send(bytes).await;
        wire
    }

    /// Writes as much as the gateway takes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let (Ok(()) | Err(_)) = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The next answer; `None` when the connection ends before one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(ANSWER_MAX, self.read_answer())
            .await
            .unwrap_or_else(|_| panic!("neither an answer nor an end"))
    }

    /// Reads until the connection brought this text.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let read = async {
            while !contains(&self.unread, text.as_bytes()) {
                assert!(self.read_more().await, "ended before {text}: {}", String::from_utf8_lossy(&self.unread));
            }
        };
        tokio::time::timeout(ANSWER_MAX, read).await.unwrap_or_else(|_| panic!("no {text} in time"));
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    /// Takes a single byte out of what the gateway sent, or notices that there will be none.
    pub(crate) async fn read_byte(&mut self) {
        let (Ok(_) | Err(_)) = self.stream.read(&mut [0]).await;
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let head_bytes = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more().await {
                assert!(self.unread.is_empty(), "half an answer: {}", String::from_utf8_lossy(&self.unread));
                return None;
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_bytes).collect();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|text| text.parse().unwrap());
        let is_chunked = head.contains("transfer-encoding: chunked");
        let body_bytes = loop {
            let whole = match length {
                Some(length) if self.unread.len() >= length => Some(length),
                Some(_) => None,
                None if is_chunked => find(&self.unread, b"\r\n0\r\n\r\n").map(|at| at + 7),
                None if status < 200 => Some(0),
                None => None,
            };
            if let Some(whole) = whole {
                break whole;
            }
            if !self.read_more().await {
                break self.unread.len();
            }
        };
        let body = self.unread.drain(..body_bytes).collect::<Vec<u8>>();
        Some(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Whether there was more.
    async fn read_more(&mut self) -> bool {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.unread.extend_from_slice(&piece[..read]);
                true
            }
        }
    }
}

/// A whole POST of a body, with more header lines, each ended by CR LF.
pub(crate) fn post(path: &str, header_lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{header_lines}\r\n{body}"
    )
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    find(bytes, text).is_some()
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
