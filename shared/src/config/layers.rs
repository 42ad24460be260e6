//! Gathers the layers (defaults, file, `.env.local`, environment) into one table of keys, each with where it came from.
//!
//! Knows no key's meaning: that a name exists at all is read off the defaults, which are complete.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::config::environment::{self, Known};
use crate::config::issue::{Issue, Source};
use crate::config::{DEFAULT_TOML, LoadOptions, dotenv};

/// A value and where it came from. A variable's text has the type that the default of its key has, if it fits.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// All keys with their winning values, and what went wrong while gathering.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) defaults: BTreeMap<String, Leaf>,
    pub(super) leaves: BTreeMap<String, Leaf>,
    pub(super) home_dir: Option<PathBuf>,
    pub(super) issues: Vec<Issue>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn gather(options: &LoadOptions) -> Self {
        let mut layers =
            Self { home_dir: variable(&options.environment, "HOME").map(PathBuf::from), ..Self::default() };
        layers.defaults = flatten(&default_table(), &Source::Default);
        layers.leaves = layers.defaults.clone();

        let working = layers.read_dotenv(&options.working_dir);
        if let Some((file, source)) = chosen_file(options, working.as_ref()) {
            layers.merge_file(&file, &source);
        }
        layers.merge_data_dir_dotenv(options, working.as_ref());
        if let Some(working) = working {
            layers.merge_variables(working.variables, |name| Source::DotEnv(working.path.clone(), name));
        }
        layers.merge_variables(options.environment.clone(), Source::Environment);
        layers
    }

    fn merge_file(&mut self, path: &Path, source: &Source) {
        let report = |problem: String, remedy: &str| Issue {
            key: "configuration file".to_owned(),
            source: source.clone(),
            value: Some(path.display().to_string()),
            problem,
            remedy: remedy.to_owned(),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.issues.push(report(format!("cannot be read: {error}"), "name a file that exists and is readable"));
                return;
            }
        };
        match text.parse::<Table>() {
            Ok(table) => self.leaves.extend(flatten(&table, &Source::File(path.to_owned()))),
            // The error's own text quotes the line, which may hold a secret.
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
                self.issues.push(report(format!("line {line} is not TOML: {}", error.message()), "correct that line"));
            }
        }
    }

    /// The data directory's `.env.local` cannot say where the data directory is, and yields to every other environment.
    fn merge_data_dir_dotenv(&mut self, options: &LoadOptions, working: Option<&DotEnv>) {
        let configured = variable(&options.environment, "CODEX_LB_DATA_DIR")
            .or_else(|| working.and_then(|working| variable(&working.variables, "CODEX_LB_DATA_DIR")))
            .or_else(|| self.leaves.get("data_dir")?.value.as_str().map(str::to_owned));
        let Some(data_dir) = data_dir(&configured.unwrap_or_default(), self.home_dir.as_deref()) else { return };
        let data_dir = options.working_dir.join(data_dir);
        if is_same_directory(&data_dir, &options.working_dir) {
            return;
        }
        let Some(found) = self.read_dotenv(&data_dir) else { return };
        let (moving, variables): (Vec<_>, Vec<_>) =
            found.variables.into_iter().partition(|(name, _)| name == "CODEX_LB_DATA_DIR");
        for (name, value) in moving {
            self.issues.push(Issue {
                key: "data_dir".to_owned(),
                source: Source::DotEnv(found.path.clone(), name),
                value: Some(value),
                problem: "a file inside the data directory cannot move the data directory".to_owned(),
                remedy: "set it in the environment or in the configuration file".to_owned(),
            });
        }
        self.merge_variables(variables, |name| Source::DotEnv(found.path.clone(), name));
    }

    fn read_dotenv(&mut self, directory: &Path) -> Option<DotEnv> {
        let path = directory.join(".env.local");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // Whoever needs the directory itself says what is wrong with it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return None,
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                self.issues.push(file_issue(&path, problem, "make it readable, or remove it"));
                return None;
            }
        };
        let (variables, bad_lines) = dotenv::parse(&text);
        for line in bad_lines {
            let problem = format!("line {line} is not NAME=value");
            self.issues.push(file_issue(&path, problem, "write NAME=value, quoted if it holds spaces or #"));
        }
        Some(DotEnv { path, variables })
    }

    fn merge_variables(&mut self, variables: Vec<(String, String)>, source: impl Fn(String) -> Source) {
        for (name, value) in variables {
            match environment::judge(&name, |key| self.defaults.contains_key(key)) {
                Known::Setting(key) => {
                    let value = coerce(value, self.defaults.get(&key).map(|leaf| &leaf.value));
                    self.leaves.insert(key, Leaf { value, source: source(name) });
                }
                Known::Ignored => {}
                Known::Obsolete(advice) => self.warnings.push(format!("{}: {advice}", source(name))),
                Known::Unknown => self.issues.push(Issue {
                    remedy: environment::suggest(&name, self.defaults.keys()),
                    key: name.clone(),
                    source: source(name),
                    // Not shown: nobody knows what it was meant to be, so it may be a secret.
                    value: None,
                    problem: "no such setting".to_owned(),
                }),
            }
        }
    }
}

/// The data directory that a text means, or `None` when it needs a home directory and there is none.
pub(super) fn data_dir(text: &str, home_dir: Option<&Path>) -> Option<PathBuf> {
    expand_home(if text.is_empty() { "~/.codex-lb" } else { text }, home_dir)
}

/// A path with a leading `~/` replaced, or `None` when there is no home directory to put there.
pub(super) fn expand_home(text: &str, home_dir: Option<&Path>) -> Option<PathBuf> {
    match text.strip_prefix("~/") {
        Some(rest) => Some(home_dir?.join(rest)),
        None => Some(PathBuf::from(text)),
    }
}

/// The defaults as a table. A test proves that they parse.
pub(super) fn default_table() -> Table {
    DEFAULT_TOML.parse().unwrap_or_default()
}

#[derive(Debug)]
struct DotEnv {
    path: PathBuf,
    variables: Vec<(String, String)>,
}

fn chosen_file(options: &LoadOptions, working: Option<&DotEnv>) -> Option<(PathBuf, Source)> {
    const NAME: &str = "CODEX_LB_CONFIG";
    if let Some(file) = &options.file {
        return Some((file.clone(), Source::CommandLine));
    }
    let named = variable(&options.environment, NAME).map(|path| (path, Source::Environment(NAME.to_owned())));
    let named = named.or_else(|| {
        let working = working?;
        let path = variable(&working.variables, NAME)?;
        Some((path, Source::DotEnv(working.path.clone(), NAME.to_owned())))
    });
    let (path, source) = named.filter(|(path, _)| !path.is_empty())?;
    Some((options.working_dir.join(path), source))
}

fn variable(variables: &[(String, String)], name: &str) -> Option<String> {
    variables.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.clone())
}

fn is_same_directory(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn file_issue(path: &Path, problem: String, remedy: &str) -> Issue {
    let key = "environment file".to_owned();
    Issue { key, source: Source::File(path.to_owned()), value: None, problem, remedy: remedy.to_owned() }
}

/// The text of a variable as the type of the default; a text that does not fit stays a text, and its reader refuses it.
fn coerce(text: String, like: Option<&Value>) -> Value {
    let trimmed = text.trim();
    match like {
        Some(Value::Boolean(_)) => trimmed.parse().map(Value::Boolean).unwrap_or(Value::String(text)),
        Some(Value::Integer(_)) => trimmed.parse().map(Value::Integer).unwrap_or(Value::String(text)),
        Some(Value::Array(_)) => {
            let items = trimmed.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        _ => Value::String(text),
    }
}

/// Turns nested tables into `section.key` leaves. An empty table stays a leaf, so that an unknown one is noticed.
fn flatten(table: &Table, source: &Source) -> BTreeMap<String, Leaf> {
    fn descend(prefix: &str, table: &Table, source: &Source, leaves: &mut BTreeMap<String, Leaf>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Some(inner) = value.as_table().filter(|inner| !inner.is_empty()) {
                descend(&key, inner, source, leaves);
            } else {
                leaves.insert(key, Leaf { value: value.clone(), source: source.clone() });
            }
        }
    }
    let mut leaves = BTreeMap::new();
    descend("", table, source, &mut leaves);
    leaves
}
