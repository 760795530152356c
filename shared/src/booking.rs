//! Bookings: their rules, and the transactions that apply them.
//!
//! The [`rules`] are pure. [`reserve`], [`confirm`], [`cancel`], [`extend`], [`transfer`] and [`expire`] each have
//! a transaction, [`query`] finds, lists and locks bookings, `save` writes changed ones, and [`locks`]
//! waits for locks that other transactions hold.

pub mod cancel;
pub mod cancel_show;
mod change;
pub mod confirm;
pub mod expire;
pub mod extend;
pub mod locks;
pub mod query;
mod refusal;
pub mod reserve;
pub mod rules;
mod save;
mod status;
mod taken;
pub mod transfer;
mod user_name;

pub use self::{
    change::{Change, PartialChange},
    refusal::Refusal,
    rules::{Booking, Effect, MAX_SEATS_PER_BOOKING},
    status::{BookingStatus, UnknownStatus},
};
