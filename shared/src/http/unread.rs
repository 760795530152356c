//! What a handler leaves unread of a request's body.
//!
//! A connection that is closed while bytes of its client are unread is reset, and the client may lose the answer that it was
//! about to read. So what is left is read and thrown away before the answer leaves, up to a bound.

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

/// The most that is thrown away, in bytes; 64 times what a body may have. Who sends more may lose the answer.
const MAX_BYTES: usize = 1024 * 1024;

/// How long it may take.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Where a body is put when its handler is done with it.
#[derive(Default)]
pub(super) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    /// Makes a request for a handler of this one, and keeps what it will leave of the body.
    pub(super) fn of(request: Request<Incoming>) -> (Request<Body>, Option<Self>) {
        // A client that waits to be asked for its body has not sent it.
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

    /// What is left, if there is something.
    pub(super) fn rest(self) -> Option<Incoming> {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        rest.filter(|rest| !rest.is_end_stream())
    }
}

/// Reads it and throws it away.
pub(super) async fn discard(mut rest: Incoming) {
    let discarding = async {
        let mut discarded = 0;
        while discarded < MAX_BYTES
            && let Some(Ok(frame)) = next_frame(&mut rest).await
        {
            discarded += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    timeout(TIME_LIMIT, discarding).await.ok();
}

async fn next_frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// A body that goes back when it is dropped.
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
