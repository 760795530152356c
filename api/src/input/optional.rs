//! Deserialization of members that may be left out.

use serde::{Deserialize, Deserializer};

/// Deserializes a value that is not null, for serde's `deserialize_with` beside `default`.
pub(crate) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    decoder: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(decoder).map(Some)
}

/// Deserializes a value or null, for serde's `deserialize_with` beside `default`.
///
/// Null is not the same as left out: it removes a value.
#[expect(clippy::option_option, reason = "left out, null, or a value")]
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    decoder: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(decoder).map(Some)
}
