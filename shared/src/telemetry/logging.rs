//! Sets up the log: lines on standard error, for people or for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What our dependencies say below `warn` is about their insides. Naming one of them in the filter brings it back.
const QUIET: &str = "hyper=warn,h2=warn,rustls=warn,sqlx=warn,pingora=warn,pingora_core=warn,pingora_proxy=warn";

/// Sends every event from now on to standard error. Filters that do not parse count as `info`.
///
/// Does nothing when logging was already set up, so tests may call it as often as they like.
pub fn init_logging(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if outcome.is_err() {
        tracing::debug!("logging was already set up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logging_may_be_set_up_twice() {
        init_logging(LogFormat::Text, "info");
        init_logging(LogFormat::Json, "debug");
    }

    #[test]
    fn the_quiet_list_parses() {
        assert!(EnvFilter::try_new(QUIET).is_ok());
    }
}
