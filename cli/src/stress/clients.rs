//! The clients: each has a connection, and sends its next request when the last one is answered.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Args, Mode,
    http::{Connection, Target, post},
};

/// An hour. What takes longer counts as that.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// How long a server may be away, such as for a restart.
const SERVER_AWAY: Duration = Duration::from_secs(30);

/// What all clients share.
pub(crate) struct Load {
    pub(crate) target: Target,
    pub(crate) shows: Vec<i64>,
    mode: Mode,
    stop: CancellationToken,
    /// Turns begun.
    turns: AtomicU64,
    /// Turns in all, of a sellout.
    last_turn: Option<u64>,
    began: Instant,
    /// Turns a second, unless each connection goes as fast as it can.
    rate: Option<u32>,
    counts: Counts,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    booked: AtomicU64,
    refused: AtomicU64,
}

/// What needs a lock to be written down.
pub(crate) struct Seen {
    /// Of every request, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Answers that are neither success nor refusal, by what they were.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Load {
    pub(crate) fn new(
        args: &Args,
        target: Target,
        shows: Vec<i64>,
        began: Instant,
        stop: CancellationToken,
    ) -> Self {
        let latency = Histogram::new_with_max(LONGEST_MICROS, 3)
            .expect("three significant digits of an hour are allowed");
        Self {
            target,
            shows,
            mode: args.mode,
            stop,
            turns: AtomicU64::new(0),
            last_turn: (args.mode == Mode::Sellout).then_some(args.requests.into()),
            began,
            rate: args.rate,
            counts: Counts::default(),
            seen: Mutex::new(Seen {
                latency,
                errors: BTreeMap::new(),
            }),
        }
    }

    /// Requests answered, of all kinds.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Relaxed)
    }

    /// Bookings acknowledged.
    pub(crate) fn booked(&self) -> u64 {
        self.counts.booked.load(Relaxed)
    }

    /// Bookings refused for want of seats.
    pub(crate) fn refused(&self) -> u64 {
        self.counts.refused.load(Relaxed)
    }

    /// What was seen of latencies and errors.
    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        look(&mut seen)
    }

    /// Takes the next turn, and waits until it is due; none when the load is over. Its latency counts from the time
    /// that is returned.
    async fn next_turn(&self) -> Option<Instant> {
        if self.stop.is_cancelled() {
            return None;
        }
        let turn = self.turns.fetch_add(1, Relaxed);
        if self.last_turn.is_some_and(|last| turn >= last) {
            return None;
        }
        let Some(rate) = self.rate else {
            return Some(Instant::now());
        };
        let due = self.began + Duration::from_secs(turn) / rate;
        let waited = self.stop.run_until_cancelled(sleep_until(due)).await;
        waited.map(|()| due)
    }

    fn count_error(&self, what: String) {
        self.seen(|seen| *seen.errors.entry(what).or_default() += 1);
    }
}

/// One client, until the load is over.
pub(crate) async fn run(load: std::sync::Arc<Load>, connection: Connection, index: usize) {
    let show_id = load.shows[index % load.shows.len()];
    let body = json!({"showId": show_id, "userName": format!("user {index}"), "numberOfSeats": 1});
    let book = post(&load.target, "/bookings", &body.to_string());
    let mut client = Client {
        load: &load,
        connection,
    };
    while let Some(due) = load.next_turn().await {
        client.turn(&book, due).await;
    }
}

struct Client<'a> {
    load: &'a Load,
    connection: Connection,
}

impl Client<'_> {
    /// Books, and does with the booking what the mode says.
    async fn turn(&mut self, book: &[u8], due: Instant) {
        let Some(booking_id) = self.book(book, due).await else {
            return;
        };
        let act = match self.load.mode {
            Mode::Hot | Mode::Sellout | Mode::Spread => None,
            Mode::Confirm => Some("confirm"),
            Mode::Mixed => match fastrand::u8(0..5) {
                0..3 => Some("confirm"),
                3 => Some("cancel"),
                _ => None,
            },
        };
        if let Some(act) = act {
            let request = post(
                &self.load.target,
                &format!("/bookings/{booking_id}/{act}"),
                "",
            );
            if let Some((status, _)) = self.send(&request, Instant::now()).await
                && status != 200
            {
                self.load.count_error(format!("{act}: {status}"));
            }
        }
    }

    async fn book(&mut self, request: &[u8], due: Instant) -> Option<i64> {
        let (status, id) = self.send(request, due).await?;
        match status {
            201 => {
                self.load.counts.booked.fetch_add(1, Relaxed);
                return id;
            }
            409 => {
                self.load.counts.refused.fetch_add(1, Relaxed);
            }
            _ => self.load.count_error(format!("book: {status}")),
        }
        None
    }

    /// Sends a request that was due at `due`, and returns its status and the id in its body. After a lost connection,
    /// opens another one.
    async fn send(&mut self, request: &[u8], due: Instant) -> Option<(u16, Option<i64>)> {
        let answer = match self.connection.send(request).await {
            Ok(reply) => Ok((reply.status, reply.id())),
            Err(error) => Err(error),
        };
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
        while !self.load.stop.is_cancelled() {
            if Instant::now() > gives_up {
                // For all clients: the server will not come back.
                self.load.stop.cancel();
                return;
            }
            match Connection::open(&self.load.target).await {
                Ok(connection) => {
                    self.connection = connection;
                    return;
                }
                // The server is away: look again shortly.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
