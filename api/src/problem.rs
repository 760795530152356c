//! Every refusal and failure, and what a client is told of it: RFC 9457 problem details.

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
    booking::{Booking, BookingStatus, Refusal},
    http::{access::Denied, guard::Refused},
    postgres,
    queue::{JobState, steer::Action},
    telemetry::chain,
};

use crate::{MAX_BODY_BYTES, faults::Fault, group_commit::Unanswered, metrics::REFUSALS};

/// When to come back after a 503, in seconds: a database that restarts takes about this long.
const RETRY_AFTER_SECONDS: RangeInclusive<u16> = 1..=3;

/// Why a request did not get what it asked for.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Not allowed by the state of things.
    Refused(Refusal),
    /// Not understood: the path, the query or the body is not in the form it must have.
    Malformed(String),
    /// A parameter of the query is not in the form it must have, unknown, or there twice.
    MalformedQuery(Fault),
    /// Understood, but some values are out of bounds.
    Invalid(Vec<Fault>),
    /// No job has this id. Of the admin listener, as the next two.
    JobNotFound,
    /// There is no such queue.
    QueueNotFound { queue: String },
    /// The job is in a state in which this can't be done to it.
    JobState { action: Action, state: JobState },
    /// A page of another origin sent it. Nothing was done.
    CrossOrigin,
    /// It was asked for by a name that is not this machine's.
    UnknownHost,
    /// It does not say once by which name the server was asked for.
    NoHost,
    /// No route has this path.
    NoSuchRoute,
    /// The route has no such method. axum adds `Allow`.
    MethodNotAllowed,
    /// The body is longer than it may be.
    BodyTooLarge,
    /// The body is not said to be JSON.
    NotJson,
    /// The body is said to be in another encoding of characters than UTF-8.
    NotUtf8,
    /// The body is said to be compressed, or the like.
    ContentEncoding,
    /// An API key is needed, and none was sent.
    KeyRequired,
    /// What was sent as an API key is no valid one.
    KeyInvalid,
    /// The API key may not be used for this.
    ScopeRequired(Scope),
    /// Which API keys are valid can't be told, because the database is away. Nothing was done.
    KeysUnknown,
    /// The client has sent more requests than it may. Nothing was done.
    TooManyRequests,
    /// The request took too long; it may have been done or not.
    TimedOut,
    /// More requests wait than the server takes on. Nothing was done.
    Overloaded,
    /// The database is away or busy, or its operator has to do something. Nothing was done.
    Unavailable(Arc<postgres::Error>),
    /// The database can't be worked with, such as before it was migrated. Nothing was done.
    NotReady(Arc<postgres::Error>),
    /// The server is about to stop, and wants no more requests.
    Stopping,
    /// The database was lost during COMMIT: it may have been done or not.
    OutcomeUnknown(Arc<postgres::Error>),
    /// A defect that the database noticed.
    Internal(Arc<postgres::Error>),
    /// A defect: the handler, or the transaction that it shared with others, panicked.
    Panicked(String),
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
            | postgres::Error::Locked(_)
            | postgres::Error::Unavailable(_)
            | postgres::Error::NeedsOperator(_)
            | postgres::Error::Stale(_) => Self::Unavailable(error),
            postgres::Error::NotReady(_) => Self::NotReady(error),
            postgres::Error::OutcomeUnknown(_) => Self::OutcomeUnknown(error),
            postgres::Error::Unexpected(_) | postgres::Error::Drift { .. } => Self::Internal(error),
        }
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Overloaded => Self::Overloaded,
            Unanswered::Failed(error) => error.into(),
            Unanswered::Lost => Self::Panicked("in a shared transaction".into()),
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

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoHost => Self::NoHost,
            Refused::UnknownHost => Self::UnknownHost,
            Refused::CrossOrigin => Self::CrossOrigin,
            Refused::TooManyRequests => Self::TooManyRequests,
            Refused::Overloaded => Self::Overloaded,
            Refused::TimedOut => Self::TimedOut,
            Refused::Panicked(message) => Self::Panicked(message),
        }
    }
}

/// What a problem is called.
struct Name {
    status: StatusCode,
    /// The last part of the problem's `type`. Never changes.
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

/// The name of a refusal.
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
            "The hold can't be made to last that long",
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
    /// The one place that gives each problem its status and its name; of refusals together with [`refusal_name`].
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
                "The job's state does not allow it",
            ),
            Self::CrossOrigin => name(
                S::FORBIDDEN,
                "cross-origin",
                "Sent by a page of another origin",
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
                "The API key may not be used for this",
            ),
            Self::TooManyRequests => name(
                S::TOO_MANY_REQUESTS,
                "too-many-requests",
                "Too many requests",
            ),
            Self::TimedOut => name(
                S::SERVICE_UNAVAILABLE,
                "timed-out",
                "The request took too long",
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
            Self::Internal(_) | Self::Panicked(_) => {
                name(S::INTERNAL_SERVER_ERROR, "internal", "Internal error")
            }
        }
    }

    /// What happened this time, for people. Nothing of the inside.
    fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::Refused(refusal) => refusal.to_string().into(),
            Self::Malformed(detail) => detail.into(),
            Self::MalformedQuery(Fault { pointer, detail }) => {
                format!("Query parameter {pointer}: {detail}.").into()
            }
            Self::Invalid(_) => "Some values are missing, unknown, or not as they have to be: see `errors`.".into(),
            Self::JobNotFound => "There is no such job. Jobs that are over are kept for a while.".into(),
            Self::QueueNotFound { queue } => format!("There is no queue {queue:?}.").into(),
            Self::JobState { action, state } => {
                format!("A job that is {} can't be told to {}.", state.name(), action.name()).into()
            }
            Self::CrossOrigin => "Nothing was done. A browser sent it for a page that is not of this listener.".into(),
            Self::UnknownHost => "Where no key is asked for, it answers to addresses, to localhost, and to the names that `--allowed-hosts` lists.".into(),
            Self::NoHost => "A request says once, in the header `Host`, by which name it asks for the server.".into(),
            Self::NoSuchRoute => "Nothing is served at this path. `/docs` lists what is.".into(),
            Self::MethodNotAllowed => {
                "This path is served with other methods: see the header `Allow`.".into()
            }
            Self::BodyTooLarge => format!("A body has at most {MAX_BODY_BYTES} bytes.").into(),
            Self::NotJson => {
                "Send a JSON body with the header `Content-Type: application/json`.".into()
            }
            Self::NotUtf8 => {
                "Send JSON in UTF-8, and no other `charset` in the header `Content-Type`.".into()
            }
            Self::ContentEncoding => {
                "Send the body as it is, without the header `Content-Encoding`.".into()
            }
            Self::KeyRequired => "Send a key with the header `Authorization: Bearer tkt_…`.".into(),
            Self::KeyInvalid => "Send a key of this server as `Authorization: Bearer tkt_…`. This is none, or it was revoked.".into(),
            Self::ScopeRequired(scope) => format!("It lacks the scope {scope}.").into(),
            Self::TooManyRequests => {
                "Nothing was done. The header `RateLimit-Policy` says how many requests (`q`) are allowed in how many seconds (`w`).".into()
            }
            Self::Overloaded | Self::Unavailable(_) | Self::KeysUnknown | Self::Stopping => {
                "Nothing was done. Try again shortly.".into()
            }
            Self::NotReady(error) => {
                let reason = error.operators_reason();
                format!("Nothing was done: {}.", reason.as_deref().unwrap_or("try again shortly")).into()
            }
            Self::TimedOut | Self::OutcomeUnknown(_) => {
                "It may have been done or not. What reads, confirms, extends or cancels, and what has an `Idempotency-Key`, can be repeated as it is; otherwise look first whether it was made.".into()
            }
            Self::Internal(_) | Self::Panicked(_) => {
                "A defect of the server. It is logged under this answer's `x-request-id`.".into()
            }
        }
    }

    /// What happened this time, for machines.
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
                current,
            }) => json!({ "bookingId": booking_id, "currentStatus": current.status }),
            Self::QueueNotFound { queue } => json!({ "queue": queue }),
            Self::JobState { state, .. } => json!({ "state": state }),
            Self::MalformedQuery(fault) => json!({ "errors": [fault] }),
            Self::Invalid(faults) => json!({ "errors": faults }),
            Self::ScopeRequired(scope) => json!({ "scope": scope.to_string() }),
            Self::BodyTooLarge => json!({ "maxBytes": MAX_BODY_BYTES }),
            _ => json!({}),
        }
    }

    /// Failures are logged here, once each; refusals are the client's affair.
    fn log(&self) {
        match self {
            Self::Internal(error) => tracing::error!(error = chain(error), "request failed"),
            Self::Unavailable(error) | Self::NotReady(error) | Self::OutcomeUnknown(error) => {
                tracing::warn!(error = chain(error), "request failed");
            }
            Self::Panicked(message) => tracing::error!(message, "request panicked"),
            Self::TimedOut => tracing::warn!("request took too long"),
            Self::KeysUnknown => tracing::warn!("request failed: the API keys are not known"),
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
    /// The last part of its `type`.
    pub(crate) fn kind(&self) -> &'static str {
        self.name().kind
    }

    /// Its body as a value, whose members have no order.
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

/// The body, in the order in which people read it.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    #[serde(flatten)]
    facts: Value,
}

/// What a caller must show (RFC 6750).
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
            // Not when it may have been done: a client that comes back by itself would do it twice. Not all at the same
            // time: those that were turned away together would come back together.
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
    /// An example of each kind of the API, for its description.
    pub(crate) fn one_of_each() -> Vec<Self> {
        let at = |micros| DateTime::from_timestamp_micros(micros).unwrap_or_default();
        let (booking_id, show_id) = (1042, 7);
        let (expires_at, extendable_until) = (at(1_795_550_520_123_456), at(1_795_551_300_123_456));
        let current = Booking {
            id: booking_id,
            show_id,
            user_name: "Alice".to_owned(),
            number_of_seats: 2,
            status: BookingStatus::Confirmed,
            expires_at,
            extendable_until,
            seconds_left: None,
            created_at: at(1_795_550_400_123_456),
            resolved_at: Some(at(1_795_550_470_500_000)),
        };
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
                current: Box::new(current),
            },
            Refusal::KeyReused,
        ];
        let others = [
            Self::Malformed("The id in the path is not a whole number below 2^63.".into()),
            Self::Invalid(vec![Fault {
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
