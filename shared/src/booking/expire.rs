//! Expire: fail the holds that have run out and give their seats back.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};
use tokio::sync::Mutex;

use super::{Booking, Effect, query, seats_by_show};
use crate::{
    jobs::ExpireBookings,
    metrics::{BOOKINGS, EXPIRY_LAG},
    postgres::{self, Engine, Session},
    show,
};

/// How many holds one transaction expires at most: it bounds how long their shows stay locked, which others wait for.
const MAX_AT_ONCE: usize = 250;

/// Turns of this process's jobs at the same show: each show has one of these, by its id. Whoever waited for it finds done what
/// it came for, and need not lock the show.
static TURNS: [Mutex<()>; 64] = [const { Mutex::const_new(()) }; 64];

/// What expiring came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many bookings failed.
    pub expired: usize,
    /// When to look again: at the earliest deadline of the named bookings that are still held, or in a second if that one has
    /// passed, since somebody keeps it locked. None if there are none.
    pub next_deadline: Option<DateTime<Utc>>,
}

/// A show with a hold that is overdue for longer has jobs that are late. Whichever job of that show comes next helps.
const LATE: TimeDelta = TimeDelta::milliseconds(500);

/// Fails the overdue holds of the shows of these bookings, and gives their seats back. Bookings that are resolved, not yet due or unknown stay as they are, so a repeat does nothing.
///
/// It takes all overdue holds of a show and not just those named, because it is the show's row that everybody waits
/// for: in a big sale hundreds of jobs are due in the same second, and the first ones do the work of the rest. Where
/// all named bookings are resolved and no other hold is late, nothing is locked.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn expire(
    session: &mut Session,
    job: &ExpireBookings,
) -> Result<Outcome, postgres::Error> {
    let shows = postgres::in_time(look(session.pool(), job)).await?;
    let due: Vec<i64> = shows
        .iter()
        .filter(|show| show.is_due)
        .map(|show| show.show_id)
        .collect();
    let shows_at_once = match session.engine() {
        Engine::Postgres => usize::MAX,
        Engine::Citus => 1,
    };
    let mut expired = 0;
    for show_ids in due.chunks(shows_at_once) {
        expired += expire_shows(session, show_ids).await?;
    }
    // What was due may have been extended at the last moment.
    let left = if due.is_empty() {
        shows
    } else {
        postgres::in_time(look(session.pool(), job)).await?
    };
    Ok(Outcome {
        expired,
        next_deadline: left.iter().filter_map(|show| show.next_deadline).min(),
    })
}

/// Together; where that fails because somebody keeps one of them locked, one by one, so that the others do not wait for it.
async fn expire_shows(session: &mut Session, show_ids: &[i64]) -> Result<usize, postgres::Error> {
    let overdue = |show_ids: &[i64]| Overdue {
        show_ids: show_ids.to_vec(),
        grace: TimeDelta::zero(),
    };
    match expire_overdue(session, &overdue(show_ids)).await {
        Err(postgres::Error::Locked(_)) if show_ids.len() > 1 => {}
        result => return result,
    }
    let (mut expired, mut locked) = (0, None);
    for show_id in show_ids {
        match expire_overdue(session, &overdue(&[*show_id])).await {
            Ok(count) => expired += count,
            Err(error @ postgres::Error::Locked(_)) => locked = Some(error),
            Err(error) => return Err(error),
        }
    }
    locked.map_or(Ok(expired), Err)
}

/// A show with named bookings.
struct Look {
    show_id: i64,
    /// Of the named bookings that are held; a second from now if that has passed.
    next_deadline: Option<DateTime<Utc>>,
    /// Whether it has something to expire.
    is_due: bool,
}

/// Locks nothing.
async fn look(pool: &PgPool, job: &ExpireBookings) -> Result<Vec<Look>, postgres::Error> {
    let shows = sqlx::query_as!(
        Look,
        r#"SELECT show_id,
                  CASE WHEN min(expires_at) FILTER (WHERE status = 'PENDING') <= now() THEN now() + interval '1 second'
                       ELSE min(expires_at) FILTER (WHERE status = 'PENDING') END AS next_deadline,
                  bool_or(status = 'PENDING' AND expires_at <= now())
                  OR EXISTS (SELECT FROM bookings AS hold
                             WHERE hold.show_id = named.show_id AND ($3::bigint IS NULL OR hold.show_id = $3)
                               AND hold.resolved_at IS NULL
                               AND hold.expires_at <= now() - make_interval(secs => $2)) AS "is_due!"
           FROM bookings AS named WHERE id = ANY($1) AND ($3::bigint IS NULL OR show_id = $3)
           GROUP BY show_id ORDER BY show_id"#,
        &job.booking_ids,
        LATE.as_seconds_f64(),
        job.show_id,
    )
    .fetch_all(pool)
    .await?;
    Ok(shows)
}

/// Which holds to expire.
#[derive(Debug, Clone)]
pub struct Overdue {
    /// Of these shows, ids ascending; of one on [Citus](postgres::citus).
    pub show_ids: Vec<i64>,
    /// Only those that have been overdue for longer than this.
    pub grace: TimeDelta,
}

/// Fails these holds and gives their seats back, the oldest first, in as many transactions as it takes. Returns how many
/// they were.
///
/// # Errors
///
/// [`postgres::Error`]; what was done in earlier transactions stays done.
pub async fn expire_overdue(
    session: &mut Session,
    overdue: &Overdue,
) -> Result<usize, postgres::Error> {
    let mut expired = 0;
    loop {
        // Who is ready to wait for the show does not keep its turn from others meanwhile.
        let _turn = match overdue.show_ids[..] {
            [show_id] if session.is_impatient() => Some(turn(show_id).lock().await),
            _ => None,
        };
        // Before the shows are locked, since everybody waits for these.
        let ids = postgres::in_time(find(session.pool(), overdue)).await?;
        if ids.is_empty() {
            return Ok(expired);
        }
        let count = session
            .transact(&mut (overdue, &ids), |tx, (overdue, ids)| {
                Box::pin(expire_in(tx, &overdue.show_ids, ids))
            })
            .await?;
        expired += count;
        // None of them is left when another worker was here.
        if count == 0 || ids.len() < MAX_AT_ONCE {
            return Ok(expired);
        }
    }
}

fn turn(show_id: i64) -> &'static Mutex<()> {
    &TURNS[usize::try_from(show_id.unsigned_abs()).unwrap_or_default() % TURNS.len()]
}

async fn expire_in(
    tx: &mut PgConnection,
    show_ids: &[i64],
    ids: &[i64],
) -> Result<usize, postgres::Error> {
    let mut shows = show::lock(tx, show_ids).await?;
    let Some(now) = shows.locked_at else {
        return Ok(0);
    };
    fail_overdue(tx, &mut shows, ids, now).await
}

/// The oldest of these holds, at most [`MAX_AT_ONCE`]. Locks nothing.
async fn find(pool: &PgPool, overdue: &Overdue) -> Result<Vec<i64>, postgres::Error> {
    let at_most = i64::try_from(MAX_AT_ONCE).unwrap_or(i64::MAX);
    let of_each = overdue.show_ids.iter().map(|&show_id| (show_id, at_most));
    let since = Since::Longer(overdue.grace);
    find_overdue(pool, &of_each.collect(), at_most, since).await
}

/// Since when holds are overdue.
#[derive(Debug, Clone, Copy)]
enum Since {
    /// This instant or before.
    Instant(DateTime<Utc>),
    /// Longer than this, by the database's clock.
    Longer(TimeDelta),
}

/// The holds that are overdue, the oldest first: at most so many of each show, and `at_most` in all.
async fn find_overdue(
    database: impl PgExecutor<'_>,
    of_each: &BTreeMap<i64, i64>,
    at_most: i64,
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
               AND expires_at <= coalesce($3, now() - make_interval(secs => $6))
               AND ($5::bigint IS NULL OR bookings.show_id = $5)
             ORDER BY expires_at LIMIT of_show.at_most) AS hold
         ORDER BY expires_at LIMIT $4",
        &show_ids,
        &limits,
        until,
        at_most,
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
/// hold is left. Gives the seats back.
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
) -> Result<(), postgres::Error> {
    // Each hold has at least one seat, so as many holds as seats are enough.
    let of_each: BTreeMap<i64, i64> = lacking_seats
        .iter()
        .map(|(&show_id, &lacking)| (show_id, lacking.min(MAX_RECLAIMED)))
        .collect();
    let ids = find_overdue(&mut *tx, &of_each, i64::MAX, Since::Instant(now)).await?;
    fail_overdue(tx, shows, &ids, now).await?;
    Ok(())
}

/// Fails those of the bookings of these locked shows that are overdue, gives their seats back, and returns how many they are.
/// They themselves are locked here, all at once, so that it happens in the order of their ids. One that somebody else has locked
/// stays for the next time: everybody waits for the shows meanwhile.
async fn fail_overdue(
    tx: &mut PgConnection,
    shows: &mut show::Locked,
    ids: &[i64],
    now: DateTime<Utc>,
) -> Result<usize, postgres::Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let show_id = shows.only();
    let mut bookings = query::lock_free(tx, ids, show_id).await?;
    let overdue = expire_each(&mut bookings, now);
    let ids: Vec<i64> = overdue.iter().map(|booking| booking.id).collect();
    let updated = sqlx::query!(
        "UPDATE bookings SET status = 'FAILED', resolved_at = $2
         WHERE id = ANY($1) AND status = 'PENDING' AND expires_at <= $2
           AND ($3::bigint IS NULL OR show_id = $3)",
        &ids,
        now,
        show_id,
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    postgres::expect_rows("failed bookings", ids.len(), updated)?;
    shows
        .add_available_seats(tx, &seats_by_show(&overdue))
        .await?;
    // Before the COMMIT, which may still fail: they are then counted once more.
    BOOKINGS.failed.inc_by(overdue.len() as u64);
    for booking in &overdue {
        EXPIRY_LAG.observe((now - booking.expires_at).as_seconds_f64());
    }
    Ok(overdue.len())
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
