//! What is read once, at start: defaults, a file, the environment. Nothing here changes while the process runs; what
//! may change is a live setting (`domain::settings`) and never appears here.
//!
//! `conf/default.toml` holds every key and is the reference; each section's struct stands in the module of its concern.
//! A mistake never hides another one: loading reports all of them, each with its place and what to do about it.

mod control;
mod dotenv;
mod environment;
mod example;
mod issue;
mod layers;
mod process;
mod proxy;
mod python_names;
mod reader;
#[cfg(test)]
mod tests;
mod upstream;
mod values;

use std::path::PathBuf;

use secrecy::SecretString;

pub use control::{AdminConfig, DashboardConfig, MetricsConfig};
pub use example::env_example;
pub use issue::{ConfigErrors, Issue, Source};
pub use process::{LogConfig, LogFormat, ShutdownConfig};
pub use proxy::{IntakeConfig, ProxyConfig, ReplayConfig};
pub use upstream::{OauthConfig, UpstreamConfig};
pub use values::BaseUrl;

use crate::config::layers::Layers;
use crate::config::reader::{Reader, ShownSetting};

/// The built-in defaults, and the reference of every key.
pub const DEFAULT_TOML: &str = include_str!("../../conf/default.toml");

/// Everything that is read at start, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the database and the encryption key. It need not exist yet.
    pub data_dir: PathBuf,
    /// The database url as it was written; `None` means SQLite in [`Config::default_database_file`].
    pub database_url: Option<SecretString>,
    /// The key that encrypts account tokens, if it was given itself. It wins over `encryption_key_file`.
    pub encryption_key: Option<SecretString>,
    /// The file that holds that key, or will after the first start.
    pub encryption_key_file: PathBuf,
    /// Section `[proxy]`: the data plane.
    pub proxy: ProxyConfig,
    /// Section `[admin]`: the control plane.
    pub admin: AdminConfig,
    /// Section `[metrics]`: the Prometheus endpoint.
    pub metrics: MetricsConfig,
    /// Section `[dashboard]`: where the control plane can be reached.
    pub dashboard: DashboardConfig,
    /// Section `[upstream]`: the ChatGPT backend.
    pub upstream: UpstreamConfig,
    /// Section `[oauth]`: the login service.
    pub oauth: OauthConfig,
    /// Section `[intake]`: bounds on request bodies.
    pub intake: IntakeConfig,
    /// Section `[replay]`: what callers were answered lately.
    pub replay: ReplayConfig,
    /// Section `[shutdown]`: what happens on SIGTERM.
    pub shutdown: ShutdownConfig,
    /// Section `[log]`: the log.
    pub log: LogConfig,
    /// What to tell the operator at start: settings that were understood but do nothing. Holds no secret.
    pub warnings: Vec<String>,
    shown: Vec<ShownSetting>,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The file of `--config`; without one, `CODEX_LB_CONFIG` may name it.
    pub file: Option<PathBuf>,
    /// The process environment. Only `HOME` and names that start with `CODEX_LB_` are looked at.
    pub environment: Vec<(String, String)>,
    /// The directory whose `.env.local` is read first, and where relative paths of this module start.
    pub working_dir: PathBuf,
}

impl LoadOptions {
    /// The options of this process. A value that is not UTF-8 arrives with its odd bytes replaced, and fails its check.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the process environment")]
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        Self { file, environment, working_dir: std::env::current_dir().unwrap_or_default() }
    }
}

impl Config {
    /// Reads all sources and checks every value.
    ///
    /// # Errors
    /// All mistakes of all sources at once.
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigErrors> {
        let layers = Layers::gather(options);
        let mut reader = Reader::new(layers);
        let config = Self::read(&mut reader);
        let (issues, warnings, shown) = reader.finish();
        match config {
            Some(config) if issues.is_empty() => Ok(Self { warnings, shown, ..config }),
            _ => Err(ConfigErrors::new(issues)),
        }
    }

    /// Every read happens before the first `?`, so that one bad section does not hide the next.
    fn read(reader: &mut Reader) -> Option<Self> {
        let paths = process::read_paths(reader);
        let database_url = process::read_database_url(reader);
        let encryption_key = reader.optional_secret("encryption_key");
        let proxy = ProxyConfig::read(reader);
        let admin = AdminConfig::read(reader);
        let metrics = MetricsConfig::read(reader);
        let dashboard = DashboardConfig::read(reader);
        let upstream = UpstreamConfig::read(reader);
        let oauth = OauthConfig::read(reader);
        let intake = IntakeConfig::read(reader);
        let replay = ReplayConfig::read(reader);
        let shutdown = ShutdownConfig::read(reader);
        let log = LogConfig::read(reader);
        control::check_listeners_differ(
            reader,
            &[
                ("proxy.listen", proxy.as_ref().map(|proxy| proxy.listen)),
                ("admin.listen", admin.as_ref().map(|admin| admin.listen)),
                ("metrics.listen", metrics.as_ref().map(|metrics| metrics.listen)),
            ],
        );
        let paths = paths?;
        Some(Self {
            data_dir: paths.data_dir,
            database_url: database_url?,
            encryption_key: encryption_key?,
            encryption_key_file: paths.encryption_key_file,
            proxy: proxy?,
            admin: admin?,
            metrics: metrics?,
            dashboard: dashboard?,
            upstream: upstream?,
            oauth: oauth?,
            intake: intake?,
            replay: replay?,
            shutdown: shutdown?,
            log: log?,
            warnings: Vec::new(),
            shown: Vec::new(),
        })
    }

    /// Where the database is when no url names another one.
    pub fn default_database_file(&self) -> PathBuf {
        self.data_dir.join("gateway.db")
    }

    /// The whole configuration as TOML, each value with where it came from, and secrets masked.
    pub fn masked(&self) -> String {
        reader::render_shown(&self.shown)
    }

    #[cfg(test)]
    fn masked_keys(&self) -> impl Iterator<Item = &str> {
        self.shown.iter().map(ShownSetting::key)
    }
}
