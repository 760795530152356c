//! What is believed of callers, and what is allowed to them: settings.

use std::{net::SocketAddr, num::NonZeroU32};

use ipnet::IpNet;

use super::proxies::{Proxies, ProxyHeader};

/// Who may call, and how often.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "callers")]
pub struct CallerArgs {
    /// Ask for API keys on a loopback address too, where by default everybody is let in
    #[arg(long, env = "API_REQUIRE_KEYS")]
    pub require_keys: bool,

    /// How many requests a second each API key may send, and without keys each address; 0: no limit [default: no limit
    /// on a loopback address, else 1000]
    ///
    /// A key can have its own rate. Each process counts for itself.
    #[arg(long, env = "REQUESTS_PER_SECOND", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub requests_per_second: Option<u32>,

    /// Networks of proxies that tell the client's address, such as 10.0.0.0/8; several with commas between them
    #[arg(
        long,
        env = "TRUSTED_PROXIES",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<IpNet>,

    /// The header in which those proxies tell it
    ///
    /// What clients send of it must not get through them as it is: they add to it, or replace it.
    #[arg(long, env = "PROXY_HEADER", value_enum, default_value_t)]
    pub proxy_header: ProxyHeader,

    /// Names by which this machine may be asked for where no API key is needed, beside addresses and localhost; several with
    /// commas between them
    ///
    /// Under any other name a web page may have led a browser here that can reach what the page itself can't.
    #[arg(
        long,
        env = "ALLOWED_HOSTS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allowed_hosts: Vec<String>,

    /// Continue the traces of all callers (the header `traceparent`), and not only those of trusted proxies
    ///
    /// Whose trace is continued decides what is sampled.
    #[arg(long, env = "TRUST_TRACEPARENT")]
    pub trust_traceparent: bool,
}

/// The rate of a caller where others than this machine can reach a listener.
const PUBLIC_RATE: u32 = 1000;

impl CallerArgs {
    /// How many requests a second a caller may send to a listener at this address; none: as many as he likes.
    #[must_use]
    pub fn rate(&self, address: SocketAddr) -> Option<NonZeroU32> {
        let default = if address.ip().is_loopback() {
            0
        } else {
            PUBLIC_RATE
        };
        NonZeroU32::new(self.requests_per_second.unwrap_or(default))
    }

    /// The proxies that are believed.
    #[must_use]
    pub fn proxies(&self) -> Proxies {
        Proxies {
            trusted: self.trusted_proxies.clone(),
            header: self.proxy_header,
        }
    }
}
