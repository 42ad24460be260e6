//! Hands values of the gathered layers to the sections, checked, and collects what is wrong with them.
//!
//! A read that fails returns `None` and leaves an issue behind; nobody stops at the first. A key that nobody read is
//! unknown, so a section cannot have a key that the code forgot.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use toml::Value;

use crate::config::environment;
use crate::config::issue::{Issue, Source};
use crate::config::layers::{self, Layers, Leaf};
use crate::config::values::{self, BaseUrl};

/// A setting as `config show` prints it: never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShownSetting {
    key: String,
    value: String,
    source: Source,
}

#[cfg(test)]
impl ShownSetting {
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

/// The gathered layers while the sections read them.
#[derive(Debug)]
pub(super) struct Reader {
    layers: Layers,
    read: BTreeSet<&'static str>,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        Self { layers, read: BTreeSet::new() }
    }

    /// What went wrong (unknown keys included), what to warn of, and everything as it may be shown.
    pub(super) fn finish(mut self) -> (Vec<Issue>, Vec<String>, Vec<ShownSetting>) {
        let unknown: Vec<Issue> = self
            .layers
            .leaves
            .iter()
            .filter(|(key, leaf)| !self.read.contains(key.as_str()) && !self.is_empty_section(key, leaf))
            .map(|(key, leaf)| self.unknown_key(key, leaf))
            .collect();
        self.layers.issues.extend(unknown);
        let shown = self.layers.leaves.iter().map(|(key, leaf)| ShownSetting {
            key: key.clone(),
            value: shown_value(key, &leaf.value),
            source: leaf.source.clone(),
        });
        (self.layers.issues, self.layers.warnings, shown.collect())
    }

    /// Reads one key with `parse`, which says what is wrong with a value; `remedy` says what would be right.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.read.insert(key);
        let problem = match self.layers.leaves.get(key).map(|leaf| parse(&leaf.value)) {
            Some(Ok(value)) => return Some(value),
            Some(Err(problem)) => problem,
            None => "missing".to_owned(),
        };
        self.refuse(key, problem, remedy);
        None
    }

    /// Adds an issue about a key that was readable by itself.
    pub(super) fn refuse(&mut self, key: &'static str, problem: String, remedy: &str) {
        let leaf = self.layers.leaves.get(key);
        self.layers.issues.push(Issue {
            key: key.to_owned(),
            source: leaf.map_or(Source::Default, |leaf| leaf.source.clone()),
            value: leaf.map(|leaf| shown_text(key, &leaf.value)),
            problem,
            remedy: remedy.to_owned(),
        });
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        remedy: &str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Option<String> {
        self.read(key, remedy, |value| {
            let text = text_of(value)?;
            check(text).map(|()| text.to_owned())
        })
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "write true or false", |value| {
            value.as_bool().ok_or_else(|| "neither true nor false".to_owned())
        })
    }

    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<usize>) -> Option<usize> {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        self.read(key, &remedy, |value| {
            let count = value.as_integer().ok_or("not a whole number")?;
            let count = usize::try_from(count).map_err(|_| "negative".to_owned())?;
            in_range(count, &range)
        })
    }

    pub(super) fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let remedy =
            format!("write a span from {:?} to {:?}, such as \"30s\", \"5m\" or \"2h\"", range.start(), range.end());
        self.read(key, &remedy, |value| in_range(values::parse_duration(text_of(value)?)?, &range))
    }

    pub(super) fn bytes(&mut self, key: &'static str, range: RangeInclusive<usize>) -> Option<usize> {
        let remedy = format!(
            "write a size from {} to {} bytes, such as \"64KiB\", \"128MiB\" or plain bytes",
            range.start(),
            range.end()
        );
        self.read(key, &remedy, |value| {
            let bytes = match value.as_integer() {
                Some(bytes) => usize::try_from(bytes).map_err(|_| "negative".to_owned())?,
                None => values::parse_bytes(text_of(value)?)?,
            };
            in_range(bytes, &range)
        })
    }

    /// Reads a list whose items `parse` reads; the first wrong item is the problem.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.read(key, remedy, |value| {
            let items = value.as_array().ok_or("not a list")?;
            let parse_item = |item| {
                let text = text_of(item)?;
                parse(text).map_err(|problem| format!("{problem}: {text:?}"))
            };
            items.iter().map(parse_item).collect()
        })
    }

    pub(super) fn socket_addr(&mut self, key: &'static str) -> Option<SocketAddr> {
        self.read(key, "write an address and a port, such as \"127.0.0.1:2455\" or \"[::1]:2455\"", |value| {
            text_of(value)?.parse().map_err(|_| "not an IP address with a port".to_owned())
        })
    }

    pub(super) fn base_url(&mut self, key: &'static str) -> Option<BaseUrl> {
        let remedy = "write an http or https url without credentials, query and final slash";
        self.read(key, remedy, |value| BaseUrl::parse(text_of(value)?))
    }

    /// Reads a secret; `Some(None)` when it is empty.
    pub(super) fn optional_secret(&mut self, key: &'static str) -> Option<Option<SecretString>> {
        self.read(key, "write a text", |value| {
            let text = text_of(value)?;
            Ok((!text.is_empty()).then(|| SecretString::from(text)))
        })
    }

    /// Reads a path; `empty` stands in for an empty one, and an empty `empty` stays empty.
    pub(super) fn path(&mut self, key: &'static str, empty: &str) -> Option<PathBuf> {
        let home_dir = self.layers.home_dir.clone();
        self.read(key, "write an absolute path, or set HOME", |value| {
            let text = text_of(value)?;
            let text = if text.is_empty() { empty } else { text };
            layers::expand_home(text, home_dir.as_deref()).ok_or_else(|| "there is no home directory".to_owned())
        })
    }

    /// An empty `[section]` of ours in a file changes nothing and is no mistake.
    fn is_empty_section(&self, key: &str, leaf: &Leaf) -> bool {
        let is_empty_table = leaf.value.as_table().is_some_and(toml::Table::is_empty);
        let prefix = format!("{key}.");
        is_empty_table && self.layers.defaults.keys().any(|known| known.starts_with(&prefix))
    }

    fn unknown_key(&self, key: &str, leaf: &Leaf) -> Issue {
        let distance = |known: &&String| environment::edit_distance(key, known);
        let nearest = self.layers.defaults.keys().min_by_key(distance).filter(|known| distance(known) <= 3);
        Issue {
            key: key.to_owned(),
            source: leaf.source.clone(),
            // Not shown: nobody knows what it was meant to be, so it may be a secret.
            value: None,
            problem: "no such setting".to_owned(),
            remedy: match nearest {
                Some(known) => format!("did you mean {known}?"),
                None => "remove it, or see conf/default.toml for all keys".to_owned(),
            },
        }
    }
}

/// The settings as TOML text, each with its source. Keys come in sections because the layers are sorted by key.
pub(super) fn render_shown(shown: &[ShownSetting]) -> String {
    let (top, sections): (Vec<_>, Vec<_>) = shown.iter().partition(|setting| !setting.key.contains('.'));
    let mut text = String::new();
    let mut current = "";
    for setting in top.into_iter().chain(sections) {
        let (section, name) = setting.key.rsplit_once('.').unwrap_or(("", &setting.key));
        if section != current {
            let _infallible = write!(text, "\n[{section}]\n");
            current = section;
        }
        let _infallible = writeln!(text, "{name} = {} # {}", setting.value, setting.source);
    }
    text
}

fn text_of(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "not a text".to_owned())
}

fn in_range<T: PartialOrd>(value: T, range: &RangeInclusive<T>) -> Result<T, String> {
    if value < *range.start() {
        Err("too small".to_owned())
    } else if value > *range.end() {
        Err("too large".to_owned())
    } else {
        Ok(value)
    }
}

/// A value as TOML, masked.
fn shown_value(key: &str, value: &Value) -> String {
    if value.is_str() { Value::String(shown_text(key, value)).to_string() } else { shown_text(key, value) }
}

/// A value as a text, masked. An empty secret is shown: that there is none is worth knowing.
fn shown_text(key: &str, value: &Value) -> String {
    match value.as_str() {
        Some("") => String::new(),
        // A mistyped egress url may hold its password where the mask of urls does not look.
        _ if key == "encryption_key" || key == "upstream.egress" => "****".to_owned(),
        Some(text) => values::mask_url(text),
        None => value.to_string(),
    }
}
