//! A JSON object whose members are found but not rebuilt: what is not patched stays as it came, in its order.
//!
//! Strict parsing of bodies would break with every new client release; this checks that the body is JSON and knows
//! where each top-level member stands.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::rejection::Rejection;

/// A JSON object in its original bytes.
#[derive(Clone, Debug)]
pub(crate) struct JsonObject {
    bytes: Bytes,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    value: Range<usize>,
}

/// A change of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Patch {
    /// The member has this JSON as its value; it is added at the end if it is not there.
    Set(String),
    /// The member is taken out, if it is there.
    Remove,
}

impl JsonObject {
    /// Finds the members of an object.
    ///
    /// # Errors
    /// 400 when the bytes are not one JSON object, or a member is there twice: two readers could then take different
    /// ones, and a policy be walked around.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, Rejection> {
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Rejection::invalid_request(None, "The request body is not UTF-8."))?;
        let found: Found<'_> = serde_json::from_str(text).map_err(|error| {
            let message = if error.is_data() {
                format!("The request body must be a JSON object: {error}.")
            } else {
                format!("The request body is not valid JSON: {error}.")
            };
            Rejection::invalid_request(None, message)
        })?;
        let start = text.as_ptr() as usize;
        let members = found.members.into_iter().map(|(name, raw)| {
            let begin = raw.get().as_ptr() as usize - start;
            Member { name, value: begin..begin + raw.get().len() }
        });
        let members: Vec<Member> = members.collect();
        Ok(Self { bytes, members })
    }

    /// The JSON of a member.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|member| member.name == name)?;
        std::str::from_utf8(&self.bytes[member.value.clone()]).ok()
    }

    /// A member that is not null, as a value of this type.
    ///
    /// # Errors
    /// 400 naming the member when it is something else; `expected` says what it should be.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str, expected: &str) -> Result<Option<T>, Rejection> {
        match self.raw(name) {
            None | Some("null") => Ok(None),
            Some(raw) => serde_json::from_str(raw).map(Some).map_err(|_| {
                Rejection::invalid_value(name, format!("Invalid type for '{name}': expected {expected}."))
            }),
        }
    }

    /// Whether a member is there, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The names of the members, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// The bytes as they came.
    pub(crate) fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The object with some members changed. Without patches these are the original bytes.
    pub(crate) fn patched(&self, patches: &[(&str, Patch)]) -> Bytes {
        if patches.is_empty() {
            return self.bytes.clone();
        }
        let mut out = Vec::with_capacity(self.bytes.len() + 256);
        out.push(b'{');
        let kept =
            self.members.iter().filter_map(|member| match patches.iter().find(|(name, _)| *name == member.name) {
                Some((_, Patch::Remove)) => None,
                Some((_, Patch::Set(json))) => Some((member.name.as_str(), json.as_bytes())),
                None => Some((member.name.as_str(), &self.bytes[member.value.clone()])),
            });
        let added = patches.iter().filter_map(|(name, patch)| match patch {
            Patch::Set(json) if !self.has(name) => Some((*name, json.as_bytes())),
            Patch::Set(_) | Patch::Remove => None,
        });
        for (index, (name, json)) in kept.chain(added).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(json_string(name).as_bytes());
            out.push(b':');
            out.extend_from_slice(json);
        }
        out.push(b'}');
        Bytes::from(out)
    }
}

/// A text as a JSON string.
pub(crate) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Found<'a> {
    members: Vec<(String, &'a RawValue)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Found<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FoundVisitor)
    }
}

struct FoundVisitor;

impl<'de> Visitor<'de> for FoundVisitor {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, &'de RawValue)> = Vec::with_capacity(16);
        while let Some(name) = map.next_key::<String>()? {
            if members.len() >= MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
            if members.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("a member is there twice"));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Found { members })
    }
}

/// Most members of one object that we look at; real bodies have some twenty.
const MEMBERS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(text: &str) -> JsonObject {
        JsonObject::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn what_is_not_patched_stays_byte_for_byte() {
        let body = object(r#"{ "model" : "a", "x":[1.50, {"k":1e2}] ,"stream":false}"#);
        assert_eq!(body.patched(&[]), body.bytes);
        let patched = body.patched(&[("model", Patch::Set("\"b\"".into())), ("store", Patch::Set("false".into()))]);
        assert_eq!(patched, r#"{"model":"b","x":[1.50, {"k":1e2}],"stream":false,"store":false}"#);
        let removed = body.patched(&[("x", Patch::Remove), ("y", Patch::Remove)]);
        assert_eq!(removed, r#"{"model":"a","stream":false}"#);
    }

    #[test]
    fn members_read_as_their_type_or_are_named() {
        let body = object(r#"{"model":"a","stream":null,"n":"x"}"#);
        assert_eq!(body.get::<String>("model", "a string").unwrap().as_deref(), Some("a"));
        assert_eq!(body.get::<bool>("stream", "a boolean").unwrap(), None);
        assert_eq!(body.get::<bool>("gone", "a boolean").unwrap(), None);
        let rejection = body.get::<bool>("n", "a boolean").unwrap_err();
        assert_eq!((rejection.status, rejection.param.as_deref()), (400, Some("n")));
    }

    #[test]
    fn what_is_no_object_or_names_a_member_twice_is_refused() {
        for text in ["", "[]", "1", "{", r#"{"a":1}x"#, r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, "\u{feff}{}"] {
            let rejection = JsonObject::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap_err();
            assert_eq!(rejection.status, 400, "{text}");
        }
        assert_eq!(JsonObject::parse(Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap_err().status, 400);
    }

    proptest! {
        #[test]
        fn a_patched_object_is_the_object_with_the_patch(
            names in prop::collection::hash_set("[a-z\"\\\\é]{1,4}", 0..8),
            target in "[a-z\"\\\\é]{1,4}",
            remove in any::<bool>(),
        ) {
            let mut expected: serde_json::Map<String, serde_json::Value> =
                names.iter().map(|name| (name.clone(), serde_json::json!({"v": name}))).collect();
            let body = object(&serde_json::to_string(&expected).unwrap());
            let patch = if remove { Patch::Remove } else { Patch::Set("7".into()) };
            let patched = body.patched(&[(target.as_str(), patch)]);
            if remove { expected.remove(&target); } else { expected.insert(target, serde_json::json!(7)); }
            let got: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&patched).unwrap();
            prop_assert_eq!(got, expected);
        }
    }
}
