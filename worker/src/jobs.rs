//! Jobs of the worker: one file for each kind.

pub mod expire_bookings;
