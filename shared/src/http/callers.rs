//! Command-line settings for callers: API keys, rates, trusted proxies and allowed hosts.

use std::{net::SocketAddr, num::NonZeroU32};

use ipnet::IpNet;

use super::proxies::{Proxies, ProxyHeader};

/// Settings for callers: API keys, rates, trusted proxies and allowed hosts.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "callers")]
pub struct CallerArgs {
    /// Require API keys on a loopback address too, where by default every caller is admitted
    #[arg(long, env = "API_REQUIRE_KEYS")]
    pub require_keys: bool,

    /// Requests per second that each API key may send, and without keys each address; 0: no limit
    /// [default: no limit on a loopback address, else 1000]
    ///
    /// An API key can have its own rate. Each process counts separately.
    #[arg(long, env = "REQUESTS_PER_SECOND", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub requests_per_second: Option<u32>,

    /// Networks of proxies that report the client's address, such as 10.0.0.0/8; comma-separated
    #[arg(
        long,
        env = "TRUSTED_PROXIES",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<IpNet>,

    /// Header in which the trusted proxies report the client's address
    ///
    /// The proxies must append to this header or replace it. They must never pass on what a client
    /// sends in it unchanged.
    #[arg(long, env = "PROXY_HEADER", value_enum, default_value_t)]
    pub proxy_header: ProxyHeader,

    /// Other names in `Host` that are accepted where no API key is required; comma-separated
    ///
    /// IP addresses and localhost are always accepted. Any other name may come from a web page that
    /// uses a browser to reach this server, which the page itself can't reach (DNS rebinding).
    #[arg(
        long,
        env = "ALLOWED_HOSTS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allowed_hosts: Vec<String>,

    /// Continue the traces (header `traceparent`) of all callers, not only those of trusted proxies
    ///
    /// A caller whose trace is continued decides whether it is sampled.
    #[arg(long, env = "TRUST_TRACEPARENT")]
    pub trust_traceparent: bool,
}

/// Default rate of a caller, in requests per second, where other machines can reach the listener.
const PUBLIC_RATE: u32 = 1000;

impl CallerArgs {
    /// Returns the rate limit of a caller of a listener, in requests per second; none for no limit.
    #[must_use]
    pub fn rate(&self, address: SocketAddr) -> Option<NonZeroU32> {
        let default = if address.ip().is_loopback() {
            0
        } else {
            PUBLIC_RATE
        };
        NonZeroU32::new(self.requests_per_second.unwrap_or(default))
    }

    /// Returns the trusted proxies.
    #[must_use]
    pub fn proxies(&self) -> Proxies {
        Proxies {
            trusted: self.trusted_proxies.clone(),
            header: self.proxy_header,
        }
    }
}
