//! Changes that people make to a show.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Cancellation, Sale, Show, ShowStatus, cancellation, find, lock};
use crate::{
    booking::{Refusal, expire},
    id::ShowId,
    metadata::Metadata,
    postgres::{self, Session, Work, expect_rows},
};

/// Change to a show.
#[derive(Debug, Clone)]
pub enum Change {
    /// Other values of its fields.
    Edit(Box<Edit>),
    /// No seats can be taken until it is resumed.
    Pause,
    /// Seats can be taken: of a draft for the first time, of a paused show again.
    Resume,
    /// No seats can be taken any more.
    Archive,
    /// The performance does not take place: a job cancels all bookings.
    Cancel,
}

/// New values of fields; none leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Display name: 1 to 200 characters.
    pub name: Option<String>,
    /// Time at which the show begins.
    pub starts_at: Option<DateTime<Utc>>,
    /// Total number of seats: 1 to [`MAX_SEATS`](super::MAX_SEATS), and no fewer than are in use.
    pub seats: Option<i32>,
    /// Duration of a new hold, in seconds: 1 to 86,400.
    pub hold_seconds: Option<i32>,
    /// Maximum total duration of a new hold, in seconds: `hold_seconds` to 86,400.
    pub max_hold_seconds: Option<i32>,
    /// Maximum number of seats of a new booking: 1 to 1,000.
    pub max_seats_per_booking: Option<i32>,
    /// Maximum number of seats of one user, for new bookings; `Some(None)`: no limit.
    pub max_seats_per_user: Option<Option<i32>>,
    /// Instant from which seats can be taken; `Some(None)`: always.
    pub sales_start: Option<Option<DateTime<Utc>>>,
    /// Instant from which seats can no longer be taken; `Some(None)`: never.
    pub sales_end: Option<Option<DateTime<Utc>>>,
    /// Text by which the client's system knows the show; `Some(None)`: none.
    pub reference: Option<Option<String>>,
    /// Metadata of the client's system; `Some(None)`: none.
    pub metadata: Option<Option<Metadata>>,
}

/// Request to change a show.
#[derive(Debug, Clone)]
pub struct Request {
    /// Show to change.
    pub show_id: ShowId,
    /// Change to make.
    pub change: Change,
    /// Versions that it applies to, of which only the edition counts; `None`: any.
    pub only_if: Option<Vec<String>>,
}

/// Changes a show, and returns it. Seats that it loses are not in use, and those that it gains are
/// available.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with
/// [`postgres::Error::OutcomeUnknown`].
pub async fn change(
    session: &mut Session,
    request: Request,
) -> Result<Result<Show, Refusal>, postgres::Error> {
    session.transact(request).await
}

impl Work for Request {
    type Output = Result<Show, Refusal>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Self::Output, postgres::Error> {
        let show_id = self.show_id;
        let mut shows = lock(tx, &[show_id]).await?;
        let found = find(&mut *tx, show_id).await?;
        let (Some(now), Some(before)) = (shows.locked_at, found) else {
            return Ok(Err(Refusal::ShowNotFound { show_id }));
        };
        if let Some(versions) = &self.only_if
            && !versions.iter().any(|version| before.is_edition_of(version))
        {
            return Ok(Err(Refusal::ShowChanged { show_id }));
        }
        let after = match self.change.apply(&before, now) {
            Ok(after) => after,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if matches!(self.change, Change::Cancel) && before.available_seats < before.seats {
            cancellation::enqueue(tx, show_id, now).await?;
        }
        if after == before {
            return Ok(Ok(before));
        }
        let fewer = before.seats - after.seats;
        let lacking = |shows: &super::Locked| {
            let show = shows.inventories.get(&show_id);
            show.map_or(0, |show| fewer - show.available_seats)
        };
        if lacking(&shows) > 0 {
            let wanted = BTreeMap::from([(show_id, i64::from(lacking(&shows)))]);
            expire::reclaim(tx, &mut shows, &wanted, now).await?;
        }
        if lacking(&shows) > 0 {
            return Ok(Err(Refusal::SeatsInUse {
                show_id,
                requested: after.seats,
                in_use: after.seats + lacking(&shows),
            }));
        }
        write(tx, &after, shows.generations(&[show_id])[0]).await?;
        let written = find(tx, show_id).await?;
        Ok(Ok(postgres::expect_row("shows", written)?))
    }
}

impl Change {
    /// Returns the show after this change, or why it is refused. Pure.
    fn apply(&self, before: &Show, now: DateTime<Utc>) -> Result<Show, Refusal> {
        let mut show = before.clone();
        let status = before.sale.status;
        match (self, status) {
            (Self::Edit(edit), _) => return edit.apply(show),
            (Self::Pause, ShowStatus::OnSale | ShowStatus::Paused) => {
                show.sale.status = ShowStatus::Paused;
            }
            (Self::Resume, ShowStatus::Draft | ShowStatus::OnSale | ShowStatus::Paused) => {
                show.sale.status = ShowStatus::OnSale;
            }
            (Self::Cancel, ShowStatus::Cancelled) => {}
            (Self::Cancel, _) => {
                let seats_in_use = before.seats - before.available_seats;
                show.sale.status = ShowStatus::Cancelled;
                show.cancellation = Some(Cancellation {
                    cancelled_at: now,
                    seats: seats_in_use,
                    remaining_seats: seats_in_use,
                });
            }
            (
                Self::Archive,
                ShowStatus::Draft | ShowStatus::OnSale | ShowStatus::Paused | ShowStatus::Archived,
            ) => show.sale.status = ShowStatus::Archived,
            (Self::Pause | Self::Resume | Self::Archive, _) => {
                return Err(Refusal::WrongShowStatus {
                    show_id: before.id,
                    current_status: status,
                });
            }
        }
        Ok(show)
    }
}

impl Edit {
    fn apply(&self, mut show: Show) -> Result<Show, Refusal> {
        fn set<T: Clone>(field: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                field.clone_from(value);
            }
        }
        set(&mut show.name, self.name.as_ref());
        set(&mut show.starts_at, self.starts_at.as_ref());
        set(&mut show.seats, self.seats.as_ref());
        set(&mut show.hold_seconds, self.hold_seconds.as_ref());
        set(&mut show.max_hold_seconds, self.max_hold_seconds.as_ref());
        set(
            &mut show.max_seats_per_booking,
            self.max_seats_per_booking.as_ref(),
        );
        set(
            &mut show.max_seats_per_user,
            self.max_seats_per_user.as_ref(),
        );
        set(&mut show.reference, self.reference.as_ref());
        set(&mut show.metadata, self.metadata.as_ref());
        set(&mut show.sale.start, self.sales_start.as_ref());
        set(&mut show.sale.end, self.sales_end.as_ref());
        if show.max_hold_seconds < show.hold_seconds {
            return Err(Refusal::InconsistentShow {
                field: "maxHoldSeconds",
                detail: format!("lower than holdSeconds, which is {}", show.hold_seconds),
            });
        }
        let Sale { start, end, .. } = show.sale;
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            return Err(Refusal::InconsistentShow {
                field: "salesEnd",
                detail: "not after salesStart".to_owned(),
            });
        }
        Ok(show)
    }
}

/// Writes the fields that people can change, and counts the seats that it gains or loses as
/// available.
async fn write(tx: &mut PgConnection, show: &Show, generation: i64) -> Result<(), postgres::Error> {
    let written = sqlx::query!(
        "UPDATE shows SET name = $3::text, starts_at = $4::timestamptz, seats = $5::integer,
                          available_seats = available_seats + $5::integer - seats,
                          hold_seconds = $6::integer, max_hold_seconds = $7::integer,
                          max_seats_per_booking = $8::integer, sales_start = $9::timestamptz,
                          sales_end = $10::timestamptz, sale_status = $11::text,
                          user_limit_since = CASE WHEN max_seats_per_user IS DISTINCT FROM $12::integer
                              THEN (SELECT coalesce(max(id), 0) FROM batches WHERE show_id = $1) ELSE user_limit_since END,
                          max_seats_per_user = $12::integer, reference = $13::text, metadata = $14::text::json,
                          cancelled_at = $15::timestamptz, seats_when_cancelled = $16::integer,
                          revision = revision + 1, edition = edition + 1
         WHERE id = $1 AND generation = $2",
        show.id as ShowId,
        generation,
        show.name,
        show.starts_at,
        show.seats,
        show.hold_seconds,
        show.max_hold_seconds,
        show.max_seats_per_booking,
        show.sale.start,
        show.sale.end,
        show.sale.status.as_str(),
        show.max_seats_per_user,
        show.reference,
        show.metadata.clone() as Option<Metadata>,
        show.cancellation.map(|cancellation| cancellation.cancelled_at),
        show.cancellation.map(|cancellation| cancellation.seats),
    )
    .execute(tx)
    .await?;
    expect_rows("shows", 1, written.rows_affected())
}
