//! Keys without a section, and the sections `[shutdown]` and `[log]`: what concerns the process as a whole.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::config::reader::Reader;
use crate::store::DatabaseUrl;

/// Section `[shutdown]`: what happens on SIGTERM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long the listeners go on accepting while readiness already says no.
    pub grace: Duration,
    /// How long running exchanges may take to end after that.
    pub drain_timeout: Duration,
}

impl ShutdownConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let grace = reader.duration("shutdown.grace", Duration::ZERO..=Duration::from_secs(600));
        let drain_timeout = reader.duration("shutdown.drain_timeout", Duration::ZERO..=Duration::from_secs(24 * 3600));
        Some(Self { grace: grace?, drain_timeout: drain_timeout? })
    }
}

/// Section `[log]`: the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or directives; proven to parse.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let filter = reader.text(
            "log.filter",
            "write a level such as \"info\", or directives such as \"info,codex_lb_proxy=debug\"",
            |text| match EnvFilter::try_new(text) {
                Ok(_) if !text.trim().is_empty() => Ok(()),
                _ => Err("not a log filter".to_owned()),
            },
        );
        let format = reader.read("log.format", "write \"text\" or \"json\"", |value| match value.as_str() {
            Some("text") => Ok(LogFormat::Text),
            Some("json") => Ok(LogFormat::Json),
            _ => Err("no such log format".to_owned()),
        });
        Some(Self { filter: filter?, format: format? })
    }
}

/// The places that follow from the data directory.
pub(super) struct Paths {
    pub(super) data_dir: PathBuf,
    pub(super) encryption_key_file: PathBuf,
}

pub(super) fn read_paths(reader: &mut Reader) -> Option<Paths> {
    let data_dir = reader.path("data_dir", "~/.codex-lb");
    let key_file = reader.path("encryption_key_file", "");
    let (data_dir, key_file) = (data_dir?, key_file?);
    let encryption_key_file = if key_file.as_os_str().is_empty() { data_dir.join("gateway.key") } else { key_file };
    Some(Paths { data_dir, encryption_key_file })
}

/// The store reads the url again when it connects; it is kept as it was written because it may hold a password.
pub(super) fn read_database_url(reader: &mut Reader) -> Option<Option<SecretString>> {
    reader.read("database_url", "write sqlite://<file> or postgres://<user>@<host>/<database>", |value| {
        let text = value.as_str().ok_or("not a text")?;
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<DatabaseUrl>() {
            Ok(_) => Ok(Some(SecretString::from(text))),
            Err(error) => Err(error.to_string()),
        }
    })
}
