//! Lists of bookings.

mod statement;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::PgPool;

use self::statement::Statement;
pub(crate) use self::statement::in_batches;
use super::row::{Row, view};
use crate::{
    booking::{rules::Booking, status::BookingStatus},
    id::{BookingId, ShowId},
    postgres::{self, Database},
};

/// Filter of a list of bookings. A field that is `None` does not restrict the list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Show of the bookings.
    pub show_id: Option<ShowId>,
    /// Status of the bookings, as readers see it: see [`Booking::as_of`].
    pub status: Option<BookingStatus>,
    /// User name of the bookings.
    pub user_name: Option<String>,
    /// Reference of the bookings.
    pub reference: Option<String>,
    /// Time after which the bookings were created.
    pub created_after: Option<DateTime<Utc>>,
    /// Time before which the deadline lies; restricts the list to holds.
    pub expires_before: Option<DateTime<Utc>>,
}

/// Position in a list of bookings, after one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Position in a list ordered by id.
    Id(BookingId),
    /// Position in a list of holds, ordered by deadline, and by id where deadlines are equal.
    Deadline(DateTime<Utc>, BookingId),
}

impl Cursor {
    /// Returns the id; `None` in a list that is not ordered by id.
    fn id(self) -> Option<BookingId> {
        match self {
            Self::Id(id) => Some(id),
            Self::Deadline(..) => None,
        }
    }
}

impl Filter {
    /// Returns whether the filter restricts the list to holds.
    ///
    /// A list of holds is ordered by deadline, earliest first. Every other list is ordered by id.
    #[must_use]
    pub fn is_of_holds(&self) -> bool {
        self.expires_before.is_some() || self.status == Some(BookingStatus::Pending)
    }

    /// Returns whether the cursor is a position in this list, not in a list with another order.
    #[must_use]
    pub fn has(&self, cursor: Cursor) -> bool {
        self.is_of_holds() == matches!(cursor, Cursor::Deadline(..))
    }

    /// Returns the cursor at which the list continues after this booking.
    #[must_use]
    pub fn cursor(&self, last: &Booking) -> Cursor {
        if self.is_of_holds() {
            Cursor::Deadline(last.expires_at, last.id)
        } else {
            Cursor::Id(last.id)
        }
    }
}

/// Lists at most `limit` bookings after a position in the list, as of the database's clock.
///
/// The cost depends on `limit` and not on the number of bookings, for each restriction by itself.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn list(
    database: &Database,
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Booking>, postgres::Error> {
    let pool = &database.pool;
    let statement = Statement {
        filter,
        limit,
        engine: database.engine,
    };
    let mut sql = if filter.is_of_holds() {
        match filter.status {
            None | Some(BookingStatus::Pending) => statement.holds_by_deadline(after),
            Some(_) => return Ok(Vec::new()),
        }
    } else {
        let first = match filter.created_after {
            Some(instant) => Some(last_booking_before(pool, instant).await?),
            None => None,
        };
        statement.bookings_by_id(first.max(after.and_then(Cursor::id).map(|id| id.0)))
    };
    let mut rows = sql.build_query_as::<Row>().fetch(pool);
    let mut bookings = Vec::new();
    while let Some(row) = rows.try_next().await? {
        bookings.push(view(row)?);
        if bookings.len().is_multiple_of(ROWS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    Ok(bookings)
}

/// Number of rows after which a list lets other tasks run.
///
/// Rows that have arrived are decoded without waiting: a long list would keep its thread from
/// requests of other callers for a millisecond.
const ROWS_AT_ONCE: usize = 64;

/// Returns a lower bound for the ids of bookings created later. The SQL function says how it is
/// found.
async fn last_booking_before(
    pool: &PgPool,
    instant: DateTime<Utc>,
) -> Result<i64, postgres::Error> {
    // A statement of its own, since Citus would send it to the servers that have the bookings.
    let id = sqlx::query_scalar!(r#"SELECT last_booking_before($1) AS "id!""#, instant)
        .fetch_one(pool)
        .await?;
    Ok(id)
}
