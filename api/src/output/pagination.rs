//! Pagination of lists: a plain array, and a `Link` (RFC 8288) to the next page if there is one.

use std::{
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRef, FromRequestParts},
    http::{
        HeaderValue, Method, Uri,
        header::{CONTENT_TYPE, LINK},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use chrono::DateTime;
use hyper::body::{Frame, SizeHint};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use shared::{
    booking::query,
    http::{
        BusyGuard,
        fair_semaphore::{FairSemaphore, Permit},
        middleware::Sender,
    },
    id::BookingId,
};
use tokio::time::Instant;

use super::{field_error::FieldError, problem::Problem};

/// Default length of a page.
pub(crate) const DEFAULT_LIMIT: i64 = 100;

/// Maximum length of a page.
pub(crate) const MAX_LIMIT: i64 = 1000;

/// Paths of the lists.
const LISTS: [&str; 2] = ["/shows", "/bookings"];

/// Number of list items that cost as much as one request.
const ITEMS_PER_REQUEST: i64 = 10;

/// Returns the number of requests that a request counts as for its caller's rate limit.
///
/// A list counts as one request, and as one more for every ten items that it may have, because
/// reading ten bookings takes as much processor time as making one.
pub(crate) fn request_cost(method: &Method, uri: &Uri) -> NonZeroU32 {
    if *method == Method::POST || !LISTS.contains(&uri.path()) {
        return NonZeroU32::MIN;
    }
    let query = uri.query().unwrap_or_default().as_bytes();
    let limit = form_urlencoded::parse(query)
        .find(|(name, _)| name == "limit")
        .map_or(DEFAULT_LIMIT, |(_, limit)| {
            limit.parse().unwrap_or(MAX_LIMIT)
        });
    let items = u32::try_from(limit.clamp(0, MAX_LIMIT) / ITEMS_PER_REQUEST).unwrap_or_default();
    NonZeroU32::MIN.saturating_add(items)
}

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
        let text = String::deserialize(decoder)?;
        let is_ours = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-');
        let cursor = match text.split_once('-').filter(|_| is_ours) {
            None if is_ours => text.parse().ok().map(|id| query::Cursor::Id(BookingId(id))),
            None => None,
            Some((micros, id)) => micros
                .parse()
                .ok()
                .and_then(DateTime::from_timestamp_micros)
                .zip(id.parse().ok())
                .map(|(at, id)| query::Cursor::Deadline(at, BookingId(id))),
        };
        cursor
            .map(Self)
            .ok_or_else(|| de::Error::custom("not a list position: take it from the header Link"))
    }
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

/// Permits for lists in flight. Their responses are long, and a client may read them slowly.
#[derive(Clone)]
pub(crate) struct Lists(Arc<FairSemaphore>);

impl Lists {
    /// Creates this many permits.
    pub(crate) fn new(max: usize) -> Self {
        Self(FairSemaphore::new(max))
    }
}

/// A permit for a list, held until the client has read it.
pub(crate) struct ListPermit {
    _permit: Permit,
    _busy: Option<BusyGuard>,
}

impl<S> FromRequestParts<S> for ListPermit
where
    S: Send + Sync,
    Lists: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Lists(lists) = Lists::from_ref(state);
        let sender = parts.extensions.get::<Sender>();
        let sender = sender.ok_or(Problem::KeyRequired)?;
        let permit = lists
            .try_acquire(sender.caller, usize::MAX)
            .ok_or(Problem::Overloaded)?;
        Ok(Self {
            _permit: permit,
            _busy: sender.connection.busy(),
        })
    }
}

/// A page of a list.
pub(crate) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
    /// Held until the client has read the page.
    permit: ListPermit,
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
        permit: ListPermit,
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
        let Ok(json) = serde_json::to_vec(&self.items) else {
            return Problem::Bug("a list cannot be serialized".into()).into_response();
        };
        let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let pieces = PacedBody {
            rest: json.into(),
            began: Instant::now(),
            _permit: self.permit,
        };
        (link, kind, Body::new(pieces)).into_response()
    }
}

/// A long body that is sent in pieces as the client reads it. It holds a permit until then.
struct PacedBody<P> {
    rest: Bytes,
    began: Instant,
    _permit: P,
}

/// Maximum time for a client to read a list.
///
/// The longest list in this time is 73 kB/s. A slower client gets an incomplete body.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Error that aborts a list which its client reads too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the client took longer than {READ_TIMEOUT:?} to read a list")]
struct TooSlow;

/// Maximum part of a list that is being sent at a time, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

impl<P: Unpin> hyper::body::Body for PacedBody<P> {
    type Data = Bytes;
    type Error = TooSlow;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooSlow>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if self.began.elapsed() > READ_TIMEOUT {
            return Poll::Ready(Some(Err(TooSlow)));
        }
        let length = PIECE_BYTES.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests;
