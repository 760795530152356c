//! HTTP server for all listeners: the API, the admin listener and the worker's metrics.
//!
//! The [`server`] accepts connections and bounds their number. Each request passes the [`middleware`],
//! which authenticates the caller ([`access`], [`proxies`]), rejects web pages of other origins
//! ([`origin`]), and limits the caller's rate ([`rates`]) and concurrency ([`fair_semaphore`]).

pub mod access;
mod body_drain;
pub mod callers;
mod connections;
pub mod fair_semaphore;
pub mod middleware;
pub mod origin;
pub mod proxies;
pub mod rates;
pub mod rejection;
pub mod request_id;
pub mod request_metrics;
pub mod server;
mod timer;

pub use connections::{BusyGuard, Connection};
