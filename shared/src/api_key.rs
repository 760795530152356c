//! API keys and the scopes that they grant.
//!
//! A key is shown once, when it is created. Only a hash of its secret is stored. The secret has 256
//! random bits, which can't be guessed, so a plain SHA-256 is enough.

use std::fmt;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use subtle::ConstantTimeEq;

use crate::postgres;

/// Permission that an API key grants. No scope includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Find and list shows
    #[value(name = "shows:read")]
    ShowsRead,
    /// Create shows
    #[value(name = "shows:write")]
    ShowsWrite,
    /// Find and list bookings
    #[value(name = "bookings:read")]
    BookingsRead,
    /// Reserve, confirm, extend and cancel bookings
    #[value(name = "bookings:write")]
    BookingsWrite,
    /// Inspect and control the queue
    #[value(name = "admin")]
    Admin,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().ok_or(fmt::Error)?;
        f.write_str(value.get_name())
    }
}

/// Secret part of an API key. It can't be printed by accident.
#[derive(Clone, Copy)]
struct Secret([u8; 32]);

impl Secret {
    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

/// API key as its owner has it: `tkt_`, the key's id, `_`, and the secret in hexadecimal.
pub struct Token {
    /// Id of the key that the token claims to be.
    pub key_id: i64,
    secret: Secret,
}

impl Token {
    /// Prefix of every token, so that a scanner can find a leaked key.
    const PREFIX: &str = "tkt_";

    /// Parses a token that a caller sent. Returns `None` if it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(Self::PREFIX)?.split_once('_')?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret, &mut bytes).ok()?;
        Some(Self {
            key_id: id.parse().ok()?,
            secret: Secret(bytes),
        })
    }

    /// Returns the token as text, to be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!(
            "{}{}_{}",
            Self::PREFIX,
            self.key_id,
            hex::encode(self.secret.0)
        )
    }

    /// Returns whether the secret has this hash, in the same time for a wrong hash as for the right
    /// one.
    #[must_use]
    pub fn is(&self, secret_hash: &[u8]) -> bool {
        self.secret.hash().ct_eq(secret_hash).into()
    }
}

/// Stored API key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Id, which is also the first part of the [`Token`].
    pub id: i64,
    /// Display name, 1 to 100 characters.
    pub name: String,
    /// Scopes that the key grants.
    pub scopes: Vec<Scope>,
    /// Limit of requests per second to each api process; `None`: the server's default.
    pub requests_per_second: Option<u32>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time from which the key is no longer valid; `None`: not revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// SHA-256 of the secret.
    pub secret_hash: Vec<u8>,
}

/// Parameters of a new API key.
#[derive(Debug, Clone)]
pub struct NewApiKey<'a> {
    /// Display name. No other valid key may have it.
    pub name: &'a str,
    /// Scopes that the key grants.
    pub scopes: &'a [Scope],
    /// Limit of requests per second to each api process; `None`: the server's default.
    pub requests_per_second: Option<u32>,
}

/// Creates an API key and returns its token.
///
/// # Errors
///
/// Fails if another valid key has this name, no random bytes are available, or the database call
/// fails.
pub async fn create(pool: &PgPool, new: &NewApiKey<'_>) -> anyhow::Result<Token> {
    let mut secret = Secret([0; 32]);
    getrandom::fill(&mut secret.0).context("the system provides no random bytes")?;
    let scopes: Vec<String> = new.scopes.iter().map(Scope::to_string).collect();
    let key_id = sqlx::query_scalar!(
        "INSERT INTO api_keys (name, secret_hash, scopes, requests_per_second) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING RETURNING id",
        new.name,
        &secret.hash(),
        &scopes,
        new.requests_per_second.map(u32::cast_signed),
    )
    .fetch_optional(pool)
    .await?;
    let key_id = key_id.with_context(|| {
        format!(
            "a valid key named {:?} already exists: revoke it or choose another name",
            new.name
        )
    })?;
    Ok(Token { key_id, secret })
}

/// Changes to an API key. `None` leaves a property as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Complete new set of scopes.
    pub scopes: Option<&'a [Scope]>,
    /// New limit of requests per second to each api process; `Some(None)`: the server's default.
    pub requests_per_second: Option<Option<u32>>,
}

/// Changes the valid key with this name.
///
/// # Errors
///
/// Fails if no valid key has this name or the database call fails.
pub async fn change(pool: &PgPool, name: &str, change: Change<'_>) -> anyhow::Result<()> {
    let scopes: Option<Vec<String>> = change
        .scopes
        .map(|scopes| scopes.iter().map(Scope::to_string).collect());
    let changed = sqlx::query!(
        "UPDATE api_keys SET scopes = coalesce($2, scopes),
                requests_per_second = CASE WHEN $3 THEN $4 ELSE requests_per_second END
         WHERE name = $1 AND revoked_at IS NULL",
        name,
        scopes.as_deref(),
        change.requests_per_second.is_some(),
        change.requests_per_second.flatten().map(u32::cast_signed),
    )
    .execute(pool)
    .await?;
    ensure!(
        changed.rows_affected() == 1,
        "no valid key is named {name:?}"
    );
    Ok(())
}

/// Revokes the valid key with this name.
///
/// # Errors
///
/// Fails if no valid key has this name or the database call fails.
pub async fn revoke(pool: &PgPool, name: &str) -> anyhow::Result<()> {
    let revoked = sqlx::query!(
        "UPDATE api_keys SET revoked_at = clock_timestamp() WHERE name = $1 AND revoked_at IS NULL",
        name,
    )
    .execute(pool)
    .await?;
    ensure!(
        revoked.rows_affected() == 1,
        "no valid key is named {name:?}"
    );
    Ok(())
}

/// Lists all keys, oldest first.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn list(pool: &PgPool) -> Result<Vec<ApiKey>, postgres::Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, name, secret_hash, scopes, requests_per_second, created_at, revoked_at
         FROM api_keys ORDER BY id"
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

/// Lists the keys that have not been revoked.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn valid(pool: &PgPool) -> Result<Vec<ApiKey>, postgres::Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, name, secret_hash, scopes, requests_per_second, created_at, revoked_at
         FROM api_keys WHERE revoked_at IS NULL"
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

struct Row {
    id: i64,
    name: String,
    secret_hash: Vec<u8>,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    requests_per_second: Option<i32>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        let known = |name: &String| Scope::from_str(name, false).ok();
        Self {
            id: row.id,
            name: row.name,
            // A scope that is unknown here belongs to a newer version. It grants nothing.
            scopes: row.scopes.iter().filter_map(known).collect(),
            requests_per_second: row.requests_per_second.map(i32::cast_unsigned),
            created_at: row.created_at,
            revoked_at: row.revoked_at,
            secret_hash: row.secret_hash,
        }
    }
}

#[cfg(test)]
mod tests;
