//! Insertion of new bookings, with their seat counters, expiry job and idempotency keys.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::request::Request;
use crate::{
    booking::{
        rules::{Booking, seats_by_show},
        status::BookingStatus,
        user_name,
    },
    id::{BookingId, ShowId},
    idempotency::{self, Claim},
    jobs::{ExpireBookings, NewJob},
    metadata::Metadata,
    postgres::{self, Engine},
    show::{self, Hold},
};

/// New bookings to write.
#[derive(Default)]
pub(super) struct New<'r> {
    bookings: Vec<Booking>,
    /// For each booking, the user's name as it counts, if the show limits the seats of a user.
    counted_as: Vec<Option<String>>,
    /// Claims of the bookings requested with a key, with the position of the booking.
    claims: Vec<(usize, &'r Claim)>,
}

impl<'r> New<'r> {
    /// Adds the booking that this request gets.
    pub(super) fn push(&mut self, request: &'r Request, hold: Hold, now: DateTime<Utc>) {
        if let Some(claim) = &request.claim {
            self.claims.push((self.bookings.len(), claim));
        }
        self.bookings.push(Booking {
            id: BookingId(0),
            show_id: request.show_id,
            batch_id: BookingId(0),
            user_name: request.user_name.clone(),
            number_of_seats: request.number_of_seats,
            released_seats: None,
            from: None,
            reference: request.reference.clone(),
            metadata: request.metadata.clone(),
            status: BookingStatus::Pending,
            expires_at: hold.expires_at,
            is_extended: false,
            extendable_until: hold.extendable_until,
            created_at: now,
            resolved_at: None,
            read_at: now,
        });
        let counted_as = hold
            .counts_per_user
            .then(|| user_name::comparable(&request.user_name));
        self.counted_as.push(counted_as);
    }

    /// Writes the bookings, all or none, and returns them with their ids.
    ///
    /// With them it takes their seats from the shows, records their idempotency keys, and enqueues
    /// the one job that will expire them all.
    pub(super) async fn insert(
        mut self,
        tx: &mut PgConnection,
        locked: &mut show::Locked,
        now: DateTime<Utc>,
        engine: Engine,
    ) -> Result<Vec<Booking>, postgres::Error> {
        if self.bookings.is_empty() {
            return Ok(self.bookings);
        }
        let order = self.by_show();
        let ids = match engine {
            Engine::Postgres => self.insert_at_once(tx, locked, &order, now).await?,
            Engine::Citus => self.insert_on_citus(tx, locked, &order, now).await?,
        };
        // The rows were inserted in this order, so their ids ascend in it.
        for (position, (id, batch_id)) in order.into_iter().zip(ids) {
            self.bookings[position].id = id;
            self.bookings[position].batch_id = batch_id;
        }
        let claimed = self
            .claims
            .iter()
            .map(|&(position, claim)| (claim, &self.bookings[position]));
        idempotency::record(tx, claimed).await?;
        Ok(self.bookings)
    }

    /// Inserts in one statement, since each statement is a round trip while the shows are locked.
    ///
    /// It writes the job's row itself, as apalis would. As in `Locked::add_available_seats`, a
    /// counter is never clamped.
    async fn insert_at_once(
        &self,
        tx: &mut PgConnection,
        locked: &show::Locked,
        order: &[usize],
        now: DateTime<Utc>,
    ) -> Result<Vec<(BookingId, BookingId)>, postgres::Error> {
        let new = self.columns(order);
        let (shows, seats): (Vec<ShowId>, Vec<i32>) =
            seats_by_show(&self.bookings).into_iter().unzip();
        let job = self.job(now);
        let rows = sqlx::query_file!(
            "src/booking/reserve/insert.sql",
            &new.show_id as &[ShowId],
            &new.user_name,
            &new.number_of_seats,
            &new.expires_at,
            &new.extendable_until,
            &new.counted_as as &[Option<String>],
            &shows as &[ShowId],
            &seats,
            &locked.generations(&shows),
            now,
            show::only(&shows) as Option<ShowId>,
            job.id,
            job.queue,
            job.max_attempts,
            job.run_at,
            job.traceparent,
            &new.reference as &[Option<String>],
            &new.metadata as &[Option<Metadata>],
        )
        .fetch_all(&mut *tx)
        .await?;
        postgres::expect_rows("new bookings", self.bookings.len(), rows.len() as u64)?;
        let counted = rows
            .first()
            .map_or(0, |row| row.shows_counted.unsigned_abs());
        postgres::expect_rows("seat counters of shows", shows.len(), counted)?;
        Ok(rows
            .into_iter()
            .map(|row| (BookingId(row.id), BookingId(row.batch_id)))
            .collect())
    }

    /// Inserts in one statement for each server.
    ///
    /// No statement looks for the newest booking of all shows, which is on another server. So a
    /// clock that is set back shows in lists by time. Citus could run one statement for all, but
    /// its parts would exchange data through files, which takes three times as long.
    async fn insert_on_citus(
        &self,
        tx: &mut PgConnection,
        locked: &mut show::Locked,
        order: &[usize],
        now: DateTime<Utc>,
    ) -> Result<Vec<(BookingId, BookingId)>, postgres::Error> {
        let taken: BTreeMap<ShowId, i32> = seats_by_show(&self.bookings)
            .into_iter()
            .map(|(show_id, seats)| (show_id, -seats))
            .collect();
        locked.add_available_seats(tx, &taken).await?;
        let shows: Vec<ShowId> = taken.into_keys().collect();
        let new = self.columns(order);
        let job = self.job(now);
        let ids = sqlx::query_scalar!(
            r#"WITH new AS MATERIALIZED (
                   SELECT nextval('bookings_id_seq') AS id FROM generate_series(1, $1)),
               enqueued AS (
                   INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at, metadata)
                   SELECT $3, $4, expire_bookings_payload($2::bigint, array_agg(id ORDER BY id)), $5, $6,
                          CASE WHEN $7::text IS NOT NULL THEN hstore('traceparent', $7) END
                   FROM new)
               SELECT id AS "id!: BookingId" FROM new ORDER BY id"#,
            i32::try_from(self.bookings.len()).unwrap_or(i32::MAX),
            show::only(&shows) as Option<ShowId>,
            job.id,
            job.queue,
            job.max_attempts,
            job.run_at,
            job.traceparent,
        )
        .fetch_all(&mut *tx)
        .await?;
        let batch_ids = ends_of_runs(&ids);
        // `SELECT`, not `VALUES`: see `postgres::citus`.
        let inserted = sqlx::query!(
            "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until,
                                   counts_per_user, counted_as, reference, metadata, created_at) OVERRIDING SYSTEM VALUE
             SELECT id, batch_id, show_id, user_name, number_of_seats, 'PENDING', expires_at, extendable_until,
                    counted_as IS NOT NULL, counted_as, reference, metadata::json, $9
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::integer[], $6::timestamptz[], $7::timestamptz[],
                         $8::text[], $10::text[], $11::text[])
                  AS new (id, batch_id, show_id, user_name, number_of_seats, expires_at, extendable_until, counted_as, reference,
                          metadata)",
            &ids as &[BookingId],
            &batch_ids as &[BookingId],
            &new.show_id as &[ShowId],
            &new.user_name,
            &new.number_of_seats,
            &new.expires_at,
            &new.extendable_until,
            &new.counted_as as &[Option<String>],
            now,
            &new.reference as &[Option<String>],
            &new.metadata as &[Option<Metadata>],
        )
        .execute(&mut *tx)
        .await?;
        postgres::expect_rows("new bookings", ids.len(), inserted.rows_affected())?;
        sqlx::query!(
            "INSERT INTO batches (show_id, id, first_id, expires_at, held, held_seats, has_held)
             SELECT show_id, batch_id, min(id), min(expires_at), count(*), sum(number_of_seats), true
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::timestamptz[])
                  AS new (id, batch_id, show_id, number_of_seats, expires_at)
             GROUP BY show_id, batch_id",
            &ids as &[BookingId],
            &batch_ids as &[BookingId],
            &new.show_id as &[ShowId],
            &new.number_of_seats,
            &new.expires_at,
        )
        .execute(tx)
        .await?;
        Ok(ids.into_iter().zip(batch_ids).collect())
    }

    /// Returns the positions of the bookings in the order in which they are written: one show after
    /// the other, so that those of a show get consecutive ids, and else as requested.
    fn by_show(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.bookings.len()).collect();
        order.sort_by_key(|&position| self.bookings[position].show_id);
        order
    }

    fn columns(&self, order: &[usize]) -> Columns {
        let new = || order.iter().map(|&position| &self.bookings[position]);
        Columns {
            show_id: new().map(|b| b.show_id).collect(),
            user_name: new().map(|b| b.user_name.clone()).collect(),
            number_of_seats: new().map(|b| b.number_of_seats).collect(),
            expires_at: new().map(|b| b.expires_at).collect(),
            extendable_until: new().map(|b| b.extendable_until).collect(),
            counted_as: of_some(
                order
                    .iter()
                    .map(|&position| self.counted_as[position].clone()),
            ),
            reference: of_some(new().map(|b| b.reference.clone())),
            metadata: of_some(new().map(|b| b.metadata.clone())),
        }
    }

    /// Returns the job that expires the bookings, due at the earliest deadline.
    fn job(&self, now: DateTime<Utc>) -> NewJob {
        let deadlines = self.bookings.iter().map(|booking| booking.expires_at);
        NewJob::of_kind::<ExpireBookings>(deadlines.min().unwrap_or(now), now)
    }
}

/// Columns of the new bookings, by name, so that none is bound in place of another.
struct Columns {
    show_id: Vec<ShowId>,
    user_name: Vec<String>,
    number_of_seats: Vec<i32>,
    expires_at: Vec<DateTime<Utc>>,
    extendable_until: Vec<DateTime<Utc>>,
    counted_as: Vec<Option<String>>,
    reference: Vec<Option<String>>,
    metadata: Vec<Option<Metadata>>,
}

/// Collects a column that most bookings do not have: none of its values if all are missing.
///
/// `unnest` fills a shorter array up with NULL.
fn of_some<T>(values: impl Iterator<Item = Option<T>> + Clone) -> Vec<Option<T>> {
    if values.clone().all(|value| value.is_none()) {
        return Vec::new();
    }
    values.collect()
}

/// Returns, for each of these ascending ids, the last one of the consecutive ids that it is among.
fn ends_of_runs(ids: &[BookingId]) -> Vec<BookingId> {
    ids.chunk_by(|id, next| id.0 + 1 == next.0)
        .flat_map(|run| run.last().into_iter().cycle().take(run.len()).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_ids_are_one_batch() {
        for (ids, expected) in [
            (vec![], vec![]),
            (vec![4], vec![4]),
            (vec![4, 5, 6, 8, 9, 11], vec![6, 6, 6, 9, 9, 11]),
        ] {
            let ids: Vec<BookingId> = ids.into_iter().map(BookingId).collect();
            let expected: Vec<BookingId> = expected.into_iter().map(BookingId).collect();
            assert_eq!(ends_of_runs(&ids), expected);
        }
    }
}
