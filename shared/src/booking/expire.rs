//! Expire: fail the holds that have run out and give their seats back.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{
    Booking, Effect,
    locks::{self, Lock},
    query, seats_by_show,
};
use crate::{
    jobs::ExpireBookings,
    metrics::{BOOKINGS, EXPIRY_LAG},
    postgres::{self, Session},
    show,
};

/// Most holds that one transaction expires beside those that a job names: it bounds how long it takes.
const MAX_AT_ONCE: i64 = 1000;

/// A job that is due for longer is late.
const LATE: TimeDelta = TimeDelta::milliseconds(500);

/// What expiring came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The bookings that failed, those of other jobs too.
    pub expired: BTreeSet<i64>,
    /// When to look again: at the earliest deadline of the named bookings that are still held, or in a second if that one has
    /// passed, since somebody keeps it locked. None if there are none.
    pub next_deadline: Option<DateTime<Utc>>,
}

/// Fails those of these bookings that are overdue, and gives their seats back. Bookings that are resolved, not yet due or
/// unknown stay as they are, so a repeat does nothing.
///
/// It takes other overdue holds of the same shows as well, because it is the show's row that everybody waits for: in a big sale
/// hundreds of jobs are due in the same second, and the first ones do the work of the rest. They are those that ran out with
/// its own or after them, since the index is full of what was expired before. A job that is late takes the oldest of all:
/// there is a backlog. Where nothing that is named is overdue, nothing is locked.
///
/// # Errors
///
/// [`postgres::Error`]; what was done at other shows stays done.
pub async fn expire(
    session: &mut Session,
    job: &ExpireBookings,
) -> Result<Outcome, postgres::Error> {
    let mut expired = BTreeSet::new();
    let mut again_at = None;
    for _ in 0..ROUNDS {
        let looks = postgres::in_time(look(session.pool(), job)).await?;
        expired.extend(fail_each(session, &looks).await?);
        let Some(kept) = looks.iter().find_map(|look| look.kept(&expired)) else {
            return Ok(Outcome {
                expired,
                next_deadline: looks.iter().filter_map(|look| look.next_deadline).min(),
            });
        };
        again_at = looks.iter().filter_map(Look::again_at).min();
        // Most likely another worker has it, or a client extends it, and is done in a moment.
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

/// How often a job tries to have the holds that it names, before it leaves them for later.
const ROUNDS: u32 = 3;

/// Work to do at a show with named bookings.
struct Look {
    show_id: i64,
    /// Those of the named bookings that are overdue.
    due: Vec<i64>,
    /// Other overdue holds of the show, the oldest first; of all shows together at most about [`MAX_AT_ONCE`].
    others: Vec<i64>,
    /// Of the named bookings that are held and not overdue.
    next_deadline: Option<DateTime<Utc>>,
    /// A second from now.
    soon: DateTime<Utc>,
}

impl Look {
    /// All that is to fail, some of it twice.
    fn ids(&self) -> impl Iterator<Item = i64> {
        self.due.iter().chain(&self.others).copied()
    }

    /// One of the named bookings that was due, but is not among those that failed.
    fn kept(&self, failed: &BTreeSet<i64>) -> Option<Lock> {
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

/// Fails what is due, and returns it.
async fn fail_each(session: &mut Session, looks: &[Look]) -> Result<Vec<i64>, postgres::Error> {
    let due: Vec<&Look> = looks.iter().filter(|look| !look.due.is_empty()).collect();
    if due.len() > 1 {
        let ids: BTreeSet<i64> = due.iter().flat_map(|look| look.ids()).collect();
        let mut ids = Vec::from_iter(ids);
        let together = session.transact(&mut ids, |tx, ids| Box::pin(fail_in(tx, None, ids)));
        match together.await {
            // The other shows need not wait for whoever keeps this one.
            Err(postgres::Error::Locked(_)) => {}
            result => return result,
        }
    }
    let (mut failed, mut locked) = (Vec::new(), None);
    for look in due {
        let ids: BTreeSet<i64> = look.ids().collect();
        match fail(session, look.show_id, &Vec::from_iter(ids)).await {
            Ok(ids) => failed.extend(ids),
            Err(error @ postgres::Error::Locked(_)) => locked = Some(error),
            Err(error) => return Err(error),
        }
    }
    locked.map_or(Ok(failed), Err)
}

/// Locks nothing.
async fn look(pool: &PgPool, job: &ExpireBookings) -> Result<Vec<Look>, postgres::Error> {
    let looks = sqlx::query_as!(
        Look,
        r#"SELECT show_id, due AS "due!",
                  ARRAY(SELECT id FROM bookings AS hold
                        WHERE hold.show_id = named.show_id AND ($3::bigint IS NULL OR hold.show_id = $3)
                          AND hold.resolved_at IS NULL AND hold.expires_at <= now() AND hold.expires_at >=
                              CASE WHEN first_due > now() - make_interval(secs => $4) THEN first_due
                                   WHEN first_due IS NOT NULL THEN '-infinity' END
                        ORDER BY hold.expires_at LIMIT greatest(1, $2 / shows)) AS "others!",
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
        &job.booking_ids,
        MAX_AT_ONCE,
        job.show_id,
        LATE.as_seconds_f64(),
    )
    .fetch_all(pool)
    .await?;
    Ok(looks)
}

/// Fails the holds of a show that have been overdue for longer than `grace`, and gives their seats back, the oldest first, in as
/// many transactions as it takes. Returns how many they were.
///
/// # Errors
///
/// [`postgres::Error`]; what was done in earlier transactions stays done.
pub async fn sweep(
    session: &mut Session,
    show_id: i64,
    grace: TimeDelta,
) -> Result<usize, postgres::Error> {
    let mut swept = 0;
    loop {
        let ids = postgres::in_time(find_oldest(session.pool(), show_id, grace)).await?;
        let failed = fail(session, show_id, &ids).await?.len();
        swept += failed;
        // A worker may have been here, or somebody keeps them locked.
        if failed == 0 {
            return Ok(swept);
        }
    }
}

/// Fails those of these bookings of a show that are overdue, gives their seats back, and returns them.
async fn fail(
    session: &mut Session,
    show_id: i64,
    ids: &[i64],
) -> Result<Vec<i64>, postgres::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    if session.commits_each_statement() {
        return fail_in_a_statement(session, show_id, ids).await;
    }
    session
        .transact(&mut (show_id, ids), |tx, (show_id, ids)| {
            Box::pin(fail_in(tx, Some(*show_id), ids))
        })
        .await
}

/// [`fail`] in one statement that is a transaction by itself. So the show, which everybody waits for, is locked for a moment
/// only: not while the bookings are written, not while this process and the database talk to each other, and not while the log
/// goes to the disk. Nothing is lost with what a crash undoes: these holds have run out all the same; whoever books their seats
/// waits for his own log, and thereby for this; and the job is acknowledged later in the log than this.
///
/// The statement sees the database as it was when it began. A booking that was changed since is looked at anew when it is locked, and the
/// show's row is found where it was then or later.
async fn fail_in_a_statement(
    session: &Session,
    show_id: i64,
    ids: &[i64],
) -> Result<Vec<i64>, postgres::Error> {
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
               SELECT coalesce(array_agg(id), '{}') AS "ids!",
                      coalesce(array_agg(extract(epoch FROM late)::float8), '{}') AS "seconds_late!: Vec<f64>",
                      -- An error that undoes it all if the seats were not given back: a defect.
                      CASE WHEN count(*) > 0 THEN 1 / (SELECT count(*) FROM freed) END AS shows
               FROM failed"#,
            show_id,
            ids,
            session.lock_timeout(),
        );
        Ok(expired.fetch_one(session.pool()).await?)
    };
    let expired = postgres::in_time(expiring).await?;
    count(expired.seconds_late.into_iter());
    Ok(expired.ids)
}

/// Counts holds that failed so many seconds late. Where a COMMIT follows it may still fail: they are then counted once more.
fn count(seconds_late: impl ExactSizeIterator<Item = f64>) {
    BOOKINGS.failed.inc_by(seconds_late.len() as u64);
    seconds_late.for_each(|seconds| EXPIRY_LAG.observe(seconds));
}

/// If a show is given, all bookings are of that show.
async fn fail_in(
    tx: &mut PgConnection,
    show_id: Option<i64>,
    ids: &[i64],
) -> Result<Vec<i64>, postgres::Error> {
    let failed = fail_free(tx, ids, show_id).await?.failed;
    show::lock_and_add_available_seats(tx, &seats_by_show(&failed)).await?;
    Ok(failed.iter().map(|booking| booking.id).collect())
}

/// The holds of a show that have been overdue for longer than `grace`, the oldest first, at most [`MAX_AT_ONCE`]. Locks nothing.
async fn find_oldest(
    pool: &PgPool,
    show_id: i64,
    grace: TimeDelta,
) -> Result<Vec<i64>, postgres::Error> {
    let of_show = BTreeMap::from([(show_id, MAX_AT_ONCE)]);
    find_overdue(pool, &of_show, Since::Longer(grace)).await
}

/// Since when holds are overdue.
#[derive(Debug, Clone, Copy)]
enum Since {
    /// This instant or before.
    Instant(DateTime<Utc>),
    /// Longer than this, by the database's clock.
    Longer(TimeDelta),
}

/// The holds that are overdue, the oldest first: at most so many of each show.
async fn find_overdue(
    database: impl PgExecutor<'_>,
    of_each: &BTreeMap<i64, i64>,
    since: Since,
) -> Result<Vec<i64>, postgres::Error> {
    let (show_ids, limits): (Vec<i64>, Vec<i64>) = of_each.iter().unzip();
    if show_ids.is_empty() {
        return Ok(Vec::new());
    }
    let (until, grace) = match since {
        Since::Instant(until) => (Some(until), 0.0),
        Since::Longer(grace) => (None, grace.as_seconds_f64()),
    };
    let ids = sqlx::query_scalar!(
        "SELECT id FROM unnest($1::bigint[], $2::bigint[]) AS of_show (show_id, at_most)
         CROSS JOIN LATERAL (
             SELECT id, expires_at FROM bookings
             WHERE bookings.show_id = of_show.show_id AND resolved_at IS NULL
               AND expires_at <= coalesce($3, now() - make_interval(secs => $5))
               AND ($4::bigint IS NULL OR bookings.show_id = $4)
             ORDER BY expires_at LIMIT of_show.at_most) AS hold
         ORDER BY expires_at",
        &show_ids,
        &limits,
        until,
        show::only(&show_ids),
        grace,
    )
    .fetch_all(database)
    .await?;
    Ok(ids)
}

/// How many overdue holds of a show one batch of requests reclaims at most. What is left is reclaimed by the next one.
const MAX_RECLAIMED: i64 = 10_000;

/// Fails the oldest overdue holds of these locked shows, until at least as many seats of each are free as it lacks, or no such
/// hold is left. Gives the seats back. Returns one that somebody else has locked: it stays as it is, since whoever has it may be
/// about to fail it and wait for the show.
///
/// So a show never looks sold out just because no worker has come by.
///
/// # Errors
///
/// [`postgres::Error`].
pub(super) async fn reclaim(
    tx: &mut PgConnection,
    shows: &mut show::Locked,
    lacking_seats: &BTreeMap<i64, i64>,
    now: DateTime<Utc>,
) -> Result<Option<i64>, postgres::Error> {
    // Each hold has at least one seat, so as many holds as seats are enough.
    let of_each: BTreeMap<i64, i64> = lacking_seats
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
    /// One of those that somebody else has locked.
    kept: Option<i64>,
}

/// Locks those of these bookings that nobody else has locked, all at once, so that it happens in the order of their ids, and
/// fails those of them that are overdue. Their seats are still to be given back. If a show is given, all are of that show.
async fn fail_free(
    tx: &mut PgConnection,
    ids: &[i64],
    show_id: Option<i64>,
) -> Result<Failed, postgres::Error> {
    let mut locked = query::lock_free(tx, ids, show_id).await?;
    let now = locked.locked_at;
    let kept = ids.iter().find(|id| !locked.bookings.contains_key(id));
    let failed = expire_each(&mut locked.bookings, now);
    let to_write: Vec<i64> = failed.iter().map(|booking| booking.id).collect();
    let updated = sqlx::query!(
        "UPDATE bookings SET status = 'FAILED', resolved_at = $2
         WHERE id = ANY($1) AND status = 'PENDING' AND expires_at <= $2
           AND ($3::bigint IS NULL OR show_id = $3)",
        &to_write,
        now,
        show_id,
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

/// Expires those that are due, and returns them. Pure.
fn expire_each(bookings: &mut BTreeMap<i64, Booking>, now: DateTime<Utc>) -> Vec<Booking> {
    bookings
        .values_mut()
        .filter_map(|booking| (booking.expire(now) == Effect::Changed).then(|| booking.clone()))
        .collect()
}

/// The shows with a hold that has been overdue for longer than `grace`, although its job should have expired it.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn find_overdue_shows(
    pool: &PgPool,
    grace: TimeDelta,
) -> Result<Vec<i64>, postgres::Error> {
    // In the order of their deadlines, so that only those that are overdue are read.
    let ids = sqlx::query_scalar!(
        "SELECT DISTINCT show_id FROM (
             SELECT show_id FROM bookings
             WHERE resolved_at IS NULL AND id > 0 AND expires_at <= now() - make_interval(secs => $1)
             ORDER BY expires_at) AS overdue
         ORDER BY show_id",
        grace.as_seconds_f64(),
    )
    .fetch_all(pool)
    .await?;
    Ok(ids)
}

/// How long after their deadlines holds were failed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// Half of them sooner, in seconds.
    pub median_seconds: f64,
    /// 99 of 100 sooner, in seconds.
    pub p99_seconds: f64,
    /// None later, in seconds.
    pub longest_seconds: f64,
}

/// The lag of all holds of these shows that ever failed; none if there are none. Reads all their bookings.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn lag(pool: &PgPool, show_ids: &[i64]) -> Result<Option<Lag>, postgres::Error> {
    let row = sqlx::query!(
        "SELECT percentile_cont(0.5)  WITHIN GROUP (ORDER BY late) AS median,
                percentile_cont(0.99) WITHIN GROUP (ORDER BY late) AS p99,
                max(late) AS longest
         FROM (SELECT extract(epoch FROM resolved_at - expires_at)::float8 AS late
               FROM bookings WHERE show_id = ANY($1) AND status = 'FAILED') AS failed",
        show_ids,
    )
    .fetch_one(pool)
    .await?;
    Ok(match (row.median, row.p99, row.longest) {
        (Some(median_seconds), Some(p99_seconds), Some(longest_seconds)) => Some(Lag {
            median_seconds,
            p99_seconds,
            longest_seconds,
        }),
        _ => None,
    })
}
