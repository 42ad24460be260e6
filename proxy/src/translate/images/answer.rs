//! A model's answer in the shape of the Images API: the image that its tool made, as JSON or as events.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::rejection::Rejection;
use crate::relay::{Event, FailureForm};
use crate::route::ImageTask;
use crate::translate::failure::openai_error;

/// What an image tells about itself beside its bytes.
const TRAITS: [&str; 4] = ["size", "quality", "background", "output_format"];

/// The Images object out of a whole response.
///
/// # Errors
/// When the model made no image.
pub(crate) fn to_images(response: &Bytes) -> Result<Bytes, Rejection> {
    let response: Value = serde_json::from_slice(response).map_err(|_| Rejection::image_failed())?;
    let items = response["output"].as_array().map(Vec::as_slice).unwrap_or_default();
    let image = items.iter().find(|item| is_image(item)).ok_or_else(Rejection::image_failed)?;
    let mut data = Map::new();
    data.insert("b64_json".to_owned(), image["result"].clone());
    copy(image, &["revised_prompt"], &mut data);
    let mut images = Map::new();
    images.insert("created".to_owned(), created_at(&response));
    copy(image, &TRAITS, &mut images);
    images.insert("data".to_owned(), Value::from(vec![Value::from(data)]));
    images.extend(usage(&response).map(|usage| ("usage".to_owned(), usage)));
    Ok(Bytes::from(Value::from(images).to_string()))
}

fn is_image(item: &Value) -> bool {
    item["type"] == "image_generation_call" && item["result"].as_str().is_some_and(|result| !result.is_empty())
}

fn created_at(response: &Value) -> Value {
    response.get("created_at").filter(|at| at.is_number()).cloned().unwrap_or_else(|| Value::from(0))
}

/// Copies what is there and not null.
fn copy(from: &Value, names: &[&str], to: &mut Map<String, Value>) {
    for name in names {
        to.extend(from.get(name).filter(|value| !value.is_null()).map(|value| ((*name).to_owned(), value.clone())));
    }
}

/// What the tool used; else what the model did, which is all we are told then.
fn usage(response: &Value) -> Option<Value> {
    let of_tool = response.pointer("/tool_usage/image_gen");
    of_tool.or_else(|| response.get("usage")).filter(|usage| usage.is_object()).cloned()
}

/// Translates the events of an answer.
#[derive(Debug)]
pub(crate) struct ImageStream {
    task: ImageTask,
    created_at: Value,
    image: Option<Value>,
    has_failed: bool,
}

impl ImageStream {
    pub(crate) fn new(task: ImageTask) -> Self {
        Self { task, created_at: Value::from(0), image: None, has_failed: false }
    }

    /// Why the answer is none, if it ended without an image. The client was told.
    pub(crate) fn failure(&self) -> Option<Rejection> {
        self.has_failed.then(Rejection::image_failed)
    }

    /// Appends what the client gets of one event.
    pub(crate) fn translate(&mut self, event: Event<'_>, out: &mut Vec<u8>) {
        let parse = || serde_json::from_slice::<Value>(&event.data()).unwrap_or_default();
        match event.kind() {
            "response.created" => self.created_at = created_at(&parse()["response"]),
            "response.image_generation_call.partial_image" => self.partial(&parse(), out),
            "response.output_item.done" => {
                let item = parse()["item"].take();
                if is_image(&item) {
                    self.image = Some(item);
                }
            }
            "response.completed" | "response.incomplete" | "response.done" => self.end(&parse()["response"], out),
            "response.failed" | "error" => {
                let error = openai_error(&parse(), "Upstream failed while it made the image.");
                out.extend_from_slice(&FailureForm::Error.event(&error));
            }
            _ => {}
        }
    }

    fn partial(&self, event: &Value, out: &mut Vec<u8>) {
        let mut fields = Map::new();
        fields.insert("b64_json".to_owned(), event["partial_image_b64"].clone());
        copy(event, &["partial_image_index"], &mut fields);
        self.write("partial_image", event, fields, out);
    }

    fn end(&mut self, response: &Value, out: &mut Vec<u8>) {
        let Some(image) = &self.image else {
            self.has_failed = true;
            out.extend_from_slice(&FailureForm::Error.event(&Rejection::image_failed().error()));
            return;
        };
        let mut fields = Map::new();
        fields.insert("b64_json".to_owned(), image["result"].clone());
        fields.extend(usage(response).map(|usage| ("usage".to_owned(), usage)));
        self.write("completed", image, fields, out);
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn write(&self, ending: &str, image: &Value, mut fields: Map<String, Value>, out: &mut Vec<u8>) {
        let kind = match self.task {
            ImageTask::Generation => format!("image_generation.{ending}"),
            ImageTask::Edit => format!("image_edit.{ending}"),
        };
        fields.insert("type".to_owned(), Value::from(kind.as_str()));
        fields.insert("created_at".to_owned(), self.created_at.clone());
        copy(image, &TRAITS, &mut fields);
        out.extend_from_slice(format!("event: {kind}\ndata: {}\n\n", Value::from(fields)).as_bytes());
    }
}
