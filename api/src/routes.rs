//! One function a route: decode, one call of [`shared`], answer.

pub(crate) mod bookings;
pub(crate) mod health;
pub(crate) mod shows;
