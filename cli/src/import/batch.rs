//! Importing a batch: books its rows in one request, and confirms each booking.

use std::time::Duration;

use indicatif::ProgressBar;
use reqwest::StatusCode;
use serde_json::Value;

use super::{
    bulk::{self, Answered, Booking, Pending},
    client::{Client, Patience, Problem},
    report::{Refused, Report},
    rows::Row,
};

/// Imports batches of rows.
pub(super) struct Importer {
    pub(super) client: Client,
    /// True if new bookings are confirmed.
    pub(super) confirms: bool,
    /// Time for which requests are repeated while no row of a batch is settled.
    pub(super) give_up: Duration,
    /// Progress of all rows.
    pub(super) bar: ProgressBar,
}

/// Maximum number of times that a row is booked.
const MAX_BOOKINGS: u32 = 5;

/// Status code of a row that the server cannot book now, or whose outcome is unknown.
const UNAVAILABLE: u16 = 503;

/// Outcome of a booking that the import made or found.
enum Settled {
    /// This run confirmed it.
    Confirmed,
    /// It stays as it is: confirmed or cancelled by others, or only to be held.
    AsItIs,
    /// Its hold has expired.
    Expired,
    /// It could not be confirmed.
    Refused(Problem),
}

impl Importer {
    /// Imports a batch, and adds the outcomes of its rows to the report.
    ///
    /// # Errors
    ///
    /// Fails if the server takes no requests, or refuses them whatever the rows are.
    pub(super) async fn import(&self, rows: Vec<Row>, report: &mut Report) -> anyhow::Result<()> {
        let mut patience = Patience::new(self.give_up, self.bar.clone());
        let pending = rows.into_iter().map(|row| Pending { row, expired: 0 });
        let mut pending: Vec<Pending> = pending.collect();
        while !pending.is_empty() {
            let results = bulk::book(&self.client, &pending, &mut patience).await?;
            let (mut left, mut unavailable) = (Vec::new(), Vec::new());
            let settled_before = report.settled();
            for (pending, result) in pending.into_iter().zip(results) {
                match result {
                    Answered::NotDone => left.push(pending),
                    Answered::Refused { status, problem } if status == UNAVAILABLE => {
                        unavailable.push((pending, problem));
                    }
                    Answered::Refused { problem, .. } => self.refuse(pending.row, problem, report),
                    Answered::Booked { booking, replayed } => {
                        let settled = self.settle(&booking, &mut patience).await?;
                        patience.restore();
                        left.extend(self.conclude(pending, settled, replayed, report));
                    }
                }
            }
            if report.settled() > settled_before {
                patience.restore();
            }
            if let Some((_, problem)) = unavailable.first() {
                patience.wait(None, &problem.detail).await?;
            }
            left.extend(unavailable.into_iter().map(|(pending, _)| pending));
            pending = left;
        }
        Ok(())
    }

    /// Confirms a booking, if it is held and to be confirmed.
    async fn settle(&self, booking: &Booking, patience: &mut Patience) -> anyhow::Result<Settled> {
        match booking.status.as_str() {
            _ if !self.confirms => return Ok(Settled::AsItIs),
            "PENDING" => {}
            "FAILED" => return Ok(Settled::Expired),
            _ => return Ok(Settled::AsItIs),
        }
        let path = format!(
            "/bookings/{}/confirm?showId={}",
            booking.id, booking.show_id
        );
        let reply = self.client.post(&path, &Value::Null, patience).await?;
        let problem = reply.problem();
        Ok(match reply.status {
            StatusCode::OK => Settled::Confirmed,
            _ if problem.kind() == "hold-expired" => Settled::Expired,
            _ => Settled::Refused(problem),
        })
    }

    /// Adds the outcome of a row to the report. Returns the row if it has to be booked again.
    fn conclude(
        &self,
        mut pending: Pending,
        settled: Settled,
        replayed: bool,
        report: &mut Report,
    ) -> Option<Pending> {
        match settled {
            Settled::Expired => {
                pending.expired += 1;
                if !pending.row.has_own_key && pending.expired < MAX_BOOKINGS {
                    return Some(pending);
                }
                let detail = "The hold expired before it was confirmed. Import the row again with another key.";
                let problem = Problem::new("hold-expired", detail);
                self.refuse(pending.row, problem, report);
                return None;
            }
            Settled::Refused(problem) => {
                self.refuse(pending.row, problem, report);
                return None;
            }
            Settled::Confirmed => report.confirmed += 1,
            Settled::AsItIs => {}
        }
        if replayed {
            report.already_there += 1;
        } else {
            report.booked += 1;
        }
        self.bar.inc(1);
        None
    }

    fn refuse(&self, row: Row, problem: Problem, report: &mut Report) {
        report.refused.push(Refused { row, problem });
        self.bar.inc(1);
    }
}
