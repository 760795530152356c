//! What the jobs do: one file for each kind.

pub mod expire_bookings;
