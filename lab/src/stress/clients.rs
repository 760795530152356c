//! The clients of a load: each has one connection and one request in flight.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Args, Mode,
    acknowledgements::{Acknowledged, Acknowledgements, Act, Last},
    http::{Connection, Target, post, post_with_key},
};

/// Longest latency that is recorded: one hour. Longer ones count as one hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// Time after which a client gives up on a server that is away, such as for a restart.
const SERVER_AWAY: Duration = Duration::from_secs(30);

/// Delay before a client retries at a server that returned an error.
const SERVER_BUSY: Duration = Duration::from_millis(100);

/// Timeouts of a client that retries; each attempt uses one of them at random.
///
/// With the shortest ones the client gives up before it knows whether its request arrived, with
/// others while the server is working on it. With the longest one it waits for the answer.
const PATIENCE_MS: [u64; 6] = [0, 1, 3, 10, 30, 10_000];

/// The state that all clients share.
pub(crate) struct Load {
    pub(crate) targets: Vec<Target>,
    pub(crate) shows: Vec<i64>,
    mode: Mode,
    /// Number of turns that clients have asked for, including those beyond the last turn.
    turns: AtomicU64,
    /// Maximum number of turns; 0 once the load is over.
    turns_max: AtomicU64,
    /// Wakes the clients that wait for their next turn to be due.
    is_over: CancellationToken,
    began: Instant,
    /// Turns per second; `None` if each connection is to go as fast as it can.
    rate: Option<u32>,
    /// Whether clients use short timeouts and retry a booking until it is answered.
    retries: bool,
    /// Whether confirm and cancel name the booking's show.
    name_show: bool,
    counts: Counts,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    booked: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    replayed: AtomicU64,
}

/// Measurements that need a lock to be recorded.
pub(crate) struct Seen {
    /// Latency of every answered request, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Number of errors of each kind; a booking refused for lack of seats is not an error.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Load {
    pub(crate) fn new(args: &Args, targets: Vec<Target>, shows: Vec<i64>, began: Instant) -> Self {
        let latency = Histogram::new_with_max(LONGEST_MICROS, 3)
            .expect("three significant digits of an hour are allowed");
        Self {
            targets,
            shows,
            mode: args.mode,
            turns: AtomicU64::new(0),
            turns_max: AtomicU64::new(match args.mode {
                Mode::Sellout => args.requests.into(),
                _ => u64::MAX,
            }),
            is_over: CancellationToken::new(),
            began,
            rate: args.rate,
            retries: args.retries,
            name_show: args.name_show,
            counts: Counts::default(),
            seen: Mutex::new(Seen {
                latency,
                errors: BTreeMap::new(),
            }),
        }
    }

    /// Returns the number of answered requests of all kinds.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Relaxed)
    }

    /// Returns the number of acknowledged bookings.
    pub(crate) fn booked(&self) -> u64 {
        self.counts.booked.load(Relaxed)
    }

    /// Returns the number of bookings that were refused for lack of seats.
    pub(crate) fn refused(&self) -> u64 {
        self.counts.refused.load(Relaxed)
    }

    /// Returns the number of retries of bookings.
    pub(crate) fn retried(&self) -> u64 {
        self.counts.retried.load(Relaxed)
    }

    /// Returns the number of retries that an earlier attempt had already booked.
    pub(crate) fn replayed(&self) -> u64 {
        self.counts.replayed.load(Relaxed)
    }

    /// Locks the latencies and errors, and passes them to `look`.
    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        look(&mut seen)
    }

    /// Takes the next turn and waits until it is due; returns `None` once the load is over.
    async fn next_turn(&self) -> Option<Turn> {
        let number = self.turns.fetch_add(1, Relaxed);
        if number >= self.turns_max.load(Relaxed) {
            return None;
        }
        let Some(rate) = self.rate else {
            let due = Instant::now();
            return Some(Turn { number, due });
        };
        let due = self.began + Duration::from_secs(number) / rate;
        let waited = self.is_over.run_until_cancelled(sleep_until(due)).await;
        waited.map(|()| Turn { number, due })
    }

    /// Returns the show that a turn books; turns rotate through the shows.
    fn show_of(&self, turn: Turn) -> i64 {
        let count = self.shows.len() as u64;
        usize::try_from(turn.number % count)
            .ok()
            .and_then(|index| self.shows.get(index).copied())
            .unwrap_or_default()
    }

    /// Ends the load: turns that have begun continue, but no new turn begins.
    pub(crate) fn end(&self) {
        self.turns_max.store(0, Relaxed);
        self.is_over.cancel();
    }

    fn count_error(&self, what: String) {
        self.seen(|seen| *seen.errors.entry(what).or_default() += 1);
    }
}

/// A booking, and the change that its client then requests.
#[derive(Clone, Copy)]
struct Turn {
    /// Number of the turn, unique within the load.
    ///
    /// The booking's user name contains it, so that verification can match the two.
    number: u64,
    /// The time from which its latency counts.
    due: Instant,
}

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
pub(crate) async fn run(
    load: std::sync::Arc<Load>,
    connection: Connection,
    index: usize,
) -> Acknowledgements {
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

struct Client<'a> {
    load: &'a Load,
    target: &'a Target,
    connection: Connection,
    acks: Acknowledgements,
}

impl Client<'_> {
    /// Books, and requests the change that the mode calls for.
    async fn take(&mut self, turn: Turn) {
        let Some(booking_id) = self.book(turn).await else {
            return;
        };
        let act = match self.load.mode {
            Mode::Hot | Mode::Sellout | Mode::Spread => None,
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

    async fn book(&mut self, turn: Turn) -> Option<i64> {
        let (show_id, number) = (self.load.show_of(turn), turn.number);
        let body =
            format!(r#"{{"showId":{show_id},"userName":"user {number}","numberOfSeats":1}}"#);
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
        let answer = match self.connection.send(request).await {
            Ok(reply) => Ok(Answer {
                status: reply.status,
                id: reply.id(),
                is_not_done: reply.has_retry_after,
                is_replay: reply.is_replay,
            }),
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
