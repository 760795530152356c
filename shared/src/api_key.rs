//! API keys: who may use the API, and for what.
//!
//! A key is shown once, when it is made; what is stored is a hash of its secret, which has 256 random bits, so that a plain
//! SHA-256 is enough: there is nothing to guess.

use std::fmt;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use subtle::ConstantTimeEq;

use crate::postgres;

/// What a key may be used for. None includes another.
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
    /// Reserve, confirm, extend and cancel
    #[value(name = "bookings:write")]
    BookingsWrite,
    /// See and steer the queue
    #[value(name = "admin")]
    Admin,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().ok_or(fmt::Error)?;
        f.write_str(value.get_name())
    }
}

/// The secret part of a key. It can't be printed by accident.
#[derive(Clone, Copy)]
struct Secret([u8; 32]);

impl Secret {
    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

/// A key as its owner has it: `tkt_`, its id, `_`, and its secret in hexadecimal.
pub struct Token {
    /// Which key it says to be.
    pub key_id: i64,
    secret: Secret,
}

impl Token {
    /// What each begins with, so that a key that got where it should not be can be found by a scanner.
    const PREFIX: &str = "tkt_";

    /// Reads what a caller sent.
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

    /// The key in words, to be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!(
            "{}{}_{}",
            Self::PREFIX,
            self.key_id,
            hex::encode(self.secret.0)
        )
    }

    /// Whether it is the key with this hash. Takes as long for a wrong one as for the right one.
    #[must_use]
    pub fn is(&self, secret_hash: &[u8]) -> bool {
        self.secret.hash().ct_eq(secret_hash).into()
    }
}

/// What is known of a key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its identity, which is also the first part of the [`Token`].
    pub id: i64,
    /// For people; 1 to 100 characters.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// How many requests a second it may send to each api process; none: what the server allows by default.
    pub requests_per_second: Option<u32>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it is no longer valid.
    pub revoked_at: Option<DateTime<Utc>>,
    /// SHA-256 of the secret.
    pub secret_hash: Vec<u8>,
}

/// A key to be.
#[derive(Debug, Clone)]
pub struct NewApiKey<'a> {
    /// No other valid key has it.
    pub name: &'a str,
    /// What it may be used for.
    pub scopes: &'a [Scope],
    /// How many requests a second it may send to each api process; none: what the server allows by default.
    pub requests_per_second: Option<u32>,
}

/// Makes a key.
///
/// # Errors
///
/// When another valid key has this name, or when the database fails.
pub async fn create(pool: &PgPool, new: &NewApiKey<'_>) -> anyhow::Result<Token> {
    let mut secret = Secret([0; 32]);
    getrandom::fill(&mut secret.0).context("the system has no random numbers")?;
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
            "a valid key has the name {:?} already: revoke it, or take another name",
            new.name
        )
    })?;
    Ok(Token { key_id, secret })
}

/// What is to change of a key; what is none stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// What it may be used for, in all.
    pub scopes: Option<&'a [Scope]>,
    /// How many requests a second it may send to each api process; within that none: what the server allows by default.
    pub requests_per_second: Option<Option<u32>>,
}

/// Changes the valid key with this name.
///
/// # Errors
///
/// When no valid key has this name, or when the database fails.
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
        "no valid key has the name {name:?}"
    );
    Ok(())
}

/// Ends the validity of the key with this name.
///
/// # Errors
///
/// When no valid key has this name, or when the database fails.
pub async fn revoke(pool: &PgPool, name: &str) -> anyhow::Result<()> {
    let revoked = sqlx::query!(
        "UPDATE api_keys SET revoked_at = clock_timestamp() WHERE name = $1 AND revoked_at IS NULL",
        name,
    )
    .execute(pool)
    .await?;
    ensure!(
        revoked.rows_affected() == 1,
        "no valid key has the name {name:?}"
    );
    Ok(())
}

/// All keys, the oldest first.
///
/// # Errors
///
/// [`postgres::Error`].
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

/// The keys that have not been revoked.
///
/// # Errors
///
/// [`postgres::Error`].
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
            // A scope that is unknown here belongs to a newer version, and gives nothing.
            scopes: row.scopes.iter().filter_map(known).collect(),
            requests_per_second: row.requests_per_second.map(i32::cast_unsigned),
            created_at: row.created_at,
            revoked_at: row.revoked_at,
            secret_hash: row.secret_hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = Token {
            key_id: 12,
            secret: Secret([0xab; 32]),
        };
        let text = token.reveal();
        assert_eq!(text, format!("tkt_12_{}", "ab".repeat(32)));
        let read = Token::parse(&text).unwrap();
        assert_eq!(read.key_id, 12);
        assert!(read.is(&token.secret.hash()));
        assert!(!read.is(&Secret([0xac; 32]).hash()));
        assert!(!read.is(&[]));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let secret = "ab".repeat(32);
        for text in ["", "tkt_", "tkt_1", "tkt_1_", "tkt_1_ab", "tkt_x_ab"] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
        for text in [
            format!("tkt_{secret}"),
            format!("1_{secret}"),
            format!("tkt_1_{secret}00"),
        ] {
            assert!(Token::parse(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn each_scope_is_read_as_it_is_written() {
        for scope in Scope::value_variants() {
            assert_eq!(Scope::from_str(&scope.to_string(), false), Ok(*scope));
        }
    }
}
