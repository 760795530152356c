//! Bulk requests and their results.

use anyhow::{Context, bail, ensure};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    client::{Client, Patience, Problem, Reply},
    rows::Row,
};

/// A row that is not settled yet.
pub(super) struct Pending {
    pub(super) row: Row,
    /// Number of its bookings whose holds expired. Each used up a key.
    pub(super) expired: u32,
}

/// Booking in a bulk request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    show_id: i64,
    user_name: &'a str,
    number_of_seats: i32,
    idempotency_key: String,
}

/// Response to a bulk request.
#[derive(Deserialize)]
struct Answer {
    results: Vec<Answered>,
}

/// Result of one row.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Answered {
    /// The row is booked, perhaps by an earlier request.
    Booked { booking: Booking, replayed: bool },
    /// The row was refused, or it failed.
    Refused { status: u16, problem: Problem },
    /// Nothing was done, because another row is invalid.
    #[serde(skip)]
    NotDone,
}

/// A booking.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Booking {
    pub(super) id: i64,
    pub(super) show_id: i64,
    pub(super) status: String,
}

impl Pending {
    fn request(&self) -> Request<'_> {
        let row = &self.row;
        Request {
            show_id: row.show_id,
            user_name: &row.user_name,
            number_of_seats: row.number_of_seats,
            idempotency_key: match self.expired {
                0 => row.key.clone(),
                expired => format!("{}-{}", row.key, expired + 1),
            },
        }
    }
}

/// Sends a bulk request, and returns the result of each row.
///
/// # Errors
///
/// Fails if the server takes no requests, or refuses this one whatever the rows are.
pub(super) async fn book(
    client: &Client,
    pending: &[Pending],
    patience: &mut Patience,
) -> anyhow::Result<Vec<Answered>> {
    let bookings: Vec<Request<'_>> = pending.iter().map(Pending::request).collect();
    let body = json!({ "bookings": bookings });
    let reply = client.post("/bookings/bulk", &body, patience).await?;
    match reply.status {
        StatusCode::OK => {
            let Answer { results } = serde_json::from_value(reply.body)
                .context("the response to a bulk request is not understood")?;
            ensure!(results.len() == pending.len(), "results are missing");
            Ok(results)
        }
        StatusCode::UNPROCESSABLE_ENTITY => invalid_rows(&reply, pending.len()),
        _ => bail!("a bulk request was refused: {}", reply.describe()),
    }
}

/// Returns the results of a request that was refused because rows are invalid.
fn invalid_rows(reply: &Reply, rows: usize) -> anyhow::Result<Vec<Answered>> {
    let mut results = vec![Answered::NotDone; rows];
    let problem = reply.problem();
    let mut found = false;
    for error in &problem.errors {
        let Some((at, member)) = row_and_member(&error.pointer) else {
            continue;
        };
        let Some(result) = results.get_mut(at) else {
            continue;
        };
        let detail = format!("{member} {}", error.detail);
        *result = Answered::Refused {
            status: reply.status.as_u16(),
            problem: problem.with_detail(detail.trim_start()),
        };
        found = true;
    }
    ensure!(found, "a bulk request was refused: {}", reply.describe());
    Ok(results)
}

/// Splits a pointer such as `/bookings/3/userName`.
fn row_and_member(pointer: &str) -> Option<(usize, &str)> {
    let rest = pointer.strip_prefix("/bookings/")?;
    let (row, member) = rest.split_once('/').unwrap_or((rest, ""));
    Some((row.parse().ok()?, member))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_row_is_refused_and_the_others_are_not_done() {
        let body = json!({
            "type": "/problems/invalid", "status": 422, "detail": "Some values are invalid.",
            "errors": [{"pointer": "/bookings/1/userName", "detail": "is not plain"}],
        });
        let mut reply = Reply {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body,
        };
        let results = invalid_rows(&reply, 3).unwrap();
        let Answered::Refused { status, problem } = &results[1] else {
            panic!("refused");
        };
        assert_eq!((*status, problem.kind()), (422, "invalid"));
        assert_eq!(problem.detail, "userName is not plain");
        for at in [0, 2] {
            assert!(matches!(results[at], Answered::NotDone));
        }
        reply.body["errors"][0]["pointer"] = "/bookings".into();
        assert!(invalid_rows(&reply, 3).is_err());
    }
}
