//! Audit of the invariants that the database can show, with one query for each.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::AssertSqlSafe;

use crate::postgres::{Database, Error, OpenTransaction};

/// Default limit for how long a hold may be overdue: its job, and then the janitor, need a moment.
pub const DEFAULT_HOLD_LIMIT: Duration = Duration::from_mins(1);

/// Result of an audit.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// Time of the audit, on the database's clock.
    pub at: DateTime<Utc>,
    /// Number of shows audited.
    pub shows: i64,
    /// Number of bookings audited.
    pub bookings: i64,
    /// All invariants, in the order in which to look at them.
    pub invariants: Vec<Invariant>,
}

/// Invariant, and the places where it is broken.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Invariant {
    /// Description of the invariant.
    pub name: &'static str,
    /// Number of places where it is broken.
    pub broken: i64,
    /// The first places where it is broken, up to ten.
    pub examples: Vec<String>,
}

impl Audit {
    /// Returns whether no invariant is broken.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.invariants.iter().all(|found| found.broken == 0)
    }
}

/// Invariant, and a query that returns each place where it is broken.
///
/// The query can read `hold_limit.length`, for how long a hold may be overdue. A query that
/// compares ordinary tables with bookings reads each side in a CTE of its own: Citus joins them
/// only that way.
struct Check {
    name: &'static str,
    broken: &'static str,
}

/// Name of the invariant that no seat is lost and none is sold twice: the first promise.
pub const SEATS_ARE_CONSERVED: &str = "seats = available + pending + confirmed, for each show";

const CHECKS: [Check; 16] = [
    Check {
        name: SEATS_ARE_CONSERVED,
        broken: "SELECT format('show %s: %s seats, %s available, %s taken', id, seats, available_seats, taken)
                 FROM shows LEFT JOIN (
                     SELECT show_id, sum(number_of_seats) AS held FROM bookings
                     WHERE status IN ('PENDING', 'CONFIRMED') GROUP BY show_id) AS active ON show_id = id
                 CROSS JOIN LATERAL (SELECT coalesce(held, 0) AS taken) AS counted
                 WHERE seats <> available_seats + taken",
    },
    Check {
        name: "0 <= available <= seats, for each show",
        broken: "SELECT format('show %s: %s of %s seats available', id, available_seats, seats)
                 FROM shows WHERE available_seats NOT BETWEEN 0 AND seats",
    },
    Check {
        name: "each booking's show exists",
        broken: "SELECT format('booking %s: no show %s', id, show_id)
                 FROM bookings WHERE NOT EXISTS (SELECT FROM shows WHERE shows.id = show_id)",
    },
    Check {
        name: "show ids are unique",
        broken: "SELECT format('show %s: %s times', id, count(*)) FROM shows GROUP BY id HAVING count(*) > 1",
    },
    Check {
        name: "booking ids are unique",
        broken: "SELECT format('booking %s: %s times', id, count(*)) FROM bookings GROUP BY id HAVING count(*) > 1",
    },
    Check {
        name: "each booking's status agrees with its times",
        broken: "SELECT format('booking %s: %s, created %s, expires %s, resolved %s',
                               id, status, created_at, expires_at, resolved_at)
                 FROM bookings
                 WHERE (status = 'PENDING') <> (resolved_at IS NULL)
                    OR expires_at <= created_at
                    OR expires_at > extendable_until
                    OR resolved_at < created_at
                    OR status = 'CONFIRMED' AND resolved_at >= expires_at
                    OR status = 'FAILED' AND resolved_at < expires_at",
    },
    Check {
        // A limit that was lowered does not hold for what was booked before. Who booked something
        // since then had no more seats than that afterwards, and so has no more now.
        name: "no user got more seats than the show allows",
        broken: "SELECT format('show %s: %s has %s seats of %s', shows.id, counted.name, sum(number_of_seats), max_seats_per_user)
                 FROM shows JOIN bookings ON show_id = shows.id
                 CROSS JOIN LATERAL (SELECT coalesce(counted_as, user_name::text) AS name) AS counted
                 WHERE max_seats_per_user IS NOT NULL AND counts_per_user
                   AND (status = 'CONFIRMED' OR status = 'PENDING' AND expires_at > now())
                 GROUP BY shows.id, counted.name, max_seats_per_user, user_limit_since
                 HAVING sum(number_of_seats) > max_seats_per_user
                    AND max(bookings.id) FILTER (WHERE from_id IS NULL) > user_limit_since",
    },
    Check {
        name: "no booking passed on more seats than it had",
        broken: "SELECT format('booking %s: passed on %s seats of %s', giver.id, passed_on, given_up)
                 FROM bookings AS giver
                 CROSS JOIN LATERAL (SELECT coalesce(released_seats, 0)
                                            + CASE status WHEN 'CANCELLED' THEN number_of_seats ELSE 0 END AS given_up) AS given
                 JOIN (SELECT show_id, from_id AS id, sum(number_of_seats + coalesce(released_seats, 0)) AS passed_on
                       FROM bookings WHERE from_id IS NOT NULL GROUP BY show_id, from_id) AS taker
                      ON taker.show_id = giver.show_id AND taker.id = giver.id
                 WHERE passed_on > given_up",
    },
    Check {
        name: "the bookings of a cancelled show are cancelled, or a job will do it",
        broken: "WITH live AS MATERIALIZED (
                     SELECT shows.id, count(*) AS bookings FROM shows JOIN bookings ON show_id = shows.id
                     WHERE sale_status = 'CANCELLED' AND status IN ('PENDING', 'CONFIRMED') GROUP BY shows.id)
                 SELECT format('show %s: %s bookings', id, bookings) FROM live
                 WHERE NOT EXISTS (SELECT FROM apalis.jobs
                                   WHERE job_type = 'cancel-show' AND job = convert_to(format('{\"showId\":%s}', live.id), 'UTF8')
                                     AND (status IN ('Pending', 'Queued', 'Running')
                                          OR status = 'Failed' AND attempts < max_attempts))",
    },
    Check {
        name: "the show or booking of each idempotency key exists",
        broken: "WITH used AS MATERIALIZED (SELECT owner, key, show_id, booking_id FROM idempotency_keys),
                      made AS MATERIALIZED (
                          SELECT owner, key FROM used JOIN shows ON shows.id = used.show_id WHERE booking_id IS NULL
                          UNION ALL
                          SELECT owner, key FROM used JOIN bookings ON bookings.show_id = used.show_id AND bookings.id = booking_id)
                 SELECT format('key %s of %s: no show %s or no booking %s', key, owner, show_id, booking_id)
                 FROM used WHERE NOT EXISTS (SELECT 1 FROM made WHERE made.owner = used.owner AND made.key = used.key)",
    },
    Check {
        name: "each booking is counted in its batch",
        broken: "WITH counted AS (
                     SELECT show_id, batch_id AS id, false AS is_extension, min(id) AS first, max(id) AS last,
                            count(*) FILTER (WHERE status = 'PENDING' AND NOT is_extended) AS held,
                            coalesce(sum(number_of_seats) FILTER (WHERE status = 'PENDING' AND NOT is_extended), 0) AS held_seats,
                            count(*) FILTER (WHERE status = 'CONFIRMED') AS confirmed,
                            count(*) FILTER (WHERE status = 'FAILED') AS failed,
                            count(*) FILTER (WHERE status = 'CANCELLED') AS cancelled
                     FROM bookings GROUP BY show_id, batch_id
                     UNION ALL
                     SELECT show_id, id, true, id, id, held, held * number_of_seats, 0, 0, 0
                     FROM bookings CROSS JOIN LATERAL (SELECT (status = 'PENDING')::integer AS held) AS counted
                     WHERE is_extended AND status = 'PENDING')
                 SELECT format('batch %s of show %s: bookings %s to %s, %s held, %s confirmed, %s failed, %s cancelled; counted %s, %s, %s, %s',
                               id, show_id, first, last, counted.held, counted.confirmed, counted.failed, counted.cancelled,
                               batches.held, batches.confirmed, batches.failed, batches.cancelled)
                 FROM counted FULL JOIN (SELECT * FROM batches WHERE NOT is_extension OR has_held) AS batches USING (show_id, id, is_extension)
                 WHERE (first, last, counted.held, counted.held_seats, counted.confirmed, counted.failed, counted.cancelled)
                       IS DISTINCT FROM
                       (first_id, id, batches.held, batches.held_seats, batches.confirmed, batches.failed, batches.cancelled)
                    OR (batches.held > 0, batches.confirmed > 0, batches.failed > 0, batches.cancelled > 0)
                       IS DISTINCT FROM (has_held, has_confirmed, has_failed, has_cancelled)",
    },
    Check {
        name: "each hold has the deadline of its batch",
        broken: "SELECT format('booking %s of show %s: until %s, its batch until %s', bookings.id, bookings.show_id,
                               bookings.expires_at, batches.expires_at)
                 FROM bookings JOIN batches ON batches.show_id = bookings.show_id AND batches.is_extension = is_extended
                                               AND batches.id = CASE WHEN is_extended THEN bookings.id ELSE batch_id END
                 WHERE status = 'PENDING' AND bookings.expires_at <> batches.expires_at",
    },
    Check {
        name: "no two batches overlap",
        broken: "SELECT format('batch %s of show %s, from %s: the one before ends at %s', id, show_id, first_id, former_id)
                 FROM (SELECT *, lag(id) OVER (ORDER BY first_id, id) AS former_id FROM batches WHERE NOT is_extension) AS batches
                 WHERE first_id <= former_id",
    },
    Check {
        name: "no hold is overdue for longer than the limit",
        broken: "SELECT format('booking %s of show %s: since %s', id, show_id, expires_at)
                 FROM bookings, hold_limit
                 WHERE resolved_at IS NULL AND expires_at < now() - hold_limit.length",
    },
    Check {
        name: "each hold has a job, or a worker to sweep it",
        broken: "WITH held AS MATERIALIZED (SELECT id, show_id, expires_at FROM bookings WHERE resolved_at IS NULL)
                 SELECT format('booking %s of show %s: until %s', id, show_id, expires_at)
                 FROM held
                 WHERE NOT EXISTS (SELECT 1 FROM live_job WHERE booking_id = id)
                   AND NOT EXISTS (SELECT 1 FROM apalis.workers WHERE last_seen > now() - interval '1 minute')",
    },
    Check {
        name: "the bookings of each job exist",
        broken: "WITH found AS MATERIALIZED (SELECT id FROM live_job JOIN bookings ON id = booking_id)
                 SELECT format('job %s: no booking %s', job_id, booking_id)
                 FROM live_job WHERE NOT EXISTS (SELECT 1 FROM found WHERE id = booking_id)",
    },
];

/// Query for which job will expire which booking.
const LIVE_JOBS: &str = "SELECT jobs.id AS job_id, booking_id
    FROM apalis.jobs CROSS JOIN LATERAL bookings_of_payload(job) AS booking_id
    WHERE job_type = 'expire-bookings'
      AND (status IN ('Pending', 'Queued', 'Running') OR status = 'Failed' AND attempts < max_attempts)";

/// Checks all invariants in one snapshot.
///
/// It locks nothing and may run during a sale. It reads every booking, so it takes its time on a
/// big database.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn audit(database: &Database, hold_limit: Duration) -> Result<Audit, Error> {
    let mut snapshot = OpenTransaction::snapshot(database).await?;
    let tx = snapshot.connection();
    // Unlike all other statements, these read whole tables.
    sqlx::raw_sql(
        "SET LOCAL enable_seqscan = on; SET LOCAL max_parallel_workers_per_gather = 2; SET LOCAL plan_cache_mode = auto; SET LOCAL statement_timeout = 0",
    )
    .execute(&mut *tx)
    .await?;
    let (at, shows, bookings) = sqlx::query_as(
        "SELECT now(), (SELECT count(*) FROM shows), (SELECT count(*) FROM bookings)",
    )
    .fetch_one(&mut *tx)
    .await?;
    let mut invariants = Vec::new();
    for Check { name, broken } in CHECKS {
        let sql = format!(
            "WITH hold_limit AS (SELECT make_interval(secs => $1) AS length), live_job AS ({LIVE_JOBS}),
                  broken (example) AS ({broken})
             SELECT example, count(*) OVER () FROM broken LIMIT 10"
        );
        // The text consists of constants of this file.
        let rows: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(hold_limit.as_secs_f64())
            .fetch_all(&mut *tx)
            .await?;
        invariants.push(Invariant {
            name,
            broken: rows.first().map_or(0, |row| row.1),
            examples: rows.into_iter().map(|row| row.0).collect(),
        });
    }
    snapshot.roll_back().await?;
    Ok(Audit {
        at,
        shows,
        bookings,
        invariants,
    })
}
