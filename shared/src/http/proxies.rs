//! Client addresses of requests that arrive through proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use clap::ValueEnum;
use ipnet::IpNet;

/// Header in which proxies report the client's address.
///
/// Only one is read, because the client itself could have written the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProxyHeader {
    /// Comma-separated addresses; the usual header
    #[default]
    XForwardedFor,
    /// RFC 7239
    Forwarded,
}

/// Proxies whose report of the client's address is trusted.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Networks of the proxies.
    pub trusted: Vec<IpNet>,
    /// Header that the proxies set.
    pub header: ProxyHeader,
}

impl Proxies {
    /// Whether an address belongs to a trusted proxy.
    #[must_use]
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|net| net.contains(&address))
    }

    /// Returns the client's address: the peer, or the address that the trusted proxies report.
    ///
    /// Each proxy appends the address from which it received the request. So the header is read
    /// from its end, up to the first address that is not a trusted proxy, or that can't be read.
    /// Whatever the client itself wrote comes before that.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trust(client) {
            return client;
        }
        let (name, read): (_, fn(&str) -> Option<IpAddr>) = match self.header {
            ProxyHeader::XForwardedFor => ("x-forwarded-for", node),
            ProxyHeader::Forwarded => ("forwarded", forwarded_for),
        };
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        for line in lines.iter().rev() {
            // A line that is not text can't be read, and nothing before it is trusted.
            let Ok(line) = line.to_str() else {
                return client;
            };
            for element in elements_from_the_end(line) {
                let Some(address) = read(element) else {
                    return client;
                };
                client = address;
                if !self.trust(client) {
                    return client;
                }
            }
        }
        client
    }
}

/// Splits a list into its elements, the last one first.
///
/// A comma inside quotation marks ends no element.
///
/// Quotation marks are counted from the end, so that one which a client left open at the beginning
/// hides nothing of what follows.
fn elements_from_the_end(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let comma = line.rmatch_indices(',').find(|(at, _)| {
            let element = &line[at + 1..];
            element.matches('"').count() % 2 == 0
        });
        let (before, element) = match comma {
            Some((at, _)) => (Some(&line[..at]), &line[at + 1..]),
            None => (None, line),
        };
        rest = before;
        Some(element.trim())
    })
}

/// Returns the address in the parameter `for` of an element of `Forwarded`.
///
/// Such an element is `for="[2001:db8::1]:4711";proto=https`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut named = element.split(';').filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let value = named.next()?;
    // Two parameters `for` are ambiguous.
    if named.next().is_some() {
        return None;
    }
    let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    node(quoted.unwrap_or(value))
}

/// Parses an address, with or without a port; an IPv6 address with or without brackets.
fn node(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| {
            let inner = text.strip_prefix('[')?.strip_suffix(']')?;
            inner.parse::<Ipv6Addr>().ok().map(IpAddr::from)
        })?;
    Some(address.to_canonical())
}

/// Returns the network of a provider's customer: an IPv4 address, or an IPv6 network of 64 bits.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn client(header: ProxyHeader, peer: &str, lines: &[&[u8]]) -> String {
        let proxies = Proxies {
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            header,
        };
        let mut headers = HeaderMap::new();
        let name = match header {
            ProxyHeader::XForwardedFor => "x-forwarded-for",
            ProxyHeader::Forwarded => "forwarded",
        };
        for line in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(line).unwrap(),
            );
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_client_is_whom_the_trusted_proxies_name() {
        for (peer, lines, expected) in [
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
            ("10.0.0.1", &["1.1.1.1,, 10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
        ] {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let found = client(ProxyHeader::XForwardedFor, peer, &lines);
            assert_eq!(found, expected, "{peer} {lines:?}");
        }
    }

    /// Such a line was once skipped, and the line before it, written by the client, was trusted.
    #[test]
    fn a_line_that_is_no_text_hides_those_before_it() {
        let lines: [&[u8]; 2] = [b"1.1.1.1", b"\xff"];
        assert_eq!(
            client(ProxyHeader::XForwardedFor, "10.0.0.1", &lines),
            "10.0.0.1"
        );
    }

    #[test]
    fn rfc_7239_is_understood() {
        for (line, expected) in [
            ("for=198.51.100.1", "198.51.100.1"),
            (
                "for=1.1.1.1, for=198.51.100.1;proto=https;by=10.0.0.1",
                "198.51.100.1",
            ),
            (
                "proto=http; For=\"[2001:db8:cafe::17]:4711\"",
                "2001:db8:cafe::17",
            ),
            ("for=198.51.100.1, for=10.0.0.2", "198.51.100.1"),
            ("for=\"1.1.1.1, for=198.51.100.1", "198.51.100.1"),
            ("for=\"1.1.1.1,2.2.2.2\"", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1"),
            ("198.51.100.1", "10.0.0.1"),
        ] {
            let found = client(ProxyHeader::Forwarded, "10.0.0.1", &[line.as_bytes()]);
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn a_customer_of_a_provider_has_a_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("198.51.100.1"), "198.51.100.1");
        assert_eq!(network("2001:db8:0:1:2::3"), "2001:db8:0:1::");
    }
}
