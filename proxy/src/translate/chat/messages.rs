//! The messages of a chat as the items of a response's input. Texts are copied and not read, as far as nothing depends
//! on what they say: histories are long.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::call_ids::{CallKind, KnownCall, KnownCalls};
use super::members::Members;
use super::request::wrong_type;
use super::{content, reasoning};
use crate::intake::{JsonObject, json_string};
use crate::rejection::Rejection;

/// Where the texts of system and developer messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemTexts {
    /// Out of the input.
    BecomeInstructions,
    /// They stay in it, as a developer's messages.
    Stay,
}

/// The messages in upstream's form.
#[derive(Debug)]
pub(super) struct UpstreamInput {
    /// The items, as JSON.
    pub(super) json: String,
    /// The texts of system and developer messages.
    pub(super) system_texts: Vec<String>,
    /// The text of the first user message.
    pub(super) first_user_text: String,
}

/// A message, as far as we look at it. Whatever else clients echo means nothing upstream.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_call_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_details: Option<&'a RawValue>,
}

/// Turns `messages` into the items of an input.
///
/// # Errors
/// 400 naming the message, or the part of one, that is none or that no model takes.
pub(super) fn to_upstream(object: &JsonObject, system: SystemTexts) -> Result<UpstreamInput, Rejection> {
    let raw =
        object.raw("messages").filter(|raw| *raw != "null").ok_or_else(|| Rejection::missing_field("messages"))?;
    let messages: Vec<Message<'_>> = serde_json::from_str(raw).map_err(|_| malformed(raw))?;
    if messages.is_empty() {
        return Err(Rejection::invalid_value("messages", "Invalid value for 'messages': it holds no message."));
    }
    let mut translation = Translation {
        json: String::with_capacity(raw.len() + raw.len() / 8 + 64),
        system,
        system_texts: Vec::new(),
        first_user_text: None,
        calls: KnownCalls::default(),
    };
    translation.json.push('[');
    for (index, message) in messages.iter().enumerate() {
        translation.message(message, &format!("messages[{index}]"))?;
    }
    translation.json.push(']');
    Ok(UpstreamInput {
        json: translation.json,
        system_texts: translation.system_texts,
        first_user_text: translation.first_user_text.unwrap_or_default(),
    })
}

/// Names the message that is none.
fn malformed(raw: &str) -> Rejection {
    let messages: Vec<&RawValue> = match serde_json::from_str(raw) {
        Ok(messages) => messages,
        Err(_) => return wrong_type("messages", "an array of messages"),
    };
    let is_message = |message: &&RawValue| serde_json::from_str::<Message<'_>>(message.get()).is_ok();
    let index = messages.iter().position(|message| !is_message(message)).unwrap_or_default();
    wrong_type(&format!("messages[{index}]"), "a message")
}

struct Translation {
    json: String,
    system: SystemTexts,
    system_texts: Vec<String>,
    first_user_text: Option<String>,
    calls: KnownCalls,
}

impl Translation {
    fn message(&mut self, message: &Message<'_>, param: &str) -> Result<(), Rejection> {
        let role_param = || format!("{param}.role");
        let role = message.role.ok_or_else(|| Rejection::missing_field(&role_param()))?;
        let role: Cow<'_, str> = serde_json::from_str(role.get()).map_err(|_| wrong_type(&role_param(), "a string"))?;
        match role.as_ref() {
            "system" | "developer" => self.system_message(message, param),
            "user" => self.user_message(message, param),
            "assistant" => self.assistant_message(message, param),
            "tool" => self.tool_message(message, param),
            "function" => self.function_message(message, param),
            _ => {
                let message = format!(
                    "Invalid value for '{}': supported roles are system, developer, user, assistant, tool and \
                     function.",
                    role_param()
                );
                Err(Rejection::invalid_value(&role_param(), message))
            }
        }
    }

    fn system_message(&mut self, message: &Message<'_>, param: &str) -> Result<(), Rejection> {
        let text = content::plain_text(needed(message.content, param, "content")?, &format!("{param}.content"))?;
        if self.system == SystemTexts::Stay {
            self.item(&message_item("developer", &content::text_part("input_text", &json_string(&text))));
        }
        if !text.is_empty() {
            self.system_texts.push(text);
        }
        Ok(())
    }

    fn user_message(&mut self, message: &Message<'_>, param: &str) -> Result<(), Rejection> {
        let content = needed(message.content, param, "content")?;
        let parts = content::input_parts(content, &format!("{param}.content"))?;
        self.item(&message_item("user", &parts));
        self.first_user_text.get_or_insert_with(|| content::texts(content));
        Ok(())
    }

    /// What the model reasoned, then what it said, then what it called.
    fn assistant_message(&mut self, message: &Message<'_>, param: &str) -> Result<(), Rejection> {
        if message.audio.is_some() {
            let message = "Earlier audio answers are not kept; send their transcript as text.";
            return Err(Rejection::invalid_value(&format!("{param}.audio"), message));
        }
        let mut parts = match message.content {
            Some(content) => content::output_parts(content, &format!("{param}.content"))?,
            None => Vec::new(),
        };
        let refusal = message.refusal.filter(|refusal| content::is_string(refusal) && refusal.get() != "\"\"");
        parts.extend(refusal.map(|refusal| content::refusal_part(refusal.get())));
        let calls = self.calls_of(message, param)?;
        // Upstream takes no reasoning that nothing came of.
        if let Some(details) = message.reasoning_details.filter(|_| !parts.is_empty() || !calls.is_empty()) {
            for item in reasoning::items(details) {
                self.item(&item);
            }
        }
        if !parts.is_empty() {
            self.item(&message_item("assistant", &parts.join(",")));
        }
        for call in calls {
            self.item(&call);
        }
        Ok(())
    }

    fn calls_of(&mut self, message: &Message<'_>, param: &str) -> Result<Vec<String>, Rejection> {
        let mut items = Vec::new();
        if let Some(raw) = message.tool_calls {
            let list = format!("{param}.tool_calls");
            let calls: Vec<&RawValue> =
                serde_json::from_str(raw.get()).map_err(|_| wrong_type(&list, "an array of tool calls"))?;
            for (index, call) in calls.into_iter().enumerate() {
                items.push(self.tool_call(call, &format!("{list}[{index}]"))?);
            }
        }
        if let Some(raw) = message.function_call {
            let param = format!("{param}.function_call");
            let called = Called::read(raw, &param)?;
            let name = content::text_of(needed(called.name, &param, "name")?)
                .ok_or_else(|| wrong_type(&format!("{param}.name"), "a string"))?;
            let upstream_id = self.calls.note_legacy(&name);
            items.push(called.item(CallKind::Function, &upstream_id, &param)?);
        }
        Ok(items)
    }

    fn tool_call(&mut self, raw: &RawValue, param: &str) -> Result<String, Rejection> {
        #[derive(Deserialize)]
        struct ToolCall<'a> {
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
            // Read with the call and not after it: arguments are what histories mostly consist of.
            #[serde(borrow, default)]
            function: Option<Called<'a>>,
            #[serde(borrow, default)]
            custom: Option<Called<'a>>,
        }
        let call: ToolCall<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a tool call"))?;
        let id = string(call.id, param, "id")?;
        let (kind, called, param) = match (call.function, call.custom) {
            (Some(function), _) => (CallKind::Function, function, format!("{param}.function")),
            (None, Some(custom)) => (CallKind::Custom, custom, format!("{param}.custom")),
            (None, None) => return Err(Rejection::missing_field(&format!("{param}.function"))),
        };
        let upstream_id = self.calls.note(&id, kind);
        called.item(kind, &upstream_id, &param)
    }

    fn tool_message(&mut self, message: &Message<'_>, param: &str) -> Result<(), Rejection> {
        let id = string(message.tool_call_id, param, "tool_call_id")?;
        let call = self.calls.find(&id).cloned().ok_or_else(|| unknown_call(&format!("{param}.tool_call_id")))?;
        self.output(&call, message, param)
    }

    fn function_message(&mut self, message: &Message<'_>, param: &str) -> Result<(), Rejection> {
        let name = string(message.name, param, "name")?;
        let call = self.calls.take_legacy(&name).ok_or_else(|| unknown_call(&format!("{param}.name")))?;
        self.output(&call, message, param)
    }

    fn output(&mut self, call: &KnownCall, message: &Message<'_>, param: &str) -> Result<(), Rejection> {
        let output = match message.content {
            None => Cow::Borrowed("\"\""),
            Some(content) if content::is_string(content) => Cow::Borrowed(content.get()),
            Some(content) => {
                let parts = content::input_parts(content, &format!("{param}.content"))?;
                Cow::Owned(format!("[{parts}]"))
            }
        };
        let mut item = Members::new(output.len());
        item.put(
            "type",
            match call.kind {
                CallKind::Function => r#""function_call_output""#,
                CallKind::Custom => r#""custom_tool_call_output""#,
            },
        );
        item.put("call_id", &json_string(&call.upstream_id));
        item.put("output", &output);
        self.item(&item.into_json());
        Ok(())
    }

    fn item(&mut self, item: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        self.json.push_str(item);
    }
}

/// What a call holds beside its id.
#[derive(Deserialize)]
struct Called<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

impl<'a> Called<'a> {
    fn read(raw: &'a RawValue, param: &str) -> Result<Self, Rejection> {
        serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a call"))
    }

    fn item(&self, kind: CallKind, upstream_id: &str, param: &str) -> Result<String, Rejection> {
        let name = needed(self.name, param, "name")?;
        if !content::is_string(name) {
            return Err(wrong_type(&format!("{param}.name"), "a string"));
        }
        let (item_kind, field, value) = match kind {
            CallKind::Function => (r#""function_call""#, "arguments", self.arguments),
            CallKind::Custom => (r#""custom_tool_call""#, "input", self.input),
        };
        let value = match value.map(RawValue::get) {
            None | Some("\"\"") if kind == CallKind::Function => Cow::Borrowed(r#""{}""#),
            None => Cow::Borrowed("\"\""),
            Some(text) if text.starts_with('"') => Cow::Borrowed(text),
            // Some clients forget to make a text of the arguments.
            Some(json) => Cow::Owned(json_string(json)),
        };
        let mut item = Members::new(value.len());
        item.put("type", item_kind);
        item.put("call_id", &json_string(upstream_id));
        item.put("name", name.get());
        item.put(field, &value);
        Ok(item.into_json())
    }
}

fn message_item(role: &str, parts: &str) -> String {
    format!(r#"{{"type":"message","role":"{role}","content":[{parts}]}}"#)
}

fn needed<'a>(raw: Option<&'a RawValue>, param: &str, name: &str) -> Result<&'a RawValue, Rejection> {
    raw.ok_or_else(|| Rejection::missing_field(&format!("{param}.{name}")))
}

fn string(raw: Option<&RawValue>, param: &str, name: &str) -> Result<String, Rejection> {
    content::text_of(needed(raw, param, name)?).ok_or_else(|| wrong_type(&format!("{param}.{name}"), "a string"))
}

fn unknown_call(param: &str) -> Rejection {
    let message = format!("Invalid value for '{param}': it answers no call of an earlier assistant message.");
    Rejection::invalid_value(param, message)
}
