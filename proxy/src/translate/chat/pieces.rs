//! What a chat's answer consists of, in the order in which it is told.

use super::call_ids::CallKind;

/// One piece of an answer.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Text.
    Text(&'a str),
    /// Text that refuses.
    Refusal(&'a str),
    /// A source of the text.
    Citation {
        /// The source's number.
        index: usize,
        /// What it is and where it is cited, as JSON.
        json: &'a str,
    },
    /// Reasoning that can be read.
    Reasoning(Reasoning<'a>),
    /// Reasoning that only upstream can read.
    SealedReasoning {
        /// The detail's number.
        detail: usize,
        /// The id of the reasoning item.
        id: Option<&'a str>,
        /// Its encrypted content.
        data: &'a str,
    },
    /// A call begins.
    Call {
        /// The call's number.
        index: usize,
        /// What is called.
        kind: CallKind,
        /// The call's id.
        id: &'a str,
        /// The tool's name.
        name: &'a str,
    },
    /// More of what a tool is called with.
    CallText {
        /// The call's number.
        index: usize,
        /// What is called.
        kind: CallKind,
        /// What is added.
        text: &'a str,
    },
    /// An image, as a data url.
    Image {
        /// The image's number.
        index: usize,
        /// Where it is.
        url: &'a str,
    },
}

/// A piece of reasoning that can be read.
#[derive(Debug)]
pub(super) struct Reasoning<'a> {
    /// The number of the detail that it belongs to.
    pub(super) detail: usize,
    /// The id of the reasoning item.
    pub(super) id: Option<&'a str>,
    /// Whether it is a summary and not the reasoning itself.
    pub(super) is_summary: bool,
    /// Whether the detail begins with it.
    pub(super) begins: bool,
    /// What stands between it and the reasoning before it, where all of it is one text.
    pub(super) lead: &'static str,
    /// What is added.
    pub(super) text: &'a str,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ending {
    /// By itself.
    Finished(Finish),
    /// By a failure: OpenAI's `error` object.
    Failed(serde_json::Value),
    /// By us: it is larger than is held.
    TooLarge,
}

/// An end without failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finish {
    /// Why upstream stopped before the answer was whole, if it did.
    pub(super) cut_by: Option<Cut>,
    /// What was used, as JSON, if upstream told.
    pub(super) usage: Option<String>,
}

/// Why an answer is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It reached the largest length.
    Length,
    /// A filter stopped it.
    ContentFilter,
}

impl Finish {
    /// OpenAI's `finish_reason` for an answer with so many calls.
    pub(super) const fn reason(&self, calls: usize, has_legacy_calls: bool) -> &'static str {
        match (self.cut_by, calls, has_legacy_calls) {
            (Some(Cut::Length), _, _) => "length",
            (Some(Cut::ContentFilter), _, _) => "content_filter",
            (None, 0, _) => "stop",
            (None, _, true) => "function_call",
            (None, _, false) => "tool_calls",
        }
    }
}
