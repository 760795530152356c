//! Who sends a request, and what he may do.

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

/// How often the keys are read: within this time a revoked or changed one is known, and a new one is taken.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// How old may be what is known of the keys. While they can't be read, nobody can be told to be let in.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Who may use a listener.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody who can reach it.
    Open,
    /// Who has a key.
    Keys(watch::Receiver<Keys>),
}

/// The valid keys.
#[derive(Debug)]
pub struct Keys {
    by_id: HashMap<i64, Arc<Key>>,
    /// None before they were read.
    as_of: Option<Instant>,
}

/// A valid key, and how much of its rate is used up.
#[derive(Debug)]
pub struct Key {
    /// What is stored of it.
    pub stored: ApiKey,
    pub(super) rate_limit: Option<Arc<RateLimit>>,
}

/// A listener that can be open or not.
#[derive(Debug)]
pub struct Door {
    /// What is behind it, in words.
    pub name: &'static str,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether keys are asked for on a loopback address, too.
    pub asks_this_machine: bool,
    /// Whether no key is asked for, whoever can reach it.
    pub is_open: bool,
    /// A scope that is needed for all that is behind it.
    pub scope: Option<Scope>,
    /// How to make a key for it.
    pub example: &'static str,
    /// Whether it is to be there also while the keys can't be read, or none is for it.
    pub can_wait_for_keys: bool,
}

impl Access {
    /// As the door has it. Keys are asked for wherever others than this machine can reach it, unless it is told to be open.
    ///
    /// # Errors
    ///
    /// When keys are asked for and can't be read, or others can reach it and there is none for it; not where it can wait.
    pub async fn start(
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
        let keys = if door.can_wait_for_keys {
            Keys::unknown()
        } else {
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

    /// Who sent a request with these headers. Asks no database.
    pub(super) fn identify(&self, peer: IpAddr, headers: &HeaderMap) -> Identity {
        let Self::Keys(keys) = self else {
            return Identity::Anyone(peer);
        };
        let Some(credentials) = headers.get(AUTHORIZATION) else {
            return Identity::Nobody;
        };
        let keys = keys.borrow();
        if keys.as_of.is_none_or(|as_of| as_of.elapsed() > STALE_AFTER) {
            return Identity::Unknown;
        }
        credentials
            .to_str()
            .ok()
            .and_then(bearer_token)
            .and_then(|token| {
                let known = keys.by_id.get(&token.key_id)?;
                token.is(&known.stored.secret_hash).then(|| known.clone())
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
    fn unknown() -> Self {
        Self {
            by_id: HashMap::new(),
            as_of: None,
        }
    }

    /// Those that were there before go on with what they have used up of their rate.
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

/// Who sent a request.
#[derive(Debug, Clone)]
pub enum Identity {
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

/// Why somebody may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// He sent no key.
    KeyRequired,
    /// What he sent is no valid key.
    KeyInvalid,
    /// His key has not this scope.
    ScopeRequired(Scope),
    /// Which keys are valid can't be told, because the database is away.
    KeysUnknown,
}

impl Identity {
    /// Whether he may do what this scope is for.
    ///
    /// # Errors
    ///
    /// Why he may not.
    pub fn may(&self, scope: Scope) -> Result<(), Denied> {
        match self {
            Self::Anyone(_) => Ok(()),
            Self::Key(key) if key.stored.scopes.contains(&scope) => Ok(()),
            Self::Key(_) => Err(Denied::ScopeRequired(scope)),
            Self::Nobody => Err(Denied::KeyRequired),
            Self::Impostor => Err(Denied::KeyInvalid),
            Self::Unknown => Err(Denied::KeysUnknown),
        }
    }
}
