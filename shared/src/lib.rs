//! What the api and the worker both know: the domain, its transactions, the queue.
//!
//! A *show* has a number of seats. A *booking* takes some of them: it is a *hold* (`PENDING`) until
//! its deadline, is confirmed in that time, or fails and its seats are available again.
//!
//! | for | see |
//! | --- | --- |
//! | shows and their seat counters | [`show`] |
//! | the rules of a booking, pure | [`booking`] |
//! | the transactions | [`booking::reserve`], [`booking::confirm`], [`booking::cancel`], [`booking::extend`], [`booking::expire`] |
//! | requests that share a transaction | [`batch`] |
//! | locks that others keep | [`booking::locks`] |
//! | requests that can be repeated | [`idempotency`] |
//! | who may use the API | [`api_key`] |
//! | reading bookings | [`booking::query`] |
//! | background jobs and how they are enqueued | [`jobs`] |
//! | the queue: looking into it, steering it, housekeeping | [`queue`] |
//! | how the sale goes | [`sales`] |
//! | whether all invariants hold | [`audit`] |
//! | connections, migrations, which errors are worth a retry | [`postgres`] |
//! | a private PostgreSQL server | [`local_postgres`] |
//! | logs | [`telemetry`] |
//! | figures for machines to watch | [`metrics`] |
//! | serving HTTP | [`http`] |
//! | when to stop | [`shutdown`] |
//! | times of rows | [`timestamp`] |
//! | what a process asks of its system | [`process`] |
//!
//! # Invariants
//!
//! 1. `seats = available_seats + Σ number_of_seats` of a show's `PENDING` and `CONFIRMED` bookings, after
//!    every commit.
//! 2. A booking leaves `PENDING` once. It can only be confirmed before its deadline and only fails after it.
//! 3. An expiry job exists if and only if the bookings that it names do: they are written in one transaction.
//!
//! # How a transaction is written
//!
//! Lock (bookings by id, then shows by id), read the database's clock *after* the locks are held, decide with
//! a pure function of state, request and that time, write with the condition repeated in SQL, check the number
//! of rows. Only the database's clock decides anything: hosts may disagree about the time.
//!
//! Who reserves has the show's lock first, and so never waits for a booking: holds that have run out and that somebody else has
//! locked are left alone, and waited for afterwards, without the show.
//!
//! What looks for holds says `resolved_at IS NULL`, as their indexes do; of the holds of all shows also `id > 0`, as the index
//! of these does. What changes bookings by their ids says `status = 'PENDING'`, which means the same, so that it can't be
//! planned by way of those indexes.

pub mod api_key;
pub mod audit;
pub mod batch;
pub mod booking;
pub mod http;
pub mod idempotency;
pub mod jobs;
pub mod local_postgres;
pub mod metrics;
pub mod postgres;
pub mod process;
pub mod queue;
pub mod sales;
pub mod show;
pub mod shutdown;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timestamp;
