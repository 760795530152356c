//! Insertion of new bookings, with their seat counters, expiry job and idempotency keys.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Request;
use crate::{
    booking::{Booking, BookingStatus, seats_by_show},
    idempotency::{self, Claim},
    jobs::{self, ExpireBookings},
    postgres::{self, Engine},
    show::{self, Hold},
    telemetry::traces,
};

/// New bookings to write.
#[derive(Default)]
pub(super) struct New<'r> {
    bookings: Vec<Booking>,
    /// For each booking, whether its show limits the seats of a user.
    counts_per_user: Vec<bool>,
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
            id: 0,
            show_id: request.show_id,
            user_name: request.user_name.clone(),
            number_of_seats: request.number_of_seats,
            status: BookingStatus::Pending,
            expires_at: hold.expires_at,
            extendable_until: hold.extendable_until,
            seconds_left: None,
            created_at: now,
            resolved_at: None,
        });
        self.counts_per_user.push(hold.counts_per_user);
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
        let ids = match engine {
            Engine::Postgres => self.insert_at_once(tx, locked, now).await?,
            Engine::Citus => self.insert_on_citus(tx, locked, now).await?,
        };
        // The rows were inserted in this order, so their ids ascend in it.
        for (booking, id) in self.bookings.iter_mut().zip(ids) {
            booking.id = id;
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
    /// counter is never clamped, and the range of keys skips the old versions of a hot show's row,
    /// in whatever order the planner joins.
    ///
    /// If the clock was set back, each booking records the latest time of the bookings before it
    /// (`clock_high`). A difference of up to one second is ignored: concurrent transactions may
    /// have it.
    async fn insert_at_once(
        &self,
        tx: &mut PgConnection,
        locked: &show::Locked,
        now: DateTime<Utc>,
    ) -> Result<Vec<i64>, postgres::Error> {
        let new = &self.bookings;
        let (shows, seats): (Vec<i64>, Vec<i32>) = seats_by_show(new).into_iter().unzip();
        let rows = sqlx::query!(
            r#"WITH counted AS (
                   UPDATE shows SET available_seats = available_seats - taken.seats, revision = revision + 1
                   FROM unnest($8::bigint[], $9::integer[], $16::bigint[]) AS taken (show_id, seats, generation)
                   WHERE id = taken.show_id AND shows.generation = taken.generation AND available_seats >= taken.seats
                     AND (id, shows.generation) >= ($8[1], $16[1]) AND id <= $8[cardinality($8)]
                   RETURNING id),
               booked AS (
                   INSERT INTO bookings (show_id, user_name, number_of_seats, status, expires_at, extendable_until,
                                         counts_per_user, created_at, clock_high)
                   SELECT show_id, user_name, number_of_seats, 'PENDING', expires_at, extendable_until,
                          counts_per_user, $7::timestamptz,
                          (SELECT high FROM (SELECT coalesce(clock_high, created_at) AS high FROM bookings
                                             ORDER BY id DESC LIMIT 1) AS newest
                           WHERE high > $7::timestamptz + interval '1 second')
                   FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::timestamptz[], $5::timestamptz[],
                               $6::boolean[])
                        WITH ORDINALITY AS new (show_id, user_name, number_of_seats, expires_at, extendable_until,
                                                counts_per_user, position)
                   ORDER BY position
                   RETURNING id),
               enqueued AS (
                   INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at, metadata)
                   SELECT $10, $11, convert_to(json_strip_nulls(json_build_object(
                              'showId', $15::bigint, 'bookingIds', json_agg(id ORDER BY id)))::text, 'UTF8'),
                          $12, $13, CASE WHEN $14::text IS NOT NULL THEN hstore('traceparent', $14) END
                   FROM booked)
               SELECT id, (SELECT count(*) FROM counted) AS "shows_counted!" FROM booked ORDER BY id"#,
            &new.iter().map(|b| b.show_id).collect::<Vec<_>>(),
            &new.iter().map(|b| b.user_name.clone()).collect::<Vec<_>>(),
            &new.iter().map(|b| b.number_of_seats).collect::<Vec<_>>(),
            &new.iter().map(|b| b.expires_at).collect::<Vec<_>>(),
            &new.iter().map(|b| b.extendable_until).collect::<Vec<_>>(),
            &self.counts_per_user,
            now,
            &shows,
            &seats,
            jobs::new_id(now),
            ExpireBookings::QUEUE,
            ExpireBookings::MAX_ATTEMPTS,
            self.first_deadline(),
            traces::traceparent(),
            show::only(&shows),
            &locked.generations(&shows),
        )
        .fetch_all(&mut *tx)
        .await?;
        postgres::expect_rows("new bookings", new.len(), rows.len() as u64)?;
        let counted = rows
            .first()
            .map_or(0, |row| row.shows_counted.unsigned_abs());
        postgres::expect_rows("seat counters of shows", shows.len(), counted)?;
        Ok(rows.into_iter().map(|row| row.id).collect())
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
        now: DateTime<Utc>,
    ) -> Result<Vec<i64>, postgres::Error> {
        let new = &self.bookings;
        let seats = seats_by_show(new).into_iter();
        let taken: BTreeMap<i64, i32> = seats.map(|(show_id, seats)| (show_id, -seats)).collect();
        locked.add_available_seats(tx, &taken).await?;
        let shows: Vec<i64> = taken.into_keys().collect();
        let ids = sqlx::query_scalar!(
            r#"WITH new AS MATERIALIZED (
                   SELECT nextval('bookings_id_seq') AS id FROM generate_series(1, $1)),
               enqueued AS (
                   INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at, metadata)
                   SELECT $2, $3, convert_to(json_strip_nulls(json_build_object(
                              'showId', $4::bigint, 'bookingIds', json_agg(id ORDER BY id)))::text, 'UTF8'),
                          $5, $6, CASE WHEN $7::text IS NOT NULL THEN hstore('traceparent', $7) END
                   FROM new)
               SELECT id AS "id!" FROM new ORDER BY id"#,
            i32::try_from(new.len()).unwrap_or(i32::MAX),
            jobs::new_id(now),
            ExpireBookings::QUEUE,
            show::only(&shows),
            ExpireBookings::MAX_ATTEMPTS,
            self.first_deadline(),
            traces::traceparent(),
        )
        .fetch_all(&mut *tx)
        .await?;
        // `SELECT`, not `VALUES`: see `postgres::citus`.
        let inserted = sqlx::query!(
            "INSERT INTO bookings (id, show_id, user_name, number_of_seats, status, expires_at, extendable_until,
                                   counts_per_user, created_at) OVERRIDING SYSTEM VALUE
             SELECT id, show_id, user_name, number_of_seats, 'PENDING', expires_at, extendable_until, counts_per_user, $8
             FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::integer[], $5::timestamptz[], $6::timestamptz[],
                         $7::boolean[])
                  AS new (id, show_id, user_name, number_of_seats, expires_at, extendable_until, counts_per_user)",
            &ids,
            &new.iter().map(|b| b.show_id).collect::<Vec<_>>(),
            &new.iter().map(|b| b.user_name.clone()).collect::<Vec<_>>(),
            &new.iter().map(|b| b.number_of_seats).collect::<Vec<_>>(),
            &new.iter().map(|b| b.expires_at).collect::<Vec<_>>(),
            &new.iter().map(|b| b.extendable_until).collect::<Vec<_>>(),
            &self.counts_per_user,
            now,
        )
        .execute(tx)
        .await?;
        postgres::expect_rows("new bookings", new.len(), inserted.rows_affected())?;
        Ok(ids)
    }

    /// Returns when the job is due: at the earliest deadline.
    fn first_deadline(&self) -> Option<DateTime<Utc>> {
        self.bookings.iter().map(|booking| booking.expires_at).min()
    }
}
