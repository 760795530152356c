//! Errors of the API, which clients get as RFC 9457 problem details.

use std::{borrow::Cow, ops::RangeInclusive, sync::Arc};

use axum::{
    Json,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use chrono::DateTime;
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    api_key::Scope,
    booking::{BookingStatus, Refusal},
    http::{access::Denied, rejection::Rejection},
    postgres,
    queue::{JobState, control::Action},
    telemetry::chain,
};

use crate::{config::MAX_BODY_BYTES, group_commit::SubmitError, metrics::REFUSALS};

/// Range of `Retry-After` of a 503, in seconds: a restart of the database takes about this long.
const RETRY_AFTER_SECONDS: RangeInclusive<u16> = 1..=3;

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
    /// No job has this id. Only on the admin listener, like the next two.
    JobNotFound,
    /// No queue has this name.
    QueueNotFound { queue: String },
    /// The state of the job does not allow the action.
    JobState { action: Action, state: JobState },
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
    /// The body is too long.
    BodyTooLarge,
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

/// Validation error of one value.
#[derive(Debug, Serialize)]
pub(crate) struct FieldError {
    /// Location in the body (JSON pointer) or in the query (parameter name).
    pub(crate) pointer: String,
    /// Description of the error.
    pub(crate) detail: String,
}

/// Status, type and title of a problem.
struct Name {
    status: StatusCode,
    /// Last part of the problem's `type`. Never changes.
    kind: &'static str,
    title: &'static str,
}

const fn name(status: StatusCode, kind: &'static str, title: &'static str) -> Name {
    Name {
        status,
        kind,
        title,
    }
}

/// Returns the name of a refusal.
fn refusal_name(refusal: &Refusal) -> Name {
    use StatusCode as S;
    match refusal {
        Refusal::ShowNotFound { .. } => name(S::NOT_FOUND, "show-not-found", "Show not found"),
        Refusal::BookingNotFound { .. } => {
            name(S::NOT_FOUND, "booking-not-found", "Booking not found")
        }
        Refusal::NotEnoughSeats { .. } => name(S::CONFLICT, "not-enough-seats", "Not enough seats"),
        Refusal::HoldExpired { .. } => name(S::CONFLICT, "hold-expired", "The hold has expired"),
        Refusal::BookingCancelled { .. } => {
            name(S::CONFLICT, "booking-cancelled", "The booking is cancelled")
        }
        Refusal::BookingConfirmed { .. } => {
            name(S::CONFLICT, "booking-confirmed", "The booking is confirmed")
        }
        Refusal::TooManySeats { .. } => name(
            S::CONFLICT,
            "too-many-seats",
            "Too many seats for one booking",
        ),
        Refusal::UserLimitReached { .. } => name(
            S::CONFLICT,
            "user-limit-reached",
            "Too many seats for one user",
        ),
        Refusal::ExtensionTooLong { .. } => name(
            S::CONFLICT,
            "extension-too-long",
            "The hold cannot be extended that far",
        ),
        Refusal::BookingChanged { .. } => name(
            S::PRECONDITION_FAILED,
            "booking-changed",
            "The booking has changed",
        ),
        Refusal::KeyReused => name(
            S::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The idempotency key was used for another request",
        ),
    }
}

impl Problem {
    /// Returns the name of the problem.
    ///
    /// Statuses, types and titles are assigned only here, and for refusals in [`refusal_name`].
    fn name(&self) -> Name {
        use StatusCode as S;
        match self {
            Self::Refused(refusal) => refusal_name(refusal),
            Self::Malformed(_) | Self::MalformedQuery(_) | Self::NoHost => {
                name(S::BAD_REQUEST, "malformed", "Malformed request")
            }
            Self::Invalid(_) => name(S::UNPROCESSABLE_ENTITY, "invalid", "Invalid values"),
            Self::JobNotFound => name(S::NOT_FOUND, "job-not-found", "Job not found"),
            Self::QueueNotFound { .. } => name(S::NOT_FOUND, "queue-not-found", "Queue not found"),
            Self::JobState { .. } => name(
                S::CONFLICT,
                "job-state",
                "The job's state does not allow the action",
            ),
            Self::CrossOrigin => name(
                S::FORBIDDEN,
                "cross-origin",
                "The request comes from another origin",
            ),
            Self::UnknownHost => name(S::MISDIRECTED_REQUEST, "unknown-host", "Unknown host"),
            Self::NoSuchRoute => name(S::NOT_FOUND, "no-such-route", "No such route"),
            Self::MethodNotAllowed => name(
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
            ),
            Self::BodyTooLarge => name(S::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large"),
            Self::NotJson | Self::NotUtf8 => name(
                S::UNSUPPORTED_MEDIA_TYPE,
                "not-json",
                "Unsupported media type",
            ),
            Self::ContentEncoding => name(
                S::UNSUPPORTED_MEDIA_TYPE,
                "content-encoding",
                "Unsupported content encoding",
            ),
            Self::KeyRequired => name(
                S::UNAUTHORIZED,
                "api-key-required",
                "An API key is required",
            ),
            Self::KeyInvalid => name(
                S::UNAUTHORIZED,
                "api-key-invalid",
                "The API key is not valid",
            ),
            Self::ScopeRequired(_) => name(
                S::FORBIDDEN,
                "scope-required",
                "The API key lacks a required scope",
            ),
            Self::TooManyRequests => name(
                S::TOO_MANY_REQUESTS,
                "too-many-requests",
                "Too many requests",
            ),
            Self::TimedOut => name(
                S::SERVICE_UNAVAILABLE,
                "timed-out",
                "The request has timed out",
            ),
            Self::Overloaded => name(S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Self::Unavailable(_) | Self::KeysUnknown | Self::Stopping => {
                name(S::SERVICE_UNAVAILABLE, "unavailable", "Service unavailable")
            }
            Self::NotReady(_) => name(S::SERVICE_UNAVAILABLE, "not-ready", "Not ready"),
            Self::OutcomeUnknown(_) => name(
                S::SERVICE_UNAVAILABLE,
                "outcome-unknown",
                "The outcome is unknown",
            ),
            Self::Internal(_) | Self::Bug(_) => {
                name(S::INTERNAL_SERVER_ERROR, "internal", "Internal error")
            }
        }
    }

    /// Returns the explanation of this occurrence, for people. It reveals no internals.
    fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::Refused(refusal) => refusal.to_string().into(),
            Self::Malformed(detail) => detail.into(),
            Self::MalformedQuery(FieldError { pointer, detail }) => {
                format!("Query parameter {pointer}: {detail}.").into()
            }
            Self::Invalid(_) => "Some values are missing, unknown or invalid: see `errors`.".into(),
            Self::JobNotFound => "There is no such job. Finished jobs are deleted after a while.".into(),
            Self::QueueNotFound { queue } => format!("There is no queue {queue:?}.").into(),
            Self::JobState { action, state } => {
                format!("A job in state {} does not allow the action {}.", state.name(), action.name()).into()
            }
            Self::CrossOrigin => "Nothing was done. A browser sent the request for a page of another origin.".into(),
            Self::UnknownHost => "Without API keys, the header `Host` must have an IP address, `localhost`, or a name that `--allowed-hosts` lists.".into(),
            Self::NoHost => "Send the header `Host` exactly once.".into(),
            Self::NoSuchRoute => "There is no route with this path. `/docs` lists all routes.".into(),
            Self::MethodNotAllowed => {
                "This path does not support this method: see the header `Allow`.".into()
            }
            Self::BodyTooLarge => format!("A body may have at most {MAX_BODY_BYTES} bytes.").into(),
            Self::NotJson => {
                "Send a JSON body with the header `Content-Type: application/json`.".into()
            }
            Self::NotUtf8 => {
                "Send JSON in UTF-8, without another `charset` in the header `Content-Type`.".into()
            }
            Self::ContentEncoding => {
                "Send the body unencoded, without the header `Content-Encoding`.".into()
            }
            Self::KeyRequired => "Send an API key in the header `Authorization: Bearer tkt_…`.".into(),
            Self::KeyInvalid => "The API key is unknown or revoked.".into(),
            Self::ScopeRequired(scope) => format!("The API key lacks the scope {scope}.").into(),
            Self::TooManyRequests => {
                "Nothing was done. The header `RateLimit-Policy` has the limit: `q` requests in `w` seconds.".into()
            }
            Self::Overloaded | Self::Unavailable(_) | Self::KeysUnknown | Self::Stopping => {
                "Nothing was done. Try again shortly.".into()
            }
            Self::NotReady(error) => {
                let reason = error.operators_reason();
                format!("Nothing was done: {}.", reason.as_deref().unwrap_or("try again shortly")).into()
            }
            Self::TimedOut | Self::OutcomeUnknown(_) => {
                "The outcome is unknown. Reads, confirm, extend, cancel and requests with an `Idempotency-Key` are safe to retry; check first otherwise.".into()
            }
            Self::Internal(_) | Self::Bug(_) => {
                "A bug in the server. It is logged under the `x-request-id` of this response.".into()
            }
        }
    }

    /// Returns the members of this occurrence that a program can act on.
    fn facts(&self) -> Value {
        match self {
            Self::Refused(Refusal::ShowNotFound { show_id }) => json!({ "showId": show_id }),
            Self::Refused(
                Refusal::BookingNotFound { booking_id }
                | Refusal::BookingCancelled { booking_id }
                | Refusal::BookingConfirmed { booking_id },
            ) => json!({ "bookingId": booking_id }),
            Self::Refused(Refusal::NotEnoughSeats {
                show_id,
                requested,
                available,
            }) => json!({ "showId": show_id, "requested": requested, "available": available }),
            Self::Refused(Refusal::HoldExpired {
                booking_id,
                expires_at,
            }) => json!({ "bookingId": booking_id, "expiresAt": expires_at }),
            Self::Refused(Refusal::TooManySeats {
                show_id,
                requested,
                max_seats_per_booking,
            }) => json!({
                "showId": show_id,
                "requested": requested,
                "maxSeatsPerBooking": max_seats_per_booking,
            }),
            Self::Refused(Refusal::UserLimitReached {
                show_id,
                requested,
                max_seats_per_user,
                taken,
            }) => json!({
                "showId": show_id,
                "requested": requested,
                "maxSeatsPerUser": max_seats_per_user,
                "taken": taken,
            }),
            Self::Refused(Refusal::ExtensionTooLong {
                booking_id,
                extendable_until,
                seconds,
            }) => json!({
                "bookingId": booking_id,
                "extendableUntil": extendable_until,
                "maxSeconds": seconds,
            }),
            Self::Refused(Refusal::BookingChanged {
                booking_id,
                current_status,
            }) => json!({ "bookingId": booking_id, "currentStatus": current_status }),
            Self::QueueNotFound { queue } => json!({ "queue": queue }),
            Self::JobState { state, .. } => json!({ "state": state }),
            Self::MalformedQuery(fault) => json!({ "errors": [fault] }),
            Self::Invalid(faults) => json!({ "errors": faults }),
            Self::ScopeRequired(scope) => json!({ "scope": scope.to_string() }),
            Self::BodyTooLarge => json!({ "maxBytes": MAX_BODY_BYTES }),
            _ => json!({}),
        }
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
            | Self::JobNotFound
            | Self::QueueNotFound { .. }
            | Self::JobState { .. }
            | Self::CrossOrigin
            | Self::UnknownHost
            | Self::NoHost
            | Self::NoSuchRoute
            | Self::MethodNotAllowed
            | Self::BodyTooLarge
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

impl Problem {
    /// Returns the last part of the problem's `type`.
    pub(crate) fn kind(&self) -> &'static str {
        self.name().kind
    }

    /// Returns the response body as a JSON value, whose members have no order.
    pub(crate) fn document(&self) -> Value {
        json!(self.body())
    }

    fn body(&self) -> Document<'_> {
        let Name {
            status,
            kind,
            title,
        } = self.name();
        Document {
            r#type: format!("/problems/{kind}"),
            title,
            status: status.as_u16(),
            detail: self.detail(),
            facts: self.facts(),
        }
    }
}

/// The response body, with its members in the order in which people read them.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    #[serde(flatten)]
    facts: Value,
}

/// Adds the header `WWW-Authenticate` with this challenge (RFC 6750).
fn challenge(headers: &mut HeaderMap, challenge: &str) {
    if let Ok(challenge) = HeaderValue::from_str(challenge) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        if let Self::Refused(_) = self {
            REFUSALS.with_label_values(&[self.kind()]).inc();
        }
        let mut response = (self.name().status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            // Not if the outcome is unknown: a client that retries by itself would do it twice.
            // Random, because clients that were rejected together would else retry together.
            Self::Overloaded
            | Self::Unavailable(_)
            | Self::NotReady(_)
            | Self::KeysUnknown
            | Self::Stopping => {
                headers.insert(RETRY_AFTER, fastrand::u16(RETRY_AFTER_SECONDS).into());
            }
            Self::TooManyRequests => {
                headers.insert(RETRY_AFTER, 1.into());
            }
            Self::ContentEncoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            Self::KeyRequired => challenge(headers, "Bearer realm=\"ticketing\""),
            Self::KeyInvalid => challenge(
                headers,
                "Bearer realm=\"ticketing\", error=\"invalid_token\"",
            ),
            Self::ScopeRequired(scope) => challenge(
                headers,
                &format!(
                    "Bearer realm=\"ticketing\", error=\"insufficient_scope\", scope=\"{scope}\""
                ),
            ),
            _ => {}
        }
        response
    }
}

impl Problem {
    /// Returns an example of each problem of the API, for the OpenAPI document.
    pub(crate) fn one_of_each() -> Vec<Self> {
        let at = |micros| DateTime::from_timestamp_micros(micros).unwrap_or_default();
        let (booking_id, show_id) = (1042, 7);
        let (expires_at, extendable_until) = (at(1_795_550_520_123_456), at(1_795_551_300_123_456));
        let failed = || Arc::new(postgres::Error::Unavailable(sqlx::Error::PoolTimedOut));
        let refusals = [
            Refusal::ShowNotFound { show_id },
            Refusal::BookingNotFound { booking_id },
            Refusal::NotEnoughSeats {
                show_id,
                requested: 3,
                available: 2,
            },
            Refusal::TooManySeats {
                show_id,
                requested: 11,
                max_seats_per_booking: 10,
            },
            Refusal::UserLimitReached {
                show_id,
                requested: 3,
                max_seats_per_user: 20,
                taken: 18,
            },
            Refusal::HoldExpired {
                booking_id,
                expires_at,
            },
            Refusal::ExtensionTooLong {
                booking_id,
                extendable_until,
                seconds: 780,
            },
            Refusal::BookingConfirmed { booking_id },
            Refusal::BookingCancelled { booking_id },
            Refusal::BookingChanged {
                booking_id,
                current_status: BookingStatus::Confirmed,
            },
            Refusal::KeyReused,
        ];
        let others = [
            Self::Malformed("The id in the path is not an integer below 2^63.".into()),
            Self::Invalid(vec![FieldError {
                pointer: "/numberOfSeats".into(),
                detail: "lower than 1".into(),
            }]),
            Self::CrossOrigin,
            Self::UnknownHost,
            Self::NoSuchRoute,
            Self::MethodNotAllowed,
            Self::BodyTooLarge,
            Self::NotJson,
            Self::ContentEncoding,
            Self::KeyRequired,
            Self::KeyInvalid,
            Self::ScopeRequired(Scope::BookingsWrite),
            Self::TooManyRequests,
            Self::TimedOut,
            Self::Overloaded,
            Self::Unavailable(failed()),
            Self::NotReady(Arc::new(postgres::Error::NotReady(
                postgres::NotReady::NoSchema,
            ))),
            Self::OutcomeUnknown(failed()),
            Self::Internal(failed()),
        ];
        refusals
            .into_iter()
            .map(Self::Refused)
            .chain(others)
            .collect()
    }
}
