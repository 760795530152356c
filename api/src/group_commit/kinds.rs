//! Kinds of requests that share transactions.

use shared::{
    batch::Batch,
    booking::{
        Booking, PartialChange, Refusal, cancel, confirm, extend,
        locks::{HeldLocks, held_locks, held_show_locks},
        query, reserve,
    },
    id::{BookingId, ShowId},
    postgres::{Error, Session},
};

use super::kind::Kind;

type Answer = Result<Booking, Refusal>;

/// Reserve seats.
pub(crate) struct Reserve;

impl Kind for Reserve {
    type Request = reserve::Request;
    type Answer = reserve::Answer;
    const NAME: &'static str = "reserve";

    async fn run(
        session: &mut Session,
        batch: &mut Batch<'_, reserve::Request>,
    ) -> Result<Vec<reserve::Answer>, Error> {
        reserve::reserve(session, batch).await
    }

    async fn find_held_locks(
        session: &mut Session,
        requests: &[reserve::Request],
    ) -> Result<HeldLocks, Error> {
        let show_ids: Vec<ShowId> = requests.iter().map(|request| request.show_id).collect();
        held_show_locks(session, &show_ids).await
    }
}

/// Confirm a hold.
pub(crate) struct Confirm;

impl Kind for Confirm {
    type Request = PartialChange;
    type Answer = Answer;
    const NAME: &'static str = "confirm";

    async fn run(
        session: &mut Session,
        batch: &mut Batch<'_, PartialChange>,
    ) -> Result<Vec<Answer>, Error> {
        confirm::confirm(session, batch).await
    }

    async fn find_held_locks(
        session: &mut Session,
        requests: &[PartialChange],
    ) -> Result<HeldLocks, Error> {
        held_locks(session, requests, |request| {
            request.number_of_seats.is_some()
        })
        .await
    }
}

/// Cancel a booking.
pub(crate) struct Cancel;

impl Kind for Cancel {
    type Request = PartialChange;
    type Answer = Answer;
    const NAME: &'static str = "cancel";

    async fn run(
        session: &mut Session,
        batch: &mut Batch<'_, PartialChange>,
    ) -> Result<Vec<Answer>, Error> {
        cancel::cancel(session, batch).await
    }

    async fn find_held_locks(
        session: &mut Session,
        requests: &[PartialChange],
    ) -> Result<HeldLocks, Error> {
        held_locks(session, requests, |_| true).await
    }
}

/// Extend a hold.
pub(crate) struct Extend;

impl Kind for Extend {
    type Request = extend::Request;
    type Answer = Answer;
    const NAME: &'static str = "extend";

    async fn run(
        session: &mut Session,
        batch: &mut Batch<'_, extend::Request>,
    ) -> Result<Vec<Answer>, Error> {
        extend::extend(session, batch).await
    }

    async fn find_held_locks(
        session: &mut Session,
        requests: &[extend::Request],
    ) -> Result<HeldLocks, Error> {
        held_locks(session, requests, |_| false).await
    }
}

/// Find the show of a booking.
pub(crate) struct Locate;

impl Kind for Locate {
    type Request = BookingId;
    type Answer = Option<ShowId>;
    const NAME: &'static str = "locate";

    async fn run(
        session: &mut Session,
        batch: &mut Batch<'_, BookingId>,
    ) -> Result<Vec<Option<ShowId>>, Error> {
        query::locate(session, batch.members()).await
    }

    /// It takes no locks, so none can be missing.
    async fn find_held_locks(_: &mut Session, bookings: &[BookingId]) -> Result<HeldLocks, Error> {
        Ok(vec![None; bookings.len()])
    }
}
