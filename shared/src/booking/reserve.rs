//! Reserve: take seats of a show for a hold.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Booking, BookingStatus, Refusal, expire, query, seats_by_show};
use crate::{
    batch::Batch,
    idempotency::{self, Claim, Key, Made},
    jobs::{self, ExpireBookings},
    metrics::BOOKINGS,
    postgres::{self, Session},
    show::{self, Hold, Inventory},
    telemetry::traces,
};

/// For `pgbench`: what a batch of 100 requests for one show asks of the database.
pub const PGBENCH_BATCH_OF_100: &str = include_str!("reserve.pgbench.sql");

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of which show.
    pub show_id: i64,
    /// Who books: 1 to 200 characters.
    pub user_name: String,
    /// How many seats: 1 to [`MAX_SEATS_PER_BOOKING`](super::MAX_SEATS_PER_BOOKING).
    pub number_of_seats: i32,
    /// What makes it repeatable.
    pub claim: Option<Claim>,
}

/// A pending booking, or one that an earlier request with the same key made; or why there is none.
pub type Answer = Result<Made<Booking>, Refusal>;

/// Decides the requests in their order, in one transaction. Each gets its own answer, in the same order. Requests for
/// the same shows join while the shows' locks are waited for.
///
/// # Errors
///
/// [`postgres::Error`], and none of the requests was done, but for [`postgres::Error::OutcomeUnknown`].
pub async fn reserve(
    session: &mut Session,
    batch: &mut Batch<'_, Request>,
) -> Result<Vec<Answer>, postgres::Error> {
    let answers = session
        .transact(batch, |tx, batch| Box::pin(reserve_in(tx, batch)))
        .await?;
    let is_new = |answer: &&Answer| answer.as_ref().is_ok_and(|made| !made.is_replay);
    BOOKINGS
        .reserved
        .inc_by(answers.iter().filter(is_new).count() as u64);
    Ok(answers)
}

/// [`reserve`], inside the caller's transaction.
///
/// # Errors
///
/// [`postgres::Error`]; the transaction must be rolled back.
pub async fn reserve_in(
    tx: &mut PgConnection,
    batch: &mut Batch<'_, Request>,
) -> Result<Vec<Answer>, postgres::Error> {
    let show_ids: BTreeSet<i64> = batch.members().iter().map(|r| r.show_id).collect();
    let locked = show::lock(tx, &show_ids.iter().copied().collect::<Vec<_>>()).await?;
    batch.admit(|request| show_ids.contains(&request.show_id));
    let requests = batch.members();

    // Where there is no show there is nothing to take, at whatever time.
    let now = locked.locked_at.unwrap_or_default();
    let mut ledger = Ledger {
        inventories: locked.inventories,
        earlier: made_earlier(tx, requests, now).await?,
        ..Ledger::default()
    };
    let lacking = ledger.lacking_seats(requests);
    for (show_id, freed) in expire::reclaim(tx, &lacking, now).await? {
        if let Some(show) = ledger.inventories.get_mut(&show_id) {
            show.available_seats += freed;
        }
    }
    ledger.taken = taken_by_users(tx, &ledger.inventories, requests, now).await?;

    let decisions = ledger.decide(requests, now);
    write(tx, requests, decisions, now).await
}

/// What there is to give, and what was given, while the shows are locked.
#[derive(Debug, Default)]
struct Ledger {
    /// The shows that exist, by id.
    inventories: BTreeMap<i64, Inventory>,
    /// What earlier requests with the same keys made.
    earlier: BTreeMap<Key, Earlier>,
    /// Seats that users have, of shows that limit them.
    taken: BTreeMap<(i64, String), i64>,
}

#[derive(Debug, Clone)]
struct Earlier {
    fingerprint: Vec<u8>,
    made: Decision,
}

/// What a request gets.
#[derive(Debug, Clone, PartialEq)]
enum Decision {
    /// A new booking.
    Hold(Hold),
    /// The booking of an earlier request of this batch, by its position.
    SameAs(usize),
    /// The booking of an earlier request.
    Made(Box<Booking>),
}

impl Ledger {
    /// The seats that the shows have less than is asked for.
    fn lacking_seats(&self, requests: &[Request]) -> BTreeMap<i64, i64> {
        let mut lacking: BTreeMap<i64, i64> = self
            .inventories
            .iter()
            .map(|(show_id, show)| (*show_id, -i64::from(show.available_seats)))
            .collect();
        for request in requests {
            if let Some(lacking) = lacking.get_mut(&request.show_id) {
                *lacking += i64::from(request.number_of_seats);
            }
        }
        lacking.retain(|_, lacking| *lacking > 0);
        lacking
    }

    /// Who gets seats, first come first served, and until when. Pure.
    fn decide(
        &mut self,
        requests: &[Request],
        now: DateTime<Utc>,
    ) -> Vec<Result<Decision, Refusal>> {
        requests
            .iter()
            .enumerate()
            .map(|(position, request)| self.decide_one(position, request, now))
            .collect()
    }

    fn decide_one(
        &mut self,
        position: usize,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        if let Some(claim) = &request.claim
            && let Some(earlier) = self.earlier.get(&claim.key)
        {
            if earlier.fingerprint != claim.fingerprint {
                return Err(Refusal::KeyReused);
            }
            return Ok(earlier.made.clone());
        }
        let show_id = request.show_id;
        let show = self
            .inventories
            .get_mut(&show_id)
            .ok_or(Refusal::ShowNotFound { show_id })?;
        let hold = if show.max_seats_per_user.is_some() {
            let user = (show_id, request.user_name.clone());
            let taken = self.taken.entry(user).or_default();
            let hold = show.take(request.number_of_seats, *taken, now)?;
            *taken += i64::from(request.number_of_seats);
            hold
        } else {
            show.take(request.number_of_seats, 0, now)?
        };
        if let Some(Claim { key, fingerprint }) = request.claim.clone() {
            let made = Decision::SameAs(position);
            self.earlier.insert(key, Earlier { fingerprint, made });
        }
        Ok(Decision::Hold(hold))
    }
}

/// What earlier requests with the keys of these ones made, as it is now. It is read while the shows are locked: whoever
/// uses the same key for the same show has committed or has not begun.
async fn made_earlier(
    tx: &mut PgConnection,
    requests: &[Request],
    now: DateTime<Utc>,
) -> Result<BTreeMap<Key, Earlier>, postgres::Error> {
    let keys = requests.iter().filter_map(|r| Some(&r.claim.as_ref()?.key));
    let records = idempotency::find(tx, keys).await?;
    let ids: Vec<i64> = records.values().filter_map(|r| r.booking_id).collect();
    let mut bookings = query::find_all(tx, &ids).await?;
    Ok(records
        .into_iter()
        .map(|(key, record)| {
            let booking = record.booking_id.and_then(|id| bookings.remove(&id));
            let earlier = match booking {
                Some(booking) => Earlier {
                    fingerprint: record.fingerprint,
                    made: Decision::Made(Box::new(booking.as_of(now))),
                },
                // It made a show, which no request for a booking can repeat.
                None => Earlier {
                    fingerprint: Vec::new(),
                    made: Decision::SameAs(0),
                },
            };
            (key, earlier)
        })
        .collect())
}

/// The seats that the users of these requests have, held or confirmed, of the shows that limit them.
async fn taken_by_users(
    tx: &mut PgConnection,
    inventories: &BTreeMap<i64, Inventory>,
    requests: &[Request],
    now: DateTime<Utc>,
) -> Result<BTreeMap<(i64, String), i64>, postgres::Error> {
    let is_limited = |show_id| {
        inventories
            .get(&show_id)
            .is_some_and(|show| show.max_seats_per_user.is_some())
    };
    let users: BTreeSet<(i64, &str)> = requests
        .iter()
        .filter(|request| is_limited(request.show_id))
        .map(|request| (request.show_id, request.user_name.as_str()))
        .collect();
    if users.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (show_ids, names): (Vec<i64>, Vec<String>) = users
        .into_iter()
        .map(|(show_id, name)| (show_id, name.to_owned()))
        .unzip();
    let rows = sqlx::query!(
        r#"SELECT show_id AS "show_id!", user_name AS "user_name!", sum(number_of_seats) AS "seats!"
           FROM unnest($1::bigint[], $2::text[]) AS wanted (show_id, user_name)
           JOIN bookings USING (show_id, user_name)
           WHERE counts_per_user AND status IN ('PENDING', 'CONFIRMED')
             AND (status = 'CONFIRMED' OR expires_at > $3)
           GROUP BY show_id, user_name"#,
        &show_ids,
        &names,
        now,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.show_id, row.user_name), row.seats))
        .collect())
}

/// Writes a pending booking for each request that got a hold, takes its seats from the show, remembers its key, and
/// enqueues the one job that will expire them all: all of it is there or nothing. The job is due at the earliest of
/// their deadlines; the worker puts it back for later ones.
async fn write(
    tx: &mut PgConnection,
    requests: &[Request],
    decisions: Vec<Result<Decision, Refusal>>,
    now: DateTime<Utc>,
) -> Result<Vec<Answer>, postgres::Error> {
    let mut new = New::default();
    for (request, decision) in requests.iter().zip(&decisions) {
        if let Ok(Decision::Hold(hold)) = decision {
            new.push(request, *hold, now);
        }
    }
    new.insert(tx, now).await?;
    let mut new = new.bookings.into_iter();
    let mut answers: Vec<Answer> = Vec::with_capacity(requests.len());
    for decision in decisions {
        let answer = match decision {
            Ok(Decision::Hold(_)) => new
                .next()
                .map(|booking| Made::now(booking.as_of(now)))
                .ok_or(sqlx::Error::RowNotFound)
                .map(Ok)?,
            Ok(Decision::Made(booking)) => Ok(Made::earlier(*booking)),
            Ok(Decision::SameAs(position)) => answers[position]
                .clone()
                .map(|made| Made::earlier(made.thing)),
            Err(refusal) => Err(refusal),
        };
        answers.push(answer);
    }
    Ok(answers)
}

/// What is to be written.
#[derive(Default)]
struct New<'r> {
    bookings: Vec<Booking>,
    /// Whether the show of each of them limits the seats of a user.
    counts_per_user: Vec<bool>,
    /// Which of the bookings were asked for with a key, by their positions.
    claims: Vec<(usize, &'r Claim)>,
}

impl<'r> New<'r> {
    fn push(&mut self, request: &'r Request, hold: Hold, now: DateTime<Utc>) {
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

    /// Writes them, and gives them their ids.
    async fn insert(
        &mut self,
        tx: &mut PgConnection,
        now: DateTime<Utc>,
    ) -> Result<(), postgres::Error> {
        let new = &self.bookings;
        let Some(first_deadline) = new.iter().map(|booking| booking.expires_at).min() else {
            return Ok(());
        };
        let (shows, seats): (Vec<i64>, Vec<i32>) = seats_by_show(new).into_iter().unzip();
        // One statement for all that each batch writes, since each would be a round trip while the shows are locked. So the job's row
        // is ours, as apalis would write it. As in `show::add_available_seats`, a counter is never clamped.
        let rows = sqlx::query!(
            r#"WITH counted AS (
                   UPDATE shows SET available_seats = available_seats - taken.seats
                   FROM unnest($8::bigint[], $9::integer[]) AS taken (show_id, seats)
                   WHERE id = taken.show_id AND available_seats >= taken.seats
                   RETURNING id),
               booked AS (
                   INSERT INTO bookings (show_id, user_name, number_of_seats, status, expires_at, extendable_until,
                                         counts_per_user, created_at)
                   SELECT show_id, user_name, number_of_seats, 'PENDING', expires_at, extendable_until,
                          counts_per_user, $7
                   FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::timestamptz[], $5::timestamptz[],
                               $6::boolean[])
                        WITH ORDINALITY AS new (show_id, user_name, number_of_seats, expires_at, extendable_until,
                                                counts_per_user, position)
                   ORDER BY position
                   RETURNING id),
               enqueued AS (
                   INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at, metadata)
                   SELECT $10, $11, convert_to(json_build_object('bookingIds', json_agg(id ORDER BY id))::text, 'UTF8'),
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
            first_deadline,
            traces::traceparent(),
        )
        .fetch_all(&mut *tx)
        .await?;
        postgres::expect_rows("new bookings", new.len(), rows.len() as u64)?;
        let counted = rows
            .first()
            .map_or(0, |row| row.shows_counted.unsigned_abs());
        postgres::expect_rows("seat counters of shows", shows.len(), counted)?;
        // They were inserted in this order, so that their ids ascend in it.
        for (booking, row) in self.bookings.iter_mut().zip(rows) {
            booking.id = row.id;
        }
        let claimed = self
            .claims
            .iter()
            .map(|&(position, claim)| (claim, &self.bookings[position]));
        idempotency::record(tx, claimed).await
    }
}

#[cfg(test)]
mod tests;
