//! What an image request orders, whether it came as JSON or as a form: read once, checked by name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::openai_params;
use super::form::Part;
use super::image_part;
use crate::intake::JsonObject;
use crate::rejection::Rejection;
use crate::route::ImageTask;

/// The model when none is named.
const DEFAULT_MODEL: &str = "gpt-image-2";
/// What the names of models begin with that the tool knows. Others of OpenAI's are not offered to accounts.
const MODEL_PREFIXES: [&str; 2] = ["gpt-image-", "chatgpt-image-"];
/// Longest name of a model.
const MODEL_CHARS_MAX: usize = 64;
/// Longest prompt, as OpenAI has it.
const PROMPT_CHARS_MAX: usize = 32_000;
/// Images that one edit may take, as OpenAI has it.
const IMAGES_MAX: usize = 16;
/// Parameters with a closed set of values.
const CHOICES: [(&str, &[&str]); 5] = [
    ("quality", &["low", "medium", "high", "auto"]),
    ("background", &["transparent", "opaque", "auto"]),
    ("output_format", &["png", "jpeg", "webp"]),
    ("moderation", &["auto", "low"]),
    ("input_fidelity", &["low", "high"]),
];
/// Parameters that are numbers, and the largest of each.
const NUMBERS: [(&str, u64); 2] = [("output_compression", 100), ("partial_images", 3)];

/// An order. What is taken out of it is done with; what stays behind is not understood.
#[derive(Debug)]
pub(super) struct ImageOrder {
    fields: Map<String, Value>,
    /// The images to edit, as parts of a message.
    pub(super) images: Vec<Value>,
    /// Where they may be changed.
    pub(super) mask: Option<Value>,
    ignored: Vec<String>,
}

impl ImageOrder {
    /// Reads a JSON body.
    ///
    /// # Errors
    /// 400 naming an image that is none, or when an edit has no images.
    pub(super) fn from_json(object: &JsonObject, task: ImageTask) -> Result<Self, Rejection> {
        let mut fields: Map<String, Value> = serde_json::from_slice(object.as_bytes())
            .map_err(|_| Rejection::invalid_request(None, "The request body must be a JSON object."))?;
        fields.retain(|_, value| !value.is_null());
        let mut images = Vec::new();
        let mut mask = None;
        if task == ImageTask::Edit {
            for name in ["images", "image"] {
                match fields.remove(name) {
                    None => {}
                    Some(Value::Array(items)) => {
                        for (index, item) in items.into_iter().enumerate() {
                            images.push(referred_image(item, &format!("{name}[{index}]"))?);
                        }
                    }
                    Some(one) => images.push(referred_image(one, name)?),
                }
            }
            mask = fields.remove("mask").map(|mask| referred_image(mask, "mask")).transpose()?;
        }
        Self { fields, images, mask, ignored: Vec::new() }.checked(task)
    }

    /// Reads a form, which only edits have.
    ///
    /// # Errors
    /// 400 naming a part that is not what its name says.
    pub(super) fn from_form(parts: &[Part]) -> Result<Self, Rejection> {
        let mut order = Self { fields: Map::new(), images: Vec::new(), mask: None, ignored: Vec::new() };
        for part in parts {
            let name = part.name.split('[').next().unwrap_or_default();
            match name {
                "image" => order.images.push(attached_image(part)?),
                "mask" => order.mask = Some(attached_image(part)?),
                _ => {
                    let text = std::str::from_utf8(&part.value).map_err(|_| wrong(name, "a text"))?;
                    order.fields.insert(name.to_owned(), value_of_text(name, text));
                }
            }
        }
        order.checked(ImageTask::Edit)
    }

    fn checked(self, task: ImageTask) -> Result<Self, Rejection> {
        if task == ImageTask::Edit && self.images.is_empty() {
            return Err(Rejection::missing_field("image"));
        }
        if self.images.len() > IMAGES_MAX {
            return Err(Rejection::invalid_value("image", format!("An edit takes at most {IMAGES_MAX} images.")));
        }
        Ok(self)
    }

    /// Takes a parameter that is true or false.
    pub(super) fn take_flag(&mut self, name: &str) -> Result<bool, Rejection> {
        match self.fields.remove(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(wrong(name, "a boolean")),
        }
    }

    /// Takes the prompt.
    pub(super) fn take_prompt(&mut self) -> Result<String, Rejection> {
        match self.fields.remove("prompt") {
            None => Err(Rejection::missing_field("prompt")),
            Some(Value::String(prompt)) if !prompt.trim().is_empty() && prompt.chars().count() <= PROMPT_CHARS_MAX => {
                Ok(prompt)
            }
            Some(_) => Err(wrong("prompt", &format!("a text of 1 to {PROMPT_CHARS_MAX} characters"))),
        }
    }

    /// Takes everything that the tool is told.
    ///
    /// # Errors
    /// 400 naming a parameter whose value cannot be had.
    pub(super) fn take_tool(&mut self, task: ImageTask, wants_stream: bool) -> Result<Value, Rejection> {
        self.refuse_what_cannot_be_done(task)?;
        let mut tool = Map::new();
        tool.insert("type".to_owned(), Value::from("image_generation"));
        tool.insert("model".to_owned(), Value::from(self.take_model()?));
        if task == ImageTask::Edit {
            tool.insert("action".to_owned(), Value::from("edit"));
        }
        if let Some(size) = self.fields.remove("size") {
            let size =
                size.as_str().filter(|size| is_size(size)).ok_or_else(|| wrong("size", "auto or WIDTHxHEIGHT"))?;
            tool.insert("size".to_owned(), Value::from(size));
        }
        for (name, choices) in CHOICES {
            if let Some(value) = self.fields.remove(name) {
                let is_known = value.as_str().is_some_and(|text| choices.contains(&text));
                let known = is_known.then_some(value).ok_or_else(|| wrong(name, &choices.join(", ")))?;
                tool.insert(name.to_owned(), known);
            }
        }
        for (name, most) in NUMBERS {
            if let Some(value) = self.fields.remove(name) {
                let is_known = value.as_u64().is_some_and(|number| number <= most);
                let known = is_known.then_some(value).ok_or_else(|| wrong(name, &format!("0 to {most}")))?;
                tool.insert(name.to_owned(), known);
            }
        }
        // They cost tokens, and nobody would see them.
        if !wants_stream && tool.remove("partial_images").is_some() {
            self.ignored.push("partial_images".to_owned());
        }
        Ok(Value::from(tool))
    }

    fn refuse_what_cannot_be_done(&mut self, task: ImageTask) -> Result<(), Rejection> {
        if self.fields.remove("n").is_some_and(|n| n != json!(1)) {
            return Err(Rejection::invalid_value("n", "Invalid value for 'n': one image is made per request."));
        }
        if self.fields.remove("response_format").is_some_and(|format| format != json!("b64_json")) {
            let message =
                "Invalid value for 'response_format': images come as b64_json only; there is no place for files.";
            return Err(Rejection::invalid_value("response_format", message));
        }
        if task == ImageTask::Generation && self.fields.contains_key("input_fidelity") {
            let message = "'input_fidelity' is for edits: a new image has no input.";
            return Err(Rejection::invalid_request(Some("input_fidelity"), message));
        }
        Ok(())
    }

    fn take_model(&mut self) -> Result<String, Rejection> {
        match self.fields.remove("model") {
            None => Ok(DEFAULT_MODEL.to_owned()),
            Some(Value::String(model)) if is_model(&model) => Ok(model),
            Some(_) => Err(wrong("model", "a model that makes images, such as gpt-image-2")),
        }
    }

    /// The names of what was left out, as far as a header can hold them.
    pub(super) fn ignored_params(&self) -> Vec<String> {
        openai_params::tellable(self.ignored.iter().chain(self.fields.keys()).map(String::as_str))
    }
}

fn wrong(param: &str, expected: &str) -> Rejection {
    Rejection::invalid_value(param, format!("Invalid value for '{param}': expected {expected}."))
}

fn is_size(size: &str) -> bool {
    let is_length = |text: &str| (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    size == "auto" || size.split_once('x').is_some_and(|(width, height)| is_length(width) && is_length(height))
}

fn is_model(model: &str) -> bool {
    model.len() <= MODEL_CHARS_MAX
        && MODEL_PREFIXES.iter().any(|prefix| model.starts_with(prefix))
        && model.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// A form's text as the value that JSON would have.
fn value_of_text(name: &str, text: &str) -> Value {
    let is_number = name == "n" || NUMBERS.iter().any(|(number, _)| *number == name);
    match (name, text) {
        ("stream", "true") => Value::Bool(true),
        ("stream", "false") => Value::Bool(false),
        _ if is_number => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        _ => Value::from(text),
    }
}

/// An image that JSON refers to: `{"image_url": …}`, `{"file_id": …}`, or the url itself.
fn referred_image(value: Value, place: &str) -> Result<Value, Rejection> {
    let (name, value, place) = match value {
        Value::String(url) => ("image_url", Value::String(url), place.to_owned()),
        Value::Object(mut members) => {
            let name = if members.contains_key("file_id") { "file_id" } else { "image_url" };
            (name, members.remove(name).unwrap_or_default(), format!("{place}.{name}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => ("image_url", value, place.to_owned()),
    };
    let is_image = |text: &str| name == "file_id" || text.starts_with("data:image/") || text.starts_with("https://");
    match value {
        Value::String(text) if is_image(&text) => Ok(image_part(name, text)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(wrong(&place, "an image as a data: or https: url"))
        }
    }
}

/// An image that a form holds.
fn attached_image(part: &Part) -> Result<Value, Rejection> {
    let kind = image_kind(&part.value).filter(|_| part.is_file);
    let kind = kind.ok_or_else(|| wrong(&part.name, "an image file: PNG, JPEG or WebP"))?;
    Ok(image_part("image_url", format!("data:{kind};base64,{}", STANDARD.encode(&part.value))))
}

/// What a file is, by its first bytes: what a form says of it is often `application/octet-stream`.
fn image_kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}
