//! Lists of shows.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use super::{Row, Show, ShowStatus};
use crate::{
    id::ShowId,
    postgres::{self, Database, Engine},
};

/// Filter and order of a list of shows. A field that is `None` does not restrict the list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Order of the list.
    pub order: Order,
    /// Status of the shows.
    pub status: Option<ShowStatus>,
    /// Name of the shows, compared as written.
    pub name: Option<String>,
    /// Reference of the shows.
    pub reference: Option<String>,
    /// Time from which on the shows begin; only in the order of [`Order::StartTime`].
    pub starts_after: Option<DateTime<Utc>>,
    /// Time before which the shows begin; only in the order of [`Order::StartTime`].
    pub starts_before: Option<DateTime<Utc>>,
}

/// Order of a list of shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// By id, the oldest first.
    #[default]
    Id,
    /// By the time at which they begin, the soonest first, and by id where these are equal.
    StartTime,
}

/// Position in a list of shows, after one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Position in a list ordered by id.
    Id(ShowId),
    /// Position in a list ordered by start time.
    StartTime(DateTime<Utc>, ShowId),
}

impl Filter {
    /// Returns whether the cursor is a position in this list, not in a list with another order.
    #[must_use]
    pub fn has(&self, cursor: Cursor) -> bool {
        match self.order {
            Order::Id => matches!(cursor, Cursor::Id(_)),
            Order::StartTime => matches!(cursor, Cursor::StartTime(..)),
        }
    }

    /// Returns the cursor at which the list continues after this show.
    #[must_use]
    pub fn cursor(&self, last: &Show) -> Cursor {
        match self.order {
            Order::Id => Cursor::Id(last.id),
            Order::StartTime => Cursor::StartTime(last.starts_at, last.id),
        }
    }
}

/// Lists at most `limit` shows after a position in the list, each as [`find`](super::find) finds it.
///
/// The cost of a list by id without restrictions depends on `limit` and not on the number of shows.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn list(
    database: &Database,
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Show>, postgres::Error> {
    let mut sql = statement(filter, after, limit, database.engine);
    let rows: Vec<Row> = sql.build_query_as().fetch_all(&database.pool).await?;
    Ok(rows.into_iter().map(Show::from).collect())
}

/// Returns the statement that selects a page.
///
/// It contains only the conditions that restrict the list, so that each combination gets the plan
/// and the index that suit it.
fn statement(
    filter: &Filter,
    after: Option<Cursor>,
    limit: i64,
    engine: Engine,
) -> QueryBuilder<Postgres> {
    // On Citus no part of a statement for several servers can have a limit: it counts all overdue
    // holds.
    let at_most = match engine {
        Engine::Postgres => "LIMIT 1000",
        Engine::Citus => "",
    };
    let mut sql = QueryBuilder::new(format!(
        "SELECT shows.id, name, starts_at, seats, least(seats, available_seats + freed)::integer AS available_seats,
                hold_seconds, max_hold_seconds, max_seats_per_booking, max_seats_per_user, sale_status AS status,
                sales_start, sales_end, cancelled_at, seats_when_cancelled, reference, metadata::text AS metadata,
                edition, created_at
         FROM shows CROSS JOIN LATERAL (
             SELECT coalesce(sum(held_seats), 0) AS freed FROM (
                 SELECT held_seats FROM batches
                 WHERE show_id = shows.id AND has_held AND expires_at <= now() {at_most}) AS counted) AS overdue
         WHERE true"
    ));
    match after {
        Some(Cursor::Id(id)) => {
            sql.push(" AND shows.id > ").push_bind(id);
        }
        Some(Cursor::StartTime(starts_at, id)) => {
            sql.push(" AND starts_at >= ").push_bind(starts_at);
            sql.push(" AND (starts_at, shows.id) > (")
                .push_bind(starts_at);
            sql.push(", ").push_bind(id).push(")");
        }
        None => {}
    }
    if let Some(status) = filter.status {
        sql.push(" AND sale_status = ").push_bind(status);
    }
    if let Some(name) = &filter.name {
        sql.push(" AND name = ").push_bind(name.clone());
    }
    if let Some(reference) = &filter.reference {
        sql.push(" AND reference = ").push_bind(reference.clone());
    }
    if let Some(starts_after) = filter.starts_after {
        sql.push(" AND starts_at >= ").push_bind(starts_after);
    }
    if let Some(starts_before) = filter.starts_before {
        sql.push(" AND starts_at < ").push_bind(starts_before);
    }
    let order = match filter.order {
        Order::Id => "shows.id",
        Order::StartTime => "starts_at, shows.id",
    };
    sql.push(format!(" ORDER BY {order} LIMIT "))
        .push_bind(limit);
    sql
}
