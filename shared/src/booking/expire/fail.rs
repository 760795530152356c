//! Failing overdue holds.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    booking::{
        query,
        rules::{Booking, Effect, seats_by_show},
        save::{Changed, save},
    },
    id::{BookingId, ShowId},
    metrics::{BOOKINGS, EXPIRY_LAG},
    postgres::{self, Session, Work},
    show,
};

/// Fails the overdue ones of these bookings of a show, frees their seats, and returns their ids.
pub(super) async fn fail(
    session: &mut Session,
    show_id: ShowId,
    ids: &[BookingId],
) -> Result<Vec<BookingId>, postgres::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    if session.commits_each_statement() {
        return fail_in_a_statement(session, show_id, ids).await;
    }
    let show_id = Some(show_id);
    session.transact(Fail { show_id, ids }).await
}

/// Runs [`fail`] as one statement that is a transaction by itself.
///
/// So the show, which all transactions wait for, is locked only for a moment: not while the
/// bookings are written, not during round trips between this process and the database, and not
/// while the write-ahead log is flushed to disk. A crash may undo the transaction, but does no
/// harm. These holds have expired all the same. A transaction that books their seats waits for its
/// own log, and thereby for the log of this one. The job is acknowledged later in the log than
/// this.
///
/// The statement sees the database as it was when it began. A booking that changed since then is
/// checked again when it is locked. The show's row is found at the generation that it had then, or
/// a later one.
async fn fail_in_a_statement(
    session: &Session,
    show_id: ShowId,
    ids: &[BookingId],
) -> Result<Vec<BookingId>, postgres::Error> {
    let expiring = async {
        let expired = sqlx::query!(
            r#"WITH due AS MATERIALIZED (
                   SELECT bookings.id
                   FROM bookings JOIN batches ON batches.show_id = bookings.show_id AND batches.id = batch_id AND NOT is_extension
                   WHERE bookings.id = ANY($2) AND bookings.show_id = $1 AND status = 'PENDING' AND bookings.expires_at <= now()
                   ORDER BY bookings.id FOR NO KEY UPDATE SKIP LOCKED),
               failed AS (
                   UPDATE bookings SET status = 'FAILED', resolved_at = now(), counts_per_user = false
                   WHERE id = ANY(ARRAY(SELECT id FROM due)) AND show_id = $1
                     AND status = 'PENDING' AND expires_at <= now()
                   RETURNING id, batch_id, is_extended, number_of_seats, resolved_at - expires_at AS late),
               count AS MATERIALIZED (
                   SELECT batch_id AS id, false AS is_extension, count(*) FILTER (WHERE NOT is_extended) AS held,
                          coalesce(sum(number_of_seats) FILTER (WHERE NOT is_extended), 0) AS held_seats, count(*) AS failed
                   FROM failed GROUP BY batch_id
                   UNION ALL
                   SELECT id, true, 1, number_of_seats, 0 FROM failed WHERE is_extended),
               counted AS (
                   UPDATE batches SET held = batches.held - count.held, held_seats = batches.held_seats - count.held_seats,
                                      failed = batches.failed + count.failed,
                                      has_held = batches.held > count.held, has_failed = batches.failed + count.failed > 0
                   FROM count
                   WHERE batches.show_id = $1 AND batches.id = count.id AND batches.is_extension = count.is_extension
                   RETURNING 1),
               freed AS (
                   UPDATE shows SET available_seats = available_seats + failed_seats.sum, revision = revision + 1
                   FROM (SELECT sum(number_of_seats)::integer FROM failed HAVING count(*) > 0) AS failed_seats
                   WHERE id = $1
                     AND generation >= (SELECT generation FROM shows WHERE id = $1 ORDER BY generation DESC LIMIT 1)
                     AND (SELECT set_config('lock_timeout', $3, true) || set_config('synchronous_commit', 'off', true)) <> ''
                     -- Counts them first, so that the show is locked last.
                     AND (SELECT count(*) FROM counted) = (SELECT count(*) FROM count)
                   RETURNING id)
               SELECT coalesce(array_agg(id), '{}') AS "ids!: Vec<BookingId>",
                      coalesce(array_agg(extract(epoch FROM late)::float8), '{}') AS "seconds_late!: Vec<f64>",
                      -- An error that undoes it all if the seats were not given back, or a batch is missing: a defect.
                      CASE WHEN count(*) > 0 THEN 1 / (SELECT count(*) FROM freed) END AS shows
               FROM failed"#,
            show_id as ShowId,
            ids as &[BookingId],
            session.lock_timeout(),
        );
        Ok(expired.fetch_one(session.pool()).await?)
    };
    let expired = postgres::in_time(expiring).await?;
    count(expired.seconds_late.into_iter());
    Ok(expired.ids)
}

/// Counts holds that failed this many seconds late. If a COMMIT follows, it may still fail: the
/// holds are then counted once more.
fn count(seconds_late: impl ExactSizeIterator<Item = f64>) {
    BOOKINGS.failed.inc_by(seconds_late.len() as u64);
    seconds_late.for_each(|seconds| EXPIRY_LAG.observe(seconds));
}

/// Transaction that fails the overdue ones of these bookings, frees their seats, and returns their
/// ids.
pub(super) struct Fail<'i> {
    /// Show of all bookings, if it is the same.
    pub(super) show_id: Option<ShowId>,
    pub(super) ids: &'i [BookingId],
}

impl Work for Fail<'_> {
    type Output = Vec<BookingId>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Vec<BookingId>, postgres::Error> {
        let failed = fail_free(tx, self.ids, self.show_id).await?.failed;
        show::lock_and_add_available_seats(tx, &seats_by_show(&failed)).await?;
        Ok(failed.iter().map(|booking| booking.id).collect())
    }
}

/// Outcome of failing holds.
pub(super) struct Failed {
    pub(super) failed: Vec<Booking>,
    /// One of the holds that another transaction has locked.
    pub(super) kept: Option<BookingId>,
}

/// Locks the bookings that no other transaction has locked, and fails the overdue ones.
///
/// One statement takes all locks, so that they are taken in the order of the ids. The caller must
/// put the seats back on sale. If a show is given, all bookings are of that show.
pub(super) async fn fail_free(
    tx: &mut PgConnection,
    ids: &[BookingId],
    show_id: Option<ShowId>,
) -> Result<Failed, postgres::Error> {
    let Some(locked) = query::lock_free(tx, ids, show_id).await? else {
        return Ok(Failed {
            failed: Vec::new(),
            kept: ids.first().copied(),
        });
    };
    let now = locked.locked_at;
    let kept = ids
        .iter()
        .find(|id| !locked.bookings.contains_key(id))
        .copied();
    let failed = expire_each(locked.bookings, now);
    save(tx, &failed, now, show_id).await?;
    let failed: Vec<Booking> = failed.into_iter().map(|changed| changed.after).collect();
    let late = |booking: &Booking| (now - booking.expires_at).as_seconds_f64();
    count(failed.iter().map(late));
    Ok(Failed { failed, kept })
}

/// Expires the bookings that are due, and returns them. Pure.
fn expire_each(bookings: BTreeMap<BookingId, Booking>, now: DateTime<Utc>) -> Vec<Changed> {
    bookings
        .into_values()
        .filter_map(|before| {
            let mut after = before.clone();
            (after.expire(now) == Effect::Changed).then_some(Changed { before, after })
        })
        .collect()
}
