//! What the clients were told, to be held against what the server has in the end.

use shared::booking::BookingStatus;

/// Of all clients, or of one.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The bookings that were acknowledged.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// The turns that may have booked, though nobody said so: no other turn has.
    pub(crate) maybe_done: Vec<u64>,
}

impl Told {
    pub(crate) fn append(&mut self, mut other: Self) {
        self.acknowledged.append(&mut other.acknowledged);
        self.maybe_done.append(&mut other.maybe_done);
    }
}

/// A booking that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) booking_id: i64,
    /// The turn whose request it answered.
    pub(crate) turn: u64,
    pub(crate) last: Last,
}

/// What a client does with a booking.
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

/// What the client last heard of its booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// It is booked. Nothing was asked since, or what was asked was not done.
    Booked,
    /// What was asked was done.
    Done(Act),
    /// It is too late for what was asked.
    TooLate,
    /// Something was asked and may have been done.
    Unanswered(Act),
}

impl Last {
    /// Whether the booking may be in this status now.
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
