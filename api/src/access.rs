//! What a handler asks of its caller.

use std::marker::PhantomData;

use axum::{extract::FromRequestParts, http::request::Parts};
use shared::{
    api_key::Scope,
    http::{access::Identity, guard::Sender},
};

use crate::problem::Problem;

/// The owner of what comes without an API key.
const ANYONE: i64 = 0;

/// What a handler asks of its caller.
pub(crate) trait Permission {
    /// The scope that the caller's key must have.
    const SCOPE: Scope;
}

/// To see and steer the queue.
pub(crate) struct Administer;
/// To find and list shows.
pub(crate) struct ReadShows;
/// To create shows.
pub(crate) struct WriteShows;
/// To find and list bookings.
pub(crate) struct ReadBookings;
/// To reserve, confirm, extend and cancel.
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

/// A caller who may do this. The first argument of a handler, so that nothing is read for one who may not.
pub(crate) struct Caller<P> {
    /// Whose idempotency keys are meant.
    pub(crate) owner: i64,
    identity: Identity,
    permission: PhantomData<P>,
}

impl<S: Send + Sync, P: Permission> FromRequestParts<S> for Caller<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let sender = parts.extensions.get::<Sender>();
        let identity = sender.map_or(Identity::Nobody, |sender| sender.identity.clone());
        identity.may(P::SCOPE)?;
        let owner = match &identity {
            Identity::Key(key) => key.stored.id,
            _ => ANYONE,
        };
        Ok(Self {
            owner,
            identity,
            permission: PhantomData,
        })
    }
}

impl<P> Caller<P> {
    /// Whether it may do what another scope is for, too.
    pub(crate) fn may_also(&self, scope: Scope) -> bool {
        self.identity.may(scope).is_ok()
    }

    /// Who it is, for people: the name of the key, or the address.
    pub(crate) fn name(&self) -> String {
        match &self.identity {
            Identity::Key(key) => key.stored.name.clone(),
            Identity::Anyone(address) => address.to_string(),
            Identity::Nobody | Identity::Impostor | Identity::Unknown => "nobody".to_owned(),
        }
    }
}
