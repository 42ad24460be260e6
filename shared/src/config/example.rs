//! Writes `.env.example` from `conf/default.toml`, so that the two cannot disagree.

use crate::config::DEFAULT_TOML;
use crate::config::environment::variable_of;

/// The text of `.env.example`: every variable with its default and the comment that stands above its key.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Every setting as an environment variable, with its default. Copy what you change to .env.local.\n\
         # Generated from conf/default.toml by `codex-lb config env-example`; do not edit.\n",
    );
    let mut section = "";
    let mut comment = "";
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if line.starts_with('#') {
            comment = line;
        } else if let Some((name, value)) = line.split_once(" = ") {
            let key = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            let value = value.trim_matches('"').trim_matches(['[', ']']);
            text.push_str(&format!("\n{comment}\n#{}={value}\n", variable_of(&key)));
        }
    }
    text
}
