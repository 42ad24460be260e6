//! How far each item of an answer has been told, so that what an event repeats is not told twice and what no delta
//! brought is not lost.

use super::call_ids::CallKind;

/// What an output item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    /// What the model says.
    Message,
    /// What it thinks.
    Reasoning,
    /// What it calls.
    Call(CallKind),
    /// An image that it made.
    Image,
    /// Something that a chat has no place for.
    Other,
}

impl ItemKind {
    /// The kind of an item by its `type`.
    pub(super) fn named(kind: &str) -> Self {
        match kind {
            "message" => Self::Message,
            "reasoning" => Self::Reasoning,
            "function_call" => Self::Call(CallKind::Function),
            "custom_tool_call" => Self::Call(CallKind::Custom),
            "image_generation_call" => Self::Image,
            _ => Self::Other,
        }
    }
}

/// What a part of an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    /// Text of a message.
    Text,
    /// A refusal in a message.
    Refusal,
    /// Summary of reasoning.
    Summary,
    /// Reasoning itself.
    Thought,
    /// What a tool is called with.
    CallText(CallKind),
}

impl PartKind {
    /// The kind of the items that have such parts.
    pub(super) const fn of_item(self) -> ItemKind {
        match self {
            Self::Text | Self::Refusal => ItemKind::Message,
            Self::Summary | Self::Thought => ItemKind::Reasoning,
            Self::CallText(kind) => ItemKind::Call(kind),
        }
    }
}

/// An item of the answer.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: ItemKind,
    pub(super) id: Option<String>,
    pub(super) output_index: Option<u64>,
    pub(super) parts: Vec<Part>,
    /// A call's number, once it was told.
    pub(super) call_index: Option<usize>,
    /// Whether what comes last of it was told: its encrypted content, or the image.
    pub(super) is_closed: bool,
}

/// A part of an item.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) index: u64,
    /// What came of it.
    pub(super) text: String,
    /// How much of that was told.
    pub(super) told_bytes: usize,
    /// The number of its reasoning detail.
    pub(super) detail: Option<usize>,
    /// Where a message's text begins in the whole text, in characters.
    pub(super) begins_at: usize,
    /// How many of its annotations were told.
    pub(super) annotations: usize,
}

impl Item {
    pub(super) const fn new(kind: ItemKind) -> Self {
        Self { kind, id: None, output_index: None, parts: Vec::new(), call_index: None, is_closed: false }
    }

    /// The part of this kind and index; it is made if there is none.
    pub(super) fn part(&mut self, kind: PartKind, index: u64) -> usize {
        let known = self.parts.iter().rposition(|part| part.kind == kind && part.index == index);
        known.unwrap_or_else(|| {
            self.parts.push(Part {
                kind,
                index,
                text: String::new(),
                told_bytes: 0,
                detail: None,
                begins_at: 0,
                annotations: 0,
            });
            self.parts.len() - 1
        })
    }

    /// Whether anything of its text was told.
    pub(super) fn has_told_text(&self) -> bool {
        self.parts.iter().any(|part| part.told_bytes > 0)
    }
}
