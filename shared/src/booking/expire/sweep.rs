//! Sweeping and reclaiming: overdue holds that no job has failed.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::{
    fail::{Failed, fail, fail_free},
    overdue::{Since, find_oldest, find_overdue},
};
use crate::{
    booking::rules::seats_by_show,
    id::{BookingId, ShowId},
    postgres::{self, Session},
    show,
};

/// Fails the holds of a show that have been overdue for longer than `grace`. Returns how many.
///
/// It puts their seats back on sale, oldest holds first, in as many transactions as it takes.
///
/// # Errors
///
/// Fails if the database call fails; what was done in earlier transactions stays done.
pub async fn sweep(
    session: &mut Session,
    show_id: ShowId,
    grace: TimeDelta,
) -> Result<usize, postgres::Error> {
    let mut swept = 0;
    loop {
        let ids = postgres::in_time(find_oldest(session.pool(), show_id, grace)).await?;
        let failed = fail(session, show_id, &ids).await?.len();
        swept += failed;
        // None is left, another worker was faster, or another transaction keeps the rest locked.
        if failed == 0 {
            return Ok(swept);
        }
    }
}

/// Maximum number of overdue holds of a show that one batch of requests reclaims.
///
/// The next batch reclaims what is left.
const MAX_RECLAIMED: i64 = 10_000;

/// Fails the oldest overdue holds of locked shows that lack seats, and frees their seats.
///
/// For each show it stops when at least as many seats are free as the show lacks, or no such hold
/// is left. So a show never looks sold out just because no worker has run.
///
/// It returns a hold that another transaction has locked. That one stays as it is, since the other
/// transaction may be about to fail it and wait for the show.
///
/// # Errors
///
/// Fails if the database call fails.
pub(crate) async fn reclaim(
    tx: &mut PgConnection,
    shows: &mut show::Locked,
    lacking_seats: &BTreeMap<ShowId, i64>,
    now: DateTime<Utc>,
) -> Result<Option<BookingId>, postgres::Error> {
    // Each hold has at least one seat, so as many holds as seats are enough.
    let of_each: BTreeMap<ShowId, i64> = lacking_seats
        .iter()
        .map(|(&show_id, &lacking)| (show_id, lacking.min(MAX_RECLAIMED)))
        .collect();
    let ids = find_overdue(&mut *tx, &of_each, Since::Instant(now)).await?;
    if ids.is_empty() {
        return Ok(None);
    }
    let Failed { failed, kept } = fail_free(tx, &ids, shows.only()).await?;
    shows
        .add_available_seats(tx, &seats_by_show(&failed))
        .await?;
    Ok(kept)
}
