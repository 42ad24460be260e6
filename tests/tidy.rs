//! What must hold of the repository itself and no compiler checks. Each invariant is one test that first proves, on a
//! made-up counterexample, that it can fail.
//!
//! The checks look at lines of text. They must stay so simple that nobody argues with them.

#![expect(clippy::unwrap_used, reason = "what a test is built from may panic like a test")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// A file of the repository.
struct SourceFile {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

impl SourceFile {
    fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    fn has_extension(&self, extensions: &[&str]) -> bool {
        extensions.iter().any(|extension| self.path.ends_with(&format!(".{extension}")))
    }

    /// Numbered lines that are no comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Numbered lines of code before the file's own tests, which stand last.
    fn code_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| line.trim() != "#[cfg(test)]")
    }

    /// One violation for each line of code that holds one of the needles.
    fn lines_with(&self, needles: &[&str], problem: &str) -> Vec<String> {
        let found = self.code().filter(|(_, line)| needles.iter().any(|needle| line.contains(needle)));
        found.map(|(number, line)| format!("{}:{number}: {problem}: {}", self.path, line.trim())).collect()
    }
}

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 9] =
    [".git", "target", "node_modules", ".venv", "dist", ".work", "__pycache__", ".pytest_cache", ".idea"];
/// Larger files are data, not text that somebody wrote.
const TEXT_BYTES_MAX: u64 = 512 * 1024;

fn repository() -> Vec<SourceFile> {
    let mut files = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
    assert!(files.len() > 50, "only {} files were found, so the walk is broken", files.len());
    files
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let (kind, path) = (entry.file_type().unwrap(), format!("{prefix}{name}"));
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if kind.is_file() && name != ".env.local" && entry.metadata().unwrap().len() <= TEXT_BYTES_MAX {
            // What is not UTF-8 is not text.
            if let Ok(text) = std::fs::read_to_string(entry.path()) {
                files.push(SourceFile { path, text });
            }
        }
    }
}

/// Proves that the check objects to every counterexample, then that it objects to nothing in the repository.
fn enforce(invariant: &str, check: fn(&[SourceFile]) -> Vec<String>, counterexamples: &[(&str, &str)]) {
    for (path, text) in counterexamples {
        let file = SourceFile { path: (*path).to_owned(), text: (*text).to_owned() };
        assert!(!check(&[file]).is_empty(), "the check of {invariant:?} lets this through: {path}: {text}");
    }
    let violations = check(&repository());
    let mut report = String::new();
    for violation in &violations {
        writeln!(report, "  {violation}").unwrap();
    }
    assert!(violations.is_empty(), "{invariant}, but:\n{report}");
}

fn each(files: &[SourceFile], check: impl Fn(&SourceFile) -> Vec<String>) -> Vec<String> {
    files.iter().flat_map(check).collect()
}

#[test]
fn only_the_store_names_the_database_library() {
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            let is_home =
                file.is_under(&["shared/src/store/", "shared/src/store.rs", "shared/tests/store", "tests/tidy.rs"])
                    || ["Cargo.toml", "shared/Cargo.toml"].contains(&file.path.as_str());
            let is_looked_at = file.has_extension(&["rs"]) || file.path.ends_with("Cargo.toml");
            if is_home || !is_looked_at {
                Vec::new()
            } else {
                file.lines_with(&["sqlx::", "use sqlx", "sqlx.workspace", "sqlx ="], "names sqlx")
            }
        })
    };
    enforce(
        "SQL lives in shared/src/store",
        check,
        &[
            ("proxy/src/a.rs", "use sqlx::Pool;"),
            ("admin/Cargo.toml", "sqlx.workspace = true"),
            ("shared/src/storehouse.rs", "sqlx::query(\"\")"),
        ],
    );
}

#[test]
fn decisions_are_pure() {
    let check = |files: &[SourceFile]| {
        let needles = [
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "tokio",
            "reqwest",
            "clock::now",
            "SystemTime",
            "Instant",
            "async fn",
            ".await",
            "Mutex",
        ];
        each(files, |file| {
            // Tests of decisions may read recorded replies out of files.
            let is_test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
            let is_pure = file.is_under(&["shared/src/domain/", "shared/src/domain.rs", "proxy/decide/src/"]);
            if is_pure && !is_test { file.lines_with(&needles, "does I/O, waits or reads a clock") } else { Vec::new() }
        })
    };
    enforce(
        "shared/src/domain and proxy/decide do no I/O and read no clock",
        check,
        &[
            ("shared/src/domain/a.rs", "let now = clock::now();"),
            ("proxy/decide/src/lib.rs", "pub async fn choose() {}"),
            ("proxy/decide/src/verdict.rs", "use std::fs;"),
        ],
    );
}

#[test]
fn the_domain_uses_only_itself_and_plain_values() {
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            if !file.is_under(&["shared/src/domain/", "shared/src/domain.rs"]) {
                return Vec::new();
            }
            let allowed = ["crate::domain", "crate::clock::", "crate::ids::", "crate::kind::"];
            let foreign = |line: &str| {
                line.match_indices("crate::").any(|(at, _)| !allowed.iter().any(|path| line[at..].starts_with(path)))
            };
            let lines = file.code().filter(|(_, line)| foreign(line));
            lines
                .map(|(number, line)| format!("{}:{number}: reaches out of the domain: {}", file.path, line.trim()))
                .collect()
        })
    };
    enforce(
        "inside shared, everything may use the domain and the domain uses nothing",
        check,
        &[
            ("shared/src/domain/a.rs", "use crate::store::Store;"),
            ("shared/src/domain/a.rs", "use crate::domain::usage::TokenUsage; use crate::config::Config;"),
        ],
    );
}

#[test]
fn the_planes_do_not_know_each_other() {
    let check = |files: &[SourceFile]| {
        let proxy = ["codex_lb_proxy::", "use codex_lb_proxy", "codex-lb-proxy.", "codex-lb-proxy ="];
        let admin = ["codex_lb_admin::", "use codex_lb_admin", "codex-lb-admin.", "codex-lb-admin ="];
        each(files, |file| {
            let mut violations = Vec::new();
            if file.is_under(&["shared/", "admin/"]) {
                violations.extend(file.lines_with(&proxy, "names the data plane"));
            }
            if file.is_under(&["shared/", "proxy/"]) {
                violations.extend(file.lines_with(&admin, "names the control plane"));
            }
            violations
        })
    };
    enforce(
        "dependencies run one way: the program, then the planes, then shared",
        check,
        &[
            ("proxy/src/a.rs", "use codex_lb_admin::router;"),
            ("admin/Cargo.toml", "codex-lb-proxy.workspace = true"),
            ("shared/src/a.rs", "use codex_lb_proxy::x;"),
        ],
    );
}

#[test]
fn files_stay_short_enough_to_read() {
    const LINES_MAX: usize = 600;
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            let is_written_by_hand = file.has_extension(&["rs", "ts", "tsx", "py", "sh"])
                && !file.text.lines().take(3).any(|line| line.contains("@generated"));
            let lines = file.text.lines().count();
            if is_written_by_hand && lines > LINES_MAX {
                vec![format!("{}: {lines} lines, and {LINES_MAX} are the most", file.path)]
            } else {
                Vec::new()
            }
        })
    };
    enforce("no file written by hand is longer than 600 lines", check, &[("src/a.rs", &"\n".repeat(601))]);
}

#[test]
fn both_databases_have_the_same_migrations() {
    let check = |files: &[SourceFile]| {
        let names = |folder: &str| -> BTreeSet<String> {
            files.iter().filter_map(|file| file.path.strip_prefix(folder)).map(str::to_owned).collect()
        };
        let (sqlite, postgres) = (names("migrations/sqlite/"), names("migrations/postgres/"));
        let twins = sqlite.symmetric_difference(&postgres).map(|name| format!("{name} exists for one database only"));
        let untold = files.iter().filter(|file| file.is_under(&["migrations/"]) && !file.text.starts_with("-- "));
        twins.chain(untold.map(|file| format!("{}: its first line does not say why", file.path))).collect()
    };
    enforce(
        "every migration exists twice under one name and begins with its reason",
        check,
        &[
            ("migrations/sqlite/0001_start.sql", "-- Why.\n"),
            ("migrations/postgres/0001_start.sql", "-- Why.\n"),
            ("migrations/postgres/0001_start.sql", "create table x;"),
        ],
    );
}

#[test]
fn every_source_file_begins_with_what_it_is_for() {
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            if file.has_extension(&["rs"]) && !file.text.starts_with("//! ") {
                vec![format!("{}: does not begin with //! and a sentence", file.path)]
            } else {
                Vec::new()
            }
        })
    };
    enforce("every .rs file begins with its purpose", check, &[("src/a.rs", "fn main() {}"), ("src/b.rs", "//!\n")]);
}

#[test]
fn nothing_is_left_undone() {
    // Spelt in two halves, so that this file does not object to itself.
    const MACROS: [&str; 4] =
        [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("db", "g!("), concat!("#[ig", "nore")];
    const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            if !file.has_extension(&["rs", "ts", "tsx", "py", "sh", "sql", "toml"]) {
                return Vec::new();
            }
            let mut violations = file.lines_with(&MACROS, "is left undone or never runs");
            for (index, line) in file.text.lines().enumerate() {
                if NOTES.iter().any(|note| line.contains(note)) && !line.contains("(#") {
                    violations.push(format!(
                        "{}:{}: a note without an issue number: {}",
                        file.path,
                        index + 1,
                        line.trim()
                    ));
                }
            }
            violations
        })
    };
    enforce(
        "nothing is left undone without an issue",
        check,
        &[
            ("src/a.rs", concat!("to", "do!()")),
            ("src/a.rs", concat!("#[ig", "nore = \"slow\"]")),
            ("src/a.rs", concat!("// TO", "DO: later")),
        ],
    );
}

#[test]
fn answers_are_invented_in_few_places() {
    // Reading the status of somebody's answer is everybody's right; making one up is not.
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            let is_home = ["rejection", "api_error", "health"].iter().any(|home| file.path.contains(home));
            let is_plane = file.is_under(&["proxy/src/", "admin/src/"]) && file.has_extension(&["rs"]);
            if is_home || !is_plane || file.path.ends_with("tests.rs") {
                return Vec::new();
            }
            let names_one = |line: &str| {
                let mut after = line.match_indices("StatusCode::").map(|(at, found)| &line[at + found.len()..]);
                after.any(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
            };
            let lines = file.code_without_tests().filter(|(_, line)| names_one(line));
            lines.map(|(number, line)| format!("{}:{number}: makes up a status: {}", file.path, line.trim())).collect()
        })
    };
    enforce(
        "only rejections, api errors and health know status codes",
        check,
        &[
            ("proxy/src/a.rs", "return StatusCode::BAD_GATEWAY;"),
            ("admin/src/api/keys.rs", "Err(StatusCode::from_u16(3)?.max(StatusCode::OK))"),
        ],
    );
}

#[test]
fn every_setting_that_is_mentioned_exists() {
    let check = |files: &[SourceFile]| {
        let known = include_str!("../.env.example");
        each(files, |file| {
            if file.is_under(&["shared/src/config", "tests/tidy.rs", ".env.example", "CHANGELOG.md"]) {
                return Vec::new();
            }
            let mut violations = Vec::new();
            for (at, prefix) in file.text.match_indices("CODEX_LB_") {
                let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                let rest = &file.text[at + prefix.len()..];
                let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
                if name.contains("__") && !name.ends_with('_') && !known.contains(&format!("#CODEX_LB_{name}=")) {
                    violations.push(format!("{}: CODEX_LB_{name} is no setting", file.path));
                }
            }
            violations
        })
    };
    enforce(
        "papers and scripts name only settings that exist",
        check,
        &[("README.md", "set CODEX_LB_PROXY__LISTENS=x")],
    );
}

#[test]
fn nothing_depends_on_one_machine() {
    const FOLDERS: [&str; 4] =
        [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            let lines =
                file.text.lines().enumerate().filter(|(_, line)| FOLDERS.iter().any(|folder| line.contains(folder)));
            let mut found: Vec<String> =
                lines.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim())).collect();
            // A lock file that remembers where packages were fetched from installs nowhere else.
            if file.path.ends_with("package-lock.json") && file.text.contains("\"resolved\": \"http") {
                found.push(format!("{}: names a registry; install with omit-lockfile-registry-resolved", file.path));
            }
            found
        })
    };
    enforce(
        "no file names somebody's folder or registry",
        check,
        &[
            ("README.md", concat!("see /ho", "me/me/notes")),
            ("a/package-lock.json", "\"resolved\": \"https://registry.example/x.tgz\""),
        ],
    );
}

#[test]
fn every_version_and_lint_stands_in_the_root() {
    let check = |files: &[SourceFile]| {
        each(files, |file| {
            if !file.path.ends_with("Cargo.toml") {
                return Vec::new();
            }
            let mut violations = Vec::new();
            let mut section = "";
            for (number, line) in file.text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
                if line.starts_with('[') {
                    section = line;
                } else if section.ends_with("dependencies]") && section != "[workspace.dependencies]" {
                    let is_entry = !line.is_empty() && !line.starts_with('#');
                    if is_entry && !line.contains("workspace = true") {
                        violations.push(format!("{}:{number}: names its own version: {line}", file.path));
                    }
                }
            }
            if !file.text.contains("[lints]\nworkspace = true") {
                violations.push(format!("{}: does not inherit the lint table", file.path));
            }
            violations
        })
    };
    enforce(
        "versions and lints stand in the root Cargo.toml only",
        check,
        &[
            ("a/Cargo.toml", "[dependencies]\nserde = \"1\"\n[lints]\nworkspace = true\n"),
            ("a/Cargo.toml", "[dev-dependencies]\nserde = { version = \"1\" }\n[lints]\nworkspace = true\n"),
            ("a/Cargo.toml", "[dependencies]\nserde.workspace = true\n"),
        ],
    );
}
