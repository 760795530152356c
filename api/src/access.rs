//! Who sends a request, and what they may do.

use std::{
    collections::HashMap,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use shared::{
    api_key::{self, ApiKey, Scope, Token},
    postgres,
    telemetry::chain,
};
use sqlx::PgPool;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{limits::RateLimit, problem::Problem};

/// How often the keys are read: within this time a revoked one is refused, and a new one is taken.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// How old may be what is known of the keys. While they can't be read, nobody can be told to be let in.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// The owner of what comes without an API key.
const ANYONE: i64 = 0;

/// Who may use the API.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// Everybody who can reach it.
    Open,
    /// Who has a key.
    Keys(watch::Receiver<Keys>),
}

/// The valid keys.
#[derive(Debug)]
pub(crate) struct Keys {
    by_id: HashMap<i64, Arc<Key>>,
    as_of: Instant,
}

/// A valid key, and how much of its rate is used up.
#[derive(Debug)]
pub(crate) struct Key {
    key: ApiKey,
    pub(crate) rate_limit: Option<RateLimit>,
}

/// A listener that can be open or not.
#[derive(Debug)]
pub(crate) struct Door {
    /// What is behind it, in words.
    pub(crate) name: &'static str,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Whether keys are asked for on a loopback address, too.
    pub(crate) asks_this_machine: bool,
    /// Whether no key is asked for, whoever can reach it.
    pub(crate) is_open: bool,
    /// A scope that is needed for all that is behind it.
    pub(crate) scope: Option<Scope>,
    /// How to make a key for it.
    pub(crate) example: &'static str,
}

impl Access {
    /// As the door has it. Keys are asked for wherever others than this machine can reach it, unless it is told to be open.
    ///
    /// # Errors
    ///
    /// When keys are asked for, others can reach it, and there is none for it; when the keys can't be read.
    pub(crate) async fn start(
        pool: &PgPool,
        door: &Door,
        default_rate: Option<NonZeroU32>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let Door {
            name,
            address,
            example,
            ..
        } = door;
        let is_private = address.ip().is_loopback();
        if door.is_open || (is_private && !door.asks_this_machine) {
            if is_private {
                tracing::info!("no API key is asked for: only this machine can reach the {name}");
            } else {
                tracing::warn!("no API key is asked for: whoever can reach the {name} can use it");
            }
            return Ok(Self::Open);
        }
        let valid = api_key::valid(pool)
            .await
            .context("cannot read the API keys")?;
        let has_key = valid
            .iter()
            .any(|key| door.scope.is_none_or(|scope| key.scopes.contains(&scope)));
        ensure!(
            is_private || has_key,
            "there is no API key for the {name}, and other machines can reach {address}: make one, such as with `{example}`"
        );
        if !has_key {
            tracing::warn!("there is no API key for the {name} yet: make one with `{example}`");
        }
        let keys = Keys::new(valid, default_rate, &HashMap::new());
        let (sender, keys) = watch::channel(keys);
        let (pool, stop) = (pool.clone(), stop.clone());
        tokio::spawn(async move {
            let refreshing = keep_current(&pool, default_rate, &sender);
            stop.run_until_cancelled(refreshing).await;
        });
        Ok(Self::Keys(keys))
    }

    /// Who sent a request with these headers. Asks no database.
    pub(crate) fn identify(&self, peer: IpAddr, headers: &HeaderMap) -> Identity {
        let Self::Keys(keys) = self else {
            return Identity::Anyone(peer);
        };
        let Some(credentials) = headers.get(AUTHORIZATION) else {
            return Identity::Nobody;
        };
        let keys = keys.borrow();
        if keys.as_of.elapsed() > STALE_AFTER {
            return Identity::Unknown;
        }
        credentials
            .to_str()
            .ok()
            .and_then(bearer_token)
            .and_then(|token| {
                let known = keys.by_id.get(&token.key_id)?;
                token.is(&known.key.secret_hash).then(|| known.clone())
            })
            .map_or(Identity::Impostor, Identity::Key)
    }
}

fn bearer_token(credentials: &str) -> Option<Token> {
    let (scheme, token) = credentials.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Token::parse(token.trim_start_matches(' '))
}

impl Keys {
    /// Those that were there before go on with what they have used up.
    fn new(
        valid: Vec<ApiKey>,
        default_rate: Option<NonZeroU32>,
        before: &HashMap<i64, Arc<Key>>,
    ) -> Self {
        let by_id = valid
            .into_iter()
            .map(|key| {
                let known = before.get(&key.id).cloned().unwrap_or_else(|| {
                    let own_rate = key.requests_per_second.and_then(NonZeroU32::new);
                    Arc::new(Key {
                        rate_limit: own_rate.or(default_rate).map(RateLimit::new),
                        key,
                    })
                });
                (known.key.id, known)
            })
            .collect();
        Self {
            by_id,
            as_of: Instant::now(),
        }
    }
}

async fn keep_current(pool: &PgPool, default_rate: Option<NonZeroU32>, keys: &watch::Sender<Keys>) {
    loop {
        sleep(REFRESH_EVERY).await;
        match postgres::in_time(api_key::valid(pool)).await {
            Ok(valid) => {
                let current = Keys::new(valid, default_rate, &keys.borrow().by_id);
                keys.send_replace(current);
            }
            Err(error) => tracing::warn!(error = chain(&error), "cannot read the API keys"),
        }
    }
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// No key is asked for. This is where it came from.
    Anyone(IpAddr),
    /// The owner of this key.
    Key(Arc<Key>),
    /// A key is asked for, and none was sent.
    Nobody,
    /// What was sent is no valid key.
    Impostor,
    /// It can't be told at the moment.
    Unknown,
}

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
        let identity = parts.extensions.remove().unwrap_or(Identity::Nobody);
        let owner = match &identity {
            Identity::Anyone(_) => ANYONE,
            Identity::Key(known) if known.key.scopes.contains(&P::SCOPE) => known.key.id,
            Identity::Key(_) => return Err(Problem::ScopeRequired(P::SCOPE)),
            Identity::Nobody => return Err(Problem::KeyRequired),
            Identity::Impostor => return Err(Problem::KeyInvalid),
            Identity::Unknown => return Err(Problem::KeysUnknown),
        };
        Ok(Self {
            owner,
            identity,
            permission: PhantomData,
        })
    }
}

impl<P> Caller<P> {
    /// Who it is, for people: the name of the key, or the address.
    pub(crate) fn name(&self) -> String {
        match &self.identity {
            Identity::Key(known) => known.key.name.clone(),
            Identity::Anyone(address) => address.to_string(),
            Identity::Nobody | Identity::Impostor | Identity::Unknown => "nobody".to_owned(),
        }
    }
}
