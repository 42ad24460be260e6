//! Chat Completions on accounts: a request becomes one for a response, and the events of its answer become chunks or
//! one completion.
//!
//! What upstream answers is read once, by [`reader`], into pieces; the two shapes only differ in how they write these.

mod call_ids;
mod chunks;
mod completion;
mod content;
mod fields;
mod members;
mod messages;
mod pieces;
mod progress;
mod reader;
mod reasoning;
mod request;
mod tools;
mod usage;

pub(crate) use chunks::ChatStream;
pub(crate) use completion::ChatCollector;
pub(super) use request::prepare;

/// What a caller of Chat Completions gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChatAnswer {
    /// The model that was asked, should upstream not name it.
    pub(crate) model: String,
    /// Whether calls come as the one `function_call` of old.
    pub(crate) has_legacy_calls: bool,
    /// Whether a stream tells its usage.
    pub(crate) tells_usage: bool,
}

#[cfg(test)]
mod tests;
