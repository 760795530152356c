//! SQL of lists.

use sqlx::{Postgres, QueryBuilder};

use super::{Cursor, Filter};
use crate::{booking::status::BookingStatus, postgres::Engine};

const COLUMNS: &str =
    "bookings.id, bookings.show_id, batch_id, user_name, number_of_seats, status, bookings.expires_at, is_extended,
    extendable_until, created_at, resolved_at, released_seats, from_id, reference, metadata::text, now() AS read_at";

/// Maximum number of overdue holds in a list of failed bookings: it has the oldest ones.
///
/// Without workers there can be any number of them, and no index has them by id.
const MAX_OVERDUE: i64 = 1000;

/// Returns batches with their bookings, for `FROM`.
///
/// A list in the order of batches, and of the bookings of each, reads no more than its page: with
/// `OFFSET` the planner can only look up the bookings of one batch after the other. Citus can't send
/// that to all its servers.
pub(crate) fn in_batches(engine: Engine) -> String {
    let offset = match engine {
        Engine::Postgres => "OFFSET 0",
        Engine::Citus => "",
    };
    format!(
        "batches CROSS JOIN LATERAL (
             SELECT * FROM bookings
             WHERE bookings.show_id = batches.show_id AND bookings.id BETWEEN first_id AND batches.id {offset}) AS bookings"
    )
}

/// Statement that selects a page of a list.
///
/// It contains only the conditions that restrict the list, so that each combination gets the plan
/// and the index that suit it.
pub(super) struct Statement<'f> {
    pub(super) filter: &'f Filter,
    pub(super) limit: i64,
    pub(super) engine: Engine,
}

impl Statement<'_> {
    /// Selects holds, the earliest deadline first.
    pub(super) fn holds_by_deadline(&self, after: Option<Cursor>) -> QueryBuilder<Postgres> {
        let (from, deadline, order) = if self.has_few() {
            (
                "bookings WHERE status = 'PENDING'".to_owned(),
                "expires_at",
                "expires_at, id",
            )
        } else {
            // Of batches with the same deadline, too, one ends before the other begins.
            let order = "batches.expires_at, batches.id, bookings.id";
            (self.held(), "batches.expires_at", order)
        };
        let mut sql = QueryBuilder::new(format!(
            "SELECT {COLUMNS} FROM {from} AND {deadline} > now()"
        ));
        if let Some(Cursor::Deadline(expires_at, id)) = after {
            sql.push(format!(" AND {deadline} >= "))
                .push_bind(expires_at);
            sql.push(format!(" AND ({deadline}, bookings.id) > ("))
                .push_bind(expires_at);
            sql.push(", ").push_bind(id).push(")");
        }
        if let Some(expires_before) = self.filter.expires_before {
            sql.push(format!(" AND {deadline} < "))
                .push_bind(expires_before);
        }
        self.restrict(&mut sql);
        self.end(&mut sql, order);
        sql
    }

    /// Selects bookings with higher ids than `after`, the lowest first.
    pub(super) fn bookings_by_id(&self, after: Option<i64>) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new("");
        if self.filter.status == Some(BookingStatus::Failed) {
            // Holds that a worker has failed, and overdue ones that no worker has reached yet.
            sql.push("(");
            self.stored(&mut sql, after);
            sql.push(") UNION ALL (");
            self.overdue(&mut sql, after);
            sql.push(")");
            self.end(&mut sql, "id");
        } else {
            self.stored(&mut sql, after);
        }
        sql
    }

    /// Selects the bookings that are stored with the requested status.
    fn stored(&self, sql: &mut QueryBuilder<Postgres>, after: Option<i64>) {
        let (has_any, has) = match self.filter.status {
            None | Some(BookingStatus::Pending) => ("NOT is_extension", "true"),
            Some(BookingStatus::Confirmed) => ("has_confirmed", "status = 'CONFIRMED'"),
            Some(BookingStatus::Cancelled) => ("has_cancelled", "status = 'CANCELLED'"),
            Some(BookingStatus::Failed) => ("has_failed", "status = 'FAILED'"),
        };
        let is_of_all = self.filter.status.is_none() && self.filter.show_id.is_none();
        if is_of_all || self.has_few() {
            sql.push(format!("SELECT {COLUMNS} FROM bookings WHERE {has}"));
            self.restrict_by_id(sql, after);
            self.end(sql, "id");
            return;
        }
        let batches = in_batches(self.engine);
        sql.push(format!(
            "SELECT {COLUMNS} FROM {batches} WHERE {has_any} AND {has}"
        ));
        sql.push(format!(" AND {}", self.of_show()));
        if let Some(id) = after {
            sql.push(" AND batches.id > ").push_bind(id);
        }
        self.restrict_by_id(sql, after);
        self.end(sql, "batches.id, bookings.id");
    }

    /// Selects the holds that are overdue.
    fn overdue(&self, sql: &mut QueryBuilder<Postgres>, after: Option<i64>) {
        let overdue = if self.has_few() {
            "status = 'PENDING' AND expires_at <= now()".to_owned()
        } else {
            format!(
                "bookings.id = ANY(ARRAY(
                     SELECT bookings.id FROM {} AND batches.expires_at <= now()
                     ORDER BY batches.expires_at LIMIT {MAX_OVERDUE}))",
                self.held()
            )
        };
        sql.push(format!("SELECT {COLUMNS} FROM bookings WHERE {overdue}"));
        self.restrict_by_id(sql, after);
        self.end(sql, "id");
    }

    /// Returns whether the list is of one user or one reference, which have few bookings: no other
    /// index is needed.
    fn has_few(&self) -> bool {
        self.filter.user_name.is_some() || self.filter.reference.is_some()
    }

    /// Returns holds with the batches that have their deadlines, for `FROM`.
    fn held(&self) -> String {
        format!(
            "{} WHERE {} AND has_held AND is_extended = is_extension AND status = 'PENDING'",
            in_batches(self.engine),
            self.of_show()
        )
    }

    /// Returns the condition for the batches of the show, if one is requested.
    ///
    /// Without it, the condition is that of the indexes on the batches of all shows: so these can't
    /// be used for a show.
    fn of_show(&self) -> String {
        match self.filter.show_id {
            Some(id) => format!("batches.show_id = {id}"),
            None => "batches.id > 0".to_owned(),
        }
    }

    fn restrict_by_id(&self, sql: &mut QueryBuilder<Postgres>, after: Option<i64>) {
        if let Some(id) = after {
            sql.push(" AND bookings.id > ").push_bind(id);
        }
        self.restrict(sql);
    }

    /// Adds the conditions that all lists have in common.
    fn restrict(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(show_id) = self.filter.show_id {
            sql.push(" AND bookings.show_id = ").push_bind(show_id);
        }
        if let Some(user_name) = &self.filter.user_name {
            sql.push(" AND user_name = ").push_bind(user_name.clone());
        }
        if let Some(reference) = &self.filter.reference {
            sql.push(" AND reference = ").push_bind(reference.clone());
        }
        if let Some(created_after) = self.filter.created_after {
            sql.push(" AND created_at > ").push_bind(created_after);
        }
    }

    fn end(&self, sql: &mut QueryBuilder<Postgres>, order: &str) {
        sql.push(format!(" ORDER BY {order} LIMIT "))
            .push_bind(self.limit);
    }
}
