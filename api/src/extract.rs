//! Extractors that decode and validate the parts of a request, or reject it with a [`Problem`].

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use garde::Validate;
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};
use shared::{
    http::{
        BusyGuard,
        fair_semaphore::{FairSemaphore, Permit},
        guard::Sender,
    },
    idempotency::{Claim, Key},
};

pub(crate) use crate::json_body::Json;
use crate::{
    AppState,
    admin::AdminState,
    faults::{self, validate},
    problem::Problem,
};

/// A decoded and validated query string.
pub(crate) struct Query<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        // The decoder would replace invalid UTF-8, and the handler would search for something else.
        percent_decode_str(query)
            .decode_utf8()
            .map_err(|_| Problem::Malformed("The query string is not valid UTF-8.".into()))?;
        let decoder = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        let value: T = serde_path_to_error::deserialize(decoder)
            .map_err(|error| Problem::MalformedQuery(faults::of_parameter(&error)))?;
        validate(&value, "")?;
        Ok(Self(value))
    }
}

/// A permit for a list, held until the client has read it.
pub(crate) struct ListPermit {
    _permit: Permit,
    _busy: Option<BusyGuard>,
}

impl ListPermit {
    fn one_of(lists: &Arc<FairSemaphore>, parts: &Parts) -> Result<Self, Problem> {
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

impl FromRequestParts<Arc<AppState>> for ListPermit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        Self::one_of(&state.lists, parts)
    }
}

impl FromRequestParts<Arc<AdminState>> for ListPermit {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<AdminState>,
    ) -> Result<Self, Problem> {
        Self::one_of(&state.lists, parts)
    }
}

/// The decoded path parameters.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|rejection| Problem::Malformed(format!("{}.", rejection.body_text())))
    }
}

/// The numeric id in the path.
pub(crate) struct Id(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<i64>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|_| {
                Problem::Malformed("The id in the path is not an integer below 2^63.".into())
            })
    }
}

/// The header `Idempotency-Key`, if it was sent, which makes a request safe to retry.
pub(crate) struct IdempotencyKey(Option<String>);

/// Maximum length of an idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;

impl IdempotencyKey {
    const HEADER: &str = "idempotency-key";

    /// Returns the owner's claim to the key for this request; none if no key was sent.
    pub(crate) fn claim(self, owner: i64, operation: &str, body: &impl Serialize) -> Option<Claim> {
        let key = Key {
            owner,
            text: self.0?,
        };
        Some(Claim::new(key, operation, body))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(Self::HEADER).iter();
        let Some(key) = values.next() else {
            return Ok(Self(None));
        };
        let is_valid = (1..=MAX_KEY_BYTES).contains(&key.len())
            && key.as_bytes().iter().all(u8::is_ascii_graphic);
        match key.to_str() {
            Ok(key) if is_valid && values.next().is_none() => Ok(Self(Some(key.to_owned()))),
            _ => Err(Problem::Malformed(format!(
                "Send Idempotency-Key once, with 1 to {MAX_KEY_BYTES} visible ASCII characters."
            ))),
        }
    }
}

/// Validates that a name is displayed as it is written, wherever it appears.
///
/// It may contain no control character (such as NUL, which the database cannot store), no invisible
/// character, and none that changes the direction of others. The joiners U+200C and U+200D, which
/// some scripts and emoji need, may follow only a character that is neither ASCII nor a joiner.
///
/// The patterns in the `OpenAPI` document are equivalent.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn plain_to_see(text: &str, &(): &()) -> garde::Result {
    let mut before = ' ';
    for character in text.chars() {
        let is_plain = match character {
            '\u{200c}' | '\u{200d}' => !matches!(before, '\0'..='\x7f' | '\u{200c}' | '\u{200d}'),
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' => false,
            _ => !character.is_control(),
        };
        if !is_plain {
            return Err(garde::Error::new(NOT_PLAIN));
        }
        before = character;
    }
    Ok(())
}

/// Error of a name that is not [`plain_to_see`].
pub(crate) const NOT_PLAIN: &str =
    "contains a character that is invisible or changes how others are displayed";
