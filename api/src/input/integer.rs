//! Deserialization of integers from JSON, where `2` and `2.0` are the same number.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

/// Deserializes an integer, for serde's `deserialize_with`.
pub(crate) fn number<'de, D: Deserializer<'de>, N: TryFrom<i64>>(
    decoder: D,
) -> Result<N, D::Error> {
    decoder.deserialize_any(Whole(PhantomData))
}

/// Deserializes an integer that may be left out, but is not null, for serde's `deserialize_with`.
pub(crate) fn some<'de, D: Deserializer<'de>, N: TryFrom<i64>>(
    decoder: D,
) -> Result<Option<N>, D::Error> {
    number(decoder).map(Some)
}

/// Deserializes an integer or null, for serde's `deserialize_with`.
pub(crate) fn optional<'de, D: Deserializer<'de>, N: TryFrom<i64>>(
    decoder: D,
) -> Result<Option<N>, D::Error> {
    struct Number<N>(N);
    impl<'de, N: TryFrom<i64>> Deserialize<'de> for Number<N> {
        fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
            number(decoder).map(Self)
        }
    }
    Ok(Option::<Number<N>>::deserialize(decoder)?.map(|number| number.0))
}

/// Deserializes an integer or null, for serde's `deserialize_with` beside `default`.
///
/// Null is not the same as left out: it removes a value.
#[expect(clippy::option_option, reason = "left out, null, or an integer")]
pub(crate) fn nullable<'de, D: Deserializer<'de>, N: TryFrom<i64>>(
    decoder: D,
) -> Result<Option<Option<N>>, D::Error> {
    optional(decoder).map(Some)
}

struct Whole<N>(PhantomData<N>);

impl<N: TryFrom<i64>> Visitor<'_> for Whole<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<N, E> {
        N::try_from(number).map_err(|_| E::custom(format!("{number} is out of bounds")))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<N, E> {
        i64::try_from(number)
            .map_err(|_| E::custom(format!("{number} is out of bounds")))
            .and_then(|number| self.visit_i64(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<N, E> {
        /// Largest magnitude up to which `f64` represents every integer exactly: 2^53.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if number.fract() != 0.0 || number.abs() > EXACT {
            return Err(E::invalid_type(Unexpected::Float(number), &self));
        }
        #[expect(clippy::cast_possible_truncation, reason = "an integer within bounds")]
        let number = number as i64;
        self.visit_i64(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "number")]
        a: i32,
        #[serde(default, deserialize_with = "optional")]
        b: Option<i64>,
    }

    #[test]
    fn whole_numbers_are_taken_however_they_are_written() {
        let parse = |text: &str| serde_json::from_str::<Numbers>(text).ok();
        let some = |a, b| Some(Numbers { a, b });
        for (text, expected) in [
            (r#"{"a":2}"#, some(2, None)),
            (r#"{"a":2.0,"b":-3e0}"#, some(2, Some(-3))),
            (r#"{"a":-0.0,"b":null}"#, some(0, None)),
            (
                r#"{"a":1,"b":9223372036854775807}"#,
                some(1, Some(i64::MAX)),
            ),
            (r#"{"a":1,"b":9223372036854775808}"#, None),
            (r#"{"a":1,"b":1e19}"#, None),
            (r#"{"a":2147483648}"#, None),
            (r#"{"a":2.5}"#, None),
            (r#"{"a":null}"#, None),
            (r#"{"a":"2"}"#, None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
