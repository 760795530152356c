//! Pagination of lists: a plain array, and a `Link` (RFC 8288) to the next page if there is one.

use axum::{
    Json,
    http::header::LINK,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use shared::{
    booking::query,
    id::{BookingId, ShowId},
    show,
};

use super::{field_error::FieldError, large_body::LargeBodyPermit, problem::Problem};

/// Default length of a page.
pub(crate) const DEFAULT_LIMIT: i64 = 100;

/// Maximum length of a page.
pub(crate) const MAX_LIMIT: i64 = 1000;

/// A position in a list of bookings, as in the `Link` to the next page.
///
/// It is an id, or a deadline in microseconds since 1970 and an id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor(pub(crate) query::Cursor);

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, encoder: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            query::Cursor::Id(id) => encoder.serialize_i64(id.0),
            query::Cursor::Deadline(at, id) => {
                encoder.serialize_str(&format!("{}-{id}", at.timestamp_micros()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        let (at, id) = position(decoder)?;
        Ok(Self(match at {
            None => query::Cursor::Id(BookingId(id)),
            Some(at) => query::Cursor::Deadline(at, BookingId(id)),
        }))
    }
}

/// A position in a list of shows, as in the `Link` to the next page.
///
/// It is an id, or a start time in microseconds since 1970 and an id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShowCursor(pub(crate) show::Cursor);

impl Serialize for ShowCursor {
    fn serialize<S: Serializer>(&self, encoder: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            show::Cursor::Id(id) => encoder.serialize_i64(id.0),
            show::Cursor::StartTime(at, id) => {
                encoder.serialize_str(&format!("{}-{id}", at.timestamp_micros()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for ShowCursor {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        let (at, id) = position(decoder)?;
        Ok(Self(match at {
            None => show::Cursor::Id(ShowId(id)),
            Some(at) => show::Cursor::StartTime(at, ShowId(id)),
        }))
    }
}

/// Decodes a position: an id, or microseconds since 1970 and an id.
fn position<'de, D: Deserializer<'de>>(
    decoder: D,
) -> Result<(Option<DateTime<Utc>>, i64), D::Error> {
    let text = String::deserialize(decoder)?;
    parse(&text)
        .ok_or_else(|| de::Error::custom("not a list position: take it from the header Link"))
}

fn parse(text: &str) -> Option<(Option<DateTime<Utc>>, i64)> {
    let is_ours = |byte: u8| byte.is_ascii_digit() || byte == b'-';
    if !text.bytes().all(is_ours) {
        return None;
    }
    let Some((micros, id)) = text.rsplit_once('-') else {
        return Some((None, text.parse().ok()?));
    };
    let at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
    // As far as start times and deadlines go; PostgreSQL's go not much further.
    let at = Some(at).filter(|at| (1..=9999).contains(&at.year()));
    Some((Some(at?), id.parse().ok()?))
}

/// Returns the problem that the query parameter `after` is a position in a list of another order.
///
/// If it were ignored, each page would begin at the start of the list again.
pub(crate) fn wrong_cursor() -> Problem {
    Problem::MalformedQuery(FieldError {
        pointer: "after".to_owned(),
        detail: "a position in another list; take it from the header Link, and keep the filters"
            .to_owned(),
    })
}

/// A page of a list.
pub(crate) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
    /// Held until the client has read the page.
    permit: LargeBodyPermit,
}

impl<T> Page<T> {
    /// Builds a page of at most `limit` items.
    ///
    /// The caller passes one item more if there is one. Then a next page exists, and `next_query`
    /// returns its query, from the last item of this page.
    pub(crate) fn new<Q: Serialize>(
        mut items: Vec<T>,
        limit: i64,
        path: &str,
        permit: LargeBodyPermit,
        next_query: impl FnOnce(&T) -> Q,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| more)
            .and_then(|last| serde_urlencoded::to_string(next_query(last)).ok())
            .map(|query| format!("<{path}?{query}>; rel=\"next\""));
        Self {
            items,
            next,
            permit,
        }
    }

    /// Converts the items to what clients see.
    pub(crate) fn into_views<View: From<T>>(self) -> Page<View> {
        Page {
            items: self.items.into_iter().map(View::from).collect(),
            next: self.next,
            permit: self.permit,
        }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let link = self.next.map(|next| [(LINK, next)]);
        self.permit.respond((link, Json(self.items)))
    }
}
