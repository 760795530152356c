//! Expiring holds: fails those past their deadline, and puts their seats back on sale.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{
    locks::{self, Lock},
    query,
    rules::{Booking, Effect, seats_by_show},
};
use crate::{
    id::{BookingId, ShowId},
    jobs::ExpireBookings,
    metrics::{BOOKINGS, EXPIRY_LAG},
    postgres::{self, Session, Work},
    show,
};

/// Maximum number of holds that one transaction expires besides those that its job names, which
/// bounds how long it takes.
const MAX_AT_ONCE: i64 = 1000;

/// Time for which a job may be due before it counts as late.
const LATE: TimeDelta = TimeDelta::milliseconds(500);

/// Outcome of an expiry job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bookings that failed, including those of other jobs.
    pub expired: BTreeSet<BookingId>,
    /// When to run the job again; `None` if none of the named bookings is still held.
    ///
    /// It is the earliest deadline of the named bookings that are still held, or one second from
    /// now if that deadline has passed, because another transaction keeps the booking locked.
    pub next_deadline: Option<DateTime<Utc>>,
}

/// Fails the named bookings that are overdue, and puts their seats back on sale.
///
/// Bookings that are resolved, not yet due or unknown stay as they are, so a repeat does nothing.
///
/// The job expires other overdue holds of the same shows as well, because all transactions wait for
/// the show's row: in a big sale hundreds of jobs are due in the same second, and the first ones do
/// the work of the rest. It takes holds with the same deadlines as its own or later ones, because
/// earlier in the index it would meet the entries of all holds that were expired before. A job that
/// is late takes the oldest holds of all, because there is a backlog. If no named booking is
/// overdue, nothing is locked.
///
/// # Errors
///
/// Fails if the database call fails; what was done for other shows stays done.
pub async fn expire(
    session: &mut Session,
    job: &ExpireBookings,
) -> Result<Outcome, postgres::Error> {
    let mut expired = BTreeSet::new();
    let mut again_at = None;
    for _ in 0..ROUNDS {
        let work = postgres::in_time(find_work(session.pool(), job)).await?;
        expired.extend(fail_each(session, &work).await?);
        let Some(kept) = work.iter().find_map(|show| show.kept(&expired)) else {
            return Ok(Outcome {
                expired,
                next_deadline: work.iter().filter_map(|show| show.next_deadline).min(),
            });
        };
        again_at = work.iter().filter_map(ShowWork::again_at).min();
        // Most likely another worker is expiring it, or a client is extending it: done in a moment.
        match locks::wait(session, kept).await {
            Ok(()) => {}
            Err(postgres::Error::Locked(_)) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome {
        expired,
        next_deadline: again_at,
    })
}

/// Number of times that a job tries to lock the holds that it names, before it leaves them for
/// later.
const ROUNDS: u32 = 3;

/// Work to do for one show that has named bookings.
struct ShowWork {
    show_id: ShowId,
    /// Named bookings that are overdue.
    due: Vec<BookingId>,
    /// Other overdue holds of the show, oldest first; about [`MAX_AT_ONCE`] at most for all shows.
    others: Vec<BookingId>,
    /// Earliest deadline of the named bookings that are held and not overdue.
    next_deadline: Option<DateTime<Utc>>,
    /// One second from now, on the database's clock.
    soon: DateTime<Utc>,
}

impl ShowWork {
    /// Returns the ids of all bookings to fail, some of them twice.
    fn ids(&self) -> impl Iterator<Item = BookingId> {
        self.due.iter().chain(&self.others).copied()
    }

    /// Returns the lock of a named booking that was due, but is not among those that failed.
    fn kept(&self, failed: &BTreeSet<BookingId>) -> Option<Lock> {
        let id = *self.due.iter().find(|id| !failed.contains(id))?;
        Some(Lock::Booking {
            id,
            show_id: Some(self.show_id),
        })
    }

    fn again_at(&self) -> Option<DateTime<Utc>> {
        let soon = (!self.due.is_empty()).then_some(self.soon);
        soon.into_iter().chain(self.next_deadline).min()
    }
}

/// Fails the overdue bookings of each show, and returns their ids.
async fn fail_each(
    session: &mut Session,
    work: &[ShowWork],
) -> Result<Vec<BookingId>, postgres::Error> {
    let due: Vec<&ShowWork> = work.iter().filter(|show| !show.due.is_empty()).collect();
    if due.len() > 1 {
        let ids: BTreeSet<BookingId> = due.iter().flat_map(|show| show.ids()).collect();
        let together = Fail {
            show_id: None,
            ids: &Vec::from_iter(ids),
        };
        match session.transact(together).await {
            // The other shows need not wait for the one that is locked: each gets a transaction.
            Err(postgres::Error::Locked(_)) => {}
            result => return result,
        }
    }
    let (mut failed, mut locked) = (Vec::new(), None);
    for show in due {
        let ids: BTreeSet<BookingId> = show.ids().collect();
        match fail(session, show.show_id, &Vec::from_iter(ids)).await {
            Ok(ids) => failed.extend(ids),
            Err(error @ postgres::Error::Locked(_)) => locked = Some(error),
            Err(error) => return Err(error),
        }
    }
    locked.map_or(Ok(failed), Err)
}

/// Finds the job's work at each show. Locks nothing.
async fn find_work(pool: &PgPool, job: &ExpireBookings) -> Result<Vec<ShowWork>, postgres::Error> {
    let work = sqlx::query_as!(
        ShowWork,
        r#"SELECT show_id AS "show_id: ShowId", due AS "due!: Vec<BookingId>",
                  ARRAY(SELECT id FROM bookings AS hold
                        WHERE hold.show_id = named.show_id AND ($3::bigint IS NULL OR hold.show_id = $3)
                          AND hold.resolved_at IS NULL AND hold.expires_at <= now() AND hold.expires_at >=
                              CASE WHEN first_due > now() - make_interval(secs => $4) THEN first_due
                                   WHEN first_due IS NOT NULL THEN '-infinity' END
                        ORDER BY hold.expires_at LIMIT greatest(1, $2 / shows)) AS "others!: Vec<BookingId>",
                  next_deadline, now() + interval '1 second' AS "soon!"
           FROM (SELECT show_id,
                        coalesce(array_agg(id) FILTER (WHERE is_due), '{}') AS due,
                        min(expires_at) FILTER (WHERE is_due) AS first_due,
                        count(*) OVER () AS shows,
                        min(expires_at) FILTER (WHERE status = 'PENDING' AND NOT is_due) AS next_deadline
                 FROM (SELECT id, show_id, status, expires_at, status = 'PENDING' AND expires_at <= now() AS is_due
                       FROM bookings WHERE id = ANY($1) AND ($3::bigint IS NULL OR show_id = $3)) AS each
                 GROUP BY show_id) AS named
           ORDER BY show_id"#,
        &job.booking_ids as &[BookingId],
        MAX_AT_ONCE,
        job.show_id as Option<ShowId>,
        LATE.as_seconds_f64(),
    )
    .fetch_all(pool)
    .await?;
    Ok(work)
}

/// Fails the holds of a show that have been overdue for longer than `grace`. Returns how many.
///
/// It puts their seats back on sale, oldest holds first, in as many transactions as it takes.
///
/// # Errors
///
/// Fails if the database call fails; what was done in earlier transactions stays done.
pub async fn sweep(
    session: &mut Session,
    show_id: ShowId,
    grace: TimeDelta,
) -> Result<usize, postgres::Error> {
    let mut swept = 0;
    loop {
        let ids = postgres::in_time(find_oldest(session.pool(), show_id, grace)).await?;
        let failed = fail(session, show_id, &ids).await?.len();
        swept += failed;
        // None is left, another worker was faster, or another transaction keeps the rest locked.
        if failed == 0 {
            return Ok(swept);
        }
    }
}

/// Fails the overdue ones of these bookings of a show, frees their seats, and returns their ids.
async fn fail(
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
                   SELECT id FROM bookings
                   WHERE id = ANY($2) AND show_id = $1 AND status = 'PENDING' AND expires_at <= now()
                   ORDER BY id FOR NO KEY UPDATE SKIP LOCKED),
               failed AS (
                   UPDATE bookings SET status = 'FAILED', resolved_at = now()
                   WHERE id = ANY(ARRAY(SELECT id FROM due)) AND show_id = $1
                     AND status = 'PENDING' AND expires_at <= now()
                   RETURNING bookings.id, number_of_seats, resolved_at - expires_at AS late),
               freed AS (
                   UPDATE shows SET available_seats = available_seats + failed_seats.sum, revision = revision + 1
                   FROM (SELECT sum(number_of_seats)::integer FROM failed HAVING count(*) > 0) AS failed_seats
                   WHERE id = $1
                     AND generation >= (SELECT generation FROM shows WHERE id = $1 ORDER BY generation DESC LIMIT 1)
                     AND (SELECT set_config('lock_timeout', $3, true) || set_config('synchronous_commit', 'off', true)) <> ''
                   RETURNING id)
               SELECT coalesce(array_agg(id), '{}') AS "ids!: Vec<BookingId>",
                      coalesce(array_agg(extract(epoch FROM late)::float8), '{}') AS "seconds_late!: Vec<f64>",
                      -- An error that undoes it all if the seats were not given back: a defect.
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
struct Fail<'i> {
    /// Show of all bookings, if it is the same.
    show_id: Option<ShowId>,
    ids: &'i [BookingId],
}

impl Work for Fail<'_> {
    type Output = Vec<BookingId>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Vec<BookingId>, postgres::Error> {
        let failed = fail_free(tx, self.ids, self.show_id).await?.failed;
        show::lock_and_add_available_seats(tx, &seats_by_show(&failed)).await?;
        Ok(failed.iter().map(|booking| booking.id).collect())
    }
}

/// Finds the holds of a show that have been overdue for longer than `grace`, oldest first.
///
/// It returns at most [`MAX_AT_ONCE`], and locks nothing.
async fn find_oldest(
    pool: &PgPool,
    show_id: ShowId,
    grace: TimeDelta,
) -> Result<Vec<BookingId>, postgres::Error> {
    let of_show = BTreeMap::from([(show_id, MAX_AT_ONCE)]);
    find_overdue(pool, &of_show, Since::Longer(grace)).await
}

/// Bound on the deadlines of the overdue holds to find.
#[derive(Debug, Clone, Copy)]
enum Since {
    /// Deadlines at this instant or before.
    Instant(DateTime<Utc>),
    /// Deadlines that passed longer ago than this, on the database's clock.
    Longer(TimeDelta),
}

/// Finds overdue holds, oldest first, up to a maximum for each show.
async fn find_overdue(
    database: impl PgExecutor<'_>,
    of_each: &BTreeMap<ShowId, i64>,
    since: Since,
) -> Result<Vec<BookingId>, postgres::Error> {
    let (show_ids, limits): (Vec<ShowId>, Vec<i64>) = of_each.iter().unzip();
    if show_ids.is_empty() {
        return Ok(Vec::new());
    }
    let (until, grace) = match since {
        Since::Instant(until) => (Some(until), 0.0),
        Since::Longer(grace) => (None, grace.as_seconds_f64()),
    };
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id: BookingId" FROM unnest($1::bigint[], $2::bigint[]) AS of_show (show_id, at_most)
         CROSS JOIN LATERAL (
             SELECT id, expires_at FROM bookings
             WHERE bookings.show_id = of_show.show_id AND resolved_at IS NULL
               AND expires_at <= coalesce($3, now() - make_interval(secs => $5))
               AND ($4::bigint IS NULL OR bookings.show_id = $4)
             ORDER BY expires_at LIMIT of_show.at_most) AS hold
         ORDER BY expires_at"#,
        &show_ids as &[ShowId],
        &limits,
        until,
        show::only(&show_ids) as Option<ShowId>,
        grace,
    )
    .fetch_all(database)
    .await?;
    Ok(ids)
}

/// Maximum number of overdue holds of a show that one batch of requests reclaims.
///
/// The next batch reclaims what is left.
const MAX_RECLAIMED: i64 = 10_000;

/// Fails the oldest overdue holds of locked shows that lack seats, and frees their seats.
///
/// For each show it stops when at least as many seats are free as the show lacks, or no such hold
/// is left. So a show never looks sold out just because no worker has run.
///
/// It returns a hold that another transaction has locked. That one stays as it is, since the other
/// transaction may be about to fail it and wait for the show.
///
/// # Errors
///
/// Fails if the database call fails.
pub(super) async fn reclaim(
    tx: &mut PgConnection,
    shows: &mut show::Locked,
    lacking_seats: &BTreeMap<ShowId, i64>,
    now: DateTime<Utc>,
) -> Result<Option<BookingId>, postgres::Error> {
    // Each hold has at least one seat, so as many holds as seats are enough.
    let of_each: BTreeMap<ShowId, i64> = lacking_seats
        .iter()
        .map(|(&show_id, &lacking)| (show_id, lacking.min(MAX_RECLAIMED)))
        .collect();
    let ids = find_overdue(&mut *tx, &of_each, Since::Instant(now)).await?;
    if ids.is_empty() {
        return Ok(None);
    }
    let Failed { failed, kept } = fail_free(tx, &ids, shows.only()).await?;
    shows
        .add_available_seats(tx, &seats_by_show(&failed))
        .await?;
    Ok(kept)
}

/// Outcome of failing holds.
struct Failed {
    failed: Vec<Booking>,
    /// One of the holds that another transaction has locked.
    kept: Option<BookingId>,
}

/// Locks the bookings that no other transaction has locked, and fails the overdue ones.
///
/// One statement takes all locks, so that they are taken in the order of the ids. The caller must
/// put the seats back on sale. If a show is given, all bookings are of that show.
async fn fail_free(
    tx: &mut PgConnection,
    ids: &[BookingId],
    show_id: Option<ShowId>,
) -> Result<Failed, postgres::Error> {
    let Some(mut locked) = query::lock_free(tx, ids, show_id).await? else {
        return Ok(Failed {
            failed: Vec::new(),
            kept: ids.first().copied(),
        });
    };
    let now = locked.locked_at;
    let kept = ids.iter().find(|id| !locked.bookings.contains_key(id));
    let failed = expire_each(&mut locked.bookings, now);
    let to_write: Vec<BookingId> = failed.iter().map(|booking| booking.id).collect();
    let updated = sqlx::query!(
        "UPDATE bookings SET status = 'FAILED', resolved_at = $2
         WHERE id = ANY($1) AND status = 'PENDING' AND expires_at <= $2
           AND ($3::bigint IS NULL OR show_id = $3)",
        &to_write as &[BookingId],
        now,
        show_id as Option<ShowId>,
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    postgres::expect_rows("failed bookings", to_write.len(), updated)?;
    let late = |booking: &Booking| (now - booking.expires_at).as_seconds_f64();
    count(failed.iter().map(late));
    Ok(Failed {
        failed,
        kept: kept.copied(),
    })
}

/// Expires the bookings that are due, and returns them. Pure.
fn expire_each(bookings: &mut BTreeMap<BookingId, Booking>, now: DateTime<Utc>) -> Vec<Booking> {
    bookings
        .values_mut()
        .filter_map(|booking| (booking.expire(now) == Effect::Changed).then(|| booking.clone()))
        .collect()
}

/// Finds the shows with a hold that has been overdue for longer than `grace`.
///
/// The job of such a hold should have expired it.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn find_overdue_shows(
    pool: &PgPool,
    grace: TimeDelta,
) -> Result<Vec<ShowId>, postgres::Error> {
    // Ordered by deadline, so that only overdue holds are read.
    let ids = sqlx::query_scalar!(
        r#"SELECT DISTINCT show_id AS "show_id: ShowId" FROM (
             SELECT show_id FROM bookings
             WHERE resolved_at IS NULL AND id > 0 AND expires_at <= now() - make_interval(secs => $1)
             ORDER BY expires_at) AS overdue
         ORDER BY show_id"#,
        grace.as_seconds_f64(),
    )
    .fetch_all(pool)
    .await?;
    Ok(ids)
}
