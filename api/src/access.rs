//! Who sends a request, and what they may do.

use std::{collections::HashMap, marker::PhantomData, num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use shared::{
    api_key::{self, ApiKey, Scope, Token},
    telemetry::chain,
};
use sqlx::PgPool;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, limits::RateLimit, problem::Problem};

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

impl Access {
    /// As the settings have it. Keys are asked for wherever others than this machine can reach the API, unless it is told
    /// to be open.
    ///
    /// # Errors
    ///
    /// When keys are asked for, others can reach it, and there is none; when the keys can't be read.
    pub(crate) async fn start(
        pool: &PgPool,
        config: &Config,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let is_private = config.listen.ip().is_loopback();
        if config.insecure || (is_private && !config.require_keys) {
            if is_private {
                tracing::info!("no API key is asked for: only this machine can reach the API");
            } else {
                tracing::warn!("no API key is asked for: whoever can reach the API can use it");
            }
            return Ok(Self::Open);
        }
        let valid = api_key::valid(pool)
            .await
            .context("cannot read the API keys")?;
        ensure!(
            is_private || !valid.is_empty(),
            "there is no API key, and other machines can reach {}: make one, such as with `ticketing key create --name \
             box-office --scope shows:read,bookings:write`, or say --insecure",
            config.listen,
        );
        if valid.is_empty() {
            tracing::warn!("there is no API key yet: make one with `ticketing key create`");
        }
        let default_rate = config.rate();
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
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Identity {
        let Self::Keys(keys) = self else {
            return Identity::Anyone;
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
        match api_key::valid(pool).await {
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
    /// No key is asked for.
    Anyone,
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

/// To find and list shows.
pub(crate) struct ReadShows;
/// To create shows.
pub(crate) struct WriteShows;
/// To find and list bookings.
pub(crate) struct ReadBookings;
/// To reserve, confirm, extend and cancel.
pub(crate) struct WriteBookings;

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
    permission: PhantomData<P>,
}

impl<S: Send + Sync, P: Permission> FromRequestParts<S> for Caller<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let owner = match parts.extensions.get().unwrap_or(&Identity::Nobody) {
            Identity::Anyone => ANYONE,
            Identity::Key(known) if known.key.scopes.contains(&P::SCOPE) => known.key.id,
            Identity::Key(_) => return Err(Problem::ScopeRequired(P::SCOPE)),
            Identity::Nobody => return Err(Problem::KeyRequired),
            Identity::Impostor => return Err(Problem::KeyInvalid),
            Identity::Unknown => return Err(Problem::KeysUnknown),
        };
        Ok(Self {
            owner,
            permission: PhantomData,
        })
    }
}
