//! The binary: what a driver reads from it, and how it ends. And how fast it is.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use support::body;

struct Running {
    child: Child,
    ready: Value,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fake-chatgpt"));
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    fn address(&self) -> &str {
        self.ready["issuer"].as_str().unwrap().trim_start_matches("http://")
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: fake\r\nconnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Seconds of processor time used so far.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / 100.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is what one test wants.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_when_it_is_ready_and_ends_when_it_is_told() {
    let dir = std::env::temp_dir().join(format!("fake-chatgpt-{}", std::process::id()));
    let path = dir.to_str().unwrap();
    let mut running = Running::start(&["--accounts", "2", "--tls-dir", path, "--write-auth", path]);
    assert_eq!(running.ready["accounts"], json!(["account-1", "account-2"]));
    assert!(running.ready["base_url"].as_str().unwrap().starts_with("https://127.0.0.1:"));
    assert!(std::fs::read_to_string(dir.join("ca.pem")).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let auth: Value = serde_json::from_slice(&std::fs::read(dir.join("account-2.json")).unwrap()).unwrap();
    assert!(auth["tokens"]["refresh_token"].is_string());
    std::fs::remove_dir_all(&dir).unwrap();
    Command::new("kill").args(["-TERM", &running.child.id().to_string()]).status().unwrap();
    assert!(running.child.wait().unwrap().success());
}

/// Opens so many streams on so many connections, reads them to their ends, and returns the seconds it took.
fn read_streams(running: &Running, streams: usize) -> f64 {
    let account = &running.get("/__fake/accounts")["accounts"][0];
    let (access_token, account_id) = (&account["auth_json"]["tokens"]["access_token"], &account["chatgpt_account_id"]);
    let body = body("hello").to_string();
    let request = format!(
        "POST /backend-api/codex/responses HTTP/1.1\r\nhost: fake\r\nauthorization: Bearer {}\r\n\
         chatgpt-account-id: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        access_token.as_str().unwrap(),
        account_id.as_str().unwrap(),
        body.len()
    );
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..streams {
            let (address, request) = (running.address().to_owned(), request.clone());
            readers.spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut buffer = vec![0; 64 * 1024];
                while stream.read(&mut buffer).await.unwrap() > 0 {}
            });
        }
        while let Some(read) = readers.join_next().await {
            read.unwrap();
        }
    });
    started.elapsed().as_secs_f64()
}

#[test]
#[ignore = "measures; run it in release mode on a quiet machine"]
fn a_thousand_streams_carry_fifty_thousand_events_per_second() {
    for arguments in
        [&["--tokens", "500", "--rate", "50"][..], &["--tokens", "2000"], &["--tokens", "2000", "--coalesce"]]
    {
        let running = Running::start(&[&["--threads", "1", "--no-bodies"], arguments].concat());
        let cpu_before = running.cpu_seconds();
        let seconds = read_streams(&running, 1_000);
        let cpu = running.cpu_seconds() - cpu_before;
        let totals = running.get("/__fake/totals")["totals"]["account-1"].clone();
        assert_eq!(totals["completed"], 1_000);
        let events = totals["output"].as_f64().unwrap();
        eprintln!("{arguments:?}: {events} events in {seconds:.2} s with {cpu:.2} s of processor");
        assert!(events / cpu > 50_000.0, "{arguments:?} took {cpu:.2} s of processor for {events} events");
    }
}
