//! Cost of requests: how many requests a request counts as for its caller's rate limit.

use std::num::NonZeroU32;

use axum::http::{Method, Uri};

use crate::output::pagination::{DEFAULT_LIMIT, MAX_LIMIT};

/// Paths of the lists.
const LISTS: [&str; 2] = ["/shows", "/bookings"];

/// Number of list items that cost as much as one request.
const ITEMS_PER_REQUEST: i64 = 10;

/// Path of the bulk request.
const BULK: &str = "/bookings/bulk";

/// Cost of a bulk request, whose length is unknown before it is read.
///
/// Bookings that share a request and a transaction cost less than as many requests.
const BULK_COST: NonZeroU32 = NonZeroU32::new(50).unwrap();

/// Cost of an export, whose length is unknown before it is read: that of the longest page of a list.
const EXPORT_COST: NonZeroU32 = NonZeroU32::new(101).unwrap();

/// Last part of the path of an export.
const EXPORT: &str = "/export";

/// Returns the number of requests that a request counts as for its caller's rate limit.
///
/// A list counts as one request, and as one more for every ten items that it may have, because
/// reading ten bookings takes as much processor time as making one.
pub(crate) fn request_cost(method: &Method, uri: &Uri) -> NonZeroU32 {
    match uri.path() {
        BULK if *method == Method::POST => BULK_COST,
        path if *method != Method::POST && path.ends_with(EXPORT) => EXPORT_COST,
        path if *method != Method::POST && LISTS.contains(&path) => list_cost(uri),
        _ => NonZeroU32::MIN,
    }
}

fn list_cost(uri: &Uri) -> NonZeroU32 {
    let query = uri.query().unwrap_or_default().as_bytes();
    let limit = form_urlencoded::parse(query)
        .find(|(name, _)| name == "limit")
        .map_or(DEFAULT_LIMIT, |(_, limit)| {
            limit.parse().unwrap_or(MAX_LIMIT)
        });
    let items = u32::try_from(limit.clamp(0, MAX_LIMIT) / ITEMS_PER_REQUEST).unwrap_or_default();
    NonZeroU32::MIN.saturating_add(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_costs_by_its_length() {
        let cost = |path: &'static str| request_cost(&Method::GET, &Uri::from_static(path)).get();
        for (path, expected) in [
            ("/bookings", 11),
            ("/bookings?limit=1000", 101),
            ("/bookings?status=FAILED&limit=9&limit=1000", 1),
            ("/shows?%6Cimit=50", 6),
            ("/shows?limit=99999999999999999999", 101),
            ("/shows?limit=-5", 1),
            ("/shows/1/export", 101),
            ("/bookings/1?limit=1000", 1),
        ] {
            assert_eq!(cost(path), expected, "{path}");
        }
    }

    #[test]
    fn a_post_counts_once_and_a_bulk_request_fifty_times() {
        for (path, expected) in [
            ("/bookings?limit=1000", 1),
            ("/bookings/1/confirm", 1),
            ("/bookings/bulk", 50),
        ] {
            let cost = request_cost(&Method::POST, &Uri::from_static(path));
            assert_eq!(cost.get(), expected, "{path}");
        }
    }
}
