//! Every refusal and failure, and what a client is told of it: RFC 9457 problem details.

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};
use shared::{booking::Refusal, postgres, telemetry::chain};

/// Why a request did not get what it asked for.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Not allowed by the state of things.
    Refused(Refusal),
    /// Not understood: the path, the query or the body is not in the form it must have.
    Malformed(String),
    /// Understood, but some values are out of bounds.
    Invalid(Vec<Fault>),
    /// No route has this path.
    NoSuchRoute,
    /// The route has no such method. axum adds `Allow`.
    MethodNotAllowed,
    /// The body is longer than it may be.
    BodyTooLarge,
    /// The body is not said to be JSON.
    NotJson,
    /// The request took too long; it may have been done or not.
    TimedOut,
    /// The database failed.
    Database(postgres::Error),
    /// A defect: the handler panicked.
    Panicked(String),
}

/// One value that is out of bounds.
#[derive(Debug, Serialize)]
pub(crate) struct Fault {
    /// Where in the body (JSON pointer) or the query (parameter name).
    pub(crate) pointer: String,
    /// What is wrong with it.
    pub(crate) detail: String,
}

/// What a client is told.
struct Answer {
    status: StatusCode,
    /// The last part of the problem's `type`: never changes.
    kind: &'static str,
    title: &'static str,
    detail: String,
    /// Members that a machine can act on.
    facts: Value,
    /// Seconds.
    retry_after: Option<u8>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<postgres::Error> for Problem {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl Problem {
    /// The one place that says what each problem looks like.
    fn answer(&self) -> Answer {
        use StatusCode as S;

        let answer = |status, kind, title, detail: String, facts| Answer {
            status,
            kind,
            title,
            detail,
            facts,
            retry_after: (status == S::SERVICE_UNAVAILABLE).then_some(1),
        };
        match self {
            Self::Refused(refusal) => {
                let (status, kind, title, facts) = refused(refusal);
                answer(status, kind, title, refusal.to_string(), facts)
            }
            Self::Malformed(detail) => answer(S::BAD_REQUEST, "malformed", "Malformed request", detail.clone(), json!({})),
            Self::Invalid(faults) => answer(
                S::UNPROCESSABLE_ENTITY,
                "invalid",
                "Invalid values",
                "Some values are out of bounds: see `errors`.".into(),
                json!({ "errors": faults }),
            ),
            Self::NoSuchRoute => answer(S::NOT_FOUND, "no-such-route", "No such route", "Nothing is served at this path.".into(), json!({})),
            Self::MethodNotAllowed => answer(
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
                "This path is served with other methods: see the header `Allow`.".into(),
                json!({}),
            ),
            Self::BodyTooLarge => answer(
                S::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "Body too large",
                format!("A body has at most {} bytes.", crate::MAX_BODY_BYTES),
                json!({ "maxBytes": crate::MAX_BODY_BYTES }),
            ),
            Self::NotJson => answer(
                S::UNSUPPORTED_MEDIA_TYPE,
                "not-json",
                "Unsupported media type",
                "Send a JSON body with the header `Content-Type: application/json`.".into(),
                json!({}),
            ),
            Self::TimedOut => answer(
                S::SERVICE_UNAVAILABLE,
                "timed-out",
                "The request took too long",
                "It may have been done or not: look before you repeat it.".into(),
                json!({}),
            ),
            Self::Database(postgres::Error::Conflict(_) | postgres::Error::Unavailable(_)) => answer(
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "Service unavailable",
                "Nothing was done. Try again shortly.".into(),
                json!({}),
            ),
            Self::Database(postgres::Error::OutcomeUnknown(_)) => answer(
                S::SERVICE_UNAVAILABLE,
                "outcome-unknown",
                "The outcome is unknown",
                "The connection to the database was lost at the last step. The request may have been done or not: look before you repeat it.".into(),
                json!({}),
            ),
            Self::Database(postgres::Error::Unexpected(_) | postgres::Error::Drift { .. }) | Self::Panicked(_) => answer(
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Internal error",
                "This is a defect of the server. It is logged under the answer's `x-request-id`.".into(),
                json!({}),
            ),
        }
    }

    /// Failures are logged here, once each; refusals are the client's affair.
    fn log(&self) {
        match self {
            Self::Database(
                error @ (postgres::Error::Unexpected(_) | postgres::Error::Drift { .. }),
            ) => {
                tracing::error!(error = chain(error), "request failed");
            }
            Self::Database(error) => {
                tracing::warn!(error = chain(error), "request failed");
            }
            Self::Panicked(message) => tracing::error!(message, "request panicked"),
            Self::TimedOut => tracing::warn!("request took too long"),
            Self::Refused(_)
            | Self::Malformed(_)
            | Self::Invalid(_)
            | Self::NoSuchRoute
            | Self::MethodNotAllowed
            | Self::BodyTooLarge
            | Self::NotJson => tracing::debug!(problem = ?self, "request refused"),
        }
    }
}

fn refused(refusal: &Refusal) -> (StatusCode, &'static str, &'static str, Value) {
    match *refusal {
        Refusal::ShowNotFound { show_id } => (
            StatusCode::NOT_FOUND,
            "show-not-found",
            "Show not found",
            json!({ "showId": show_id }),
        ),
        Refusal::BookingNotFound { booking_id } => (
            StatusCode::NOT_FOUND,
            "booking-not-found",
            "Booking not found",
            json!({ "bookingId": booking_id }),
        ),
        Refusal::NotEnoughSeats {
            show_id,
            requested,
            available,
        } => (
            StatusCode::CONFLICT,
            "not-enough-seats",
            "Not enough seats",
            json!({ "showId": show_id, "requested": requested, "available": available }),
        ),
        Refusal::HoldExpired {
            booking_id,
            expires_at,
        } => (
            StatusCode::CONFLICT,
            "hold-expired",
            "The hold has expired",
            json!({ "bookingId": booking_id, "expiresAt": expires_at }),
        ),
        Refusal::BookingCancelled { booking_id } => (
            StatusCode::CONFLICT,
            "booking-cancelled",
            "The booking is cancelled",
            json!({ "bookingId": booking_id }),
        ),
    }
}

/// The body, in the order in which people read it.
#[derive(Serialize)]
struct Document {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(flatten)]
    facts: Value,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        let answer = self.answer();
        let document = Document {
            r#type: format!("/problems/{}", answer.kind),
            title: answer.title,
            status: answer.status.as_u16(),
            detail: answer.detail,
            facts: answer.facts,
        };
        let mut response = (answer.status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = answer.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(u16::from(seconds)));
        }
        response
    }
}
