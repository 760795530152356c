//! Jobs of the worker: one file for each kind.

pub mod cancel_show;
pub mod expire_bookings;
