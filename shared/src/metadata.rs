//! Metadata: what clients keep with a show or a booking.

use std::fmt;

use serde::{Serialize, Serializer, ser::Error};
use serde_json::{Map, Value, json, value::RawValue};
use thiserror::Error;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Object, RefOr, Schema, Type},
};

/// Maximum length of metadata as JSON without white space, in bytes.
pub const MAX_BYTES: usize = 2048;

/// Maximum depth of metadata. That of an object without objects or arrays in it is 1.
pub const MAX_DEPTH: usize = 5;

/// Maximum length of a reference, in characters.
pub const MAX_REFERENCE_CHARS: usize = 64;

/// JSON object of a client, which has no meaning here. It is kept as text.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Metadata(String);

/// Reason why an object can't be metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// It is too long.
    #[error("longer than {MAX_BYTES} bytes, written without white space")]
    TooLong,
    /// It has objects or arrays in too many levels.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A text in it has the character U+0000, which the database can't search.
    #[error("contains the character U+0000")]
    Nul,
}

impl TryFrom<&Map<String, Value>> for Metadata {
    type Error = MetadataError;

    fn try_from(object: &Map<String, Value>) -> Result<Self, MetadataError> {
        if depth(object.values()) > MAX_DEPTH {
            return Err(MetadataError::TooDeep);
        }
        // A map has only keys that are texts.
        let text = serde_json::to_string(object).unwrap_or_default();
        if text.len() > MAX_BYTES {
            return Err(MetadataError::TooLong);
        }
        // As the only way in which JSON can be written with this character.
        if has_nul(&text) {
            return Err(MetadataError::Nul);
        }
        Ok(Self(text))
    }
}

/// Returns the depth of an object or array with these values.
fn depth<'v>(values: impl Iterator<Item = &'v Value>) -> usize {
    let of_value = |value: &'v Value| match value {
        Value::Object(object) => depth_of_object(object),
        Value::Array(array) => depth_of_array(array),
        _ => 0,
    };
    1 + values.map(of_value).max().unwrap_or_default()
}

fn depth_of_object(object: &Map<String, Value>) -> usize {
    depth(object.values())
}

fn depth_of_array(array: &[Value]) -> usize {
    depth(array.iter())
}

/// Returns whether a text of this JSON has the character U+0000.
fn has_nul(json: &str) -> bool {
    let mut rest = json;
    while let Some((before, after)) = rest.split_once("\\u0000") {
        let backslashes = before.bytes().rev().take_while(|byte| *byte == b'\\');
        if backslashes.count() % 2 == 0 {
            return true;
        }
        rest = after;
    }
    false
}

impl ToSchema for Metadata {}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        let object = Object::builder()
            .schema_type(Type::Object)
            // No more fit into the length.
            .max_properties(Some(MAX_BYTES / 5))
            .examples([json!({ "channel": "web" })]);
        object.build().into()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json: &RawValue = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        json.serialize(serializer)
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: &Value) -> Result<Metadata, MetadataError> {
        Metadata::try_from(value.as_object().unwrap())
    }

    #[test]
    fn an_object_is_kept_as_it_was_sent_within_bounds() {
        let object = json!({ "z": [1, 2.50, null], "a": { "b": "c\\u0000" } });
        let kept = metadata(&object).unwrap();
        assert_eq!(
            kept.to_string(),
            r#"{"z":[1,2.5,null],"a":{"b":"c\\u0000"}}"#
        );
        assert_eq!(serde_json::to_value(&kept).unwrap(), object);

        let of_length = |length: usize| json!({ "a": "x".repeat(length - r#"{"a":""}"#.len()) });
        assert!(metadata(&of_length(MAX_BYTES)).is_ok());
        assert_eq!(
            metadata(&of_length(MAX_BYTES + 1)),
            Err(MetadataError::TooLong)
        );
        let of_depth = |depth| (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(metadata(&of_depth(MAX_DEPTH)).is_ok());
        assert_eq!(
            metadata(&of_depth(MAX_DEPTH + 1)),
            Err(MetadataError::TooDeep)
        );
        for nul in ["\0", "\\\0"] {
            assert_eq!(metadata(&json!({ "a": nul })), Err(MetadataError::Nul));
            assert_eq!(metadata(&json!({ nul: 1 })), Err(MetadataError::Nul));
        }
    }
}
