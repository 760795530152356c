//! How much each client may ask for.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter,
    clock::MonotonicClock,
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::{InMemoryState, NotKeyed, keyed::DashMapStateStore},
};
use ipnet::IpNet;
use tokio::time::interval;

use crate::access::Identity;

type Clock = MonotonicClock;
type Told = StateInformationMiddleware;

/// So many requests a second, up to a second's worth of them at once.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, Clock, Told>,
    policy: HeaderValue,
}

impl RateLimit {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, Clock::default()).with_middleware(),
            policy: policy(per_second),
        }
    }
}

/// The rate of each client that has no key.
#[derive(Debug)]
struct RateLimits {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, Clock, Told>,
    policy: HeaderValue,
}

/// As in draft-ietf-httpapi-ratelimit-headers.
fn policy(per_second: NonZeroU32) -> HeaderValue {
    HeaderValue::from_maybe_shared(format!("\"default\";q={per_second};w=1"))
        .expect("visible characters are a valid header value")
}

/// What one more request means for its sender's rate.
#[derive(Debug)]
pub(crate) struct Allowance {
    policy: HeaderValue,
    /// None when this one is already too many.
    remaining: Option<u32>,
}

impl Allowance {
    fn new<N>(policy: &HeaderValue, checked: Result<StateSnapshot, N>) -> Self {
        Self {
            policy: policy.clone(),
            remaining: checked.ok().map(|state| state.remaining_burst_capacity()),
        }
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.remaining.is_none()
    }

    /// Tells the client: after a second without requests all of it is there again.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let remaining = self.remaining.unwrap_or(0);
        headers.insert(HeaderName::from_static("ratelimit-policy"), self.policy);
        if let Ok(value) = HeaderValue::from_maybe_shared(format!("\"default\";r={remaining};t=1"))
        {
            headers.insert(HeaderName::from_static("ratelimit"), value);
        }
    }
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Limits {
    by_address: Option<RateLimits>,
    trusted_proxies: Vec<IpNet>,
    in_flight: AtomicUsize,
    in_flight_max: usize,
}

impl Limits {
    pub(crate) fn new(
        rate: Option<NonZeroU32>,
        trusted_proxies: Vec<IpNet>,
        in_flight_max: usize,
    ) -> Self {
        let by_address = rate.map(|per_second| RateLimits {
            limiter: RateLimiter::dashmap_with_clock(
                Quota::per_second(per_second),
                Clock::default(),
            )
            .with_middleware(),
            policy: policy(per_second),
        });
        Self {
            by_address,
            trusted_proxies,
            in_flight: AtomicUsize::new(0),
            in_flight_max,
        }
    }

    /// Counts a request from the connection of `peer`; none where there is no limit.
    pub(crate) fn count(
        &self,
        identity: &Identity,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Option<Allowance> {
        if let Identity::Key(key) = identity {
            let limit = key.rate_limit.as_ref()?;
            return Some(Allowance::new(&limit.policy, limit.limiter.check()));
        }
        let limits = self.by_address.as_ref()?;
        let address = network(client_address(peer, headers, &self.trusted_proxies));
        Some(Allowance::new(
            &limits.policy,
            limits.limiter.check_key(&address),
        ))
    }

    /// A place for a request, until it is dropped; none when all are taken.
    pub(crate) fn place(&self) -> Option<Place<'_>> {
        let place = Place(&self.in_flight);
        (self.in_flight.fetch_add(1, Relaxed) < self.in_flight_max).then_some(place)
    }

    /// Forgets clients that have sent nothing for a while, so that memory is bounded by those of one second.
    pub(crate) async fn forget_the_idle(&self) {
        let Some(limits) = &self.by_address else {
            return;
        };
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            limits.limiter.retain_recent();
            limits.limiter.shrink_to_fit();
        }
    }
}

/// Of one request.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Who sent a request: the peer, or whom a trusted proxy names. What the client itself wrote into the header comes first,
/// and is not believed.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return client;
    }
    let mut lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    lines.reverse();
    for named in lines.iter().flat_map(|line| line.rsplit(',')) {
        let Ok(address) = named.trim().parse::<IpAddr>() else {
            return client;
        };
        client = address.to_canonical();
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// What one customer of a provider has: an address, and of IPv6 a network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn the_client_is_whom_the_trusted_proxies_name() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (peer, lines, client) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1",
                &["1.1.1.1, 198.51.100.1, 10.0.0.2"],
                "198.51.100.1",
            ),
            ("fd00::1", &["1.1.1.1", "2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", &["nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, nonsense, 10.0.0.3"], "10.0.0.3"),
        ] {
            let found = client_address(peer.parse().unwrap(), &forwarded(lines), &trusted);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
    }

    #[test]
    fn a_second_has_so_many_requests_for_each_client() {
        let limits = Limits::new(NonZeroU32::new(3), Vec::new(), 1);
        let count = |peer: &str| {
            let peer = peer.parse().unwrap();
            let allowance = limits.count(&Identity::Nobody, peer, &HeaderMap::new());
            allowance.unwrap().remaining
        };
        assert_eq!(count("2001:db8::1"), Some(2));
        assert_eq!(count("2001:db8::2"), Some(1), "of the same customer");
        assert_eq!(count("2001:db8::3"), Some(0));
        assert_eq!(count("2001:db8::4"), None);
        assert_eq!(count("2001:db8:0:1::1"), Some(2), "of another one");
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let limits = Limits::new(None, Vec::new(), 2);
        let places = (limits.place(), limits.place());
        assert!(places.0.is_some() && places.1.is_some());
        assert!(limits.place().is_none() && limits.place().is_none());
        drop(places);
        assert!(limits.place().is_some());
    }
}
