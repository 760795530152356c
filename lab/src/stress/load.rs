//! The state that all clients of a load share: turns, counts and measurements.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    acknowledgements::Acknowledgements,
    args::{Args, Mode},
    http::Target,
};

/// Longest latency that is recorded: one hour. Longer ones count as one hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// The state that all clients share.
pub(crate) struct Load {
    pub(crate) targets: Vec<Target>,
    pub(crate) shows: Vec<i64>,
    pub(super) mode: Mode,
    /// Number of turns that clients have asked for, including those beyond the last turn.
    turns: AtomicU64,
    /// Maximum number of turns; 0 once the load is over.
    turns_max: AtomicU64,
    /// Wakes the clients that wait for their next turn to be due.
    pub(super) is_over: CancellationToken,
    began: Instant,
    /// The end of the warm-up, and the number of bookings until then.
    warmed_up: Mutex<(Instant, u64)>,
    /// Turns per second; `None` if each connection is to go as fast as it can.
    rate: Option<u32>,
    /// True if clients use short timeouts and retry a booking until it is answered.
    pub(super) retries: bool,
    /// True if confirm and cancel name the booking's show.
    pub(super) name_show: bool,
    pub(super) counts: Counts,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) booked: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) replayed: AtomicU64,
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
            warmed_up: Mutex::new((began, 0)),
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
        look(&mut lock(&self.seen))
    }

    /// Ends the warm-up: the measurement begins.
    pub(super) fn begin_to_measure(&self) {
        *lock(&self.warmed_up) = (Instant::now(), self.booked());
        self.seen(|seen| seen.latency.reset());
    }

    /// Returns the bookings a second since the warm-up, if the load has ended after this time.
    pub(crate) fn bookings_per_second(&self, took: Duration) -> f64 {
        let (since, before) = *lock(&self.warmed_up);
        let seconds = (self.began + took - since).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let booked = (self.booked() - before) as f64;
        booked / seconds
    }

    /// Takes the next turn and waits until it is due; returns `None` once the load is over.
    pub(super) async fn next_turn(&self) -> Option<Turn> {
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
    pub(super) fn show_of(&self, turn: Turn) -> i64 {
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

    pub(super) fn count_error(&self, what: String) {
        self.seen(|seen| *seen.errors.entry(what).or_default() += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A booking, and the change that its client then requests.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// Number of the turn, unique within the load.
    ///
    /// The booking's user name contains it, so that verification can match the two.
    pub(super) number: u64,
    /// The time from which its latency counts.
    pub(super) due: Instant,
}

/// Outcome of a load, before it is verified.
pub(crate) struct Outcome {
    pub(crate) load: Arc<Load>,
    pub(crate) acks: Acknowledgements,
    pub(crate) took: Duration,
}
