//! The smallest JSON value that a schema allows, for structured answers and forced tool calls.

use serde_json::{Map, Value, json};

/// How deep a schema may nest before `null` stands in for the rest.
const DEPTH_MAX: usize = 16;

/// A minimal value of this schema. Constructs that tests do not use (patterns, formats) are not looked at.
pub(crate) fn minimal(schema: &Value) -> Value {
    minimal_of(schema, schema, 0)
}

fn minimal_of(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.strip_prefix('#')?)) {
        return minimal_of(target, root, depth + 1);
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    if let Some(first) = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| schema[*key].as_array()?.first()) {
        return minimal_of(first, root, depth + 1);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].as_array()?.first()?.as_str());
    match kind {
        Some("string") => Value::String("x".repeat(schema["minLength"].as_u64().unwrap_or(1).max(1) as usize)),
        Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(1)),
        Some("number") => json!(schema["minimum"].as_f64().unwrap_or(1.5)),
        Some("boolean") => Value::Bool(true),
        Some("null") => Value::Null,
        Some("array") => {
            let length = schema["minItems"].as_u64().unwrap_or(1);
            (0..length).map(|_| minimal_of(&schema["items"], root, depth + 1)).collect()
        }
        Some("object") | None => Value::Object(members(schema, root, depth)),
        Some(_) => Value::Null,
    }
}

/// The required members; strict schemas require all.
fn members(schema: &Value, root: &Value, depth: usize) -> Map<String, Value> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    required.map(|name| (name.to_owned(), minimal_of(&schema["properties"][name], root, depth + 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_required_member_is_there_and_of_its_type() {
        let schema = json!({
            "type": "object", "required": ["title", "count", "ratio", "done", "kind", "tags", "owner", "maybe"],
            "$defs": {"owner": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "minimum": 7}}}},
            "properties": {
                "title": {"type": "string"}, "count": {"type": "integer"}, "ratio": {"type": "number"},
                "done": {"type": "boolean"}, "kind": {"enum": ["b", "a"]}, "tags": {"type": "array", "items": {"type": "string"}},
                "owner": {"$ref": "#/$defs/owner"}, "maybe": {"type": ["null", "string"]}, "unused": {"type": "string"},
            },
        });
        let expected = json!({
            "title": "x", "count": 1, "ratio": 1.5, "done": true, "kind": "b", "tags": ["x"], "owner": {"id": 7}, "maybe": null,
        });
        assert_eq!(minimal(&schema), expected);
    }
}
