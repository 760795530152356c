//! Large bodies: lists, and bulk requests with their answers. Permits bound how many are in memory.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use shared::http::{
    BusyGuard,
    fair_semaphore::{FairSemaphore, Permit},
    middleware::Sender,
};
use tokio::time::Instant;

use super::problem::Problem;

/// Permits for large bodies. A client may send and read them slowly.
#[derive(Clone)]
pub(crate) struct LargeBodies(Arc<FairSemaphore>);

impl LargeBodies {
    /// Creates this many permits.
    pub(crate) fn new(max: usize) -> Self {
        Self(FairSemaphore::new(max))
    }
}

/// A permit for a request with a large body, held until the client has read the response.
///
/// As an argument of a handler it comes before the body, so that no body is read without a permit.
pub(crate) struct LargeBodyPermit {
    _permit: Permit,
    _busy: Option<BusyGuard>,
}

impl<S> FromRequestParts<S> for LargeBodyPermit
where
    S: Send + Sync,
    LargeBodies: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let LargeBodies(bodies) = LargeBodies::from_ref(state);
        let sender = parts.extensions.get::<Sender>();
        let sender = sender.ok_or(Problem::KeyRequired)?;
        let permit = bodies
            .try_acquire(sender.caller, usize::MAX)
            .ok_or(Problem::Overloaded)?;
        Ok(Self {
            _permit: permit,
            _busy: sender.connection.busy(),
        })
    }
}

impl LargeBodyPermit {
    /// Returns the response, and keeps the permit until the client has read it.
    pub(crate) fn respond(self, response: impl IntoResponse) -> Response {
        self.pace(response, Pace::Whole)
    }

    /// Returns a response whose body is made in parts while it is read, such as an export, and keeps the
    /// permit until the client has read it.
    pub(crate) fn stream(self, response: impl IntoResponse) -> Response {
        self.pace(response, Pace::EachPart)
    }

    fn pace(self, response: impl IntoResponse, pace: Pace) -> Response {
        response.into_response().map(|body| {
            Body::new(PacedBody {
                body,
                rest: Bytes::new(),
                pace,
                began: Instant::now(),
                _permit: self,
            })
        })
    }
}

/// A large body that is sent in pieces as the client reads it. It holds a permit until then.
struct PacedBody<P> {
    body: Body,
    /// Rest of the frame of `body` that is being sent.
    rest: Bytes,
    pace: Pace,
    began: Instant,
    _permit: P,
}

/// Part of a body that a client must read within [`READ_TIMEOUT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// The whole body.
    Whole,
    /// Each part of a body that is made while it is read.
    EachPart,
}

/// Maximum time for a client to read a large body, or a part of it.
///
/// The longest one in this time is 73 kB/s. A slower client gets an incomplete body.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Error that aborts a large body which its client reads too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the client took longer than {READ_TIMEOUT:?} to read a large body")]
struct TooSlow;

/// Maximum part of a large body that is being sent at a time, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

impl<P: Unpin> hyper::body::Body for PacedBody<P> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    if self.pace == Pace::EachPart {
                        self.began = Instant::now();
                    }
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        if self.began.elapsed() > READ_TIMEOUT {
            return Poll::Ready(Some(Err(axum::Error::new(TooSlow))));
        }
        let length = PIECE_BYTES.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::body::Body as _;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_read_too_slowly_does_not_end() {
        let pieces = || PacedBody {
            body: vec![b' '; 3 * PIECE_BYTES].into(),
            rest: Bytes::new(),
            pace: Pace::Whole,
            began: Instant::now(),
            _permit: (),
        };
        let mut slow = pieces();
        let mut is_sent = async || match poll_fn(|cx| Pin::new(&mut slow).poll_frame(cx)).await {
            Some(piece) => piece.is_ok(),
            None => panic!("the body ended as if it were complete"),
        };
        assert!(is_sent().await);
        advance(READ_TIMEOUT).await;
        assert!(is_sent().await, "just in time");
        advance(Duration::from_millis(1)).await;
        assert!(!is_sent().await);

        let parts = [vec![b' '; 2 * PIECE_BYTES], vec![b' '; PIECE_BYTES]];
        let parts = parts.map(Ok::<_, axum::Error>);
        let mut streamed = PacedBody {
            body: Body::from_stream(futures_util::stream::iter(parts)),
            pace: Pace::EachPart,
            ..pieces()
        };
        let mut is_sent = async || match poll_fn(|cx| Pin::new(&mut streamed).poll_frame(cx)).await
        {
            Some(piece) => piece.is_ok(),
            None => panic!("the body ended as if it were complete"),
        };
        assert!(is_sent().await);
        advance(READ_TIMEOUT).await;
        assert!(is_sent().await, "just in time");
        advance(READ_TIMEOUT).await;
        assert!(is_sent().await, "the next part has a time of its own");

        assert_eq!(pieces().size_hint().exact(), Some(3 * PIECE_BYTES as u64));
        let read = axum::body::to_bytes(Body::new(pieces()), usize::MAX).await;
        assert_eq!(read.unwrap().len(), 3 * PIECE_BYTES);
    }
}
