//! The tools that a chat offers, in the flat form that a response has, and which of them the model is to use.
//!
//! Schemas stay as they came: models follow the order of their members.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::members::Members;
use super::request::wrong_type;
use crate::intake::{JsonObject, json_string};
use crate::rejection::Rejection;
use crate::translate::openai_params;

/// Parameters of a function that names none.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// What a request says about tools.
#[derive(Debug, Default)]
pub(super) struct UpstreamTools {
    /// `tools`, as JSON.
    pub(super) list: Option<String>,
    /// `tool_choice`, as JSON.
    pub(super) choice: Option<String>,
    /// `parallel_tool_calls`.
    pub(super) are_parallel: Option<bool>,
    /// Whether they were offered as `functions`, so that the answer holds at most one call.
    pub(super) are_legacy: bool,
}

/// Reads what a request says about tools.
///
/// # Errors
/// 400 naming the tool or the choice that is none.
pub(super) fn to_upstream(object: &JsonObject) -> Result<UpstreamTools, Rejection> {
    let mut tools = Vec::new();
    for (index, tool) in list(object, "tools")?.iter().enumerate() {
        tools.push(tool_to_upstream(tool, &format!("tools[{index}]"))?);
    }
    let functions = list(object, "functions")?;
    for (index, function) in functions.iter().enumerate() {
        tools.push(function_to_upstream(function, &format!("functions[{index}]"))?);
    }
    let is_offered = !tools.is_empty();
    let web_search_options: Option<Box<RawValue>> = object.get("web_search_options", "an object")?;
    tools.extend(web_search_options.map(|options| web_search(&options)).transpose()?);
    let are_legacy = object.raw("tools").is_none() && !functions.is_empty();
    let named: Option<Box<RawValue>> = object.get("tool_choice", "a tool choice")?;
    let legacy: Option<Box<RawValue>> = object.get("function_call", "a function choice")?;
    let choice = match (named, legacy) {
        (Some(choice), _) => Some(choice_to_upstream(&choice, "tool_choice")?),
        (None, Some(choice)) => Some(legacy_choice(&choice)?),
        (None, None) => None,
    };
    let are_parallel = if are_legacy { Some(false) } else { object.get("parallel_tool_calls", "a boolean")? };
    Ok(UpstreamTools {
        list: (!tools.is_empty()).then(|| format!("[{}]", tools.join(","))),
        choice,
        // Without tools of the caller's there is nothing to call, side by side or not.
        are_parallel: are_parallel.filter(|_| is_offered),
        are_legacy,
    })
}

fn list(object: &JsonObject, name: &str) -> Result<Vec<Box<RawValue>>, Rejection> {
    Ok(object.get(name, "an array of objects")?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<&'a RawValue>,
    #[serde(borrow, default)]
    custom: Option<&'a RawValue>,
}

fn tool_to_upstream(raw: &RawValue, param: &str) -> Result<String, Rejection> {
    let tool: Tool<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a tool"))?;
    match (tool.kind.as_deref(), tool.function, tool.custom) {
        (None | Some("function"), Some(function), _) => function_to_upstream(function, &format!("{param}.function")),
        (Some("custom"), _, Some(custom)) => custom_to_upstream(custom, &format!("{param}.custom")),
        (Some(kind), _, _) => named_as_upstream(raw, kind, param),
        (None, None, _) => Err(Rejection::missing_field(&format!("{param}.type"))),
    }
}

/// A tool that is flat already, or of a kind that only upstream knows.
fn named_as_upstream(raw: &RawValue, kind: &str, param: &str) -> Result<String, Rejection> {
    if !kind.starts_with("web_search_preview") {
        return Ok(raw.get().to_owned());
    }
    let mut value: Value = serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a tool"))?;
    openai_params::name_web_search(&mut value);
    Ok(value.to_string())
}

fn function_to_upstream(raw: &RawValue, param: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct Function<'a> {
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(borrow, default)]
        description: Option<&'a RawValue>,
        #[serde(borrow, default)]
        parameters: Option<&'a RawValue>,
        #[serde(borrow, default)]
        strict: Option<&'a RawValue>,
    }
    let function: Function<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a function"))?;
    let mut flat = Members::new(raw.get().len());
    flat.put("type", r#""function""#);
    flat.put("name", name(function.name, param)?);
    flat.put_if_some("description", function.description.map(RawValue::get));
    flat.put("parameters", function.parameters.map_or(NO_PARAMETERS, RawValue::get));
    // A response is strict unless told otherwise, a chat is not.
    flat.put("strict", function.strict.map_or("false", RawValue::get));
    Ok(flat.into_json())
}

fn custom_to_upstream(raw: &RawValue, param: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct Custom<'a> {
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(borrow, default)]
        description: Option<&'a RawValue>,
        #[serde(borrow, default)]
        format: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Format<'a> {
        #[serde(borrow, default)]
        grammar: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Grammar<'a> {
        #[serde(borrow, default)]
        syntax: Option<&'a RawValue>,
        #[serde(borrow, default)]
        definition: Option<&'a RawValue>,
    }
    let custom: Custom<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a custom tool"))?;
    let mut flat = Members::new(raw.get().len());
    flat.put("type", r#""custom""#);
    flat.put("name", name(custom.name, param)?);
    flat.put_if_some("description", custom.description.map(RawValue::get));
    if let Some(format) = custom.format {
        let param = format!("{param}.format");
        let wrong = |_| wrong_type(&param, "a format");
        let parsed: Format<'_> = serde_json::from_str(format.get()).map_err(wrong)?;
        match parsed.grammar {
            Some(grammar) => {
                let grammar: Grammar<'_> = serde_json::from_str(grammar.get()).map_err(wrong)?;
                let mut flat_format = Members::new(format.get().len());
                flat_format.put("type", r#""grammar""#);
                flat_format.put_if_some("syntax", grammar.syntax.map(RawValue::get));
                flat_format.put_if_some("definition", grammar.definition.map(RawValue::get));
                flat.put("format", &flat_format.into_json());
            }
            None => flat.put("format", format.get()),
        }
    }
    Ok(flat.into_json())
}

fn name<'a>(name: Option<&'a RawValue>, param: &str) -> Result<&'a str, Rejection> {
    let param = format!("{param}.name");
    let name = name.ok_or_else(|| Rejection::missing_field(&param))?.get();
    if name.starts_with('"') { Ok(name) } else { Err(wrong_type(&param, "a string")) }
}

/// The web search that older search models have, as a tool.
fn web_search(options: &RawValue) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct Options<'a> {
        #[serde(borrow, default)]
        search_context_size: Option<&'a RawValue>,
        #[serde(borrow, default)]
        user_location: Option<UserLocation<'a>>,
    }
    #[derive(Deserialize)]
    struct UserLocation<'a> {
        #[serde(borrow, default)]
        approximate: Option<Approximate<'a>>,
    }
    #[derive(Deserialize)]
    struct Approximate<'a> {
        #[serde(borrow, default)]
        city: Option<&'a RawValue>,
        #[serde(borrow, default)]
        country: Option<&'a RawValue>,
        #[serde(borrow, default)]
        region: Option<&'a RawValue>,
        #[serde(borrow, default)]
        timezone: Option<&'a RawValue>,
    }
    let options: Options<'_> =
        serde_json::from_str(options.get()).map_err(|_| wrong_type("web_search_options", "options"))?;
    let mut tool = Members::new(0);
    tool.put("type", r#""web_search""#);
    tool.put_if_some("search_context_size", options.search_context_size.map(RawValue::get));
    if let Some(place) = options.user_location.and_then(|location| location.approximate) {
        let mut location = Members::new(0);
        location.put("type", r#""approximate""#);
        for (name, value) in
            [("city", place.city), ("country", place.country), ("region", place.region), ("timezone", place.timezone)]
        {
            location.put_if_some(name, value.map(RawValue::get));
        }
        tool.put("user_location", &location.into_json());
    }
    Ok(tool.into_json())
}

/// A choice: a word, one tool, or several of which the model may use some.
fn choice_to_upstream(raw: &RawValue, param: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct Several<'a> {
        #[serde(borrow, default)]
        allowed_tools: Option<&'a RawValue>,
    }
    if raw.get().starts_with('"') {
        return Ok(raw.get().to_owned());
    }
    let several: Several<'_> =
        serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a string or a tool choice"))?;
    match several.allowed_tools {
        Some(allowed) => allowed_tools(allowed, param),
        None => chosen_tool(raw, param),
    }
}

fn chosen_tool(raw: &RawValue, param: &str) -> Result<String, Rejection> {
    let tool: Tool<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "a tool"))?;
    match (tool.kind.as_deref(), tool.function, tool.custom) {
        (None | Some("function"), Some(function), _) => {
            named_choice("function", function, &format!("{param}.function"))
        }
        (Some("custom"), _, Some(custom)) => named_choice("custom", custom, &format!("{param}.custom")),
        (Some(kind), _, _) => named_as_upstream(raw, kind, param),
        (None, None, _) => Err(Rejection::missing_field(&format!("{param}.type"))),
    }
}

fn named_choice(kind: &str, raw: &RawValue, param: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
    }
    let named: Named<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong_type(param, "an object with a name"))?;
    let mut choice = Members::new(0);
    choice.put("type", &json_string(kind));
    choice.put("name", name(named.name, param)?);
    Ok(choice.into_json())
}

fn allowed_tools(raw: &RawValue, param: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct Allowed<'a> {
        #[serde(borrow, default)]
        mode: Option<&'a RawValue>,
        #[serde(borrow, default)]
        tools: Vec<&'a RawValue>,
    }
    let param = format!("{param}.allowed_tools");
    let allowed: Allowed<'_> =
        serde_json::from_str(raw.get()).map_err(|_| wrong_type(&param, "an object with a mode and tools"))?;
    let mut tools = Vec::with_capacity(allowed.tools.len());
    for (index, tool) in allowed.tools.iter().enumerate() {
        tools.push(chosen_tool(tool, &format!("{param}.tools[{index}]"))?);
    }
    let mut choice = Members::new(raw.get().len());
    choice.put("type", r#""allowed_tools""#);
    choice.put("mode", allowed.mode.map_or(r#""auto""#, RawValue::get));
    choice.put("tools", &format!("[{}]", tools.join(",")));
    Ok(choice.into_json())
}

/// `function_call` of old: a word, or the name of a function.
fn legacy_choice(raw: &RawValue) -> Result<String, Rejection> {
    if raw.get().starts_with('"') {
        return Ok(raw.get().to_owned());
    }
    named_choice("function", raw, "function_call")
}
