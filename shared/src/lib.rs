//! The ticketing domain, its transactions and the job queue, shared by the api and the worker.
//!
//! A *show* has a number of seats. A *booking* takes some of them. It begins as a *hold*
//! (`PENDING`). It is confirmed before its deadline, or it fails and its seats are available again.
//!
//! | topic | module |
//! | --- | --- |
//! | shows and their seat counters | [`show`] |
//! | rules of a booking, as pure functions | [`booking::rules`] |
//! | transactions | [`booking::reserve`], [`booking::confirm`], [`booking::cancel`], [`booking::extend`], [`booking::expire`] |
//! | batches of requests that share a transaction | [`batch`] |
//! | row locks held by other transactions | [`booking::locks`] |
//! | ids of shows and bookings | [`id`] |
//! | idempotency keys for retries | [`idempotency`] |
//! | API keys and their scopes | [`api_key`] |
//! | queries for bookings | [`booking::query`] |
//! | background jobs and how they are enqueued | [`jobs`] |
//! | inspecting, controlling and cleaning up the queue | [`queue`] |
//! | progress of the sale | [`sales`] |
//! | audit of the invariants | [`audit`] |
//! | connections, transactions, retryable errors | [`postgres`] |
//! | schema migrations | [`migrate`] |
//! | a private PostgreSQL server | [`local_postgres`] |
//! | logs and traces | [`telemetry`] |
//! | what clients keep with shows and bookings | [`metadata`] |
//! | metrics for Prometheus | [`metrics`] |
//! | HTTP server | [`http`] |
//! | shutdown signals | [`shutdown`] |
//! | the database's clock and timestamps | [`timestamp`] |
//! | operating system: listeners, limits and signals | [`process`] |
//!
//! # Invariants
//!
//! 1. After every commit, `seats = available_seats + Σ number_of_seats` over a show's `PENDING` and
//!    `CONFIRMED` bookings.
//! 2. A booking leaves `PENDING` once. It can be confirmed only before its deadline, and fails only
//!    from then on.
//! 3. An expiry job exists if and only if the bookings that it names exist: one transaction writes
//!    both.
//!
//! # How a transaction is written
//!
//! A transaction locks rows (bookings by id, then batches, then shows by id) and reads the
//! database's clock *after* the locks are held. It decides with a pure function of state, request
//! and time, writes with the condition repeated in SQL, and checks the number of rows. Only the
//! database's clock decides anything: hosts may disagree about the time.
//!
//! [`booking::reserve`] locks the show first, and therefore never waits for a booking or batch. It
//! skips expired holds that another transaction has locked, and waits for them afterwards, without
//! the show's lock.
//!
//! Bookings that one transaction makes for a show are a batch, which counts how many of them are in
//! which status. Queries find bookings by status or deadline by way of their batches, since no
//! index of bookings has either. Queries for the holds of all shows say `id > 0`, as the index on
//! those does, so that the planner can't use it for the holds of one show.

pub mod api_key;
pub mod audit;
pub mod batch;
pub mod booking;
pub mod http;
pub mod id;
pub mod idempotency;
pub mod jobs;
pub mod local_postgres;
pub mod metadata;
pub mod metrics;
pub mod migrate;
mod migrations;
pub mod postgres;
pub mod process;
pub mod queue;
pub mod sales;
pub mod show;
pub mod shutdown;
pub mod telemetry;
pub mod timestamp;
