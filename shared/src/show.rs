//! Shows, and the counters of their available seats.

pub mod cancellation;
pub mod change;
mod inventory;
mod list;
pub mod sale;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

pub(crate) use self::inventory::{lock_and_add_available_seats, only};
pub use self::{
    cancellation::Cancellation,
    inventory::{Hold, Inventory, Locked, lock},
    list::{Cursor, Filter, Order, list},
    sale::{Sale, ShowStatus},
};
use crate::{
    booking::{MAX_SEATS_PER_BOOKING, Refusal},
    id::ShowId,
    idempotency::{self, Claim, Created},
    metadata::Metadata,
    postgres::{self, Session, Work},
    timestamp::Timestamp,
};

/// Maximum number of seats of a show.
pub const MAX_SEATS: i32 = 1_000_000;

/// Default for how long a hold lasts, in seconds.
pub const DEFAULT_HOLD_SECONDS: i32 = 120;

/// Default for how long a hold can last with extensions, in seconds; at least the show's hold time.
pub const DEFAULT_MAX_HOLD_SECONDS: i32 = 900;

/// Performance with a number of unnumbered seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Show {
    /// Unique id. Later shows have higher ids.
    pub id: ShowId,
    /// Display name.
    pub name: String,
    /// Time at which the show begins.
    pub starts_at: DateTime<Utc>,
    /// Total number of seats.
    pub seats: i32,
    /// Seats that no pending or confirmed booking has. While very many holds of the show have
    /// expired at the same time, this can be too low for a moment.
    pub available_seats: i32,
    /// Time for which a new booking holds its seats until it is confirmed, in seconds.
    pub hold_seconds: i32,
    /// Maximum total duration of a hold, extensions included, in seconds.
    pub max_hold_seconds: i32,
    /// Maximum number of seats of one booking.
    pub max_seats_per_booking: i32,
    /// Maximum number of seats that one user can have at the same time, held or confirmed; `None`: no
    /// limit.
    pub max_seats_per_user: Option<i32>,
    /// Status and sales window.
    pub sale: Sale,
    /// Cancellation of the show, if it was cancelled.
    pub cancellation: Option<Cancellation>,
    /// Text by which the client's system knows the show.
    pub reference: Option<String>,
    /// Metadata of the client's system.
    pub metadata: Option<Metadata>,
    /// Number of times that people changed the show, from 1. Sales do not change it.
    pub edition: i64,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
}

impl Show {
    /// Returns the version of this state of the show: its edition, and its available seats.
    ///
    /// The available seats also change by time alone, when a hold expires.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}-{}", self.edition, self.available_seats)
    }

    /// Returns whether a version is of this edition of the show, whatever was sold since.
    ///
    /// Otherwise nobody could change a show that sells fast.
    #[must_use]
    pub fn is_edition_of(&self, version: &str) -> bool {
        let edition = version.split_once('-').map(|(edition, _)| edition);
        edition == Some(self.edition.to_string().as_str())
    }
}

/// Row of `shows`.
#[derive(FromRow)]
struct Row {
    id: ShowId,
    name: String,
    starts_at: Timestamp,
    seats: i32,
    available_seats: i32,
    hold_seconds: i32,
    max_hold_seconds: i32,
    max_seats_per_booking: i32,
    max_seats_per_user: Option<i32>,
    status: ShowStatus,
    sales_start: Option<Timestamp>,
    sales_end: Option<Timestamp>,
    cancelled_at: Option<Timestamp>,
    seats_when_cancelled: Option<i32>,
    reference: Option<String>,
    metadata: Option<Metadata>,
    edition: i64,
    created_at: Timestamp,
}

impl From<Row> for Show {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            starts_at: row.starts_at.into(),
            seats: row.seats,
            available_seats: row.available_seats,
            hold_seconds: row.hold_seconds,
            max_hold_seconds: row.max_hold_seconds,
            max_seats_per_booking: row.max_seats_per_booking,
            max_seats_per_user: row.max_seats_per_user,
            sale: Sale {
                status: row.status,
                start: row.sales_start.map(DateTime::from),
                end: row.sales_end.map(DateTime::from),
            },
            cancellation: row.cancelled_at.zip(row.seats_when_cancelled).map(
                |(cancelled_at, seats)| Cancellation {
                    cancelled_at: cancelled_at.into(),
                    seats,
                    remaining_seats: row.seats - row.available_seats,
                },
            ),
            reference: row.reference,
            metadata: row.metadata,
            edition: row.edition,
            created_at: row.created_at.into(),
        }
    }
}

/// Parameters of a new show.
#[derive(Debug, Clone)]
pub struct NewShow {
    /// Display name: 1 to 200 characters.
    pub name: String,
    /// Time at which the show begins; may be in the past.
    pub starts_at: DateTime<Utc>,
    /// Total number of seats: 1 to [`MAX_SEATS`].
    pub seats: i32,
    /// How long a booking holds its seats until it is confirmed, in seconds: 1 to 86,400.
    pub hold_seconds: i32,
    /// How long a hold can last in total, in seconds: `hold_seconds` to 86,400.
    pub max_hold_seconds: i32,
    /// Maximum number of seats of one booking: 1 to [`MAX_SEATS_PER_BOOKING`].
    pub max_seats_per_booking: i32,
    /// Maximum number of seats of one user, held or confirmed: 1 to [`MAX_SEATS`]; `None`: no limit.
    pub max_seats_per_user: Option<i32>,
    /// Status and sales window.
    pub sale: Sale,
    /// Text by which the client's system knows the show: 1 to 64 characters.
    pub reference: Option<String>,
    /// Metadata of the client's system.
    pub metadata: Option<Metadata>,
}

impl NewShow {
    /// Returns a show without limits of its own, whose holds last two minutes.
    #[must_use]
    pub fn new(name: &str, starts_at: DateTime<Utc>, seats: i32) -> Self {
        Self {
            name: name.to_owned(),
            starts_at,
            seats,
            hold_seconds: DEFAULT_HOLD_SECONDS,
            max_hold_seconds: DEFAULT_MAX_HOLD_SECONDS,
            max_seats_per_booking: MAX_SEATS_PER_BOOKING,
            max_seats_per_user: None,
            sale: Sale::ALWAYS,
            reference: None,
            metadata: None,
        }
    }
}

/// Request to create a show.
#[derive(Debug, Clone)]
pub struct Creation {
    /// Show to create.
    pub new: NewShow,
    /// Idempotency key that makes the request safe to retry, if it has one.
    pub claim: Option<Claim>,
}

/// Creates a show, or finds the one that an earlier request with the same key made.
///
/// All seats of a new show are available.
///
/// # Errors
///
/// Fails if the database call fails, or a bound is broken, which the caller should have refused.
pub async fn create(
    session: &mut Session,
    creation: Creation,
) -> Result<Result<Created<Show>, Refusal>, postgres::Error> {
    session.transact(creation).await
}

impl Work for Creation {
    type Output = Result<Created<Show>, Refusal>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Self::Output, postgres::Error> {
        let Self { new, claim } = self;
        if let Some(claim) = claim
            && let Some(record) = idempotency::find(tx, [&claim.key].into_iter())
                .await?
                .remove(&claim.key)
        {
            if record.fingerprint != claim.fingerprint {
                return Ok(Err(Refusal::KeyReused));
            }
            let show = find(&mut *tx, record.show_id).await?;
            // On Citus the server of the show may commit it a moment after the key is committed.
            let show = show.ok_or(postgres::Error::PartlyCommitted)?;
            return Ok(Ok(Created::earlier(show)));
        }
        // `SELECT`, not `VALUES`: see `postgres::citus`.
        let show = sqlx::query_as!(
        Row,
        r#"WITH created AS (
             INSERT INTO shows (name, starts_at, seats, available_seats, hold_seconds, max_hold_seconds,
                                max_seats_per_booking, max_seats_per_user, sale_status, sales_start, sales_end, reference, metadata)
             SELECT $1::text, $2::timestamptz, $3::integer, $3, $4::integer, $5::integer, $6::integer, $7::integer,
                    $11::text, $12::timestamptz, $13::timestamptz, $14::text, $15::text::json
             RETURNING id, name, starts_at, seats, available_seats, hold_seconds, max_hold_seconds,
                       max_seats_per_booking, max_seats_per_user, sale_status, sales_start, sales_end, cancelled_at,
                       seats_when_cancelled, reference, metadata, edition, created_at),
         claimed AS (
             INSERT INTO idempotency_keys (owner, key, fingerprint, show_id)
             SELECT $8, $9::text, $10, id FROM created WHERE $9 IS NOT NULL)
         SELECT id AS "id: ShowId", name, starts_at AS "starts_at: Timestamp", seats, available_seats, hold_seconds, max_hold_seconds,
                max_seats_per_booking, max_seats_per_user, sale_status AS "status: ShowStatus",
                sales_start AS "sales_start: Timestamp", sales_end AS "sales_end: Timestamp", cancelled_at AS "cancelled_at: Timestamp",
                seats_when_cancelled, reference, metadata::text AS "metadata: Metadata", edition, created_at AS "created_at: Timestamp"
         FROM created"#,
        new.name,
        new.starts_at,
        new.seats,
        new.hold_seconds,
        new.max_hold_seconds,
        new.max_seats_per_booking,
        new.max_seats_per_user,
        claim.as_ref().map(|claim| claim.key.owner),
        claim.as_ref().map(|claim| claim.key.text.clone()),
        claim.as_ref().map(|claim| claim.fingerprint.clone()),
        new.sale.status.as_str(),
        new.sale.start,
        new.sale.end,
        new.reference,
        new.metadata.clone() as Option<Metadata>,
    )
    .fetch_one(tx)
    .await?;
        Ok(Ok(Created::now(show.into())))
    }
}

/// Finds a show. Seats of overdue holds count as available.
///
/// They count whether or not a worker has failed the holds, but only those of 1,000 batches, so that
/// the cost does not depend on how many there are. (Reserving gets the seats of the others as well.)
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn find(
    database: impl sqlx::PgExecutor<'_>,
    id: ShowId,
) -> Result<Option<Show>, postgres::Error> {
    let show = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: ShowId", name, starts_at AS "starts_at: Timestamp", seats,
                  least(seats, available_seats + (
                      SELECT coalesce(sum(held_seats), 0) FROM (
                          SELECT held_seats FROM batches
                          WHERE show_id = $1 AND has_held AND expires_at <= now() LIMIT 1000) AS overdue))::integer AS "available_seats!",
                  hold_seconds, max_hold_seconds, max_seats_per_booking, max_seats_per_user, sale_status AS "status: ShowStatus",
                  sales_start AS "sales_start: Timestamp", sales_end AS "sales_end: Timestamp", cancelled_at AS "cancelled_at: Timestamp",
                  seats_when_cancelled, reference, metadata::text AS "metadata: Metadata", edition, created_at AS "created_at: Timestamp"
           FROM shows WHERE id = $1 ORDER BY generation DESC LIMIT 1"#,
        id as ShowId,
    )
    .fetch_optional(database)
    .await?;
    Ok(show.map(Show::from))
}
