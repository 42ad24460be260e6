//! Reasoning that a client carries: told as `reasoning_details`, and sent back on the message that it led to.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::members::Members;
use crate::intake::json_string;

/// What says of a detail that it is OpenAI's. Only its own models can read it.
pub(super) const FORMAT: &str = "openai-responses-v1";

/// One detail, as a client sends it back: whole, or in the pieces that a stream told it in.
#[derive(Deserialize)]
struct Detail<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    summary: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    format: Option<Cow<'a, str>>,
    #[serde(default)]
    index: Option<u64>,
}

/// A reasoning item that is put together again.
#[derive(Default)]
struct Item<'a> {
    id: Option<Cow<'a, str>>,
    summaries: Vec<(Option<u64>, String)>,
    encrypted_content: Option<&'a RawValue>,
}

/// The reasoning items that these details were told of, as JSON. Without its encrypted content an item means nothing to
/// upstream, and clients also send plain text under this name: such things are left out.
pub(super) fn items(details: &RawValue) -> Vec<String> {
    let details: Vec<&RawValue> = serde_json::from_str(details.get()).unwrap_or_default();
    let mut items: Vec<Item<'_>> = Vec::new();
    for raw in details {
        let Ok(detail) = serde_json::from_str::<Detail<'_>>(raw.get()) else { continue };
        let is_ours = matches!(detail.format.as_deref(), None | Some(FORMAT | "unknown"));
        if is_ours && matches!(detail.kind.as_ref(), "reasoning.summary" | "reasoning.encrypted") {
            if !items.last().is_some_and(|item| item.is_told_by(&detail)) {
                items.push(Item { id: detail.id.clone(), ..Item::default() });
            }
            if let Some(item) = items.last_mut() {
                item.take(detail);
            }
        }
    }
    items.iter().filter_map(Item::to_json).collect()
}

impl<'a> Item<'a> {
    /// Whether a detail is one more of this item. Without ids the encrypted content is an item's last detail.
    fn is_told_by(&self, detail: &Detail<'_>) -> bool {
        match (&self.id, &detail.id) {
            (Some(own), Some(other)) => own == other,
            (None, _) | (_, None) => self.encrypted_content.is_none(),
        }
    }

    fn take(&mut self, detail: Detail<'a>) {
        self.id = self.id.take().or(detail.id);
        self.encrypted_content = detail.data.filter(|data| data.get().starts_with('"')).or(self.encrypted_content);
        let Some(text) = detail.summary else { return };
        match self.summaries.last_mut() {
            Some((Some(index), summary)) if Some(*index) == detail.index => summary.push_str(&text),
            Some(_) | None => self.summaries.push((detail.index, text.into_owned())),
        }
    }

    fn to_json(&self) -> Option<String> {
        let encrypted_content = self.encrypted_content?.get();
        let mut item = Members::new(encrypted_content.len());
        item.put("type", r#""reasoning""#);
        item.put_if_some("id", self.id.as_deref().map(json_string).as_deref());
        let part = |text: &str| format!(r#"{{"type":"summary_text","text":{}}}"#, json_string(text));
        let summary: Vec<String> = self.summaries.iter().map(|(_, text)| part(text)).collect();
        item.put("summary", &format!("[{}]", summary.join(",")));
        item.put("encrypted_content", encrypted_content);
        Some(item.into_json())
    }
}
