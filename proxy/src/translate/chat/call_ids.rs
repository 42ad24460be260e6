//! The ids by which tool messages name the calls that they answer. Some clients change them on the way.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

/// Longest id that upstream takes.
const ID_CHARS_MAX: usize = 64;

/// What kind of tool was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// One that takes JSON.
    Function,
    /// One that takes text.
    Custom,
}

/// A call that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownCall {
    /// Its id in upstream's conversation.
    pub(super) upstream_id: String,
    /// What kind of tool was called.
    pub(super) kind: CallKind,
}

/// The calls of a conversation so far.
#[derive(Debug, Default)]
pub(super) struct KnownCalls {
    by_id: HashMap<String, KnownCall>,
    /// OpenClaw takes the `_` out of ids, and may do so on one side only.
    by_letters: HashMap<String, KnownCall>,
    /// By the function's name; `functions` of old had no ids.
    unanswered: HashMap<String, Vec<KnownCall>>,
    legacy_calls: usize,
}

impl KnownCalls {
    /// Notes a call and returns its id in upstream's conversation.
    pub(super) fn note(&mut self, id: &str, kind: CallKind) -> String {
        let upstream_id = upstream_id(id).into_owned();
        let call = KnownCall { upstream_id: upstream_id.clone(), kind };
        self.by_letters.insert(letters(id), call.clone());
        self.by_id.insert(id.to_owned(), call);
        upstream_id
    }

    /// The call that a tool message answers.
    pub(super) fn find(&self, id: &str) -> Option<&KnownCall> {
        self.by_id.get(id).or_else(|| self.by_letters.get(&letters(id)))
    }

    /// Notes a call of old, which has no id, and returns the one that it gets.
    pub(super) fn note_legacy(&mut self, name: &str) -> String {
        self.legacy_calls += 1;
        let upstream_id = format!("call_function_{}", self.legacy_calls);
        let call = KnownCall { upstream_id: upstream_id.clone(), kind: CallKind::Function };
        self.unanswered.entry(name.to_owned()).or_default().push(call);
        upstream_id
    }

    /// Takes the call of old that a function message answers: the last of this name.
    pub(super) fn take_legacy(&mut self, name: &str) -> Option<KnownCall> {
        self.unanswered.get_mut(name)?.pop()
    }
}

/// The id itself, or a shorter one that stands for it: other gateways hide whole signatures in theirs.
fn upstream_id(id: &str) -> Cow<'_, str> {
    if id.len() <= ID_CHARS_MAX {
        return Cow::Borrowed(id);
    }
    let digest = Sha256::digest(id);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Cow::Owned(format!("call_{hex}"))
}

fn letters(id: &str) -> String {
    id.chars().filter(|char| char.is_alphanumeric()).collect()
}
