//! The events of an answer that is an image, made by the tool that the request insists on.

use serde_json::{Value, json};

use super::{Composer, Plan};
use crate::ids;
use crate::script::Usage;

/// A PNG of one pixel, as base64: every image that the fake ever makes.
pub const IMAGE_BASE64: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";
const INPUT_TOKENS: u64 = 50;
const OUTPUT_TOKENS: u64 = 1_056;

impl Composer<'_> {
    /// One image, with as many partial ones before it as the tool is asked for.
    pub(crate) fn image(mut self) -> Plan {
        self.lifecycle("response.in_progress");
        let tool = self.prompt.image_tool().cloned().unwrap_or_default();
        let id = ids::item_id("ig");
        let or = |name: &str, default: &str| tool[name].as_str().unwrap_or(default).to_owned();
        let traits = json!({
            "size": or("size", "1024x1024"), "quality": or("quality", "medium"),
            "background": or("background", "opaque"), "output_format": or("output_format", "png"),
        });
        let with_traits = |fields: Value| merged(fields, &traits);
        self.image_item("response.output_item.added", json!({"id": id, "status": "in_progress", "result": null}));
        for name in ["in_progress", "generating"] {
            let fields = json!({"item_id": id, "output_index": self.output_index});
            self.events.event(&format!("response.image_generation_call.{name}"), &fields);
        }
        for index in 0..tool["partial_images"].as_u64().unwrap_or(0) {
            let fields = json!({
                "item_id": id, "output_index": self.output_index, "partial_image_index": index,
                "partial_image_b64": IMAGE_BASE64,
            });
            self.events.event("response.image_generation_call.partial_image", &with_traits(fields));
        }
        let revised_prompt = format!("As asked: {}", self.prompt.last_user_text());
        let item = json!({"id": id, "status": "completed", "result": IMAGE_BASE64, "revised_prompt": revised_prompt});
        self.image_item("response.output_item.done", with_traits(item));
        self.tool_usage = Some(json!({"image_gen": {
            "input_tokens": INPUT_TOKENS, "input_tokens_details": {"image_tokens": 0, "text_tokens": INPUT_TOKENS},
            "output_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }}));
        self.output_tokens += 1;
        let usage = Usage { output: self.output_tokens, ..self.derived_usage() };
        self.end(usage)
    }

    fn image_item(&mut self, name: &str, fields: Value) {
        let item = merged(fields, &json!({"type": "image_generation_call"}));
        self.events.event(name, &json!({"output_index": self.output_index, "item": item}));
    }
}

fn merged(mut fields: Value, more: &Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more.clone());
    }
    fields
}
