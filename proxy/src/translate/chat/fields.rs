//! The members of upstream's events, items and parts, read one by one: one of an odd type does not hide the others.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::call_ids::CallKind;
use super::progress::{ItemKind, PartKind};

/// The members of an event that say anything to us.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) output_index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) item_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) content_index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) summary_index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) delta: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) part: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) annotation: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) item: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) response: Option<&'a RawValue>,
}

/// What an event says of the text of a part.
pub(super) struct PartNews<'a> {
    /// What the part is.
    pub(super) kind: PartKind,
    /// Which of the item's.
    pub(super) index: u64,
    /// The text.
    pub(super) text: Option<&'a RawValue>,
    /// Whether it is all of the text, or more of it.
    pub(super) is_whole: bool,
}

impl<'a> Fields<'a> {
    /// The members of an event. Of one that says something twice only its type is taken: the end of an answer is its
    /// end whatever else it says.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: &'a RawValue,
        }
        serde_json::from_slice(data).ok().or_else(|| {
            let event: Kind<'a> = serde_json::from_slice(data).ok()?;
            Some(Self { kind: Some(event.kind), ..Self::default() })
        })
    }

    /// What an event of this kind says of the text of a part, if that is what it is about.
    pub(super) fn part_news(&self, kind: &str) -> Option<PartNews<'a>> {
        let (what, step) = kind.strip_prefix("response.")?.rsplit_once('.')?;
        let (kind, index, whole) = match what {
            "output_text" => (PartKind::Text, self.content_index, self.text),
            "refusal" => (PartKind::Refusal, self.content_index, self.refusal),
            "reasoning_summary_text" => (PartKind::Summary, self.summary_index, self.text),
            "reasoning_text" => (PartKind::Thought, self.content_index, self.text),
            "function_call_arguments" => (PartKind::CallText(CallKind::Function), None, self.arguments),
            "custom_tool_call_input" => (PartKind::CallText(CallKind::Custom), None, self.input),
            _ => return None,
        };
        let (text, is_whole) = match step {
            "delta" => (self.delta, false),
            "done" => (whole, true),
            _ => return None,
        };
        Some(PartNews { kind, index: number(index).unwrap_or_default(), text, is_whole })
    }
}

/// An output item, or a part of one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ItemFields<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) call_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) summary: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) encrypted_content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) annotations: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) output_format: Option<&'a RawValue>,
}

/// The response that an event holds.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ResponseFields<'a> {
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) output: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) incomplete_details: Option<&'a RawValue>,
}

/// A text.
pub(super) fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    raw.and_then(|raw| serde_json::from_str::<Text<'_>>(raw.get()).ok()).map(|text| text.0)
}

/// A number.
pub(super) fn number(raw: Option<&RawValue>) -> Option<u64> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// A list; empty if it is none.
pub(super) fn list(raw: Option<&RawValue>) -> Vec<&RawValue> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// An object's members; none if it is none.
pub(super) fn fields<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> T {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// What an item is.
pub(super) fn item_kind(fields: &ItemFields<'_>) -> ItemKind {
    text(fields.kind).map_or(ItemKind::Other, |kind| ItemKind::named(&kind))
}

/// What a part is, if a chat has a place for it.
pub(super) fn part_kind(part: &ItemFields<'_>) -> Option<PartKind> {
    match text(part.kind)?.as_ref() {
        "output_text" => Some(PartKind::Text),
        "refusal" => Some(PartKind::Refusal),
        "summary_text" => Some(PartKind::Summary),
        "reasoning_text" => Some(PartKind::Thought),
        _ => None,
    }
}
