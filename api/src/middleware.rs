//! What every request goes through.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use axum::{
    extract::Request,
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken over from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The longest that a request may take. A statement takes 10 s at most.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Gives the answer the headers that keep browsers from making more of it than it is, and the request an id, the client's own if it sent a sensible one: it is on every log line of the request, and
/// in the answer. Answers for a handler that takes too long or panics.
///
/// It is one function because each middleware costs every request an allocation or two.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_sensible(id))
        .cloned()
        .unwrap_or_else(random_id);
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = request.uri().path(),
    );
    async {
        let began = Instant::now();
        let answered = AssertUnwindSafe(timeout(TIME_LIMIT, next.run(request)))
            .catch_unwind()
            .await;
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Problem::TimedOut.into_response(),
            Err(panic) => Problem::Panicked(panic_message(&*panic)).into_response(),
        };
        let status = response.status().as_u16();
        tracing::debug!(status, elapsed = ?began.elapsed(), "answered");
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // What is true now may not be so in a moment: to be asked for anew each time, with the `ETag` where there is one.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache"));
        headers
            .entry(CONTENT_SECURITY_POLICY)
            .or_insert(HeaderValue::from_static(
                "default-src 'none'; frame-ancestors 'none'",
            ));
        response
    }
    .instrument(span)
    .await
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

fn is_sensible(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn random_id() -> HeaderValue {
    let id = format!("{:032x}", fastrand::u128(..));
    HeaderValue::from_maybe_shared(id).expect("hexadecimal digits are a valid header value")
}
