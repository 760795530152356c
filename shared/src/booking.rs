//! Bookings: their rules, and the transactions that apply them.
//!
//! The [`rules`] are pure. Each of the other modules has a transaction, except [`query`], which only
//! reads, and [`locks`].

pub mod cancel;
mod change;
pub mod confirm;
pub mod expire;
pub mod extend;
pub mod locks;
pub mod query;
mod refusal;
pub mod reserve;
pub mod rules;
mod status;

pub use self::{
    change::Change,
    refusal::Refusal,
    rules::{Booking, Effect, MAX_SEATS_PER_BOOKING},
    status::{BookingStatus, UnknownStatus},
};
