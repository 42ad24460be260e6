//! The binary: what a driver reads from it, and how it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

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
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is what one test wants.
        drop(self.child.kill());
        drop(self.child.wait());
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
