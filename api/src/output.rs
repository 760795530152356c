//! Responses: resources, pages of lists, results of bulk requests, and problems.

pub(crate) mod booking;
pub(crate) mod bulk_results;
pub(crate) mod export;
pub(crate) mod field_error;
mod json;
pub(crate) mod large_body;
pub(crate) mod pagination;
pub(crate) mod problem;
pub(crate) mod problem_details;
pub(crate) mod problem_examples;
pub(crate) mod replay;
pub(crate) mod show;
pub(crate) mod tagged;
