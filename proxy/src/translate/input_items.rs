//! The items of `input`: found, not rebuilt. Unknown kinds pass; only what upstream is known to refuse is touched.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::intake::{JsonObject, Patch, json_string};
use crate::rejection::Rejection;

/// What we look at in an item.
#[derive(Deserialize)]
struct ItemHead<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    encrypted_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(#[serde(borrow)] Vec<Part<'a>>),
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

/// `input` in the form that upstream takes.
pub(super) struct UpstreamInput {
    /// The items, as JSON.
    pub(super) json: String,
    /// Text of the system and developer items that were moved out.
    pub(super) instructions: Vec<String>,
    /// Text of the first user item.
    pub(super) first_user_text: String,
}

/// Turns a public `input` into upstream's.
///
/// # Errors
/// 400 naming the item that cannot be resolved or is malformed.
pub(super) fn to_upstream(object: &JsonObject) -> Result<UpstreamInput, Rejection> {
    let raw = object.raw("input").filter(|raw| *raw != "null").ok_or_else(|| Rejection::missing_field("input"))?;
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(raw) {
        return Ok(from_text(&text));
    }
    let wrong_type =
        |_| Rejection::invalid_value("input", "Invalid type for 'input': expected a string or an array of items.");
    let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(wrong_type)?;
    let heads = items.iter().enumerate().map(|(index, item)| item_head(index, item)).collect::<Result<Vec<_>, _>>()?;
    // With `additional_tools` the developer items belong where they stand ("responses lite" of the Codex CLI).
    let keeps_developer_items = heads.iter().any(|head| head.kind.as_deref() == Some("additional_tools"));
    let mut input = UpstreamInput {
        json: String::with_capacity(raw.len()),
        instructions: Vec::new(),
        first_user_text: String::new(),
    };
    input.json.push('[');
    for (index, (item, head)) in items.iter().zip(&heads).enumerate() {
        let is_message = head.kind.as_deref().is_none_or(|kind| kind == "message");
        match (head.kind.as_deref(), head.role.as_deref()) {
            (Some("item_reference"), _) => {
                return Err(Rejection::item_not_found(index, head.id.as_deref().unwrap_or_default()));
            }
            // Without its encrypted content upstream would look the item up in a store it does not keep.
            (Some("reasoning"), _) if head.encrypted_content.is_none_or(|raw| raw.get() == "null") => continue,
            (_, Some("system" | "developer")) if is_message && !keeps_developer_items => {
                input.instructions.push(message_text(index, head)?);
                continue;
            }
            (_, Some("user")) if is_message && input.first_user_text.is_empty() => {
                input.first_user_text = message_text(index, head).unwrap_or_default();
            }
            _ => {}
        }
        if input.json.len() > 1 {
            input.json.push(',');
        }
        input.json.push_str(item.get());
    }
    input.json.push(']');
    Ok(input)
}

fn from_text(text: &str) -> UpstreamInput {
    let part = format!(r#"[{{"type":"input_text","text":{}}}]"#, json_string(text));
    UpstreamInput {
        json: format!(r#"[{{"type":"message","role":"user","content":{part}}}]"#),
        instructions: Vec::new(),
        first_user_text: text.to_owned(),
    }
}

fn item_head(index: usize, item: &RawValue) -> Result<ItemHead<'_>, Rejection> {
    serde_json::from_str(item.get()).map_err(|_| {
        let param = format!("input[{index}]");
        Rejection::invalid_value(&param, format!("Invalid type for '{param}': expected an input item."))
    })
}

fn message_text(index: usize, head: &ItemHead<'_>) -> Result<String, Rejection> {
    let malformed = || {
        let param = format!("input[{index}].content");
        Rejection::invalid_value(&param, format!("Invalid type for '{param}': expected a string or text parts."))
    };
    let raw = head.content.ok_or_else(malformed)?;
    match serde_json::from_str::<Content<'_>>(raw.get()).map_err(|_| malformed())? {
        Content::Text(text) => Ok(text.into_owned()),
        Content::Parts(parts) => {
            let texts: Vec<Cow<'_, str>> = parts.into_iter().filter_map(|part| part.text).collect();
            Ok(texts.join("\n"))
        }
    }
}

/// The body without the items that only the account which made them can decrypt, and how many were dropped; `None`
/// when there is nothing to drop or the body is not understood.
pub(crate) fn without_encrypted_items(body: &bytes::Bytes) -> Option<(bytes::Bytes, usize)> {
    let object = JsonObject::parse(body.clone()).ok()?;
    let items: Vec<&RawValue> = serde_json::from_str(object.raw("input")?).ok()?;
    let is_encrypted = |item: &RawValue| {
        let head = serde_json::from_str::<ItemHead<'_>>(item.get());
        head.is_ok_and(|head| head.encrypted_content.is_some_and(|raw| raw.get() != "null"))
    };
    let kept: Vec<&str> = items.iter().filter(|item| !is_encrypted(item)).map(|item| item.get()).collect();
    let dropped = items.len() - kept.len();
    let patch = Patch::Set(format!("[{}]", kept.join(",")));
    (dropped > 0).then(|| (object.patched(&[("input", patch)]), dropped))
}

/// Whether the body holds a compaction, which stands for a part of the conversation that is nowhere else.
pub(crate) fn has_compaction(body: &bytes::Bytes) -> bool {
    let Ok(object) = JsonObject::parse(body.clone()) else { return false };
    let items = object.raw("input").and_then(|raw| serde_json::from_str::<Vec<ItemHead<'_>>>(raw).ok());
    let is_compaction = |head: &ItemHead<'_>| matches!(head.kind.as_deref(), Some("compaction" | "compaction_summary"));
    items.unwrap_or_default().iter().any(is_compaction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::{Value, json};

    fn translated(input: &Value) -> Result<UpstreamInput, Rejection> {
        to_upstream(&JsonObject::parse(Bytes::from(json!({ "input": input }).to_string())).unwrap())
    }

    #[test]
    fn a_text_becomes_one_user_message() {
        let input = translated(&json!("say \"hi\"")).unwrap();
        let expected =
            json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "say \"hi\""}]}]);
        assert_eq!(serde_json::from_str::<Value>(&input.json).unwrap(), expected);
        assert_eq!(input.first_user_text, "say \"hi\"");
    }

    #[test]
    fn system_and_developer_messages_become_instructions_and_the_rest_stays() {
        let items = json!([
            {"role": "system", "content": "be brief"},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"role": "user", "content": "hello"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
            {"type": "brand_new", "deep": {"z": 1, "a": 2}},
        ]);
        let input = translated(&items).unwrap();
        assert_eq!(input.instructions, ["be brief", "a\nb"]);
        assert_eq!(serde_json::from_str::<Value>(&input.json).unwrap(), json!([items[2], items[4], items[5]]));
        assert_eq!(input.first_user_text, "hello");
    }

    #[test]
    fn developer_messages_stay_beside_additional_tools() {
        let items = json!([{"type": "additional_tools", "role": "developer", "tools": []}, {"role": "developer", "content": "x"}]);
        let input = translated(&items).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&input.json).unwrap(), items);
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let cases = [
            (json!([{"type": "item_reference", "id": "msg_1"}]), "input[0]"),
            (json!([{"role": "user", "content": "x"}, 7]), "input[1]"),
            (json!([{"role": "system", "content": 7}]), "input[0].content"),
            (json!(7), "input"),
            (Value::Null, "input"),
        ];
        for (input, param) in cases {
            let rejection = translated(&input).err().unwrap();
            assert_eq!((rejection.status, rejection.param.as_deref()), (400, Some(param)), "{input}");
        }
    }

    #[test]
    fn encrypted_items_can_be_dropped() {
        let body = json!({"model": "m", "input": [
            {"type": "reasoning", "encrypted_content": "x"}, {"role": "user", "content": "y"},
            {"type": "compaction", "encrypted_content": "z"}, {"type": "reasoning", "encrypted_content": null}]});
        let (stripped, dropped) = without_encrypted_items(&Bytes::from(body.to_string())).unwrap();
        assert_eq!(dropped, 2);
        let expected = json!({"model": "m", "input": [body["input"][1], body["input"][3]]});
        assert_eq!(serde_json::from_slice::<Value>(&stripped).unwrap(), expected);
        assert_eq!(without_encrypted_items(&stripped), None);
        assert!(has_compaction(&Bytes::from(body.to_string())) && !has_compaction(&stripped));
    }
}
