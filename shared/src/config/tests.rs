//! What loading a configuration promises, from the outside.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::*;

/// A working directory, a home and the variables of one load.
struct Start {
    working_dir: TempDir,
    home: TempDir,
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Start {
    fn new() -> Self {
        let (working_dir, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let environment = vec![("HOME".to_owned(), home.path().to_str().unwrap().to_owned())];
        Self { working_dir, home, file: None, environment }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn with_file(mut self, text: &str) -> Self {
        let path = self.working_dir.path().join("codex-lb.toml");
        std::fs::write(&path, text).unwrap();
        self.file = Some(path);
        self
    }

    fn with_dotenv(self, text: &str) -> Self {
        std::fs::write(self.working_dir.path().join(".env.local"), text).unwrap();
        self
    }

    fn with_data_dir_dotenv(self, text: &str) -> Self {
        let data_dir = self.home.path().join(".codex-lb");
        std::fs::create_dir_all(&data_dir).unwrap();
        std::fs::write(data_dir.join(".env.local"), text).unwrap();
        self
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&LoadOptions {
            file: self.file.clone(),
            environment: self.environment.clone(),
            working_dir: self.working_dir.path().to_owned(),
        })
    }

    fn issues(&self) -> Vec<Issue> {
        self.load().expect_err("the load succeeds").issues().to_vec()
    }
}

/// The key and source of every issue, for tests about what is reported rather than how.
fn places(issues: &[Issue]) -> Vec<(String, String)> {
    issues.iter().map(|issue| (issue.key.clone(), issue.source.to_string())).collect()
}

#[test]
fn the_defaults_load_and_hold_exactly_the_keys_that_are_read() {
    let start = Start::new();
    let config = start.load().unwrap();
    assert!(config.warnings.is_empty());
    // A key that is read but not in the file is an issue "missing", one that is not read is "no such setting".
    let keys: BTreeSet<&str> = config.masked_keys().collect();
    assert!(keys.contains("data_dir") && keys.contains("upstream.base_url"), "{keys:?}");
}

#[test]
fn the_defaults_are_what_the_documentation_promises() {
    let start = Start::new();
    let config = start.load().unwrap();
    let data_dir = start.home.path().join(".codex-lb");
    assert_eq!(config.data_dir, data_dir);
    assert_eq!(config.default_database_file(), data_dir.join("gateway.db"));
    assert_eq!(config.encryption_key_file, data_dir.join("gateway.key"));
    assert!(config.database_url.is_none() && config.encryption_key.is_none());
    assert_eq!(config.proxy.listen.to_string(), "127.0.0.1:2455");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:2456");
    assert_eq!(config.metrics.listen.to_string(), "127.0.0.1:9090");
    assert!(config.proxy.threads >= 1);
    assert_eq!(config.upstream.base_url.as_str(), "https://chatgpt.com/backend-api");
    assert_eq!(config.upstream.user_agent, format!("codex-lb/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(config.upstream.exchange_timeout, Duration::from_secs(7200));
    assert_eq!(config.intake.responses_body_bytes_max, 128 << 20);
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn every_key_of_the_defaults_stands_under_its_own_comment() {
    let mut previous = "";
    for line in DEFAULT_TOML.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(previous.starts_with("# "), "no comment above {line:?}");
        }
        previous = line;
    }
}

#[test]
fn the_environment_wins_over_dotenv_and_dotenv_over_the_file_and_the_file_over_the_defaults() {
    let start = || Start::new().with_file("[upstream]\noriginator = \"file\"\nidle_timeout = \"7s\"");
    let originator = |start: Start| start.load().unwrap().upstream.originator;
    assert_eq!(originator(start()), "file");
    assert_eq!(start().load().unwrap().upstream.idle_timeout, Duration::from_secs(7));
    let data_dir = "CODEX_LB_UPSTREAM__ORIGINATOR=data";
    let working = "CODEX_LB_UPSTREAM__ORIGINATOR=working";
    assert_eq!(originator(start().with_data_dir_dotenv(data_dir)), "data");
    assert_eq!(originator(start().with_data_dir_dotenv(data_dir).with_dotenv(working)), "working");
    let all = start().with_data_dir_dotenv(data_dir).with_dotenv(working).with("CODEX_LB_UPSTREAM__ORIGINATOR", "env");
    assert_eq!(originator(all), "env");
}

#[test]
fn a_file_is_named_by_variable_too() {
    let start = Start::new().with_file("[log]\nformat = \"json\"").with("CODEX_LB_CONFIG", "codex-lb.toml");
    let start = Start { file: None, ..start };
    assert_eq!(start.load().unwrap().log.format, LogFormat::Json);
}

#[test]
fn the_short_names_set_the_keys_without_a_section() {
    let config = Start::new()
        .with("CODEX_LB_DATA_DIR", "/srv/pool")
        .with("CODEX_LB_DATABASE_URL", "postgresql+asyncpg://u:p@h/db")
        .with("CODEX_LB_ENCRYPTION_KEY", "sesame")
        .load()
        .unwrap();
    assert_eq!(config.data_dir, Path::new("/srv/pool"));
    assert_eq!(config.encryption_key_file, Path::new("/srv/pool/gateway.key"));
    assert_eq!(config.database_url.unwrap().expose_secret(), "postgresql+asyncpg://u:p@h/db");
    assert_eq!(config.encryption_key.unwrap().expose_secret(), "sesame");
    let config = Start::new().with("CODEX_LB_ENCRYPTION_KEY_FILE", "/run/key").load().unwrap();
    assert_eq!(config.encryption_key_file, Path::new("/run/key"));
}

#[test]
fn texts_of_the_environment_become_lists_numbers_and_sizes() {
    let config = Start::new()
        .with("CODEX_LB_PROXY__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7")
        .with("CODEX_LB_PROXY__HOST_NAMES", "Gateway.Internal")
        .with("CODEX_LB_PROXY__CORS_ORIGINS", "https://Chat.Example.com,http://localhost:5173")
        .with("CODEX_LB_PROXY__THREADS", "3")
        .with("CODEX_LB_DASHBOARD__ON_PROXY_PORT", "false")
        .with("CODEX_LB_INTAKE__OTHER_BODY_BYTES_MAX", "65536")
        .with("CODEX_LB_UPSTREAM__FORWARD_HEADERS", "")
        .load()
        .unwrap();
    let networks: Vec<String> = config.proxy.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32"]);
    assert_eq!(config.proxy.host_names, ["gateway.internal"]);
    assert_eq!(config.proxy.cors_origins, ["https://chat.example.com", "http://localhost:5173"]);
    assert_eq!(config.proxy.threads, 3);
    assert!(!config.dashboard.on_proxy_port);
    assert_eq!(config.intake.other_body_bytes_max, 65_536);
    assert!(config.upstream.forward_headers.is_empty());
}

#[test]
fn all_mistakes_are_reported_at_once_with_key_source_value_and_remedy() {
    let start = Start::new()
        .with_file(
            "[upstrem]\nx = 1\n[upstream]\nbase_url = \"chatgpt.com\"\nidle_timeout = 5\n[log]\nformat = \"xml\"",
        )
        .with("CODEX_LB_PROXY__LISTEN", "localhost")
        .with("CODEX_LB_SHUTDOWN__GRACE", "-1s")
        .with("CODEX_LB_PROXI__LISTEN", "x");
    let issues = start.issues();
    let file = start.file.as_ref().unwrap().display().to_string();
    let expected = [
        ("CODEX_LB_PROXI__LISTEN", "environment CODEX_LB_PROXI__LISTEN"),
        ("proxy.listen", "environment CODEX_LB_PROXY__LISTEN"),
        ("upstream.base_url", &file),
        ("upstream.idle_timeout", &file),
        ("shutdown.grace", "environment CODEX_LB_SHUTDOWN__GRACE"),
        ("log.format", &file),
        ("upstrem.x", &file),
    ];
    assert_eq!(places(&issues), expected.map(|(key, source)| (key.to_owned(), source.to_owned())));
    assert!(issues.iter().all(|issue| !issue.problem.is_empty() && !issue.remedy.is_empty()));
    let text = ConfigErrors::new(issues).to_string();
    assert!(text.starts_with("the configuration has 7 mistakes\n"), "{text}");
    assert!(text.contains("did you mean CODEX_LB_PROXY__LISTEN?"), "{text}");
    assert!(text.contains("proxy.listen = \"localhost\" (environment CODEX_LB_PROXY__LISTEN): "), "{text}");
}

#[test]
fn every_bad_value_is_refused_under_its_own_key() {
    for (key, value) in [
        ("database_url", "mysql://h/db"),
        ("proxy.listen", "2455"),
        ("proxy.trusted_proxies", "10.0.0.0/33"),
        ("proxy.host_names", "http://x"),
        ("proxy.cors_origins", "*"),
        ("proxy.cors_origins", "https://x/"),
        ("proxy.cors_origins", "null"),
        ("proxy.threads", "-1"),
        ("proxy.threads", "many"),
        ("proxy.threads", "5000"),
        ("proxy.write_timeout", "0s"),
        ("dashboard.on_proxy_port", "maybe"),
        ("upstream.base_url", "https://chatgpt.com/backend-api/"),
        ("upstream.client_version", "1.2"),
        ("upstream.forward_headers", "x-mine,Cookie"),
        ("upstream.forward_headers", "x-forwarded-for"),
        ("upstream.originator", "a\nb"),
        ("upstream.originator", ""),
        ("upstream.ca_file", "/nowhere/ca.pem"),
        ("upstream.connect_timeout", "0s"),
        ("upstream.exchange_timeout", "25h"),
        ("oauth.issuer", "auth.openai.com"),
        ("oauth.client_id", ""),
        ("intake.responses_body_bytes_max", "1KiB"),
        ("intake.responses_body_bytes_max", "2GiB"),
        ("log.filter", "info,=,"),
        ("log.format", "yaml"),
    ] {
        let issues = Start::new().with(&environment::variable_of(key), value).issues();
        let keys: Vec<&str> = issues.iter().map(|issue| issue.key.as_str()).collect();
        let expected = if value == "2GiB" { "intake.buffered_bytes_max" } else { key };
        assert_eq!(keys, [expected], "{key} = {value}");
    }
}

#[test]
fn two_listeners_never_share_an_address_unless_the_system_chooses_the_port() {
    let issues = Start::new().with("CODEX_LB_METRICS__LISTEN", "127.0.0.1:2456").issues();
    assert_eq!(places(&issues)[0].0, "metrics.listen");
    assert!(issues[0].problem.contains("admin.listen"));
    let start =
        Start::new().with("CODEX_LB_METRICS__LISTEN", "127.0.0.1:0").with("CODEX_LB_ADMIN__LISTEN", "127.0.0.1:0");
    assert!(start.load().is_ok());
}

#[test]
fn an_unknown_key_of_a_file_is_a_mistake_and_an_empty_section_is_not() {
    let issues = Start::new().with_file("data_dirr = \"/x\"\nlog = 3\n[nothing]\n[proxy.listen]\nx = 1").issues();
    let keys: Vec<String> = places(&issues).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["data_dirr", "log", "nothing", "proxy.listen.x"]);
    assert_eq!(issues[0].remedy, "did you mean data_dir?");
    assert!(Start::new().with_file("[proxy]\n").load().is_ok());
}

#[test]
fn settings_of_the_python_program_are_warned_of_and_variables_of_others_ignored() {
    let config = Start::new()
        .with("CODEX_LB_UPSTREAM_BASE_URL", "https://x")
        .with("CODEX_LB_HTTP_RESPONSES_SESSION_BRIDGE_ENABLED", "true")
        .with("CODEX_LB_API_KEY", "sk-clb-1")
        .with("CODEX_LB_PORT_2455_TCP", "tcp://10.0.0.1:2455")
        .load()
        .unwrap();
    assert_eq!(config.upstream.base_url.as_str(), "https://chatgpt.com/backend-api");
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("use CODEX_LB_UPSTREAM__BASE_URL"), "{:?}", config.warnings);
}

#[test]
fn no_secret_appears_in_errors_in_warnings_in_debug_output_or_when_shown() {
    let secrets = ["swordfish", "hunter2", "opensesame"];
    let start = Start::new()
        .with("CODEX_LB_UPSTREAM__EGRESS", "http://hunter2:swordfish@proxy.example:3128")
        .with("CODEX_LB_ENCRYPTION_KEY", "opensesame")
        .with("CODEX_LB_DATABASE_URL", "postgres://u:hunter2@h/db?password=hunter2");
    let config = start.load().unwrap();
    let shown = format!("{config:?} {}", config.masked());
    let bad = start
        .with("CODEX_LB_DATABASE_URL", "mysql://u:hunter2@h/db")
        .with("CODEX_LB_UPSTREAM__BASE_URL", "https://u:swordfish@x")
        .with("CODEX_LB_UPSTREAM__EGRESS", "u:swordfish@proxy.example:3128")
        .with("CODEX_LB_ENCRYPTOIN_KEY", "opensesame")
        .with_file("encryption_key_ = \"opensesame\"");
    let torn = Start::new().with_file("encryption_key = \"opensesame").with_dotenv("opensesame");
    for text in [shown, bad.load().unwrap_err().to_string(), torn.load().unwrap_err().to_string()] {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn the_default_egress_is_a_url_or_none() {
    let egress = |url: &str| Start::new().with("CODEX_LB_UPSTREAM__EGRESS", url);
    assert!(egress("").load().unwrap().upstream.egress.is_none());
    let access = egress("socks5h://u:p@proxy.example").load().unwrap().upstream.egress.unwrap();
    assert_eq!((access.endpoint().port, access.login()), (1080, Some(("u", "p"))));
    let issues = egress("http://u:sw?ordfish@proxy.example:x").issues();
    assert_eq!(places(&issues)[0].0, "upstream.egress");
    assert!(!format!("{issues:?}").contains("ordfish"), "{issues:?}");
}

#[test]
fn a_torn_file_is_reported_by_its_line() {
    let issues = Start::new().with_file("[log]\nformat = \"json").issues();
    assert_eq!(issues.len(), 1);
    assert!(issues[0].problem.starts_with("line 2 is not TOML"), "{}", issues[0].problem);
    let issues = Start { file: Some("missing.toml".into()), ..Start::new() }.issues();
    assert!(issues[0].problem.starts_with("cannot be read"), "{}", issues[0].problem);
}

#[test]
fn a_file_in_the_data_directory_cannot_move_the_data_directory() {
    let issues = Start::new().with_data_dir_dotenv("CODEX_LB_DATA_DIR=/elsewhere").issues();
    assert_eq!(places(&issues)[0].0, "data_dir");
}

#[test]
fn without_a_home_the_data_directory_must_be_named() {
    let homeless = || Start { environment: Vec::new(), ..Start::new() };
    assert_eq!(places(&homeless().issues()), [("data_dir".to_owned(), "default".to_owned())]);
    assert!(homeless().with("CODEX_LB_DATA_DIR", "/srv/pool").load().is_ok());
}

#[test]
fn what_is_shown_is_toml_that_loads_to_the_same() {
    let config = Start::new().with("CODEX_LB_LOG__FORMAT", "json").load().unwrap();
    let shown = config.masked();
    assert!(shown.contains("format = \"json\" # environment CODEX_LB_LOG__FORMAT\n"), "{shown}");
    let again = Start::new().with_file(&shown).load().unwrap();
    assert_eq!(again.log, config.log);
    assert_eq!(again.upstream, config.upstream);
}

/// With `CODEX_LB_TEST_UPDATE=1` this writes the file instead.
#[test]
fn the_example_environment_file_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.env.example");
    #[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
    let updates = std::env::var_os("CODEX_LB_TEST_UPDATE").is_some();
    if updates {
        std::fs::write(&path, env_example()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == env_example(), "run `make env-example`: .env.example differs from conf/default.toml");
}

#[test]
fn the_example_names_every_setting_and_loads() {
    let example = env_example();
    let uncommented: String =
        example.lines().filter(|line| line.starts_with("#CODEX_LB_")).map(|line| format!("{}\n", &line[1..])).collect();
    let start = Start::new().with_dotenv(&uncommented);
    let config = start.load().unwrap();
    assert_eq!(uncommented.lines().count(), config.masked_keys().count());
    assert_eq!(config.upstream, Start::new().load().unwrap().upstream);
    assert_eq!(config.intake, Start::new().load().unwrap().intake);
}
