//! Deserialization of members that may be left out, but are not null.

use serde::{Deserialize, Deserializer};

/// Deserializes a value that is not null, for serde's `deserialize_with` beside `default`.
pub(crate) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    decoder: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(decoder).map(Some)
}
