//! Draining of request bodies that a handler did not read.
//!
//! A connection that is closed while bytes of its client are unread is reset, and the client may
//! lose the response that it was about to read. So the rest of a body is read and discarded before
//! the response is sent, up to a bound.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{Request, header::EXPECT},
};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// Maximum size of a discarded rest, in bytes: more than the largest allowed body.
///
/// A client that sends more may lose the response.
const MAX_BYTES: usize = 1024 * 1024;

/// Maximum time for discarding a rest.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Slot to which a body returns when its handler is done with it.
#[derive(Default)]
pub(super) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    /// Converts a request for its handler, and keeps a slot for the rest of its body, if any.
    pub(super) fn of(request: Request<Incoming>) -> (Request<Body>, Option<Self>) {
        // A client that waits for `100 Continue` has not sent its body.
        let waits = request.headers().get(EXPECT);
        let waits =
            waits.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if request.body().is_end_stream() || waits {
            return (request.map(Body::new), None);
        }
        let unread = Self::default();
        let request = request.map(|body| {
            Body::new(Lent {
                body: Some(body),
                owner: unread.0.clone(),
            })
        });
        (request, Some(unread))
    }

    /// Returns the unread rest of the body, if there is any.
    pub(super) fn rest(self) -> Option<Incoming> {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        rest.filter(|rest| !rest.is_end_stream())
    }
}

/// Reads and discards the rest of a body, within [`MAX_BYTES`] and [`DRAIN_TIMEOUT`].
pub(super) async fn discard(mut rest: Incoming) {
    let discarding = async {
        let mut discarded = 0;
        while discarded < MAX_BYTES
            && let Some(Ok(frame)) = next_frame(&mut rest).await
        {
            discarded += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    timeout(DRAIN_TIMEOUT, discarding).await.ok();
}

async fn next_frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// A body that returns to its slot when it is dropped.
struct Lent {
    body: Option<Incoming>,
    owner: Arc<Mutex<Option<Incoming>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}
