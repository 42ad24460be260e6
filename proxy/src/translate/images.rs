//! OpenAI's Images API on an account: a model is asked with one tool that it must use, and the image is taken out of
//! its answer.

mod answer;
mod form;
mod order;

use bytes::Bytes;
use codex_lb_shared::domain::models::ModelCatalog;
use serde_json::{Map, Value, json};

use super::request::{AnswerShape, Inquiry, PreparedRequest, UpstreamHead};
use crate::intake::JsonObject;
use crate::rejection::Rejection;
use crate::route::ImageTask;
pub(crate) use answer::{ImageStream, to_images};
use order::ImageOrder;

/// The model that is asked to use the tool, if accounts offer it. Which one hardly matters: the tool makes the image.
const HOST_MODEL: &str = "gpt-5.5";
/// What that model is told.
const INSTRUCTIONS: &str = "Use the image generation tool exactly once. Hand it the user's prompt as it stands, and \
                            do not answer with text.";
/// What it is told about a mask, which the tool takes as one more image.
const MASK_HINT: &str = "The last image is a mask: change only what its transparent area covers.";

/// Prepares a request for an image.
///
/// # Errors
/// 400 naming the parameter that is missing, wrong, or cannot be done.
pub(super) fn prepare(
    inquiry: &Inquiry<'_>,
    task: ImageTask,
    catalog: &ModelCatalog,
) -> Result<PreparedRequest, Rejection> {
    let boundary = match task {
        ImageTask::Generation => None,
        ImageTask::Edit => form::boundary(inquiry.headers),
    };
    let mut order = match boundary {
        Some(boundary) => ImageOrder::from_form(&form::parse(inquiry.body, &boundary)?)?,
        None => ImageOrder::from_json(&JsonObject::parse(inquiry.body.clone())?, task)?,
    };
    let wants_stream = order.take_flag("stream")?;
    let prompt = order.take_prompt()?;
    let tool = order.take_tool(task, wants_stream)?;
    let host = catalog.find(HOST_MODEL).or(catalog.models.first()).map_or(HOST_MODEL, |model| &model.slug);
    let model_requested = tool["model"].as_str().map(str::to_owned);
    let body = json!({
        "model": host,
        "instructions": INSTRUCTIONS,
        "input": [{"type": "message", "role": "user", "content": content(prompt, &mut order)}],
        "tools": [tool],
        "tool_choice": {"type": "image_generation"},
        "parallel_tool_calls": false,
        "store": false,
        "stream": true,
    });
    Ok(PreparedRequest {
        head: UpstreamHead::responses(),
        body: Bytes::from(body.to_string()),
        answer: if wants_stream { AnswerShape::ImageStream(task) } else { AnswerShape::Images },
        model_requested,
        model: Some(host.to_owned()),
        effort: None,
        tier: None,
        ignored_params: order.ignored_params(),
        prompt_cache_key: None,
        previous_response_id: None,
        new_turn: None,
        named_by: None,
        owner: None,
    })
}

fn content(prompt: String, order: &mut ImageOrder) -> Vec<Value> {
    let text = |text: &str| json!({"type": "input_text", "text": text});
    let mut content = vec![text(&prompt)];
    content.append(&mut order.images);
    if let Some(mask) = order.mask.take() {
        content.extend([mask, text(MASK_HINT)]);
    }
    content
}

/// A part of a message that shows an image, from a url or the id of a file.
fn image_part(name: &str, value: String) -> Value {
    let mut part = Map::new();
    part.insert("type".to_owned(), Value::from("input_image"));
    part.insert(name.to_owned(), Value::from(value));
    Value::from(part)
}

#[cfg(test)]
mod tests;
