//! Idempotency keys, with which a request can be retried without being done twice.
//!
//! One transaction writes a request's key and its result. So there is no record without its result,
//! and a crash leaves nothing behind. A refused request leaves no record, and a retry is decided
//! afresh.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

use crate::id::{BookingId, ShowId};
use crate::{booking::Booking, postgres};

/// Idempotency key of a request, with a fingerprint of the request.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Key and its owner. The key has 1 to 255 characters.
    pub key: Key,
    /// SHA-256 of the operation and the request.
    pub fingerprint: Vec<u8>,
}

/// Maximum length of a key, in bytes; the same in characters, which are ASCII.
pub const MAX_KEY_BYTES: usize = 255;

/// Idempotency key that belongs to its caller: two callers may use the same text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Id of the caller's API key; 0 without one.
    pub owner: i64,
    /// Key as the caller sent it.
    pub text: String,
}

impl Claim {
    /// Creates a claim of this key for what `operation` does with `request`.
    #[must_use]
    pub fn new(key: Key, operation: &str, request: &impl Serialize) -> Self {
        // Requests come from JSON, so they can be written as JSON.
        let request = serde_json::to_vec(request).unwrap_or_default();
        let fingerprint = Sha256::new()
            .chain_update(operation)
            .chain_update([0])
            .chain_update(request)
            .finalize();
        Self {
            key,
            fingerprint: fingerprint.to_vec(),
        }
    }
}

/// Result of a request, made now or by an earlier request with the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created<Resource> {
    /// Show or booking as it is now.
    pub resource: Resource,
    /// Whether an earlier request with the same key made it.
    pub is_replay: bool,
}

impl<Resource> Created<Resource> {
    pub(crate) fn now(resource: Resource) -> Self {
        Self {
            resource,
            is_replay: false,
        }
    }

    pub(crate) fn earlier(resource: Resource) -> Self {
        Self {
            resource,
            is_replay: true,
        }
    }
}

/// Record of what was made under a key.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) show_id: ShowId,
    /// `None` if a show was made.
    pub(crate) booking_id: Option<BookingId>,
}

/// Finds the records of those keys that have been used.
pub(crate) async fn find(
    tx: &mut PgConnection,
    keys: impl Iterator<Item = &Key>,
) -> Result<BTreeMap<Key, Record>, postgres::Error> {
    let (owners, texts): (Vec<i64>, Vec<String>) =
        keys.map(|key| (key.owner, key.text.clone())).unzip();
    if owners.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT used.owner, used.key, fingerprint, show_id AS "show_id: ShowId",
                booking_id AS "booking_id: BookingId"
         FROM unnest($1::bigint[], $2::text[]) AS wanted (owner, key)
         JOIN idempotency_keys AS used ON used.owner = wanted.owner AND used.key = wanted.key"#,
        &owners,
        &texts,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let key = Key {
                owner: row.owner,
                text: row.key,
            };
            let record = Record {
                fingerprint: row.fingerprint,
                show_id: row.show_id,
                booking_id: row.booking_id,
            };
            (key, record)
        })
        .collect())
}

/// Records which bookings were made under which keys.
///
/// It writes in the order of the keys, so that two transactions can't deadlock.
pub(crate) async fn record<'a>(
    tx: &mut PgConnection,
    claimed: impl Iterator<Item = (&'a Claim, &'a Booking)>,
) -> Result<(), postgres::Error> {
    let mut claimed: Vec<_> = claimed.collect();
    if claimed.is_empty() {
        return Ok(());
    }
    claimed.sort_by_key(|(claim, _)| &claim.key);
    sqlx::query!(
        "INSERT INTO idempotency_keys (owner, key, fingerprint, show_id, booking_id)
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[])",
        &claimed.iter().map(|(c, _)| c.key.owner).collect::<Vec<_>>(),
        &claimed
            .iter()
            .map(|(c, _)| c.key.text.clone())
            .collect::<Vec<_>>(),
        &claimed
            .iter()
            .map(|(c, _)| c.fingerprint.clone())
            .collect::<Vec<_>>(),
        &claimed.iter().map(|(_, b)| b.show_id).collect::<Vec<_>>() as &[ShowId],
        &claimed.iter().map(|(_, b)| b.id).collect::<Vec<_>>() as &[BookingId],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Maximum number of keys that [`prune`] deletes at once.
pub const PRUNED_AT_ONCE: u32 = 10_000;

/// Deletes the oldest keys older than `age`, at most [`PRUNED_AT_ONCE`]. Returns how many.
///
/// The age is measured up to the database's clock, but not beyond `now`: a clock that is set
/// forward makes no key older.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn prune(
    pool: &PgPool,
    age: Duration,
    now: DateTime<Utc>,
) -> Result<u64, postgres::Error> {
    let pruned = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE (owner, key) IN (
             SELECT owner, key FROM idempotency_keys
             WHERE created_at < least(now(), $3) - make_interval(secs => $1) ORDER BY created_at LIMIT $2)",
        age.as_secs_f64(),
        i64::from(PRUNED_AT_ONCE),
        now,
    )
    .execute(pool)
    .await?;
    Ok(pruned.rows_affected())
}
