//! JSON objects that are written member by member, because what goes into them is JSON already.

/// A JSON object that is written member by member.
pub(super) struct Members {
    json: String,
}

impl Members {
    /// `bytes` are what is known to go in.
    pub(super) fn new(bytes: usize) -> Self {
        let mut json = String::with_capacity(bytes + 512);
        json.push('{');
        Self { json }
    }

    /// Adds a member whose value is this JSON. The name is one of ours: it needs no escapes.
    pub(super) fn put(&mut self, name: &str, value: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        self.json.push('"');
        self.json.push_str(name);
        self.json.push_str("\":");
        self.json.push_str(value);
    }

    /// The same, if there is a value.
    pub(super) fn put_if_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    /// The object as far as it is written, for more members to follow.
    pub(super) fn into_open_json(self) -> String {
        self.json
    }

    /// The object.
    pub(super) fn into_json(mut self) -> String {
        self.json.push('}');
        self.json
    }
}
