//! Authentication and authorization of callers by API key.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use sqlx::PgPool;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::rates::RateLimit;
use crate::{
    api_key::{self, ApiKey, Scope, Token},
    postgres,
    telemetry::chain,
};

/// Interval at which the keys are read again. A new, changed or revoked key takes effect within it.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// Maximum age of the cached keys. If they can't be read for longer, no caller is admitted.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Access policy of a listener.
#[derive(Debug, Clone)]
pub enum Access {
    /// Every caller that can reach the listener.
    Open,
    /// Callers with a valid API key.
    Keys(watch::Receiver<Keys>),
}

/// Cache of the valid API keys.
#[derive(Debug)]
pub struct Keys {
    by_id: HashMap<i64, Arc<Key>>,
    /// When the keys were read; none before the first read.
    as_of: Option<Instant>,
}

/// A valid API key and the state of its rate limit.
#[derive(Debug)]
pub struct Key {
    /// The key as stored in the database.
    pub stored: ApiKey,
    pub(super) rate_limit: Option<Arc<RateLimit>>,
}

/// Settings that decide whether a listener requires API keys.
#[derive(Debug)]
pub struct ListenerPolicy {
    /// What the listener serves, for messages.
    pub name: &'static str,
    /// Address of the listener.
    pub address: SocketAddr,
    /// Whether API keys are required on a loopback address too.
    pub requires_keys_on_loopback: bool,
    /// Whether no API key is required, on any address.
    pub is_open: bool,
    /// Scope that every request to the listener needs, if there is one.
    pub scope: Option<Scope>,
    /// Command that creates a key for the listener, for messages.
    pub example: &'static str,
    /// Whether the listener starts even if the keys can't be read or no key exists for it.
    pub can_wait_for_keys: bool,
}

impl Access {
    /// Determines the access policy of a listener, and keeps API keys current if it requires them.
    ///
    /// Keys are required wherever other machines can reach the listener, unless the policy is open.
    ///
    /// # Errors
    ///
    /// Fails if keys are required and can't be read, or if other machines can reach the listener
    /// and no key exists for it; not for these reasons if [`ListenerPolicy::can_wait_for_keys`] is set.
    pub async fn start(
        pool: &PgPool,
        policy: &ListenerPolicy,
        default_rate: Option<NonZeroU32>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let ListenerPolicy {
            name,
            address,
            example,
            ..
        } = policy;
        let is_private = address.ip().is_loopback();
        if policy.is_open || (is_private && !policy.requires_keys_on_loopback) {
            if is_private {
                tracing::info!("no API key is required: only this machine can reach the {name}");
            } else {
                tracing::warn!("no API key is required: anyone who reaches the {name} can use it");
            }
            return Ok(Self::Open);
        }
        let keys = if policy.can_wait_for_keys {
            Keys::unknown()
        } else {
            let valid = api_key::valid(pool)
                .await
                .context("cannot read the API keys")?;
            let has_key = valid
                .iter()
                .any(|key| policy.scope.is_none_or(|scope| key.scopes.contains(&scope)));
            ensure!(
                is_private || has_key,
                "no API key exists for the {name}, and other machines can reach {address}: \
                 create one, for example with `{example}`"
            );
            if !has_key {
                tracing::warn!("no API key exists for the {name} yet: create one with `{example}`");
            }
            Keys::new(valid, default_rate, &HashMap::new())
        };
        let (sender, keys) = watch::channel(keys);
        let (pool, stop) = (pool.clone(), stop.clone());
        tokio::spawn(async move {
            let refreshing = keep_current(&pool, default_rate, &sender);
            stop.run_until_cancelled(refreshing).await;
        });
        Ok(Self::Keys(keys))
    }

    /// Identifies the sender of a request by its headers, without a database query.
    pub(super) fn identify(&self, peer: IpAddr, headers: &HeaderMap) -> Identity {
        let Self::Keys(keys) = self else {
            return Identity::Open(peer);
        };
        let Some(credentials) = headers.get(AUTHORIZATION) else {
            return Identity::Missing;
        };
        let keys = keys.borrow();
        if keys.as_of.is_none_or(|as_of| as_of.elapsed() > STALE_AFTER) {
            return Identity::Stale;
        }
        credentials
            .to_str()
            .ok()
            .and_then(bearer_token)
            .and_then(|token| {
                let known = keys.by_id.get(&token.key_id)?;
                token.is(&known.stored.secret_hash).then(|| known.clone())
            })
            .map_or(Identity::Invalid, Identity::Key)
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
    fn unknown() -> Self {
        Self {
            by_id: HashMap::new(),
            as_of: None,
        }
    }

    /// Builds the cache.
    ///
    /// A key that is in `before` with the same rate keeps the state of its rate limit.
    fn new(
        valid: Vec<ApiKey>,
        default_rate: Option<NonZeroU32>,
        before: &HashMap<i64, Arc<Key>>,
    ) -> Self {
        let by_id = valid
            .into_iter()
            .map(|stored| {
                let own_rate = stored.requests_per_second.and_then(NonZeroU32::new);
                let rate_limit = own_rate.or(default_rate).map(|per_second| {
                    before
                        .get(&stored.id)
                        .and_then(|key| key.rate_limit.clone())
                        .filter(|limit| limit.per_second == per_second)
                        .unwrap_or_else(|| Arc::new(RateLimit::new(per_second)))
                });
                (stored.id, Arc::new(Key { stored, rate_limit }))
            })
            .collect();
        Self {
            by_id,
            as_of: Some(Instant::now()),
        }
    }
}

async fn keep_current(pool: &PgPool, default_rate: Option<NonZeroU32>, keys: &watch::Sender<Keys>) {
    loop {
        match postgres::in_time(api_key::valid(pool)).await {
            Ok(valid) => {
                let current = Keys::new(valid, default_rate, &keys.borrow().by_id);
                keys.send_replace(current);
            }
            Err(error) => tracing::warn!(error = chain(&error), "cannot read the API keys"),
        }
        sleep(REFRESH_EVERY).await;
    }
}

/// Result of authenticating a request.
#[derive(Debug, Clone)]
pub enum Identity {
    /// No API key is required. The request came from this address.
    Open(IpAddr),
    /// A valid API key was sent.
    Key(Arc<Key>),
    /// An API key is required, but none was sent.
    Missing,
    /// The credentials that were sent are not a valid API key.
    Invalid,
    /// The credentials can't be checked, because the cached keys are missing or too old.
    Stale,
}

/// Reason why a caller is not authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// An API key is required, but none was sent.
    KeyRequired,
    /// The credentials that were sent are not a valid API key.
    KeyInvalid,
    /// The API key lacks this scope.
    ScopeRequired(Scope),
    /// API keys can't be checked, because the database is not available.
    KeysUnknown,
}

impl Identity {
    /// Checks that the caller is authorized for `scope`.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the caller is not authorized.
    pub fn may(&self, scope: Scope) -> Result<(), Denied> {
        match self {
            Self::Open(_) => Ok(()),
            Self::Key(key) if key.stored.scopes.contains(&scope) => Ok(()),
            Self::Key(_) => Err(Denied::ScopeRequired(scope)),
            Self::Missing => Err(Denied::KeyRequired),
            Self::Invalid => Err(Denied::KeyInvalid),
            Self::Stale => Err(Denied::KeysUnknown),
        }
    }
}
