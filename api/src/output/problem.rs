//! Errors of the API, which clients get as RFC 9457 problem details.
//!
//! [`details`] is the table of the API's problems; those that only the admin listener has are in
//! `admin::problem`. Each type of problem has an example in
//! [`problem_examples`](super::problem_examples). Routes name those of their own in `x-problems`.

use std::{borrow::Cow, ops::RangeInclusive, sync::Arc};

use axum::{
    http::{HeaderValue, StatusCode as S, header::ACCEPT_ENCODING},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use shared::{
    api_key::Scope,
    booking::Refusal,
    http::{access::Denied, rejection::Rejection},
    postgres,
    telemetry::chain,
};

use super::{field_error::FieldError, problem_details::ProblemDetails};
use crate::{group_commit::SubmitError, metrics::REFUSALS};

/// Reason that a request was refused or failed.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The state of shows and bookings does not allow the request.
    Refused(Refusal),
    /// The path, the query, a header or the body is malformed.
    Malformed(String),
    /// A query parameter is malformed, unknown or repeated.
    MalformedQuery(FieldError),
    /// Some values are missing, unknown or invalid.
    Invalid(Vec<FieldError>),
    /// A page of another origin sent the request. Nothing was done.
    CrossOrigin,
    /// The header `Host` has a name that is not one of this server.
    UnknownHost,
    /// The header `Host` is missing or repeated.
    NoHost,
    /// No route has this path.
    NoSuchRoute,
    /// The route does not support the method. axum adds the header `Allow`.
    MethodNotAllowed,
    /// The body is longer than the route allows.
    BodyTooLarge { max_bytes: usize },
    /// The header `If-Match` is missing from a request that overwrites.
    IfMatchRequired,
    /// The header `Content-Type` does not declare JSON.
    NotJson,
    /// The header `Content-Type` declares another `charset` than UTF-8.
    NotUtf8,
    /// The header `Content-Encoding` declares an encoded body, such as a compressed one.
    ContentEncoding,
    /// An API key is required, and none was sent.
    KeyRequired,
    /// The API key is malformed, unknown or revoked.
    KeyInvalid,
    /// The API key lacks the scope that the request requires.
    ScopeRequired(Scope),
    /// The valid API keys are unknown, because the database is unavailable. Nothing was done.
    KeysUnknown,
    /// The client has exceeded its rate limit. Nothing was done.
    TooManyRequests,
    /// The request timed out. Its outcome is unknown.
    TimedOut,
    /// Too many requests are waiting or in flight. Nothing was done.
    Overloaded,
    /// The database is unavailable or busy, or needs its operator. Nothing was done.
    Unavailable(Arc<postgres::Error>),
    /// The database is not ready, such as before it is migrated. Nothing was done.
    NotReady(Arc<postgres::Error>),
    /// The server is about to stop, and should get no more requests.
    Stopping,
    /// The database was lost during COMMIT. The outcome is unknown.
    OutcomeUnknown(Arc<postgres::Error>),
    /// A bug that the database reported.
    Internal(Arc<postgres::Error>),
    /// A bug: the handler, or the transaction that it shared with others, panicked.
    Bug(String),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<postgres::Error> for Problem {
    fn from(error: postgres::Error) -> Self {
        Arc::new(error).into()
    }
}

impl From<Arc<postgres::Error>> for Problem {
    fn from(error: Arc<postgres::Error>) -> Self {
        match *error {
            postgres::Error::Conflict(_)
            | postgres::Error::PartlyCommitted
            | postgres::Error::Locked(_)
            | postgres::Error::Unavailable(_)
            | postgres::Error::NeedsOperator(_)
            | postgres::Error::Stale(_) => Self::Unavailable(error),
            postgres::Error::NotReady(_) => Self::NotReady(error),
            postgres::Error::OutcomeUnknown(_) => Self::OutcomeUnknown(error),
            postgres::Error::Unexpected(_) | postgres::Error::RowCountMismatch { .. } => {
                Self::Internal(error)
            }
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(unanswered: SubmitError) -> Self {
        match unanswered {
            SubmitError::Overloaded => Self::Overloaded,
            SubmitError::TimedOut => Self::TimedOut,
            SubmitError::Failed(error) => error.into(),
            SubmitError::Lost => Self::Bug("in a shared transaction".into()),
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::KeyRequired => Self::KeyRequired,
            Denied::KeyInvalid => Self::KeyInvalid,
            Denied::ScopeRequired(scope) => Self::ScopeRequired(scope),
            Denied::KeysUnknown => Self::KeysUnknown,
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::NoHost => Self::NoHost,
            Rejection::UnknownHost => Self::UnknownHost,
            Rejection::CrossOrigin => Self::CrossOrigin,
            Rejection::TooManyRequests => Self::TooManyRequests,
            Rejection::Overloaded => Self::Overloaded,
            Rejection::TimedOut => Self::TimedOut,
            Rejection::Panicked(message) => Self::Bug(message),
        }
    }
}

impl Problem {
    /// Returns the last part of the problem's `type`.
    pub(crate) fn kind(&self) -> &'static str {
        details(self).kind
    }

    /// Returns the response body as a JSON value, whose members have no order.
    pub(crate) fn document(&self) -> Value {
        details(self).document()
    }

    /// Returns the problem details that a client gets, logs a failure, and counts a refusal.
    pub(crate) fn report(self) -> ProblemDetails {
        self.log();
        let details = details(&self);
        if let Self::Refused(_) = self {
            REFUSALS.with_label_values(&[details.kind]).inc();
        }
        details
    }

    /// Logs a failure, once. Refusals are the client's concern, and logged only for debugging.
    fn log(&self) {
        match self {
            Self::Internal(error) => tracing::error!(error = chain(error), "request failed"),
            Self::Unavailable(error) | Self::NotReady(error) | Self::OutcomeUnknown(error) => {
                tracing::warn!(error = chain(error), "request failed");
            }
            Self::Bug(message) => tracing::error!(message, "request panicked"),
            Self::TimedOut => tracing::warn!("request timed out"),
            Self::KeysUnknown => tracing::warn!("request failed: the valid API keys are unknown"),
            Self::Overloaded
            | Self::Stopping
            | Self::Refused(_)
            | Self::Malformed(_)
            | Self::MalformedQuery(_)
            | Self::Invalid(_)
            | Self::CrossOrigin
            | Self::UnknownHost
            | Self::NoHost
            | Self::NoSuchRoute
            | Self::MethodNotAllowed
            | Self::BodyTooLarge { .. }
            | Self::IfMatchRequired
            | Self::NotJson
            | Self::NotUtf8
            | Self::ContentEncoding
            | Self::KeyRequired
            | Self::KeyInvalid
            | Self::ScopeRequired(_)
            | Self::TooManyRequests => tracing::debug!(problem = ?self, "request refused"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.report().into_response()
    }
}

/// Range of `Retry-After` of a 503, in seconds: a restart of the database takes about this long.
const RETRY_AFTER_SECONDS: RangeInclusive<u16> = 1..=3;

/// Text of a problem after which the client does not know whether its request was done.
const OUTCOME_UNKNOWN: &str = "The outcome is unknown. Reads, confirm, extend, cancel and requests with an \
    `Idempotency-Key` are safe to retry; check first otherwise.";

/// Describes a problem: one row for each, and those of refusals in [`of_refusal`].
#[expect(clippy::too_many_lines, reason = "a table")]
fn details(problem: &Problem) -> ProblemDetails {
    match problem {
        Problem::Refused(refusal) => of_refusal(refusal),
        Problem::Malformed(detail) => malformed(detail.clone()),
        Problem::MalformedQuery(error) => {
            let FieldError { pointer, detail } = error;
            malformed(format!("Query parameter {pointer}: {detail}.")).with(json!({ "errors": [error] }))
        }
        Problem::NoHost => malformed("Send the header `Host` exactly once."),
        Problem::Invalid(errors) => ProblemDetails::new(
            S::UNPROCESSABLE_ENTITY,
            "invalid",
            "Invalid values",
            "Some values are missing, unknown or invalid: see `errors`.",
        )
        .with(json!({ "errors": errors })),
        Problem::CrossOrigin => ProblemDetails::new(
            S::FORBIDDEN,
            "cross-origin",
            "The request comes from another origin",
            "Nothing was done. A browser sent the request for a page of another origin.",
        ),
        Problem::UnknownHost => ProblemDetails::new(
            S::MISDIRECTED_REQUEST,
            "unknown-host",
            "Unknown host",
            "Without API keys, the header `Host` must have an IP address, `localhost`, or a name that `--allowed-hosts` \
             lists.",
        ),
        Problem::NoSuchRoute => ProblemDetails::new(
            S::NOT_FOUND,
            "no-such-route",
            "No such route",
            "There is no route with this path. `/docs` lists all routes.",
        ),
        Problem::MethodNotAllowed => ProblemDetails::new(
            S::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            "This path does not support this method: see the header `Allow`.",
        ),
        Problem::BodyTooLarge { max_bytes } => ProblemDetails::new(
            S::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            format!("A body may have at most {max_bytes} bytes."),
        )
        .with(json!({ "maxBytes": max_bytes })),
        Problem::IfMatchRequired => ProblemDetails::new(
            S::PRECONDITION_REQUIRED,
            "if-match-required",
            "If-Match is required",
            "Send the `ETag` of the state that you change in the header `If-Match`, or `*` to change any.",
        ),
        Problem::NotJson => not_json("Send a JSON body with the header `Content-Type: application/json`."),
        Problem::NotUtf8 => not_json("Send JSON in UTF-8, without another `charset` in the header `Content-Type`."),
        Problem::ContentEncoding => ProblemDetails::new(
            S::UNSUPPORTED_MEDIA_TYPE,
            "content-encoding",
            "Unsupported content encoding",
            "Send the body unencoded, without the header `Content-Encoding`.",
        )
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        Problem::KeyRequired => ProblemDetails::new(
            S::UNAUTHORIZED,
            "api-key-required",
            "An API key is required",
            "Send an API key in the header `Authorization: Bearer tkt_…`.",
        )
        .challenge("Bearer realm=\"ticketing\""),
        Problem::KeyInvalid => ProblemDetails::new(
            S::UNAUTHORIZED,
            "api-key-invalid",
            "The API key is not valid",
            "The API key is unknown or revoked.",
        )
        .challenge("Bearer realm=\"ticketing\", error=\"invalid_token\""),
        Problem::ScopeRequired(scope) => ProblemDetails::new(
            S::FORBIDDEN,
            "scope-required",
            "The API key lacks a required scope",
            format!("The API key lacks the scope {scope}."),
        )
        .with(json!({ "scope": scope.to_string() }))
        .challenge(&format!(
            "Bearer realm=\"ticketing\", error=\"insufficient_scope\", scope=\"{scope}\""
        )),
        Problem::TooManyRequests => ProblemDetails::new(
            S::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests",
            "Nothing was done. The header `RateLimit-Policy` has the limit: `q` requests in `w` seconds.",
        )
        .retry_after(1),
        Problem::TimedOut => ProblemDetails::new(
            S::SERVICE_UNAVAILABLE,
            "timed-out",
            "The request has timed out",
            OUTCOME_UNKNOWN,
        ),
        Problem::Overloaded => later("overloaded", "Overloaded"),
        Problem::Unavailable(_) | Problem::KeysUnknown | Problem::Stopping => {
            later("unavailable", "Service unavailable")
        }
        Problem::NotReady(error) => {
            let reason = error.operators_reason();
            let reason = reason.as_deref().unwrap_or("try again shortly");
            ProblemDetails::new(
                S::SERVICE_UNAVAILABLE,
                "not-ready",
                "Not ready",
                format!("Nothing was done: {reason}."),
            )
            .retry_after(some_seconds())
        }
        Problem::OutcomeUnknown(_) => ProblemDetails::new(
            S::SERVICE_UNAVAILABLE,
            "outcome-unknown",
            "The outcome is unknown",
            OUTCOME_UNKNOWN,
        ),
        Problem::Internal(_) | Problem::Bug(_) => ProblemDetails::new(
            S::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "A bug in the server. It is logged under the `x-request-id` of this response.",
        ),
    }
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> ProblemDetails {
    ProblemDetails::new(S::BAD_REQUEST, "malformed", "Malformed request", detail)
}

fn not_json(detail: &'static str) -> ProblemDetails {
    ProblemDetails::new(
        S::UNSUPPORTED_MEDIA_TYPE,
        "not-json",
        "Unsupported media type",
        detail,
    )
}

/// Describes a problem that is over in a moment.
fn later(kind: &'static str, title: &'static str) -> ProblemDetails {
    let detail = "Nothing was done. Try again shortly.";
    ProblemDetails::new(S::SERVICE_UNAVAILABLE, kind, title, detail).retry_after(some_seconds())
}

/// Random, because clients that were rejected together would else retry together.
fn some_seconds() -> u16 {
    fastrand::u16(RETRY_AFTER_SECONDS)
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn of_refusal(refusal: &Refusal) -> ProblemDetails {
    let (status, kind, title, facts) = match refusal {
        Refusal::ShowNotFound { show_id } => (
            S::NOT_FOUND,
            "show-not-found",
            "Show not found",
            json!({ "showId": show_id }),
        ),
        Refusal::BookingNotFound { booking_id } => (
            S::NOT_FOUND,
            "booking-not-found",
            "Booking not found",
            json!({ "bookingId": booking_id }),
        ),
        Refusal::NotOnSale { show_id, sale } => (
            S::CONFLICT,
            "not-on-sale",
            "The show is not on sale",
            json!({
                "showId": show_id,
                "showStatus": sale.status,
                "salesStart": sale.start,
                "salesEnd": sale.end,
            }),
        ),
        Refusal::SeatsInUse {
            show_id,
            requested,
            in_use,
        } => (
            S::CONFLICT,
            "seats-in-use",
            "The seats are in use",
            json!({ "showId": show_id, "requested": requested, "inUse": in_use }),
        ),
        Refusal::ShowChanged { show_id } => (
            S::PRECONDITION_FAILED,
            "show-changed",
            "The show has changed",
            json!({ "showId": show_id }),
        ),
        Refusal::WrongShowStatus {
            show_id,
            current_status,
        } => (
            S::CONFLICT,
            "wrong-show-status",
            "The show's status does not allow this",
            json!({ "showId": show_id, "currentStatus": current_status }),
        ),
        Refusal::InconsistentShow { field, detail } => {
            let pointer = format!("/{field}");
            let error = FieldError {
                pointer,
                detail: detail.clone(),
            };
            return details(&Problem::Invalid(vec![error]));
        }
        Refusal::NotEnoughSeats {
            show_id,
            requested,
            available,
        } => (
            S::CONFLICT,
            "not-enough-seats",
            "Not enough seats",
            json!({ "showId": show_id, "requested": requested, "available": available }),
        ),
        Refusal::HoldExpired {
            booking_id,
            expires_at,
        } => (
            S::CONFLICT,
            "hold-expired",
            "The hold has expired",
            json!({ "bookingId": booking_id, "expiresAt": expires_at }),
        ),
        Refusal::BookingCancelled { booking_id } => (
            S::CONFLICT,
            "booking-cancelled",
            "The booking is cancelled",
            json!({ "bookingId": booking_id }),
        ),
        Refusal::BookingConfirmed { booking_id } => (
            S::CONFLICT,
            "booking-confirmed",
            "The booking is confirmed",
            json!({ "bookingId": booking_id }),
        ),
        Refusal::FewerSeatsBooked {
            booking_id,
            requested,
            booked,
        } => (
            S::CONFLICT,
            "fewer-seats-booked",
            "The booking has fewer seats",
            json!({ "bookingId": booking_id, "requested": requested, "booked": booked }),
        ),
        Refusal::TooManySeats {
            show_id,
            requested,
            max_seats_per_booking,
        } => (
            S::CONFLICT,
            "too-many-seats",
            "Too many seats for one booking",
            json!({ "showId": show_id, "requested": requested, "maxSeatsPerBooking": max_seats_per_booking }),
        ),
        Refusal::UserLimitReached {
            show_id,
            requested,
            max_seats_per_user,
            taken,
        } => (
            S::CONFLICT,
            "user-limit-reached",
            "Too many seats for one user",
            json!({
                "showId": show_id,
                "requested": requested,
                "maxSeatsPerUser": max_seats_per_user,
                "taken": taken,
            }),
        ),
        Refusal::ExtensionTooLong {
            booking_id,
            extendable_until,
            seconds,
        } => (
            S::CONFLICT,
            "extension-too-long",
            "The hold cannot be extended that far",
            json!({ "bookingId": booking_id, "extendableUntil": extendable_until, "maxSeconds": seconds }),
        ),
        Refusal::BookingChanged {
            booking_id,
            current_status,
        } => (
            S::PRECONDITION_FAILED,
            "booking-changed",
            "The booking has changed",
            json!({ "bookingId": booking_id, "currentStatus": current_status }),
        ),
        Refusal::KeyReused => (
            S::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The idempotency key was used for another request",
            json!({}),
        ),
    };
    ProblemDetails::new(status, kind, title, refusal.to_string()).with(facts)
}
