//! The HTTP API: validates a request, runs a transaction of [`shared`], and responds.
//!
//! [`serve()`] runs it. `routes` has the handlers, `input` the extractors of their arguments, and
//! `output` their responses. Handlers submit their requests to `group_commit`, which lets
//! concurrent ones share a transaction. `admin` is the listener for operators. What every request
//! passes before its route is in [`shared::http`].

mod admin;
mod capacity;
pub mod config;
mod cors;
mod cost;
mod group_commit;
mod input;
mod metrics;
mod middleware;
pub mod openapi;
mod output;
mod routes;
mod serve;
mod state;

pub use serve::{Listeners, bind, serve};
