//! Reserve: take seats of a show for a hold.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Booking, BookingStatus, Refusal, expire, seats_by_show};
use crate::{
    batch::Batch,
    jobs::{self, ExpireBookings},
    postgres::{self, Session},
    show::{self, Inventory},
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
}

/// Decides the requests in their order, in one transaction. Each gets its own answer, in the same order: a
/// pending booking, or why there is none. Requests for the same shows join while the shows' locks are waited for.
///
/// # Errors
///
/// [`postgres::Error`], and none of the requests was done, but for [`postgres::Error::OutcomeUnknown`].
pub async fn reserve(
    session: &mut Session,
    batch: &mut Batch<'_, Request>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    session
        .transact(batch, |tx, batch| Box::pin(reserve_in(tx, batch)))
        .await
}

/// [`reserve`], inside the caller's transaction.
///
/// # Errors
///
/// [`postgres::Error`]; the transaction must be rolled back.
pub async fn reserve_in(
    tx: &mut PgConnection,
    batch: &mut Batch<'_, Request>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    let show_ids: BTreeSet<i64> = batch.members().iter().map(|r| r.show_id).collect();
    let locked = show::lock(tx, &show_ids.iter().copied().collect::<Vec<_>>()).await?;
    let Some(now) = locked.locked_at else {
        return Ok(batch.members().iter().map(show_not_found).collect());
    };
    let mut inventories = locked.inventories;
    batch.admit(|request| show_ids.contains(&request.show_id));
    let requests = batch.members();
    let demand = demand(requests);

    let lacking = inventories
        .iter()
        .map(|(show_id, show)| (*show_id, demand[show_id] - i64::from(show.available_seats)))
        .filter(|(_, lacking)| *lacking > 0)
        .collect();
    for (show_id, freed) in expire::reclaim(tx, &lacking, now).await? {
        if let Some(show) = inventories.get_mut(&show_id) {
            show.available_seats += freed;
        }
    }

    let decisions = decide(&mut inventories, requests, now);
    insert(tx, requests, decisions, now).await
}

fn show_not_found(request: &Request) -> Result<Booking, Refusal> {
    Err(Refusal::ShowNotFound {
        show_id: request.show_id,
    })
}

/// The seats requested of each show.
fn demand(requests: &[Request]) -> BTreeMap<i64, i64> {
    let mut demand = BTreeMap::new();
    for request in requests {
        *demand.entry(request.show_id).or_default() += i64::from(request.number_of_seats);
    }
    demand
}

/// Who gets seats, first come first served, and until when. Pure.
fn decide(
    inventories: &mut BTreeMap<i64, Inventory>,
    requests: &[Request],
    now: DateTime<Utc>,
) -> Vec<Result<DateTime<Utc>, Refusal>> {
    requests
        .iter()
        .map(|request| {
            inventories
                .get_mut(&request.show_id)
                .ok_or(Refusal::ShowNotFound {
                    show_id: request.show_id,
                })?
                .take(request.number_of_seats, now)
        })
        .collect()
}

/// Writes a pending booking for each request that got a deadline, takes its seats from the show, and enqueues the one
/// job that will expire them all: all of it is there or nothing. The job is due at the earliest of their deadlines; the
/// worker puts it back for later ones.
async fn insert(
    tx: &mut PgConnection,
    requests: &[Request],
    deadlines: Vec<Result<DateTime<Utc>, Refusal>>,
    now: DateTime<Utc>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    let mut answers: Vec<Result<Booking, Refusal>> = requests
        .iter()
        .zip(deadlines)
        .map(|(request, deadline)| {
            Ok(Booking {
                id: 0,
                show_id: request.show_id,
                user_name: request.user_name.clone(),
                number_of_seats: request.number_of_seats,
                status: BookingStatus::Pending,
                expires_at: deadline?,
                created_at: now,
                resolved_at: None,
            })
        })
        .collect();
    let mut new: Vec<&mut Booking> = answers.iter_mut().flatten().collect();
    let Some(first_deadline) = new.iter().map(|booking| booking.expires_at).min() else {
        return Ok(answers);
    };
    let taken = seats_by_show(new.iter().map(|booking| &**booking));
    let (shows, seats): (Vec<i64>, Vec<i32>) = taken.into_iter().unzip();
    // One statement for everything, since each would be a round trip while the shows are locked. So the job's row is
    // ours, as apalis would write it. As in `show::add_available_seats`, a counter is never clamped.
    let rows = sqlx::query!(
        r#"WITH counted AS (
               UPDATE shows SET available_seats = available_seats - taken.seats
               FROM unnest($6::bigint[], $7::integer[]) AS taken (show_id, seats)
               WHERE id = taken.show_id AND available_seats >= taken.seats
               RETURNING id),
           booked AS (
               INSERT INTO bookings (show_id, user_name, number_of_seats, status, expires_at, created_at)
               SELECT show_id, user_name, number_of_seats, 'PENDING', expires_at, $5
               FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::timestamptz[])
                    WITH ORDINALITY AS new (show_id, user_name, number_of_seats, expires_at, position)
               ORDER BY position
               RETURNING id),
           enqueued AS (
               INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at)
               SELECT $8, $9, convert_to(json_build_object('bookingIds', json_agg(id ORDER BY id))::text, 'UTF8'),
                      $10, $11
               FROM booked)
           SELECT id, (SELECT count(*) FROM counted) AS "shows_counted!" FROM booked ORDER BY id"#,
        &new.iter().map(|b| b.show_id).collect::<Vec<_>>(),
        &new.iter().map(|b| b.user_name.clone()).collect::<Vec<_>>(),
        &new.iter().map(|b| b.number_of_seats).collect::<Vec<_>>(),
        &new.iter().map(|b| b.expires_at).collect::<Vec<_>>(),
        now,
        &shows,
        &seats,
        jobs::new_id(),
        ExpireBookings::QUEUE,
        ExpireBookings::MAX_ATTEMPTS,
        first_deadline,
    )
    .fetch_all(tx)
    .await?;
    postgres::expect_rows("new bookings", new.len(), rows.len() as u64)?;
    let counted = rows
        .first()
        .map_or(0, |row| row.shows_counted.unsigned_abs());
    postgres::expect_rows("seat counters of shows", shows.len(), counted)?;
    // They were inserted in this order, so that their ids ascend in it.
    for (booking, row) in new.iter_mut().zip(rows) {
        booking.id = row.id;
    }
    Ok(answers)
}

#[cfg(test)]
mod tests;
