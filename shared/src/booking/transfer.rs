//! Transfers: pass seats of a booking on to a new one, of another user.

use std::iter;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    query,
    refusal::Refusal,
    rules::Booking,
    save::{Changed, save},
    status::BookingStatus,
    taken,
    user_name::comparable,
};
use crate::{
    id::{BookingId, ShowId},
    idempotency::{self, Claim, Created},
    jobs::{self, ExpireBookings},
    metadata::Metadata,
    metrics::BOOKINGS,
    postgres::{self, Engine, Session, Work},
    show::{self, ShowStatus},
};

/// Request to pass seats on.
#[derive(Debug, Clone)]
pub struct Request {
    /// Booking that has the seats.
    pub from: BookingId,
    /// Show of that booking, if known. On [Citus](crate::postgres::citus) it must be.
    pub show_id: Option<ShowId>,
    /// Name of the user who gets the seats: 1 to 200 characters.
    pub user_name: String,
    /// Number of seats: at least 1; `None`: all.
    pub number_of_seats: Option<i32>,
    /// Text by which the client's system knows the new booking: 1 to 64 characters.
    pub reference: Option<String>,
    /// Metadata of the client's system for the new booking.
    pub metadata: Option<Metadata>,
    /// Idempotency key that makes the request safe to retry, if it has one.
    pub claim: Option<Claim>,
}

/// Passes seats of a booking on to a new one with the same status and the same deadlines, or finds the
/// booking that an earlier request with the same key made.
///
/// The show's available seats stay as they are. A booking that has passed on all of its seats is
/// cancelled.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with
/// [`postgres::Error::OutcomeUnknown`].
pub async fn transfer(
    session: &mut Session,
    request: Request,
) -> Result<Result<Created<Booking>, Refusal>, postgres::Error> {
    let engine = session.engine();
    let made = session.transact(Transfer { request, engine }).await?;
    if made.as_ref().is_ok_and(|made| !made.is_replay) {
        BOOKINGS.transferred.inc();
    }
    Ok(made)
}

struct Transfer {
    request: Request,
    engine: Engine,
}

impl Work for Transfer {
    type Output = Result<Created<Booking>, Refusal>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Self::Output, postgres::Error> {
        let Self { request, engine } = self;
        let not_found = Refusal::BookingNotFound {
            booking_id: request.from,
        };
        let locked = query::lock(tx, &[request.from], request.show_id).await?;
        let Some(before) = locked.and_then(|mut locked| locked.bookings.remove(&request.from))
        else {
            return Ok(Err(not_found));
        };
        if let Some(answer) = made_earlier(tx, request, before.show_id).await? {
            return Ok(answer);
        }
        // In the order of all locks: booking, batches, show.
        lock_batches_of(tx, &before).await?;
        let shows = show::lock(tx, &[before.show_id]).await?;
        let show = shows.inventories.get(&before.show_id).copied();
        let (Some(now), Some(show)) = (shows.locked_at, show) else {
            return Ok(Err(not_found));
        };
        let mut after = before.clone();
        let seats = match after.give_up(request.number_of_seats, now) {
            Ok(seats) => seats,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if show.sale.status == ShowStatus::Cancelled {
            return Ok(Err(Refusal::NotOnSale {
                show_id: before.show_id,
                sale: show.sale,
            }));
        }
        if let Some(max_seats_per_user) = show.max_seats_per_user
            && let Some(taken) = taken_by_other(tx, request, &before, now).await?
            && taken + i64::from(seats) > i64::from(max_seats_per_user)
        {
            return Ok(Err(Refusal::UserLimitReached {
                show_id: before.show_id,
                requested: seats,
                max_seats_per_user,
                taken,
            }));
        }
        let changed = [Changed {
            before: before.clone(),
            after,
        }];
        save(tx, &changed, now, Some(before.show_id)).await?;
        let new = Booking {
            user_name: request.user_name.clone(),
            number_of_seats: seats,
            released_seats: None,
            from: Some(before.id),
            reference: request.reference.clone(),
            metadata: request.metadata.clone(),
            is_extended: false,
            read_at: now,
            ..before
        };
        let new = insert(tx, new, show.max_seats_per_user.is_some(), now, *engine).await?;
        let claimed = request.claim.iter().map(|claim| (claim, &new));
        idempotency::record(tx, claimed).await?;
        Ok(Ok(Created::now(new.as_of(now))))
    }
}

/// Finds what an earlier request with the same key made.
async fn made_earlier(
    tx: &mut PgConnection,
    request: &Request,
    show_id: ShowId,
) -> Result<Option<Result<Created<Booking>, Refusal>>, postgres::Error> {
    let Some(claim) = &request.claim else {
        return Ok(None);
    };
    let used = idempotency::find(tx, iter::once(&claim.key)).await?;
    let Some(record) = used.get(&claim.key) else {
        return Ok(None);
    };
    let Some(id) = record
        .booking_id
        .filter(|_| record.fingerprint == claim.fingerprint)
    else {
        return Ok(Some(Err(Refusal::KeyReused)));
    };
    let found = query::find_in(tx, id, show_id).await?;
    let booking = postgres::expect_row("bookings", found)?;
    Ok(Some(Ok(Created::earlier(booking))))
}

/// Locks the batches in which a booking is counted.
async fn lock_batches_of(tx: &mut PgConnection, booking: &Booking) -> Result<(), postgres::Error> {
    sqlx::query!(
        "SELECT id FROM batches
         WHERE show_id = $1 AND (id = $2 AND NOT is_extension OR id = $3 AND is_extension)
         ORDER BY show_id, id, is_extension FOR NO KEY UPDATE",
        booking.show_id as ShowId,
        booking.batch_id as BookingId,
        booking.id as BookingId,
    )
    .fetch_all(tx)
    .await?;
    Ok(())
}

/// Returns how many seats the user has who gets the seats; `None` if this is the user who passes them
/// on, who has no more of them afterwards.
async fn taken_by_other(
    tx: &mut PgConnection,
    request: &Request,
    from: &Booking,
    now: DateTime<Utc>,
) -> Result<Option<i64>, postgres::Error> {
    if comparable(&request.user_name) == comparable(&from.user_name) {
        return Ok(None);
    }
    let user = iter::once((from.show_id, request.user_name.as_str()));
    let taken = taken::by_users(tx, user, Some(from.show_id), now).await?;
    Ok(Some(taken.into_values().sum()))
}

/// Writes the new booking and its batch, and enqueues the job that expires it if it is a hold.
///
/// Its seats were taken when those of the other booking were: `created_at` and `resolved_at` stay.
/// Lists by time find it by `clock_high`, since its id is of now.
async fn insert(
    tx: &mut PgConnection,
    mut new: Booking,
    counts_per_user: bool,
    now: DateTime<Utc>,
    engine: Engine,
) -> Result<Booking, postgres::Error> {
    let newest = match engine {
        Engine::Postgres => {
            let newest = sqlx::query_scalar!(
                r#"SELECT coalesce(clock_high, created_at) AS "at: DateTime<Utc>" FROM bookings ORDER BY id DESC LIMIT 1"#
            );
            newest.fetch_optional(&mut *tx).await?.flatten()
        }
        Engine::Citus => None,
    };
    let id = sqlx::query_scalar!(r#"SELECT nextval('bookings_id_seq') AS "id!: BookingId""#)
        .fetch_one(&mut *tx)
        .await?;
    (new.id, new.batch_id) = (id, id);
    // `SELECT`, not `VALUES`: see `postgres::citus`.
    sqlx::query!(
        "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until,
                               counts_per_user, counted_as, created_at, resolved_at, clock_high, from_id, reference, metadata)
                OVERRIDING SYSTEM VALUE
         SELECT $1::bigint, $1::bigint, $2::bigint, $3::text, $4::integer, $5::text, $6::timestamptz, $7::timestamptz,
                $8::text IS NOT NULL, $8, $9::timestamptz, $10::timestamptz, $11::timestamptz, $12::bigint, $13::text,
                $14::text::json",
        id as BookingId,
        new.show_id as ShowId,
        new.user_name,
        new.number_of_seats,
        new.status.as_str(),
        new.expires_at,
        new.extendable_until,
        counts_per_user.then(|| comparable(&new.user_name)),
        new.created_at,
        new.resolved_at,
        newest.map_or(now, |newest| newest.max(now)),
        new.from as Option<BookingId>,
        new.reference,
        new.metadata.clone() as Option<Metadata>,
    )
    .execute(&mut *tx)
    .await?;
    let is_held = new.status == BookingStatus::Pending;
    sqlx::query!(
        "INSERT INTO batches (show_id, id, first_id, expires_at, held, held_seats, confirmed, has_held, has_confirmed)
         SELECT $1::bigint, $2::bigint, $2::bigint, $3::timestamptz, $4::boolean::integer, $4::integer * $5::integer,
                (NOT $4)::integer, $4, NOT $4",
        new.show_id as ShowId,
        id as BookingId,
        new.expires_at,
        is_held,
        new.number_of_seats,
    )
    .execute(&mut *tx)
    .await?;
    if is_held {
        let job = ExpireBookings {
            show_id: Some(new.show_id),
            booking_ids: vec![id],
        };
        jobs::enqueue(tx, &job, new.expires_at, now).await?;
    }
    Ok(new)
}
