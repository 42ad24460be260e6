//! Starts the gateway as a process of its own, with a scratch data directory, and looks into its database.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::settings::{AccessSettings, RoutingSettings};
use codex_lb_shared::store::{LoggedExchange, PageRequest, SettingsGroup, Store, UsageTotals};
use fake_chatgpt::{AccountSpec, FakeAccount, FakeChatGpt};
use parking_lot::RwLock;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything that happens behind an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Which database a gateway uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// A fake upstream with accounts, and what the gateway needs to find it.
pub(crate) struct Upstream {
    pub(crate) fake: FakeChatGpt,
    pub(crate) accounts: Vec<FakeAccount>,
}

impl Upstream {
    /// A plain HTTP/1.1 upstream.
    pub(crate) async fn start(accounts: usize) -> Self {
        Self::with(FakeChatGpt::builder().start().await.unwrap(), accounts)
    }

    /// An HTTP/2 upstream over TLS.
    pub(crate) async fn start_http2(accounts: usize) -> Self {
        Self::with(FakeChatGpt::builder().tls(true).http2(true).start().await.unwrap(), accounts)
    }

    /// Accounts of a fake that was started otherwise.
    pub(crate) fn with(fake: FakeChatGpt, accounts: usize) -> Self {
        let accounts = (0..accounts).map(|_| fake.add_account(AccountSpec::default())).collect();
        Self { fake, accounts }
    }

    /// Requests for a model answer that reached upstream.
    pub(crate) fn responses(&self) -> Vec<fake_chatgpt::RequestRecord> {
        self.fake.requests().into_iter().filter(fake_chatgpt::RequestRecord::is_responses).collect()
    }
}

/// How a gateway is started. A clone is the same machine, for starting it again.
#[derive(Clone)]
pub(crate) struct Setup {
    data_dir: Arc<TempDir>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// A gateway in front of `upstream`, on SQLite, that holds all its accounts.
    pub(crate) fn new(upstream: &Upstream) -> Self {
        let setup = Self::without_accounts(&upstream.fake);
        if !upstream.accounts.is_empty() {
            let files: Vec<String> = upstream
                .accounts
                .iter()
                .map(|account| {
                    let path = setup.data_dir.path().join(format!("{}.json", account.name()));
                    std::fs::write(&path, account.auth_json().to_string()).unwrap();
                    path.to_string_lossy().into_owned()
                })
                .collect();
            let mut arguments = vec!["accounts", "import"];
            arguments.extend(files.iter().map(String::as_str));
            setup.command(&arguments).expect_success();
        }
        setup
    }

    /// The same on another database.
    pub(crate) fn on(upstream: &Upstream, database: Database) -> Self {
        match database {
            Database::Sqlite => Self::new(upstream),
            Database::Postgres => {
                let mut setup = Self::without_accounts(&upstream.fake);
                setup.set("CODEX_LB_DATABASE_URL", &new_postgres_database());
                for account in &upstream.accounts {
                    let path = setup.data_dir.path().join(format!("{}.json", account.name()));
                    std::fs::write(&path, account.auth_json().to_string()).unwrap();
                    setup.command(&["accounts", "import", &path.to_string_lossy()]).expect_success();
                }
                setup
            }
        }
    }

    /// A gateway with an empty pool.
    pub(crate) fn without_accounts(fake: &FakeChatGpt) -> Self {
        let data_dir = Arc::new(TempDir::new().unwrap());
        let mut setup = Self { data_dir, environment: Vec::new() };
        let data_dir = setup.data_dir.path().to_string_lossy().into_owned();
        setup.set("CODEX_LB_DATA_DIR", &data_dir);
        setup.set("CODEX_LB_UPSTREAM__BASE_URL", &fake.base_url());
        setup.set("CODEX_LB_OAUTH__ISSUER", &fake.issuer_url());
        for section in ["PROXY", "ADMIN", "METRICS"] {
            setup.set(&format!("CODEX_LB_{section}__LISTEN"), "127.0.0.1:0");
        }
        setup.set("CODEX_LB_LOG__FORMAT", "json");
        setup.set("CODEX_LB_SHUTDOWN__GRACE", "10ms");
        if let Some(pem) = fake.ca_pem() {
            let path = setup.data_dir.path().join("ca.pem");
            std::fs::write(&path, pem).unwrap();
            setup.set("CODEX_LB_UPSTREAM__CA_FILE", &path.to_string_lossy());
        }
        setup
    }

    /// Another machine of the same installation: the same database and encryption key, a data directory of its own.
    pub(crate) fn twin(&self) -> Self {
        let data_dir = Arc::new(TempDir::new().unwrap());
        std::fs::copy(self.path("gateway.key"), data_dir.path().join("gateway.key")).unwrap();
        let mut twin = Self { data_dir, environment: self.environment.clone() };
        let data_dir = twin.data_dir.path().to_string_lossy().into_owned();
        twin.set("CODEX_LB_DATA_DIR", &data_dir);
        twin
    }

    /// Sets an environment variable of the gateway.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.data_dir.path().join(name)
    }

    fn process(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codex-lb"));
        command.args(arguments).env_clear().envs(self.environment.iter().cloned());
        command.env("HOME", self.data_dir.path()).current_dir(self.data_dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn command(&self, arguments: &[&str]) -> Finished {
        Finished(self.process(arguments).output().unwrap())
    }

    /// Opens the gateway's database.
    pub(crate) async fn store(&self) -> Store {
        let url = self.environment.iter().find(|(name, _)| name == "CODEX_LB_DATABASE_URL");
        let url = match url {
            Some((_, url)) => url.parse().unwrap(),
            None => codex_lb_shared::store::DatabaseUrl::sqlite_file(self.path("gateway.db")),
        };
        Store::connect(&url).await.unwrap()
    }

    /// Makes an api key and returns its secret.
    pub(crate) fn key(&self, name: &str) -> String {
        self.command(&["keys", "create", "--name", name]).expect_success().trim().to_owned()
    }

    /// Asks for a key of every caller, from the next start on.
    pub(crate) async fn require_keys(&self) {
        self.save(SettingsGroup::Access, &AccessSettings { api_key_auth: true, ..AccessSettings::default() }).await;
    }

    /// Lets so many exchanges run on each account, from the next start on.
    pub(crate) async fn cap_accounts(&self, account_concurrency_cap: u32) {
        let routing = RoutingSettings { account_concurrency_cap, ..RoutingSettings::default() };
        self.save(SettingsGroup::Routing, &routing).await;
    }

    pub(crate) async fn save(&self, group: SettingsGroup, value: &(impl serde::Serialize + Sync)) {
        let store = self.store().await;
        store.migrate().await.unwrap();
        store.save_settings_group(group, value, 0, codex_lb_shared::clock::now()).await.unwrap();
        store.close().await;
    }

    /// Starts serving and waits until it says so.
    pub(crate) async fn serve(self) -> Gateway {
        let mut child = Running(self.process(&["serve"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        let (lines, log) = mpsc::channel();
        let stderr = BufReader::new(child.0.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        let serving = loop {
            match log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
                    if parsed["message"] == "codex-lb is serving" {
                        break parsed;
                    }
                    seen.push(line);
                }
                Err(_) => panic!("the gateway does not serve: {seen:#?}, {:?}", child.0.try_wait()),
            }
        };
        let address = |name: &str| serving[name].as_str().unwrap().to_owned();
        Gateway {
            proxy_url: format!("http://{}", address("proxy")),
            admin_url: format!("http://{}", address("admin")),
            metrics_url: format!("http://{}", address("metrics")),
            store: self.store().await,
            setup: self,
            http: client(),
            child,
            log: parking(log),
        }
    }
}

/// Keeps draining the log, so that the gateway never blocks on it, and keeps what was said.
fn parking(log: mpsc::Receiver<String>) -> Arc<RwLock<Vec<String>>> {
    let kept = Arc::<RwLock<Vec<String>>>::default();
    let keeper = Arc::clone(&kept);
    std::thread::spawn(move || {
        for line in log {
            keeper.write().push(line);
        }
    });
    kept
}

fn client() -> reqwest::Client {
    // Another test of the same process may have been first.
    let (Ok(()) | Err(_)) = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap()
}

fn new_postgres_database() -> String {
    let variable = "CODEX_LB_TEST_POSTGRES_URL";
    let server = std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; run `testing/postgres.sh start` and export its url"));
    let name = format!("gateway_{}", codex_lb_shared::ids::ExchangeId::generate().to_string().to_lowercase());
    let made = Command::new("psql").args([&server, "-qc", &format!("create database {name}")]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (server, _) = server.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// A command that ended.
pub(crate) struct Finished(Output);

impl Finished {
    /// What it printed, if it succeeded.
    pub(crate) fn expect_success(&self) -> String {
        assert!(self.0.status.success(), "{self:?}");
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// What it complained, if it failed.
    pub(crate) fn expect_failure(&self) -> String {
        assert!(!self.0.status.success(), "{self:?}");
        assert_eq!(self.0.status.code(), Some(1), "{self:?}");
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        write!(f, "{}\nstdout: {}\nstderr: {}", self.0.status, text(&self.0.stdout), text(&self.0.stderr))
    }
}

/// A gateway that serves.
pub(crate) struct Gateway {
    pub(crate) proxy_url: String,
    pub(crate) admin_url: String,
    pub(crate) metrics_url: String,
    pub(crate) setup: Setup,
    pub(crate) http: reqwest::Client,
    pub(crate) store: Store,
    child: Running,
    log: Arc<RwLock<Vec<String>>>,
}

impl Gateway {
    /// A gateway on SQLite in front of `upstream`.
    pub(crate) async fn before(upstream: &Upstream) -> Self {
        Setup::new(upstream).serve().await
    }

    /// A POST of JSON to the data plane.
    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.proxy_url)).json(body)
    }

    /// Everything the log holds so far.
    pub(crate) fn log(&self) -> String {
        self.log.read().join("\n")
    }

    /// The newest exchanges, once there are at least `count`.
    pub(crate) async fn exchanges(&self, count: usize) -> Vec<LoggedExchange> {
        let page = PageRequest { limit: 200, ..PageRequest::default() };
        eventually("the exchanges are recorded", async || {
            let rows = self.store.recent_exchanges(&page).await.unwrap();
            (rows.len() >= count).then_some(rows)
        })
        .await
    }

    /// The totals of everything recorded.
    pub(crate) async fn totals(&self) -> UsageTotals {
        self.store.usage_totals(Timestamp::from_unix_ms(0), Timestamp::from_unix_ms(i64::MAX)).await.unwrap()
    }

    /// How many descriptors the process holds.
    pub(crate) fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.0.id())).unwrap().count()
    }

    /// Stops it as Kubernetes does.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let sent = Command::new("kill").arg(self.child.0.id().to_string()).status().unwrap();
        assert!(sent.success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway does not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.log());
        }
    }
}

/// A process that ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let (Ok(()) | Err(_)) = self.0.kill();
        let (Ok(_) | Err(_)) = self.0.wait();
    }
}

/// Asks again and again until there is an answer, within [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A request that a native Codex client could send.
pub(crate) fn native_body(prompt: &str) -> Value {
    json!({"model": "gpt-5.5", "stream": true, "store": false, "instructions": "",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}]})
}

/// The data of each event of a stream.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data}"))).collect()
}
