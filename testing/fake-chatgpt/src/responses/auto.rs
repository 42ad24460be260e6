//! A model that does what it is told by markers in the prompt, so that real clients can be led through real turns.
//!
//! `run: <command>` calls the client's shell tool, `call: <tool> <json>` one tool, `calls: a {..}; b {..}` several.
//! Once their outputs are in the input, it says what they printed. Everything else is answered from the prompt itself.

use serde_json::{Value, json};

use super::prompt::{OfferedTool, Prompt};
use super::schema;
use crate::script::{Answer, FunctionCall};

const ECHO_CHARS: usize = 200;
/// Function tools that run a command line, by the clients that have them.
const SHELL_TOOLS: [&str; 8] =
    ["exec_command", "shell_command", "shell", "container.exec", "bash", "exec", "run_shell_command", "terminal"];

/// What the prompt asks for.
pub(crate) fn answer(prompt: &Prompt<'_>) -> Answer {
    let outputs = prompt.tool_outputs();
    match wish(prompt) {
        Some(wish) if outputs.is_empty() => call(wish.calls),
        Some(wish) => text(wish.report(&outputs), prompt),
        None if !outputs.is_empty() => text(format!("the tool returned: {}", join_first_lines(&outputs)), prompt),
        None => match prompt.forced_tool() {
            Some(tool) => call(vec![call_of(Some(tool), tool.name, schema::minimal(tool.schema))]),
            None => text(plain_text(prompt), prompt),
        },
    }
}

/// Runs `command` whatever the prompt says.
pub(crate) fn echo_shell_tool(prompt: &Prompt<'_>, command: &str) -> Answer {
    let outputs = prompt.tool_outputs();
    match shell_call(prompt, command) {
        Some(shell) if outputs.is_empty() => call(vec![shell]),
        Some(_) => text(Wish { calls: Vec::new(), is_shell: true }.report(&outputs), prompt),
        None => text(format!("no shell tool to run: {command}"), prompt),
    }
}

fn call(function_calls: Vec<FunctionCall>) -> Answer {
    Answer { text_tokens: 0, reasoning: true, function_calls, ..Answer::default() }
}

fn text(text: String, prompt: &Prompt<'_>) -> Answer {
    Answer { text: Some(text), reasoning: prompt.wants_reasoning(), ..Answer::default() }
}

/// The calls that the markers of a turn ask for.
struct Wish {
    calls: Vec<FunctionCall>,
    is_shell: bool,
}

impl Wish {
    fn report(&self, outputs: &[String]) -> String {
        if self.is_shell {
            return format!(
                "the command printed: {}",
                outputs.last().map(|output| first_line(output)).unwrap_or_default()
            );
        }
        format!("the tool returned: {}", join_first_lines(outputs))
    }
}

fn wish(prompt: &Prompt<'_>) -> Option<Wish> {
    if prompt.forbids_tools() {
        return None;
    }
    prompt.user_texts().find_map(|text| {
        // A client may put the whole prompt into quotes.
        let text = text.trim();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if let Some(command) = after_marker(text, "run:") {
            let command = command.lines().next().unwrap_or_default().trim();
            return shell_call(prompt, command).map(|shell| Wish { calls: vec![shell], is_shell: true });
        }
        let list = after_marker(text, "calls:").or_else(|| after_marker(text, "call:"))?;
        let calls = parse_calls(prompt, list);
        (!calls.is_empty()).then_some(Wish { calls, is_shell: false })
    })
}

/// What follows the marker, if it stands at the beginning of a word.
fn after_marker<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    text.match_indices(marker).find_map(|(at, _)| {
        let is_inside_word =
            text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        (!is_inside_word).then(|| text[at + marker.len()..].trim_start())
    })
}

/// Reads `name {json}; name {json} …`; arguments that are not JSON end the list and go to the tool as text.
fn parse_calls(prompt: &Prompt<'_>, list: &str) -> Vec<FunctionCall> {
    let mut calls = Vec::new();
    let mut rest = list;
    while let Some((name, after_name)) = split_name(rest) {
        let mut values = serde_json::Deserializer::from_str(after_name).into_iter::<Value>();
        let parsed = values.next().and_then(Result::ok);
        let (arguments, after) = match parsed {
            Some(arguments) => (arguments, &after_name[values.byte_offset()..]),
            None => (Value::String(after_name.lines().next().unwrap_or_default().trim().to_owned()), ""),
        };
        calls.push(call_of(prompt.tool(name), name, arguments));
        match after.trim_start().strip_prefix(';') {
            Some(more) => rest = more,
            None => break,
        }
    }
    calls
}

fn split_name(list: &str) -> Option<(&str, &str)> {
    let list = list.trim_start();
    let end = list.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(list.len());
    (end > 0).then(|| list.split_at(end))
}

fn call_of(tool: Option<&OfferedTool<'_>>, name: &str, arguments: Value) -> FunctionCall {
    FunctionCall {
        name: name.to_owned(),
        arguments,
        namespace: tool.and_then(|tool| tool.namespace).map(str::to_owned),
        custom: tool.is_some_and(|tool| tool.is_custom),
    }
}

/// The call that makes the client run a command, if it offers any tool that can.
fn shell_call(prompt: &Prompt<'_>, command: &str) -> Option<FunctionCall> {
    let tool = SHELL_TOOLS.iter().find_map(|name| prompt.tool(name))?;
    let arguments = if tool.is_custom {
        // Code mode: the tool takes a script, whose `text` output comes back to the model.
        let arguments = json!({"cmd": command});
        Value::String(format!("const result = await tools.exec_command({arguments});\ntext(result.output);\n"))
    } else {
        shell_arguments(tool.schema, command)
    };
    Some(call_of(Some(tool), tool.name, arguments))
}

fn shell_arguments(parameters: &Value, command: &str) -> Value {
    let properties = &parameters["properties"];
    let mut arguments = schema::minimal(parameters);
    if properties["cmd"].is_object() {
        arguments["cmd"] = json!(command);
    } else if properties["command"]["type"] == "array" {
        arguments["command"] = json!(["bash", "-lc", command]);
    } else {
        arguments["command"] = json!(command);
    }
    arguments
}

fn plain_text(prompt: &Prompt<'_>) -> String {
    let format = &prompt.body["text"]["format"];
    if format["type"] == "json_schema" {
        return schema::minimal(&format["schema"]).to_string();
    }
    let said: String = prompt.last_user_text().trim().chars().take(ECHO_CHARS).collect();
    if format["type"] == "json_object" { json!({"you_said": said}).to_string() } else { format!("You said: {said}") }
}

fn join_first_lines(outputs: &[String]) -> String {
    outputs.iter().map(|output| first_line(output)).collect::<Vec<_>>().join("; ")
}

/// The first line that a tool printed, without what clients wrap around it.
fn first_line(output: &str) -> String {
    let unwrapped = match serde_json::from_str::<Value>(output) {
        Ok(Value::Object(object)) => object.get("output").and_then(Value::as_str).map(str::to_owned),
        Ok(_) | Err(_) => None,
    };
    let output = unwrapped.as_deref().unwrap_or(output);
    let printed = output.split_once("Output:\n").map_or(output, |(_, printed)| printed);
    printed.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim_end().to_owned()
}
