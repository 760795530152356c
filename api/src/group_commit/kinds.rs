//! Kinds of requests that share transactions.

use std::future::ready;

use futures_util::FutureExt;
use shared::booking::{
    Booking, Change, Refusal, cancel, confirm, extend,
    locks::{missing_to_cancel, missing_to_change, missing_to_reserve},
    query, reserve,
};

use super::Kind;

type Answer = Result<Booking, Refusal>;

pub(crate) const RESERVE: Kind<reserve::Request, reserve::Answer> = Kind {
    name: "reserve",
    transaction: |session, batch| Box::pin(reserve::reserve(session, batch)),
    find_missing: |session, requests| Box::pin(missing_to_reserve(session, requests)),
};

pub(crate) const CONFIRM: Kind<Change, Answer> = Kind {
    name: "confirm",
    transaction: |session, batch| Box::pin(confirm::confirm(session, batch)),
    find_missing: |session, requests| Box::pin(missing_to_change(session, requests)),
};

pub(crate) const CANCEL: Kind<Change, Answer> = Kind {
    name: "cancel",
    transaction: |session, batch| Box::pin(cancel::cancel(session, batch)),
    find_missing: |session, requests| Box::pin(missing_to_cancel(session, requests)),
};

pub(crate) const EXTEND: Kind<extend::Request, Answer> = Kind {
    name: "extend",
    transaction: |session, batch| Box::pin(extend::extend(session, batch)),
    find_missing: |session, requests| Box::pin(missing_to_change(session, requests)),
};

/// Finds the shows of bookings. It takes no locks, so none can be missing.
pub(crate) const LOCATE: Kind<i64, Option<i64>> = Kind {
    name: "locate",
    transaction: |session, batch| Box::pin(query::locate(session, batch.members())),
    find_missing: |_, bookings| ready(Ok(vec![None; bookings.len()])).boxed(),
};
