//! Compaction: a conversation made small. Upstream does it when the last input item asks for it, and answers with one
//! item; older clients call an endpoint of its own and take what that returns for their whole history.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{AnswerShape, PreparedRequest};
use crate::intake::{JsonObject, Patch};
use crate::rejection::Rejection;

/// The item that asks for a compaction.
const TRIGGER: &str = r#"{"type":"compaction_trigger"}"#;

/// What we look at in an item.
#[derive(Deserialize)]
struct ItemHead<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
}

/// Makes an ordinary request one for a compaction.
///
/// # Errors
/// 400 when `input` is no list of items.
pub(super) fn prepare(request: PreparedRequest) -> Result<PreparedRequest, Rejection> {
    let object = JsonObject::parse(request.body.clone())?;
    let wrong_type = || Rejection::invalid_value("input", "Invalid type for 'input': expected an array of items.");
    let raw = object.raw("input").ok_or_else(|| Rejection::missing_field("input"))?;
    let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| wrong_type())?;
    let heads = items.iter().map(|item| serde_json::from_str::<ItemHead<'_>>(item.get()));
    let heads: Vec<ItemHead<'_>> = heads.collect::<Result<_, _>>().map_err(|_| wrong_type())?;

    let user_messages: Vec<String> =
        items.iter().zip(&heads).filter_map(|(item, head)| user_message(item, head)).collect();
    let is_asked = heads.last().is_some_and(|head| head.kind.as_deref() == Some("compaction_trigger"));
    let trigger = if is_asked { None } else { Some(TRIGGER) };
    let input: Vec<&str> = items.iter().map(|item| item.get()).chain(trigger).collect();
    // Codex up to 0.125 sends neither `stream` nor `store`, and upstream takes one value of each.
    let patches = [
        ("input", Patch::Set(format!("[{}]", input.join(",")))),
        ("store", Patch::Set("false".to_owned())),
        ("stream", Patch::Set("true".to_owned())),
    ];
    Ok(PreparedRequest {
        body: object.patched(&patches),
        answer: AnswerShape::Compaction { user_messages: user_messages.join(",") },
        // Its object has no id to refer to.
        new_turn: None,
        ..request
    })
}

/// A message of the user, with the type that clients may leave out and look for in an answer.
fn user_message(item: &RawValue, head: &ItemHead<'_>) -> Option<String> {
    let is_message = head.kind.as_deref().is_none_or(|kind| kind == "message");
    if !is_message || head.role.as_deref() != Some("user") {
        return None;
    }
    if head.kind.is_some() {
        return Some(item.get().to_owned());
    }
    let object = JsonObject::parse(Bytes::copy_from_slice(item.get().as_bytes())).ok()?;
    let typed = object.patched(&[("type", Patch::Set(r#""message""#.to_owned()))]);
    String::from_utf8(typed.into()).ok()
}

/// The compaction object out of a whole response: the user's messages, then what upstream made of the rest.
///
/// # Errors
/// When upstream made something else than a compaction.
pub(crate) fn to_compaction(response: &Bytes, user_messages: &str) -> Result<Bytes, Rejection> {
    let object = JsonObject::parse(response.clone()).map_err(|_| Rejection::compaction_failed())?;
    let items: Vec<&RawValue> =
        object.raw("output").and_then(|raw| serde_json::from_str(raw).ok()).ok_or_else(Rejection::compaction_failed)?;
    let is_compaction = |item: &&&RawValue| {
        let head = serde_json::from_str::<ItemHead<'_>>(item.get());
        head.is_ok_and(|head| matches!(head.kind.as_deref(), Some("compaction" | "compaction_summary")))
    };
    let compaction = items.iter().find(is_compaction).ok_or_else(Rejection::compaction_failed)?;
    let mut output = user_messages.to_owned();
    if !output.is_empty() {
        output.push(',');
    }
    output.push_str(compaction.get());
    let mut text = r#"{"object":"response.compaction""#.to_owned();
    for name in ["id", "created_at", "usage"] {
        if let Some(raw) = object.raw(name) {
            text.push_str(&format!(r#","{name}":{raw}"#));
        }
    }
    text.push_str(&format!(r#","output":[{output}]}}"#));
    Ok(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use serde_json::{Value, json};

    use super::super::request::{Inquiry, prepare as prepare_inquiry};
    use super::*;
    use crate::route::{Dialect, Endpoint};
    use codex_lb_shared::domain::models::ModelCatalog;

    fn prepared(dialect: Dialect, body: &Value) -> Result<(Value, String), Rejection> {
        let (headers, body) = (HeaderMap::new(), Bytes::from(body.to_string()));
        let inquiry = Inquiry {
            endpoint: Endpoint::Compact(dialect),
            method: &Method::POST,
            query: None,
            headers: &headers,
            body: &body,
            caller_scope: "keyless",
            replay_store: &crate::replay_store::ReplayStore::off(),
        };
        let request = prepare_inquiry(&inquiry, &ModelCatalog::default())?;
        let AnswerShape::Compaction { user_messages } = request.answer else { panic!("{:?}", request.answer) };
        Ok((serde_json::from_slice(&request.body).unwrap(), user_messages))
    }

    #[test]
    fn the_last_item_asks_for_the_compaction_and_what_upstream_wants_is_forced() {
        let user = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]});
        let trigger = json!({"type": "compaction_trigger"});
        let old_codex = json!({"model": "gpt-5.5", "instructions": "i", "input": [user], "future": 1});
        let expected = json!({"model": "gpt-5.5", "instructions": "i", "input": [user, trigger], "future": 1,
            "store": false, "stream": true});
        assert_eq!(prepared(Dialect::Native, &old_codex).unwrap(), (expected, user.to_string()));

        let asked = json!({"model": "gpt-5.5", "input": [{"role": "user", "content": "b"}, trigger], "stream": false});
        let (body, user_messages) = prepared(Dialect::OpenAi, &asked).unwrap();
        assert_eq!(body["input"].as_array().unwrap().len(), 2);
        assert_eq!((&body["store"], &body["stream"]), (&json!(false), &json!(true)));
        assert_eq!(
            serde_json::from_str::<Value>(&user_messages).unwrap(),
            json!({"type": "message", "role": "user", "content": "b"})
        );
        let text = prepared(Dialect::OpenAi, &json!({"model": "gpt-5.5", "input": "c"})).unwrap().0;
        assert_eq!(text["input"][1], trigger);
        for input in [json!("text"), json!([7]), Value::Null] {
            let rejection = prepared(Dialect::Native, &json!({"model": "m", "input": input})).unwrap_err();
            assert_eq!((rejection.status, rejection.param.as_deref()), (400, Some("input")), "{input}");
        }
    }

    #[test]
    fn the_user_s_messages_stay_beside_the_compaction() {
        let response = json!({"id": "resp_1", "object": "response", "created_at": 5, "model": "m", "output": [
            {"type": "reasoning", "id": "rs"}, {"type": "compaction", "id": "cmp", "encrypted_content": "x"}],
            "usage": {"input_tokens": 9, "output_tokens": 2}});
        let compacted = to_compaction(&Bytes::from(response.to_string()), r#"{"role":"user"}"#).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&compacted).unwrap(),
            json!({"object": "response.compaction", "id": "resp_1", "created_at": 5,
                "output": [{"role": "user"}, response["output"][1]], "usage": response["usage"]})
        );
        let other = json!({"output": [{"type": "message"}]}).to_string();
        assert_eq!(to_compaction(&Bytes::from(other), "").unwrap_err().code, "compaction_failed");
    }
}
