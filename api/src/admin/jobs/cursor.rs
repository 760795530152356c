//! Pagination cursor of a list of jobs, as text.

use chrono::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use shared::queue::inspect;

/// Pagination cursor of a list of jobs, as in the `Link` to the next page.
///
/// It is the id of a job. In a list that is ordered by time, a time in microseconds since 1970
/// precedes the id.
#[derive(Debug, Clone)]
pub(super) struct Cursor(pub(super) inspect::Cursor);

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, encoder: S) -> Result<S::Ok, S::Error> {
        let inspect::Cursor { at, id } = &self.0;
        match at {
            Some(at) => encoder.serialize_str(&format!("{}-{id}", at.timestamp_micros())),
            None => encoder.serialize_str(id),
        }
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        let text = String::deserialize(decoder)?;
        let (at, id) = match text.split_once('-') {
            None => (None, text.as_str()),
            Some((micros, id)) => {
                let at = micros
                    .parse()
                    .ok()
                    .and_then(DateTime::from_timestamp_micros);
                let at = at.ok_or_else(|| {
                    de::Error::custom("invalid cursor: use the one in the header `Link`")
                })?;
                (Some(at), id)
            }
        };
        if id.contains('\0') {
            return Err(de::Error::custom(
                "invalid cursor: use the one in the header `Link`",
            ));
        }
        let id = id.to_owned();
        Ok(Self(inspect::Cursor { at, id }))
    }
}
