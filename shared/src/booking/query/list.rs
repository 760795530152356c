//! Lists of bookings.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::row::{Row, view};
use crate::{
    booking::{rules::Booking, status::BookingStatus},
    id::{BookingId, ShowId},
    postgres,
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

    /// Adds the conditions that all lists have in common.
    fn restrict(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(show_id) = self.show_id {
            sql.push(" AND show_id = ").push_bind(show_id);
        }
        if let Some(user_name) = &self.user_name {
            sql.push(" AND user_name = ").push_bind(user_name.clone());
        }
        if let Some(created_after) = self.created_after {
            sql.push(" AND created_at > ").push_bind(created_after);
        }
    }
}

const COLUMNS: &str =
    "id, show_id, user_name, number_of_seats, status, expires_at, extendable_until, created_at,
    resolved_at, now() AS read_at";

/// Lists at most `limit` bookings after a position in the list, as of the database's clock.
///
/// The cost depends on `limit` and not on the number of bookings, for each restriction by itself.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Booking>, postgres::Error> {
    // Contains only the conditions that restrict, so that each combination gets the plan and the
    // index that suit it.
    let mut sql = if filter.is_of_holds() {
        match filter.status {
            None | Some(BookingStatus::Pending) => holds_by_deadline(filter, after, limit),
            Some(_) => return Ok(Vec::new()),
        }
    } else {
        let first = match filter.created_after {
            Some(instant) => Some(last_booking_before(pool, instant).await?),
            None => None,
        };
        bookings_by_id(
            filter,
            first.max(after.and_then(Cursor::id).map(|id| id.0)),
            limit,
        )
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

fn holds_by_deadline(filter: &Filter, after: Option<Cursor>, limit: i64) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(format!(
        "SELECT {COLUMNS} FROM bookings WHERE resolved_at IS NULL AND id > 0 AND expires_at > now()"
    ));
    if let Some(Cursor::Deadline(expires_at, id)) = after {
        sql.push(" AND (expires_at, id) > (").push_bind(expires_at);
        sql.push(", ").push_bind(id).push(")");
    }
    if let Some(expires_before) = filter.expires_before {
        sql.push(" AND expires_at < ").push_bind(expires_before);
    }
    filter.restrict(&mut sql);
    sql.push(" ORDER BY expires_at, id LIMIT ").push_bind(limit);
    sql
}

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

fn bookings_by_id(filter: &Filter, after: Option<i64>, limit: i64) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("");
    let select = |sql: &mut QueryBuilder<Postgres>, condition: &str| {
        sql.push(format!("SELECT {COLUMNS} FROM bookings WHERE {condition}"));
        if let Some(id) = after {
            sql.push(" AND id > ").push_bind(id);
        }
        filter.restrict(sql);
    };
    match filter.status {
        None | Some(BookingStatus::Pending) => select(&mut sql, "true"),
        Some(BookingStatus::Confirmed) => select(&mut sql, "status = 'CONFIRMED'"),
        Some(BookingStatus::Cancelled) => select(&mut sql, "status = 'CANCELLED'"),
        // Holds that a worker has failed, and overdue ones that no worker has reached yet.
        Some(BookingStatus::Failed) => {
            sql.push("(");
            select(&mut sql, "status = 'FAILED'");
            sql.push(" ORDER BY id LIMIT ")
                .push_bind(limit)
                .push(") UNION ALL (");
            if filter.user_name.is_some() {
                select(&mut sql, "resolved_at IS NULL AND expires_at <= now()");
            } else {
                let overdue = oldest_overdue(filter.show_id);
                select(&mut sql, &format!("id = ANY(ARRAY({overdue}))"));
            }
            sql.push(" ORDER BY id LIMIT ").push_bind(limit).push(")");
        }
    }
    sql.push(" ORDER BY id LIMIT ").push_bind(limit);
    sql
}

/// Maximum number of overdue holds in a list of failed bookings: it has the oldest ones.
///
/// Without workers there can be any number of them, and no index has them by id.
const MAX_OVERDUE: i64 = 1000;

/// Returns a statement that finds the ids of the oldest overdue holds.
fn oldest_overdue(show_id: Option<ShowId>) -> String {
    let of_show = show_id.map_or_else(String::new, |id| format!(" AND show_id = {id}"));
    format!(
        "SELECT id FROM bookings WHERE resolved_at IS NULL AND id > 0 AND expires_at <= now(){of_show}
         ORDER BY expires_at LIMIT {MAX_OVERDUE}"
    )
}
