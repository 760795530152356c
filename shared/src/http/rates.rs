//! Rate limits of callers, in requests per second.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    InsufficientCapacity, Quota, RateLimiter,
    clock::MonotonicClock,
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::{InMemoryState, NotKeyed, keyed::DashMapStateStore},
};
use tokio::time::interval;

/// Number of requests in flight that every caller may have, however low its rate is.
const IN_FLIGHT_MIN: NonZeroU32 = NonZeroU32::new(100).unwrap();

type Clock = MonotonicClock;
type WithState = StateInformationMiddleware;

/// A rate limit. A second's worth of requests may come at once.
#[derive(Debug)]
pub struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, Clock, WithState>,
    pub(super) per_second: NonZeroU32,
    policy: HeaderValue,
}

impl RateLimit {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, Clock::default()).with_middleware(),
            per_second,
            policy: policy(per_second),
        }
    }

    /// Counts a request as `price` requests, but never as more than a second's worth.
    pub(super) fn count(&self, price: NonZeroU32) -> Allowance {
        let checked = self.limiter.check_n(price.min(self.per_second));
        Allowance::new(&self.policy, self.per_second, checked)
    }
}

/// The rate limits of clients without a key.
#[derive(Debug)]
pub struct Rates {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, Clock, WithState>,
    per_second: NonZeroU32,
    policy: HeaderValue,
}

/// As in draft-ietf-httpapi-ratelimit-headers.
fn policy(per_second: NonZeroU32) -> HeaderValue {
    HeaderValue::from_maybe_shared(format!("\"default\";q={per_second};w=1"))
        .expect("visible characters are a valid header value")
}

impl Rates {
    /// Allows each client this many requests per second.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second);
        Self {
            limiter: RateLimiter::dashmap_with_clock(quota, Clock::default()).with_middleware(),
            per_second,
            policy: policy(per_second),
        }
    }

    /// Counts a request from this network as `price` requests, but never as more than a second's worth.
    pub(super) fn count(&self, network: IpAddr, price: NonZeroU32) -> Allowance {
        let price = price.min(self.per_second);
        let checked = self.limiter.check_key_n(&network, price);
        Allowance::new(&self.policy, self.per_second, checked)
    }

    /// Forgets idle clients all the time, so that memory is bounded by the clients of one second.
    pub(super) async fn forget_the_idle(&self) {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}

/// A caller's rate limit after one more request.
#[derive(Debug)]
pub(super) struct Allowance {
    policy: HeaderValue,
    /// The caller's rate.
    per_second: NonZeroU32,
    /// Requests left in this second; none if this request exceeds the rate.
    remaining: Option<u32>,
}

impl Allowance {
    fn new<N>(
        policy: &HeaderValue,
        per_second: NonZeroU32,
        checked: Result<Result<StateSnapshot, N>, InsufficientCapacity>,
    ) -> Self {
        let state = checked.ok().and_then(Result::ok);
        Self {
            policy: policy.clone(),
            per_second,
            remaining: state.map(|state| state.remaining_burst_capacity()),
        }
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.remaining.is_none()
    }

    /// Returns the maximum number of requests that the caller may have in flight.
    ///
    /// It is a second's worth, because no request in good faith takes longer. With more, a caller
    /// could hold requests back and then let them all run at once.
    pub(super) fn in_flight_max(&self) -> usize {
        let per_second = self.per_second.max(IN_FLIGHT_MIN);
        usize::try_from(per_second.get()).unwrap_or(usize::MAX)
    }

    /// Adds the headers `RateLimit` and `RateLimit-Policy`. After a second without requests the whole rate is available.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let remaining = self.remaining.unwrap_or(0);
        headers.insert(HeaderName::from_static("ratelimit-policy"), self.policy);
        if let Ok(value) = HeaderValue::from_maybe_shared(format!("\"default\";r={remaining};t=1"))
        {
            headers.insert(HeaderName::from_static("ratelimit"), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_rate() {
        let rates = Rates::new(NonZeroU32::new(3).unwrap());
        let count = |network: &str| {
            let network = network.parse().unwrap();
            rates.count(network, NonZeroU32::MIN).remaining
        };
        assert_eq!(count("2001:db8::"), Some(2));
        assert_eq!(count("2001:db8::"), Some(1));
        assert_eq!(count("2001:db8::"), Some(0));
        assert_eq!(count("2001:db8::"), None);
        assert_eq!(count("2001:db8:0:1::"), Some(2), "of another one");
    }

    #[test]
    fn a_price_is_taken_at_once_and_is_a_seconds_worth_at_most() {
        let limit = RateLimit::new(NonZeroU32::new(10).unwrap());
        let count = |price| limit.count(NonZeroU32::new(price).unwrap()).remaining;
        assert_eq!(count(4), Some(6));
        assert_eq!(count(7), None);
        assert_eq!(count(6), Some(0), "what was refused cost nothing");
        let limit = RateLimit::new(NonZeroU32::new(10).unwrap());
        let dear = limit.count(NonZeroU32::new(101).unwrap());
        assert_eq!(dear.remaining, Some(0), "a slow caller gets it, too");
    }
}
