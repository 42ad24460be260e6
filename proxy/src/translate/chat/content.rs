//! The content of messages: text, images and files, in the parts of a response. What is long is copied and not read.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::members::Members;
use super::request::wrong_type;
use crate::intake::json_string;
use crate::rejection::Rejection;

/// What files are, by the ends of their names.
const MIME_TYPES: [(&str, &str); 8] = [
    (".pdf", "application/pdf"),
    (".txt", "text/plain"),
    (".md", "text/markdown"),
    (".csv", "text/csv"),
    (".html", "text/html"),
    (".json", "application/json"),
    (".docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
];
/// How every PDF begins, in base64.
const PDF_BEGIN: &str = "JVBERi";

/// A part, as far as we look at it.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file: Option<&'a RawValue>,
}

/// Whether a JSON text is a string.
pub(super) fn is_string(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

/// The text of a JSON string.
pub(super) fn text_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// A part that holds the text of this JSON string.
pub(super) fn text_part(kind: &str, text: &str) -> String {
    format!(r#"{{"type":"{kind}","text":{text}}}"#)
}

/// The parts of a content that goes to the model, separated by commas.
///
/// # Errors
/// 400 naming the part that is none, or that no model takes.
pub(super) fn input_parts(content: &RawValue, param: &str) -> Result<String, Rejection> {
    if is_string(content) {
        return Ok(text_part("input_text", content.get()));
    }
    let mut out = String::with_capacity(content.get().len() + 64);
    each_part(content, param, |part, raw, param| {
        if !out.is_empty() {
            out.push(',');
        }
        input_part(part, raw, param, &mut out)
    })?;
    Ok(out)
}

/// The parts of what the model said, separated by commas; empty ones are left out.
///
/// # Errors
/// 400 naming the part that is none.
pub(super) fn output_parts(content: &RawValue, param: &str) -> Result<Vec<String>, Rejection> {
    let said = |text: &RawValue| (text.get() != "\"\"").then(|| text_part("output_text", text.get()));
    if is_string(content) {
        return Ok(said(content).into_iter().collect());
    }
    let mut parts = Vec::new();
    each_part(content, param, |part, _, param| {
        match part.kind.as_deref() {
            Some("text" | "output_text" | "input_text") => parts.extend(said(string(part.text, param, "text")?)),
            Some("refusal") => parts.push(refusal_part(string(part.refusal, param, "refusal")?.get())),
            // What other models thought, which clients replay when the user changes the model.
            Some("thinking" | "redacted_thinking" | "reasoning") => {}
            kind => return Err(unknown_kind(kind, param, "text, refusal")),
        }
        Ok(())
    })?;
    Ok(parts)
}

/// The text of a content that can hold nothing else.
///
/// # Errors
/// 400 naming the part that is no text.
pub(super) fn plain_text(content: &RawValue, param: &str) -> Result<String, Rejection> {
    if is_string(content) {
        return text_of(content).ok_or_else(|| wrong_type(param, "a string"));
    }
    let mut texts = Vec::new();
    each_part(content, param, |part, _, param| match part.kind.as_deref() {
        Some("text" | "input_text" | "output_text") => {
            texts.extend(text_of(string(part.text, param, "text")?));
            Ok(())
        }
        kind => Err(unknown_kind(kind, param, "text")),
    })?;
    Ok(texts.join("\n"))
}

/// The first texts of a content, whatever else it holds.
pub(super) fn texts(content: &RawValue) -> String {
    if is_string(content) {
        return text_of(content).unwrap_or_default();
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(content.get()).unwrap_or_default();
    let texts: Vec<String> = parts.iter().filter_map(|part| part.text.and_then(text_of)).collect();
    texts.join("\n")
}

/// A part that holds a refusal, which is this JSON string.
pub(super) fn refusal_part(refusal: &str) -> String {
    format!(r#"{{"type":"refusal","refusal":{refusal}}}"#)
}

fn each_part<'a>(
    content: &'a RawValue,
    param: &str,
    mut on_part: impl FnMut(&Part<'a>, &'a RawValue, &str) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let parts: Vec<&RawValue> =
        serde_json::from_str(content.get()).map_err(|_| wrong_type(param, "a string or an array of content parts"))?;
    for (index, raw) in parts.into_iter().enumerate() {
        let param = format!("{param}[{index}]");
        let part: Part<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong_type(&param, "a content part"))?;
        on_part(&part, raw, &param)?;
    }
    Ok(())
}

fn input_part(part: &Part<'_>, raw: &RawValue, param: &str, out: &mut String) -> Result<(), Rejection> {
    match part.kind.as_deref() {
        Some("text" | "output_text") => {
            out.push_str(&text_part("input_text", string(part.text, param, "text")?.get()));
        }
        Some("image_url") => {
            let image = part.image_url.ok_or_else(|| Rejection::missing_field(&format!("{param}.image_url")))?;
            out.push_str(&image_part(image, &format!("{param}.image_url"))?);
        }
        Some("file") => {
            let file = part.file.ok_or_else(|| Rejection::missing_field(&format!("{param}.file")))?;
            out.push_str(&file_part(file, &format!("{param}.file"))?);
        }
        // Already as a response has them.
        Some("input_text" | "input_image" | "input_file") => out.push_str(raw.get()),
        Some("input_audio") => {
            let message = "Audio input is not supported; send text, images or files.";
            return Err(Rejection::invalid_value(param, message));
        }
        kind => return Err(unknown_kind(kind, param, "text, image_url, file")),
    }
    Ok(())
}

fn string<'a>(raw: Option<&'a RawValue>, param: &str, name: &str) -> Result<&'a RawValue, Rejection> {
    let param = || format!("{param}.{name}");
    let raw = raw.ok_or_else(|| Rejection::missing_field(&param()))?;
    if is_string(raw) { Ok(raw) } else { Err(wrong_type(&param(), "a string")) }
}

fn unknown_kind(kind: Option<&str>, param: &str, known: &str) -> Rejection {
    let param = format!("{param}.type");
    let Some(kind) = kind else { return Rejection::missing_field(&param) };
    let kind: String = kind.chars().take(64).collect();
    let message = format!("Invalid value for '{param}': '{kind}'. Supported values are: {known}.");
    Rejection::invalid_value(&param, message)
}

fn image_part(image: &RawValue, param: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct Image<'a> {
        #[serde(borrow, default)]
        url: Option<&'a RawValue>,
        #[serde(borrow, default)]
        detail: Option<&'a RawValue>,
    }
    let image = match is_string(image) {
        true => Image { url: Some(image), detail: None },
        false => serde_json::from_str(image.get()).map_err(|_| wrong_type(param, "an object with a 'url'"))?,
    };
    let url = string(image.url, param, "url")?;
    let mut part = Members::new(url.get().len());
    part.put("type", r#""input_image""#);
    part.put("image_url", url.get());
    part.put_if_some("detail", image.detail.map(RawValue::get));
    Ok(part.into_json())
}

fn file_part(file: &RawValue, param: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow, default)]
        file_data: Option<&'a RawValue>,
        #[serde(borrow, default)]
        file_url: Option<&'a RawValue>,
        #[serde(borrow, default)]
        file_id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        filename: Option<&'a RawValue>,
    }
    let file: File<'_> = serde_json::from_str(file.get())
        .map_err(|_| wrong_type(param, "an object with 'file_data', 'file_url' or 'file_id'"))?;
    let mut part = Members::new(file.file_data.map_or(0, |data| data.get().len()));
    part.put("type", r#""input_file""#);
    match (file.file_data, file.file_url, file.file_id) {
        (Some(_), _, _) => {
            let data = string(file.file_data, param, "file_data")?.get();
            let filename = file.filename.and_then(text_of);
            let mime_type = mime_type(data, filename.as_deref());
            let default_name = if mime_type == "application/pdf" { "file.pdf" } else { "file" };
            part.put("filename", &json_string(filename.as_deref().unwrap_or(default_name)));
            match data.starts_with("\"data:") {
                true => part.put("file_data", data),
                // The JSON string goes on behind its first quotation mark.
                false => part.put("file_data", &format!("\"data:{mime_type};base64,{}", &data[1..])),
            }
        }
        (None, Some(_), _) => part.put("file_url", string(file.file_url, param, "file_url")?.get()),
        (None, None, Some(_)) => part.put("file_id", string(file.file_id, param, "file_id")?.get()),
        (None, None, None) => return Err(Rejection::missing_field(&format!("{param}.file_data"))),
    }
    Ok(part.into_json())
}

/// What a file is, by its name or its beginning; `data` is a JSON string.
fn mime_type(data: &str, filename: Option<&str>) -> &'static str {
    let filename = filename.unwrap_or_default().to_ascii_lowercase();
    let by_name = MIME_TYPES.iter().find(|(ending, _)| filename.ends_with(ending)).map(|(_, mime_type)| *mime_type);
    let by_begin = || if data[1..].starts_with(PDF_BEGIN) { "application/pdf" } else { "application/octet-stream" };
    by_name.unwrap_or_else(by_begin)
}
