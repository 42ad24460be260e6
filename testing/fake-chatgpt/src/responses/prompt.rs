//! What a request asks for, as far as a fake model needs to understand it.

use serde_json::Value;

/// A tool that the request offers, wherever it stands.
#[derive(Clone, Debug)]
pub(crate) struct OfferedTool<'a> {
    pub(crate) name: &'a str,
    pub(crate) namespace: Option<&'a str>,
    /// A custom tool takes text instead of arguments.
    pub(crate) is_custom: bool,
    /// The schema of the arguments, `null` for a custom tool.
    pub(crate) schema: &'a Value,
}

/// A Responses request whose form has been checked.
#[derive(Debug)]
pub(crate) struct Prompt<'a> {
    pub(crate) body: &'a Value,
    /// Length of the body as it was received.
    pub(crate) body_bytes: u64,
    /// The input after the last assistant message: what this turn is about.
    turn: &'a [Value],
    pub(crate) tools: Vec<OfferedTool<'a>>,
}

impl<'a> Prompt<'a> {
    pub(crate) fn new(body: &'a Value, body_bytes: u64) -> Self {
        let input = items(body);
        let turn_at = input.iter().rposition(|item| is_message(item, "assistant")).map_or(0, |at| at + 1);
        let mut tools = Vec::new();
        collect_tools(&body["tools"], None, &mut tools);
        for item in input.iter().filter(|item| item["type"] == "additional_tools") {
            collect_tools(&item["tools"], None, &mut tools);
        }
        Self { body, body_bytes, turn: &input[turn_at..], tools }
    }

    pub(crate) fn model(&self) -> &'a str {
        self.body["model"].as_str().unwrap_or_default()
    }

    /// Whether it asks for its own history to be compacted.
    pub(crate) fn wants_compaction(&self) -> bool {
        items(self.body).last().is_some_and(|item| item["type"] == "compaction_trigger")
    }

    /// The tool that makes images, if the request insists on it.
    pub(crate) fn image_tool(&self) -> Option<&'a Value> {
        let is_image_tool = |tool: &&Value| tool["type"] == "image_generation";
        let tools = self.body["tools"].as_array()?;
        tools.iter().find(is_image_tool).filter(|_| is_image_tool(&&self.body["tool_choice"]))
    }

    /// Whether reasoning items should come with encrypted content.
    pub(crate) fn wants_encrypted_reasoning(&self) -> bool {
        self.body["include"]
            .as_array()
            .is_some_and(|include| include.iter().any(|name| name == "reasoning.encrypted_content"))
    }

    /// Whether it asks for reasoning at all.
    pub(crate) fn wants_reasoning(&self) -> bool {
        self.body["reasoning"].is_object() && self.body["reasoning"]["effort"] != "none"
    }

    /// The texts of the turn's user messages, the last one first.
    pub(crate) fn user_texts(&self) -> impl Iterator<Item = String> {
        self.turn.iter().rev().filter(|item| is_message(item, "user")).map(|item| text_of(&item["content"]))
    }

    /// The last user message of the turn, or of the whole input if the turn has none.
    pub(crate) fn last_user_text(&self) -> String {
        let earlier = || {
            items(self.body).iter().rev().find(|item| is_message(item, "user")).map(|item| text_of(&item["content"]))
        };
        self.user_texts().next().or_else(earlier).unwrap_or_default()
    }

    /// The outputs of the tool calls of this turn, in order.
    pub(crate) fn tool_outputs(&self) -> Vec<String> {
        let is_output = |item: &&Value| item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output"));
        self.turn.iter().filter(is_output).map(|item| text_of(&item["output"])).collect()
    }

    /// The tool of this name.
    pub(crate) fn tool(&self, name: &str) -> Option<&OfferedTool<'a>> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// The tool that the request insists on, if it does.
    pub(crate) fn forced_tool(&self) -> Option<&OfferedTool<'a>> {
        let choice = &self.body["tool_choice"];
        match choice["name"].as_str() {
            Some(name) => self.tool(name),
            None if choice == "required" => self.tools.first(),
            None => None,
        }
    }

    /// Whether tools must not be called.
    pub(crate) fn forbids_tools(&self) -> bool {
        self.body["tool_choice"] == "none"
    }
}

/// The input items; a checked request has a list.
pub(crate) fn items(body: &Value) -> &[Value] {
    body["input"].as_array().map_or(&[], Vec::as_slice)
}

/// Messages may leave out their type.
pub(crate) fn is_message(item: &Value, role: &str) -> bool {
    item["role"] == role && (item["type"].is_null() || item["type"] == "message")
}

/// Text that is given plainly or in parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

fn collect_tools<'a>(tools: &'a Value, namespace: Option<&'a str>, out: &mut Vec<OfferedTool<'a>>) {
    for tool in tools.as_array().into_iter().flatten() {
        let name = tool["name"].as_str().unwrap_or_default();
        match tool["type"].as_str() {
            Some("namespace") => collect_tools(&tool["tools"], Some(name), out),
            Some("function") => {
                out.push(OfferedTool { name, namespace, is_custom: false, schema: &tool["parameters"] })
            }
            Some("custom") => out.push(OfferedTool { name, namespace, is_custom: true, schema: &Value::Null }),
            _ => {}
        }
    }
}
