//! Named limits: some models are metered apart from the account's windows, by a limit with a name of its own.
//!
//! Upstream spells one limit in several ways, and tells which model it meters only by answering. So there is a list of
//! known spellings, and what answers show is learned.

/// The limit of the account itself; a reply under one of these names is about the whole account.
const ACCOUNT_LIMITS: [&str; 2] = ["codex", "premium"];
/// Spellings that do not contain their model's name, and the canonical one.
const ALIASES: [(&str, &str); 2] = [("codex-spark", SPARK), ("codex-bengalfox", SPARK)];
const SPARK: &str = "gpt-5.3-codex-spark";
/// Models known to be metered apart before any answer showed it. Their limits bear their names.
const KNOWN_MODELS: [&str; 1] = [SPARK];
/// Models whose limits are learned at most; upstream has a handful.
const LEARNED_MAX: usize = 64;
/// A longer name is not believed.
const NAME_BYTES_MAX: usize = 128;

/// The one spelling of a limit that upstream names; `None` when the name means the account itself, or nothing.
pub fn canonical(upstream_name: &str) -> Option<String> {
    let name: String = upstream_name
        .trim()
        .chars()
        .map(|letter| if letter == '_' || letter == ' ' { '-' } else { letter.to_ascii_lowercase() })
        .collect();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || ACCOUNT_LIMITS.contains(&name.as_str()) {
        return None;
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    Some(alias.map_or(name, |(_, canonical)| (*canonical).to_owned()))
}

/// Which limit of its own meters which model, as far as answers have shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelLimits {
    /// Model, and the canonical name of its limit or `None` when the account's windows meter it.
    learned: Vec<(String, Option<String>)>,
}

impl ModelLimits {
    /// Takes note of the limit under which upstream answered for a model. Whether that was news.
    pub fn learn(&mut self, model: &str, upstream_name: &str) -> bool {
        let named_limit = canonical(upstream_name);
        if self.of(model) == named_limit.as_deref() {
            return false;
        }
        let has_room = self.learned.len() < LEARNED_MAX && model.len() <= NAME_BYTES_MAX;
        match self.learned.iter_mut().find(|(known, _)| known == model) {
            Some((_, before)) => *before = named_limit,
            None if has_room => self.learned.push((model.to_owned(), named_limit)),
            None => return false,
        }
        true
    }

    /// The limit that meters this model apart from the account's windows, if one does.
    pub fn of(&self, model: &str) -> Option<&str> {
        match self.learned.iter().find(|(known, _)| known == model) {
            Some((_, named_limit)) => named_limit.as_deref(),
            None => KNOWN_MODELS.into_iter().find(|known| *known == model),
        }
    }
}
