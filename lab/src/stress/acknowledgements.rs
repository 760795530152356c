//! The acknowledgements that clients received, to be compared with the server's final state.

use shared::booking::BookingStatus;

/// Acknowledgements of one client, or of all clients together.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    /// Bookings that the server acknowledged.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// Turns whose booking has an unknown outcome.
    ///
    /// A turn that is neither here nor acknowledged must not have booked.
    pub(crate) maybe_done: Vec<u64>,
}

impl Acknowledgements {
    pub(crate) fn append(&mut self, mut other: Self) {
        self.acknowledged.append(&mut other.acknowledged);
        self.maybe_done.append(&mut other.maybe_done);
    }
}

/// A booking that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) booking_id: i64,
    /// The turn that booked it.
    pub(crate) turn: u64,
    pub(crate) last: Last,
}

/// A change that a client requests for its booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Confirm,
    Cancel,
}

impl Act {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Cancel => "cancel",
        }
    }
}

/// Last known state of a booking, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// Booked. No change was requested since, or the requested change was certainly not made.
    Booked,
    /// The requested change was made.
    Done(Act),
    /// The requested change came too late.
    TooLate,
    /// A change was requested, and its outcome is unknown.
    Unanswered(Act),
}

impl Last {
    /// Returns whether the booking may have this status now.
    pub(crate) fn allows(self, status: BookingStatus) -> bool {
        use BookingStatus as S;
        match (self, status) {
            (Self::Booked | Self::Unanswered(_), S::Pending | S::Failed)
            | (Self::Done(Act::Confirm) | Self::Unanswered(Act::Confirm), S::Confirmed)
            | (Self::Done(Act::Cancel) | Self::Unanswered(Act::Cancel), S::Cancelled)
            | (Self::TooLate, S::Failed) => true,
            (
                Self::Booked | Self::Done(_) | Self::TooLate | Self::Unanswered(_),
                S::Pending | S::Confirmed | S::Failed | S::Cancelled,
            ) => false,
        }
    }
}
