//! Protection of a listener against web pages of other origins, which use a browser to reach it.
//!
//! Where an API key is required, such pages have none. Where none is required, because only this
//! machine can reach the listener, a page opened on this machine could send requests too.

use std::net::IpAddr;

use axum::http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{HOST, HeaderName, ORIGIN},
};

use super::rejection::Rejection;

/// Origin checks of a listener.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// Whether `Host` must name this machine or one of `hosts`.
    ///
    /// Otherwise a page could give its own name this machine's address (DNS rebinding), and be of
    /// the same origin.
    pub checks_host: bool,
    /// Other accepted host names, without ports.
    pub hosts: Vec<String>,
    /// Whether changes must come from a page of the same origin or of `pages`, or from no page.
    pub checks_page: bool,
    /// Origins of pages that may change something, such as `https://tickets.example`; `*` for all.
    pub pages: Vec<HeaderValue>,
}

impl Origins {
    pub(super) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Rejection> {
        let host = host(uri, headers);
        if self.checks_host && !host.is_none_or(|host| self.has(host)) {
            return Err(Rejection::UnknownHost);
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if self.checks_page && changes && !self.may_change(host, headers) {
            return Err(Rejection::CrossOrigin);
        }
        Ok(())
    }

    /// Whether `host` is an IP address, a name that browsers use for this machine, or allowed.
    fn has(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.strip_suffix('.').unwrap_or(name);
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || name.to_ascii_lowercase().ends_with(".localhost")
            || self
                .hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case(name))
    }

    /// Whether a request may change something, by the headers that browsers set.
    ///
    /// Clients other than browsers set none of them and are allowed.
    fn may_change(&self, host: Option<&str>, headers: &HeaderMap) -> bool {
        let origin = headers.get(ORIGIN);
        if origin.is_some_and(|origin| self.pages.iter().any(|page| page == origin || page == "*"))
        {
            return true;
        }
        if let Some(site) = headers.get(SEC_FETCH_SITE) {
            return site == "same-origin" || site == "none";
        }
        let Some(origin) = origin else {
            return true;
        };
        let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
        origin.is_some_and(|(_, origin)| host == Some(origin))
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns the host that a request names.
///
/// It is none if the request names no host, which no browser does. A name that is not text is
/// returned as an empty one.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => Some(headers.get(HOST)?.to_str().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        let all = all.iter().cloned();
        all.map(|(name, value)| (name, value.parse().unwrap()))
            .collect()
    }

    fn origins() -> Origins {
        Origins {
            checks_host: true,
            hosts: vec!["api".to_owned()],
            checks_page: true,
            pages: vec![HeaderValue::from_static("https://tickets.example")],
        }
    }

    fn read(target: &str, sent: &[(HeaderName, &'static str)]) -> Result<(), Rejection> {
        origins().check(&Method::GET, &target.parse().unwrap(), &headers(sent))
    }

    #[test]
    fn only_names_of_this_machine_and_allowed_ones_are_its_own() {
        for ours in [
            "127.0.0.1:5001",
            "127.0.0.1",
            "[::1]:5001",
            "localhost:5001",
            "LocalHost.",
            "a.localhost",
            "api",
            "API:5000",
        ] {
            assert_eq!(read("/", &[(HOST, ours)]), Ok(()), "{ours}");
        }
        for theirs in [
            "evil.example",
            "evil.example:5001",
            "localhost.evil.example",
            "api.evil.example",
            "",
            ":",
        ] {
            let refused = Err(Rejection::UnknownHost);
            assert_eq!(read("/", &[(HOST, theirs)]), refused, "{theirs}");
            let target = format!("http://{theirs}/");
            if target.parse::<Uri>().is_ok() {
                let sent = [(HOST, "localhost")];
                assert_eq!(read(&target, &sent), refused, "{target}");
            }
        }
        assert_eq!(read("/", &[]), Ok(()));
    }

    #[test]
    fn only_pages_of_this_listener_and_allowed_ones_may_change_things() {
        let host = (HOST, "127.0.0.1:5001");
        let check = |mut sent: Vec<(HeaderName, &'static str)>, expected| {
            sent.push(host.clone());
            let uri = Uri::from_static("/bookings/1/cancel");
            let checked = origins().check(&Method::POST, &uri, &headers(&sent));
            assert_eq!(checked, expected, "{sent:?}");
            let read = origins().check(&Method::GET, &uri, &headers(&sent));
            assert_eq!(read, Ok(()), "{sent:?}");
        };
        for sent in [
            vec![],
            vec![(SEC_FETCH_SITE, "same-origin")],
            vec![(SEC_FETCH_SITE, "none")],
            vec![(ORIGIN, "http://127.0.0.1:5001")],
            vec![
                (SEC_FETCH_SITE, "cross-site"),
                (ORIGIN, "https://tickets.example"),
            ],
        ] {
            check(sent, Ok(()));
        }
        for sent in [
            vec![(SEC_FETCH_SITE, "cross-site")],
            vec![(SEC_FETCH_SITE, "same-site")],
            vec![
                (SEC_FETCH_SITE, "cross-site"),
                (ORIGIN, "http://127.0.0.1:5001"),
            ],
            vec![(ORIGIN, "http://127.0.0.1:5000")],
            vec![(ORIGIN, "http://tickets.example")],
            vec![(ORIGIN, "null")],
            vec![(ORIGIN, "https://evil.example")],
        ] {
            check(sent, Err(Rejection::CrossOrigin));
        }
    }
}
