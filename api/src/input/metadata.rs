//! Deserialization of metadata.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};
use shared::metadata::Metadata;

/// For serde: metadata in a body that may be left out, but is not null.
pub(crate) fn some<'de, D: Deserializer<'de>>(decoder: D) -> Result<Option<Metadata>, D::Error> {
    let object = Map::<String, Value>::deserialize(decoder)?;
    Metadata::try_from(&object)
        .map(Some)
        .map_err(D::Error::custom)
}

/// For serde: metadata or null in a body, which may be left out.
///
/// Null is not the same as left out: it removes the metadata.
#[expect(clippy::option_option, reason = "left out, null, or metadata")]
pub(crate) fn or_null<'de, D: Deserializer<'de>>(
    decoder: D,
) -> Result<Option<Option<Metadata>>, D::Error> {
    let object = Option::<Map<String, Value>>::deserialize(decoder)?;
    let metadata = object.as_ref().map(Metadata::try_from).transpose();
    metadata.map(Some).map_err(D::Error::custom)
}
