//! What a variable of the environment means to us. Everything that starts with `CODEX_LB_` must mean something, because
//! a misspelt setting that is silently ignored costs its owner an evening.

use crate::config::python_names;

const PREFIX: &str = "CODEX_LB_";

/// What a variable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The key of a setting.
    Setting(String),
    /// None of our business.
    Ignored,
    /// Understood, without effect; the text says what to do instead.
    Obsolete(String),
    /// Ours by its prefix, and nothing we know.
    Unknown,
}

/// The variable of a key: `upstream.base_url` is `CODEX_LB_UPSTREAM__BASE_URL`.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Says what a variable is; `is_setting` knows the keys.
pub(super) fn judge(name: &str, is_setting: impl Fn(&str) -> bool) -> Known {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Known::Ignored };
    let key = rest.replace("__", ".").to_ascii_lowercase();
    if is_setting(&key) {
        Known::Setting(key)
    } else if is_someone_elses(rest) {
        Known::Ignored
    } else if let Some(advice) = python_names::advice(rest) {
        Known::Obsolete(advice)
    } else {
        Known::Unknown
    }
}

/// Advice for a variable that is no setting: the setting it resembles, if one does.
pub(super) fn suggest<'a>(name: &str, keys: impl Iterator<Item = &'a String>) -> String {
    let nearest = keys.map(|key| variable_of(key)).min_by_key(|candidate| edit_distance(name, candidate));
    match nearest {
        Some(candidate) if edit_distance(name, &candidate) <= 3 => format!("did you mean {candidate}?"),
        _ => "remove it, or see .env.example for all names".to_owned(),
    }
}

/// The smallest number of inserted, removed or changed characters that makes one text the other.
pub(super) fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// `CODEX_LB_API_KEY` is what clients put their api key in; `SERVICE` and `PORT` names are injected by Kubernetes for a
/// Service called `codex-lb`; `CONFIG` is read before anything else; `TEST` belongs to our own tests.
fn is_someone_elses(rest: &str) -> bool {
    matches!(rest, "API_KEY" | "CONFIG" | "PORT")
        || ["SERVICE_", "PORT_", "TEST_"].iter().any(|prefix| rest.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_setting(key: &str) -> bool {
        ["data_dir", "upstream.base_url"].contains(&key)
    }

    #[test]
    fn settings_are_found_by_section_and_key() {
        for (name, key) in [("CODEX_LB_DATA_DIR", "data_dir"), ("CODEX_LB_UPSTREAM__BASE_URL", "upstream.base_url")] {
            assert_eq!(judge(name, is_setting), Known::Setting(key.to_owned()));
            assert_eq!(variable_of(key), name);
        }
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        for name in [
            "HOME",
            "CODEX_LB_API_KEY",
            "CODEX_LB_CONFIG",
            "CODEX_LB_SERVICE_HOST",
            "CODEX_LB_SERVICE_PORT_PROXY",
            "CODEX_LB_PORT",
            "CODEX_LB_PORT_2455_TCP_ADDR",
            "CODEX_LB_TEST_POSTGRES_URL",
        ] {
            assert_eq!(judge(name, is_setting), Known::Ignored, "{name}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_told_the_right_name() {
        assert_eq!(judge("CODEX_LB_UPSTREAM__BASE_URI", is_setting), Known::Unknown);
        let keys = ["data_dir".to_owned(), "upstream.base_url".to_owned()];
        assert_eq!(suggest("CODEX_LB_UPSTREAM__BASE_URI", keys.iter()), "did you mean CODEX_LB_UPSTREAM__BASE_URL?");
        assert!(suggest("CODEX_LB_SOMETHING_ELSE", keys.iter()).contains(".env.example"));
    }

    #[test]
    fn edit_distance_counts_single_changes() {
        for (from, to, distance) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }
}
