//! Permissions that handlers require of their callers.

use std::marker::PhantomData;

use axum::{extract::FromRequestParts, http::request::Parts};
use shared::{
    api_key::Scope,
    http::{access::Identity, middleware::Sender},
};

use crate::output::problem::Problem;

/// Owner of the idempotency keys of requests without an API key.
const NO_KEY_OWNER: i64 = 0;

/// A permission that a handler requires of its caller.
pub(crate) trait Permission {
    /// The scope that the caller's key must have.
    const SCOPE: Scope;
}

/// Permission to monitor the system and administer the queue.
pub(crate) struct Administer;
/// Permission to find and list shows.
pub(crate) struct ReadShows;
/// Permission to create shows.
pub(crate) struct WriteShows;
/// Permission to find and list bookings.
pub(crate) struct ReadBookings;
/// Permission to reserve, confirm, extend and cancel bookings.
pub(crate) struct WriteBookings;

impl Permission for Administer {
    const SCOPE: Scope = Scope::Admin;
}
impl Permission for ReadShows {
    const SCOPE: Scope = Scope::ShowsRead;
}
impl Permission for WriteShows {
    const SCOPE: Scope = Scope::ShowsWrite;
}
impl Permission for ReadBookings {
    const SCOPE: Scope = Scope::BookingsRead;
}
impl Permission for WriteBookings {
    const SCOPE: Scope = Scope::BookingsWrite;
}

/// A caller with the permission `P`.
///
/// The first argument of a handler, so that nothing is read for a caller without the permission.
pub(crate) struct Caller<P> {
    /// Owner of the caller's idempotency keys.
    pub(crate) owner: i64,
    identity: Identity,
    permission: PhantomData<P>,
}

impl<S: Send + Sync, P: Permission> FromRequestParts<S> for Caller<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let sender = parts.extensions.get::<Sender>();
        let identity = sender.map_or(Identity::Missing, |sender| sender.identity.clone());
        identity.may(P::SCOPE)?;
        let owner = match &identity {
            Identity::Key(key) => key.stored.id,
            _ => NO_KEY_OWNER,
        };
        Ok(Self {
            owner,
            identity,
            permission: PhantomData,
        })
    }
}

impl<P> Caller<P> {
    /// Returns whether the caller has another scope too.
    pub(crate) fn may_also(&self, scope: Scope) -> bool {
        self.identity.may(scope).is_ok()
    }

    /// Returns the name of the caller's API key, or the caller's address, for people.
    pub(crate) fn name(&self) -> String {
        match &self.identity {
            Identity::Key(key) => key.stored.name.clone(),
            Identity::Open(address) => address.to_string(),
            Identity::Missing | Identity::Invalid | Identity::Stale => "nobody".to_owned(),
        }
    }
}
