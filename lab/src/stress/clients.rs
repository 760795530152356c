//! The clients of a load: each has one connection and one request in flight.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    acknowledgements::{Acknowledged, Acknowledgements, Act, Last},
    args::Mode,
    http::{Connection, Reply, Target, post, post_with_key},
    load::{Load, Turn},
};

/// Time after which a client gives up on a server that is away, such as for a restart.
const SERVER_AWAY: Duration = Duration::from_secs(30);

/// Delay before a client retries at a server that returned an error.
const SERVER_BUSY: Duration = Duration::from_millis(100);

/// Timeouts of a client that retries; each attempt uses one of them at random.
///
/// With the shortest ones the client gives up before it knows whether its request arrived, with
/// others while the server is working on it. With the longest one it waits for the answer.
const PATIENCE_MS: [u64; 6] = [0, 1, 3, 10, 30, 10_000];

/// Number of bookings in a request of [`Mode::Bulk`].
const BULK: u64 = 100;

/// Result of a request that the server answered.
#[derive(Clone, Copy)]
struct Answer {
    status: u16,
    /// Id of the booking.
    id: Option<i64>,
    /// Whether the answer has `Retry-After`, which also says that nothing was done.
    is_not_done: bool,
    is_replay: bool,
}

/// Runs a client until the load is over, and returns the acknowledgements it received.
pub(crate) async fn run(load: Arc<Load>, connection: Connection, index: usize) -> Acknowledgements {
    let mut client = Client {
        load: &load,
        target: &load.targets[index % load.targets.len()],
        connection,
        acks: Acknowledgements::default(),
    };
    while let Some(turn) = load.next_turn().await {
        client.take(turn).await;
    }
    client.acks
}

/// Returns the body of a request for one seat. The user's name says which turn books it.
pub(super) fn booking(show_id: i64, number: u64) -> String {
    format!(r#"{{"showId":{show_id},"userName":"user {number}","numberOfSeats":1}}"#)
}

struct Client<'a> {
    load: &'a Load,
    target: &'a Target,
    connection: Connection,
    acks: Acknowledgements,
}

impl Client<'_> {
    /// Books, and requests the change that the mode calls for.
    async fn take(&mut self, turn: Turn) {
        if self.load.mode == Mode::Bulk {
            return self.book_in_bulk(turn).await;
        }
        let Some(booking_id) = self.book(turn).await else {
            return;
        };
        let act = match self.load.mode {
            Mode::Hot | Mode::Sellout | Mode::Spread | Mode::Bulk => None,
            Mode::Confirm => Some(Act::Confirm),
            Mode::Mixed => match fastrand::u8(0..5) {
                0..3 => Some(Act::Confirm),
                3 => Some(Act::Cancel),
                _ => None,
            },
        };
        let last = match act {
            None => Last::Booked,
            Some(act) => self.act(act, turn, booking_id).await,
        };
        self.acks.acknowledged.push(Acknowledged {
            booking_id,
            turn: turn.number,
            last,
        });
    }

    /// Books several times in one request. Each booking counts as a turn of its own.
    async fn book_in_bulk(&mut self, turn: Turn) {
        let show_id = self.load.show_of(turn);
        let numbers = turn.number * BULK..(turn.number + 1) * BULK;
        let bookings: Vec<String> = numbers
            .clone()
            .map(|number| booking(show_id, number))
            .collect();
        let body = format!(r#"{{"bookings":[{}]}}"#, bookings.join(","));
        let request = post(self.target, "/bookings/bulk", &body);
        let read = |reply: &Reply<'_>| (reply.status, reply.bulk_results());
        let Some((status, results)) = self.send_and(&request, turn.due, read).await else {
            self.acks.maybe_done.extend(numbers);
            return;
        };
        let Some(results) = results else {
            return self.load.count_error(format!("book in bulk: {status}"));
        };
        for (number, result) in numbers.zip(results) {
            match (result.status, result.booking) {
                (201, Some(booking)) => {
                    self.load.counts.booked.fetch_add(1, Relaxed);
                    self.acks.acknowledged.push(Acknowledged {
                        booking_id: booking.id,
                        turn: number,
                        last: Last::Booked,
                    });
                }
                (409, _) => {
                    self.load.counts.refused.fetch_add(1, Relaxed);
                }
                (status, _) => {
                    self.load.count_error(format!("book in bulk: {status}"));
                    self.acks.maybe_done.push(number);
                }
            }
        }
    }

    async fn book(&mut self, turn: Turn) -> Option<i64> {
        let (show_id, number) = (self.load.show_of(turn), turn.number);
        let body = booking(show_id, number);
        let answer = if self.load.retries {
            let key = format!("stress-{show_id}-{number}");
            let request = post_with_key(self.target, "/bookings", &body, Some(&key));
            self.send_until_answered(&request, turn.due).await
        } else {
            let request = post(self.target, "/bookings", &body);
            self.send(&request, turn.due).await
        };
        let Some(answer) = answer else {
            self.acks.maybe_done.push(turn.number);
            return None;
        };
        match answer.status {
            201 => {
                self.load.counts.booked.fetch_add(1, Relaxed);
                if answer.is_replay {
                    self.load.counts.replayed.fetch_add(1, Relaxed);
                }
                return answer.id;
            }
            409 => {
                self.load.counts.refused.fetch_add(1, Relaxed);
            }
            status => {
                self.load.count_error(format!("book: {status}"));
                if !answer.is_not_done {
                    self.acks.maybe_done.push(turn.number);
                }
            }
        }
        None
    }

    /// Retries a request, mostly with short timeouts, until the answer is not a server error.
    ///
    /// Returns `None` if that takes longer than [`SERVER_AWAY`].
    async fn send_until_answered(&mut self, request: &[u8], due: Instant) -> Option<Answer> {
        let gives_up = Instant::now() + SERVER_AWAY;
        loop {
            let patience = Duration::from_millis(PATIENCE_MS[fastrand::usize(..PATIENCE_MS.len())]);
            match timeout(patience, self.send(request, due)).await {
                Ok(Some(answer)) if !answer.is_not_done && answer.status < 500 => {
                    return Some(answer);
                }
                Ok(Some(_)) => sleep(SERVER_BUSY).await,
                Ok(None) => {}
                // The request may still arrive and be carried out, or be lost.
                Err(_) => self.reconnect().await,
            }
            if Instant::now() > gives_up {
                return None;
            }
            self.load.counts.retried.fetch_add(1, Relaxed);
        }
    }

    async fn act(&mut self, act: Act, turn: Turn, booking_id: i64) -> Last {
        let name = act.name();
        let query = if self.load.name_show {
            format!("?showId={}", self.load.show_of(turn))
        } else {
            String::new()
        };
        let path = format!("/bookings/{booking_id}/{name}{query}");
        let request = post(self.target, &path, "");
        let Some(answer) = self.send(&request, Instant::now()).await else {
            return Last::Unanswered(act);
        };
        if answer.status == 200 {
            return Last::Done(act);
        }
        self.load.count_error(format!("{name}: {}", answer.status));
        match answer.status {
            409 => Last::TooLate,
            _ if answer.is_not_done => Last::Booked,
            _ => Last::Unanswered(act),
        }
    }

    /// Sends a request, and records its latency since `due`.
    ///
    /// If the connection is lost, opens a new one and returns `None`.
    async fn send(&mut self, request: &[u8], due: Instant) -> Option<Answer> {
        let read = |reply: &Reply<'_>| Answer {
            status: reply.status,
            id: reply.id(),
            is_not_done: reply.has_retry_after,
            is_replay: reply.is_replay,
        };
        self.send_and(request, due, read).await
    }

    /// As [`Self::send`], with what `read` makes of the reply.
    async fn send_and<T>(
        &mut self,
        request: &[u8],
        due: Instant,
        read: impl FnOnce(&Reply<'_>) -> T,
    ) -> Option<T> {
        let answer = self
            .connection
            .send(request)
            .await
            .map(|reply| read(&reply));
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        match answer {
            Ok(answer) => {
                self.load.counts.requests.fetch_add(1, Relaxed);
                self.load
                    .seen(|seen| seen.latency.saturating_record(micros));
                Some(answer)
            }
            Err(error) => {
                self.load
                    .count_error(format!("connection: {}", error.kind()));
                self.reconnect().await;
                None
            }
        }
    }

    async fn reconnect(&mut self) {
        let gives_up = Instant::now() + SERVER_AWAY;
        while self.load.retries || !self.load.is_over.is_cancelled() {
            if Instant::now() > gives_up {
                // The server is not expected to come back, so end the load for all clients.
                self.load.end();
                return;
            }
            match Connection::open(self.target).await {
                Ok(connection) => {
                    self.connection = connection;
                    return;
                }
                // The server is away, perhaps for a restart.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
